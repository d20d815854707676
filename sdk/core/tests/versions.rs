//! A backward pass after a parameter has changed is an error that names it, and whatever leaves a pass's parameters
//! alone goes on working, to the same bits.

mod boundary;
mod sets;

use boundary::{err, table};
use candle_core::DType;
use easytransfer_abi::*;
use easytransfer_core::data::Buffer;
use easytransfer_core::handle;
use easytransfer_core::ops::{binary, create, matmul, reduce, shape};
use easytransfer_core::params::{Param, Params};
use easytransfer_core::recompute::{Recompute, set_recompute};
use easytransfer_core::segment::{SegmentFn, run_segment};
use easytransfer_core::tape::{self, backward};
use easytransfer_core::tensor::Tensor;
use easytransfer_core::{nn, optim};
use easytransfer_kernels::activation::Activation;
use sets::{set, tensor, values};

fn param(params: &Params, name: &str) -> Param {
    params.find(name).unwrap()
}

fn x() -> Tensor {
    tensor(DType::F32, &[4, 6], 1)
}

fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    nn::linear::linear(x, weight, None, Activation::None).unwrap()
}

fn sum(y: &Tensor) -> Tensor {
    reduce::reduce(ET_REDUCE_SUM, y, &[], false).unwrap()
}

fn square(y: &Tensor) -> Tensor {
    sum(&binary::binary(ET_BINARY_MUL, y, y).unwrap())
}

/// The loss of two layers.
fn loss(params: &Params) -> Tensor {
    let hidden = linear(&x(), &param(params, "encoder.weight").tensor().unwrap());
    square(&linear(&hidden, &param(params, "head.weight").tensor().unwrap()))
}

fn sgd(params: &Params) {
    let state = optim::state(params, ET_OPTIM_SGD).unwrap();
    let step = et_optim_step {
        struct_size: size_of::<et_optim_step>(),
        kind: ET_OPTIM_SGD,
        nesterov: 0,
        lr: 0.1,
        weight_decay: 0.0,
        beta1: 0.0,
        beta2: 0.0,
        epsilon: 0.0,
        momentum: 0.0,
        step: 1,
        begin: 0,
        end: 0,
    };
    optim::step(params, &state, &step).unwrap();
}

#[track_caller]
fn refused(loss: &Tensor, name: &str) {
    let error = backward(loss, None).unwrap_err();
    assert_eq!(error.code, ET_ERR_FAILED_PRECONDITION, "{error}");
    let wanted = format!("parameter {name:?} has changed since the pass forward");
    assert!(error.message.contains(&wanted), "{wanted:?} is not in {:?}", error.message);
    assert!(tape::is_recording());
}

fn grads(params: &Params) -> Vec<Vec<u64>> {
    let all = params.all().into_iter().filter_map(|param| param.grad().unwrap());
    all.map(|grad| values(&grad).iter().map(|x| x.to_bits()).collect()).collect()
}

#[test]
fn every_way_to_change_a_parameter_is_noticed() {
    let params = set(1, ET_DTYPE_F32);
    let other = set(2, ET_DTYPE_F32);
    let weight = param(&params, "head.weight");
    let snapshot = params.snapshot().unwrap();
    let zeros = Buffer::new(vec![0; 3 * 6 * 4]);
    type Change<'a> = (&'a str, &'a dyn Fn());
    let changes: [Change<'_>; 6] = [
        ("a step", &|| {
            backward(&loss(&params), None).unwrap();
            sgd(&params);
        }),
        ("assign", &|| weight.assign(&tensor(DType::F32, &[3, 6], 5)).unwrap()),
        ("assign_buffer", &|| weight.assign_buffer(ET_DTYPE_F32, &zeros, 0).unwrap()),
        ("restore", &|| params.restore(&snapshot).unwrap()),
        ("lerp", &|| params.lerp(&other, 0.5).unwrap()),
        ("the arena as a tensor", &|| drop(params.arena_view(ET_ARENA_VALUES).unwrap())),
    ];
    for (what, change) in changes {
        let stale = loss(&params);
        change();
        println!("{what}");
        refused(&stale, "head.weight");
        params.zero_grads();
        // A pass forward afterwards is as good as any.
        backward(&loss(&params), None).unwrap();
        let found = grads(&params);
        params.zero_grads();
        backward(&loss(&params), None).unwrap();
        assert_eq!(found, grads(&params), "{what}");
        params.zero_grads();
    }
}

#[test]
fn the_boundary_says_so_too() {
    let params = set(1, ET_DTYPE_F32);
    let stale = handle::into_raw(loss(&params));
    backward(&loss(&params), None).unwrap();
    sgd(&params);
    let api: &et_host_autograd = table(c"et.autograd/1");
    // SAFETY: a live tensor, given back once.
    unsafe {
        let (code, message) = err(api.backward.unwrap()(stale, std::ptr::null()));
        assert_eq!(code, ET_ERR_FAILED_PRECONDITION);
        assert!(message.contains("\"head.weight\" has changed"), "{message}");
        handle::release::<Tensor>(stale);
    }
}

