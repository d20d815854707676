//! Prediction: packed weights in each precision through the tables, and when copies of a parameter's value are made
//! anew.

mod boundary;

use boundary::*;
use easytransfer_abi::*;
use easytransfer_core::inference::{LayerPrecision, PredictionScope, precision_of_layer};
use easytransfer_core::nn::linear::linear;
use easytransfer_core::params::{Param, Params};
use easytransfer_core::storage::tensor_from_vec;
use easytransfer_core::tape::Paused;
use easytransfer_core::tensor::Tensor;
use easytransfer_core::{optim, tape};
use easytransfer_kernels::activation::Activation;

const OUTPUTS: usize = 192;
const INPUTS: usize = 160;

fn normal() -> et_init {
    et_init { kind: ET_INIT_NORMAL, reserved: 0, a: 0.0, b: 0.1 }
}

fn set() -> (Params, Param) {
    let params = Params::new(3, ET_DTYPE_F32).unwrap();
    let weight = params.root().param("weight", &[OUTPUTS, INPUTS], normal()).unwrap();
    (params, weight)
}

fn x(rows: usize) -> Tensor {
    let values = (0..rows * INPUTS).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    Tensor::new(tensor_from_vec::<f32>(values, (rows, INPUTS)).unwrap())
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.value().flatten_all().unwrap().to_vec1().unwrap()
}

/// The layer within a scope of that precision, or without one.
fn run(weight: &Param, rows: usize, precision: Option<LayerPrecision>) -> Vec<f32> {
    let _paused = Paused::new();
    let _scope = precision.map(PredictionScope::new);
    values(&linear(&x(rows), &weight.tensor().unwrap(), None, Activation::None).unwrap())
}

/// Largest difference over the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let most = b.iter().fold(0f32, |most, b| most.max(b.abs()));
    a.iter().zip(b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / most
}

#[test]
fn each_precision_computes_in_its_own_way() {
    let (_params, weight) = set();
    let plain = run(&weight, 5, None);
    assert_eq!(weight.packed_size(), 0, "nothing is packed without a scope");
    let f32 = run(&weight, 5, Some(LayerPrecision::F32));
    let bf16 = run(&weight, 5, Some(LayerPrecision::Bf16));
    let int8 = run(&weight, 5, Some(LayerPrecision::Int8));
    assert!(distance(&f32, &plain) < 1e-6);
    // If a precision did not reach the kernel, its result would be as exact as f32's.
    for (name, result, least, most) in [("bf16", bf16, 2e-4, 1e-2), ("int8", int8, 5e-4, 3e-2)] {
        let distance = distance(&result, &f32);
        assert!((least..most).contains(&distance), "{name}: {distance}");
    }
}

#[test]
fn recorded_layers_and_constants_are_left_alone() {
    let (_params, weight) = set();
    let _scope = PredictionScope::new(LayerPrecision::Int8);
    let y = linear(&x(2), &weight.tensor().unwrap(), None, Activation::None).unwrap();
    assert!(y.is_tracked());
    assert_eq!(weight.packed_size(), 0);
    let constant = weight.tensor().unwrap().detach();
    let z = linear(&x(2), &constant, None, Activation::None).unwrap();
    assert_eq!(values(&y), values(&z));
}

#[test]
fn narrow_layers_compute_in_f32() {
    let params = Params::new(3, ET_DTYPE_F32).unwrap();
    let weight = params.root().param("classifier", &[3, INPUTS], normal()).unwrap();
    assert_eq!(precision_of_layer(LayerPrecision::Int8, 3, INPUTS), LayerPrecision::F32);
    assert_eq!(
        run(&weight, 4, Some(LayerPrecision::Int8)),
        run(&weight, 4, Some(LayerPrecision::F32)),
        "a head's last layer stays exact"
    );
}

#[test]
fn every_write_makes_the_copy_anew() {
    let (params, weight) = set();
    let first = run(&weight, 3, Some(LayerPrecision::Int8));
    assert_eq!(run(&weight, 3, Some(LayerPrecision::Int8)), first);
    let fresh = |weight: &Param| {
        // What a parameter that was never packed gives for the same values.
        let other = set().1;
        other.assign(&weight.tensor().unwrap().detach()).unwrap();
        run(&other, 3, Some(LayerPrecision::Int8))
    };
    let mut before = first.clone();
    let mut check = |what: &str, weight: &Param| {
        let now = run(weight, 3, Some(LayerPrecision::Int8));
        assert_ne!(now, before, "{what}: the copy is stale");
        assert_eq!(now, fresh(weight), "{what}");
        before = now;
    };
    let snapshot = params.snapshot().unwrap();
    let (other, away) = set();
    let quarters =
        Tensor::new(tensor_from_vec(vec![0.25f32; OUTPUTS * INPUTS], (OUTPUTS, INPUTS)).unwrap());
    away.assign(&quarters).unwrap();
    params.lerp(&other, 0.5).unwrap();
    check("lerp", &weight);
    params.lerp(&other, 1.0).unwrap();
    check("copy", &weight);
    params.restore(&snapshot).unwrap();
    check("restore", &weight);
    params.seal().unwrap();
    assert_eq!(run(&weight, 3, Some(LayerPrecision::Int8)), first, "sealing moves the value only");
    weight.assign(&quarters).unwrap();
    check("assign", &weight);
    let arena = params.arena_view(ET_ARENA_VALUES).unwrap();
    easytransfer_core::storage::with_f32_mut(arena.value(), |all| all.fill(-0.125)).unwrap();
    check("a write to the arena", &weight);
    for step in 1..=2 {
        let y = linear(&x(3), &weight.tensor().unwrap(), None, Activation::None).unwrap();
        let seed = Tensor::new(y.value().ones_like().unwrap());
        tape::backward(&y, Some(&seed)).unwrap();
        let state = optim::state(&params, ET_OPTIM_SGD).unwrap();
        let options = et_optim_step {
            struct_size: size_of::<et_optim_step>(),
            kind: ET_OPTIM_SGD,
            nesterov: 0,
            lr: 0.05,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            step,
            begin: 0,
            end: 0,
        };
        optim::step(&params, &state, &options).unwrap();
        params.zero_grads();
        check("an optimizer step", &weight);
    }
}

#[test]
fn a_batch_answers_as_its_rows_do_alone() {
    let (_params, weight) = set();
    for precision in LayerPrecision::ALL {
        let all = run(&weight, 40, Some(precision));
        let few = run(&weight, 3, Some(precision));
        assert_eq!(few, all[..3 * OUTPUTS], "{precision:?}");
    }
}

#[test]
fn the_table_takes_the_same_way() {
    let (_params, weight) = set();
    let nn: &et_host_nn = table(c"et.nn/1");
    let _paused = Paused::new();
    let expected = run(&weight, 2, Some(LayerPrecision::Int8));
    let _scope = PredictionScope::new(LayerPrecision::Int8);
    let x = easytransfer_core::handle::into_raw(x(2));
    let w = easytransfer_core::handle::into_raw(weight.tensor().unwrap());
    // SAFETY: the slot is filled and the handles live; they are released once.
    unsafe {
        let y = make(|out| nn.linear.unwrap()(x, w, std::ptr::null(), ET_ACTIVATION_NONE, out));
        let found = values(easytransfer_core::handle::borrow::<Tensor>(y).unwrap());
        assert_eq!(found, expected);
        for handle in [x, w, y] {
            easytransfer_core::handle::release::<Tensor>(handle);
        }
    }
}