#[test]
fn what_a_pass_does_not_read_may_change() {
    let params = set(1, ET_DTYPE_F32);
    backward(&loss(&params), None).unwrap();
    let expected = grads(&params);
    params.zero_grads();
    let first = loss(&params);
    // A part that the loss does not use, and a parameter of another set.
    let bias = params.part(&["*.bias"]).unwrap();
    let hidden = linear(&x(), &param(&params, "head.bias").tensor().map(|b| row(&b)).unwrap());
    backward(&sum(&hidden), None).unwrap();
    sgd(&bias);
    bias.zero_grads();
    let other = set(2, ET_DTYPE_F32);
    backward(&loss(&other), None).unwrap();
    sgd(&other);
    backward(&first, None).unwrap();
    assert_eq!(grads(&params), expected);
}

/// [3] as a weight of 3 inputs that 6 are cut to.
fn row(bias: &Tensor) -> Tensor {
    let twice = shape::concat(&[bias, bias], 0).unwrap();
    shape::reshape(&twice, &[1, 6]).unwrap()
}

#[test]
fn micro_batches_add_up_before_the_step() {
    let params = set(1, ET_DTYPE_F32);
    for _ in 0..3 {
        let losses = [loss(&params), loss(&params)];
        for one in &losses {
            backward(one, None).unwrap();
        }
        // Scaling, clipping and reading gradients leaves values alone.
        params.scale_grads(0.5).unwrap();
        params.clip_grads(0.1).unwrap();
        backward(&loss(&params), None).unwrap();
        sgd(&params);
        params.zero_grads();
    }
}

#[test]
fn frozen_parameters_and_views_of_them_count() {
    let params = set(1, ET_DTYPE_F32);
    let frozen = Params::new(3, ET_DTYPE_F32).unwrap();
    let init = et_init { kind: ET_INIT_NORMAL, reserved: 0, a: 0.0, b: 1.0 };
    let weight = frozen.root().param("still", &[6, 6], init).unwrap();
    weight.set_trainable(false).unwrap();
    let trained = || linear(&x(), &param(&params, "encoder.weight").tensor().unwrap());
    let uses: [fn(&Tensor, &Tensor) -> Tensor; 5] = [
        |x, w| linear(x, w),
        |x, w| matmul::matmul(x, &shape::permute(w, &[1, 0]).unwrap()).unwrap(),
        |x, w| matmul::matmul(x, &shape::narrow(&w.detach(), 0, 0, 6).unwrap()).unwrap(),
        |x, w| binary::binary(ET_BINARY_MUL, x, &shape::narrow(w, 0, 1, 4).unwrap()).unwrap(),
        |x, w| {
            let w = shape::broadcast_to(&shape::reshape(w, &[1, 6, 6]).unwrap(), &[2, 6, 6]);
            let w = shape::reshape(&shape::narrow(&w.unwrap(), 0, 0, 1).unwrap(), &[6, 6]);
            linear(x, &w.unwrap())
        },
    ];
    for (index, apply) in uses.into_iter().enumerate() {
        println!("use {index}");
        let stale = square(&apply(&trained(), &weight.tensor().unwrap()));
        weight.assign(&tensor(DType::F32, &[6, 6], 7 + index)).unwrap();
        refused(&stale, "still");
        backward(&square(&apply(&trained(), &weight.tensor().unwrap())), None).unwrap();
    }
    // Copies are what they are.
    let copy = shape::cast(&weight.tensor().unwrap(), DType::F64).unwrap();
    let copy = shape::cast(&copy, DType::F32).unwrap();
    let good = square(&linear(&trained(), &copy));
    weight.assign(&tensor(DType::F32, &[6, 6], 2)).unwrap();
    backward(&good, None).unwrap();
    let ones = create::full(DType::F32, &[6, 6], 1.0).unwrap();
    weight.assign(&ones).unwrap();
}

#[test]
fn segments_that_run_again_want_the_parameters_of_their_first_run() {
    for level in [Recompute::None, Recompute::Cheap, Recompute::Layer] {
        set_recompute(level);
        let params = set(1, ET_DTYPE_F32);
        let by_param = param(&params, "encoder.weight");
        let captured = param(&params, "head.weight").tensor().unwrap();
        let layer = |captured: Tensor| {
            let weight = by_param.clone();
            let segment: SegmentFn = Box::new(move |inputs, _| {
                let hidden =
                    nn::linear::linear(inputs[0], &weight.tensor()?, None, Activation::Gelu)?;
                Ok(vec![nn::linear::linear(&hidden, &captured, None, Activation::None)?])
            });
            square(&run_segment(&[&x()], None, segment).unwrap()[0])
        };
        for name in ["encoder.weight", "head.weight"] {
            let changed = param(&params, name);
            let stale = layer(captured.clone());
            changed.assign(&tensor(DType::F32, changed.shape(), 3)).unwrap();
            refused(&stale, name);
            params.zero_grads();
            backward(&layer(captured.clone()), None).unwrap();
            sgd(&params);
            params.zero_grads();
        }
        set_recompute(Recompute::None);
    }
}
