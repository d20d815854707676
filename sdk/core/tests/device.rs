//! The seam to devices without a card: a device with memory of its own ([`memory_of_its_own`]) gives what the CPU
//! gave before it was installed, and hears of every operation.

mod memory_of_its_own;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi::{
    ET_DTYPE_F32, ET_ERR_INVALID_ARGUMENT, ET_INIT_NORMAL, ET_OPTIM_ADAMW, ET_OPTIM_SGD,
    ET_UNARY_TANH, et_init, et_optim_step,
};
use easytransfer_core::data::Map;
use easytransfer_core::nn::attention::{Attention, attention};
use easytransfer_core::nn::crf::{self, Scores};
use easytransfer_core::nn::embedding::embedding_sum;
use easytransfer_core::nn::linear::linear;
use easytransfer_core::nn::loss::{binary_cross_entropy, cross_entropy};
use easytransfer_core::nn::norm::{LayerNorm, dropout, layer_norm, rms_norm};
use easytransfer_core::nn::recurrent::{gru, lstm};
use easytransfer_core::nn::runs::{conv1d, from_padded, pool, to_padded};
use easytransfer_core::nn::softmax::{log_softmax, softmax};
use easytransfer_core::ops::{create, unary};
use easytransfer_core::params::Params;
use easytransfer_core::rng::Rng;
use easytransfer_core::storage::tensor_from_vec;
use easytransfer_core::tape::backward;
use easytransfer_core::tensor::Tensor;
use easytransfer_core::{device, optim, profile};
use easytransfer_kernels::activation::Activation;
use easytransfer_kernels::padding::Pool;
use half::bf16;
use memory_of_its_own::{DEVICE, Own};

/// Reproducible values in [-1, 1).
fn noise(len: usize, seed: usize) -> Vec<f32> {
    let word = |i: usize| (i as u32 + 1).wrapping_mul(2_654_435_761).wrapping_add(seed as u32 * 97);
    (0..len)
        .map(|i| (word(i).wrapping_mul(word(i) >> 9 | 1) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

fn f32s(shape: &[usize], seed: usize) -> Tensor {
    let data = noise(shape.iter().product(), seed);
    Tensor::new(tensor_from_vec(data, shape.to_vec()).unwrap())
}

fn i64s(data: &[i64]) -> Tensor {
    Tensor::new(tensor_from_vec(data.to_vec(), data.len()).unwrap())
}

/// The elements of a tensor of f32, wherever it is.
fn values(x: &Tensor) -> Vec<f32> {
    let mut bytes = vec![0; 4 * x.elem_count()];
    create::read(x, &mut bytes).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}

type Results = BTreeMap<&'static str, Vec<Vec<f32>>>;

/// The result of an operation on leaves of these shapes, and its gradients.
fn case(
    results: &mut Results,
    name: &'static str,
    shapes: &[&[usize]],
    f: impl Fn(&[Tensor]) -> easytransfer_core::error::Result<Tensor>,
) {
    let leaves: Vec<Tensor> =
        shapes.iter().enumerate().map(|(seed, shape)| f32s(shape, seed).leaf()).collect();
    let y = f(&leaves).unwrap_or_else(|error| panic!("{name}: {error}"));
    backward(&y, Some(&f32s(y.dims(), 50))).unwrap_or_else(|error| panic!("{name}: {error}"));
    let grads = leaves.iter().map(|leaf| leaf.leaf_grad().unwrap());
    let grads = grads.map(|grad| grad.map(|grad| values(&grad)).unwrap_or_default());
    results.insert(name, [values(&y)].into_iter().chain(grads).collect());
}

/// Every operation that is offered to devices.
fn operations() -> Results {
    let mut all = Results::new();
    let starts = [0i64, 3, 3, 5];
    let at = || i64s(&starts);
    let rng = || Rng::new(7, 3);
    case(&mut all, "linear", &[&[5, 6], &[4, 6], &[4]], |x| {
        linear(&x[0], &x[1], Some(&x[2]), Activation::None)
    });
    case(&mut all, "linear with gelu", &[&[5, 6], &[4, 6], &[4]], |x| {
        linear(&x[0], &x[1], Some(&x[2]), Activation::Gelu)
    });
    case(&mut all, "activate", &[&[5, 6]], |x| unary::unary(ET_UNARY_TANH, &x[0]));
    case(&mut all, "dropout", &[&[5, 6]], |x| dropout(&x[0], 0.3, Some(&rng())));
    case(&mut all, "layer norm", &[&[5, 6], &[6], &[6], &[5, 6]], |x| {
        layer_norm(LayerNorm {
            x: &x[0],
            gamma: &x[1],
            beta: &x[2],
            residual: Some(&x[3]),
            epsilon: 1e-5,
            dropout: 0.2,
            rng: Some(&rng()),
        })
    });
    case(&mut all, "rms norm", &[&[5, 6], &[6]], |x| rms_norm(&x[0], &x[1], 1e-6));
    case(&mut all, "softmax", &[&[5, 6]], |x| softmax(&x[0]));
    case(&mut all, "log_softmax", &[&[5, 6]], |x| log_softmax(&x[0]));
    case(&mut all, "attention", &[&[5, 8], &[5, 8], &[5, 8]], |x| {
        attention(Attention {
            query: &x[0],
            key: &x[1],
            value: &x[2],
            starts: &at(),
            key_starts: None,
            heads: 2,
            scale: 0.0,
            dropout: 0.1,
            rng: Some(&rng()),
            causal: true,
            terms: Default::default(),
        })
    });
    case(&mut all, "embedding_sum", &[&[7, 6], &[3, 6]], |x| {
        embedding_sum(&[&x[0], &x[1]], &[&i64s(&[6, 0, 6, 2]), &i64s(&[1, 1, 0, 2])])
    });
    case(&mut all, "cross_entropy", &[&[4, 3], &[4]], |x| {
        cross_entropy(&x[0], &i64s(&[2, -100, 0, 1]), Some(&x[1]), -100, 0.1)
    });
    case(&mut all, "binary_cross_entropy", &[&[4, 3], &[4, 3]], |x| {
        binary_cross_entropy(&x[0], &x[1].detach(), None)
    });
    for (name, kind) in [("pool", Pool::Mean), ("pool of maxima", Pool::Max)] {
        case(&mut all, name, &[&[5, 6]], |x| pool(&x[0], &at(), kind));
    }
    case(&mut all, "to_padded", &[&[5, 6]], |x| to_padded(&x[0], &at(), 2));
    case(&mut all, "from_padded", &[&[3, 3, 6]], |x| from_padded(&x[0], &at()));
    case(&mut all, "conv1d", &[&[5, 6], &[4, 6, 3], &[4]], |x| {
        conv1d(&x[0], &x[1], Some(&x[2]), &at(), 2)
    });
    case(&mut all, "lstm", &[&[5, 3], &[16, 3], &[16, 4], &[16], &[16]], |x| {
        lstm(&x[0], [&x[1], &x[2], &x[3], &x[4]], &at(), false)
    });
    case(&mut all, "gru", &[&[5, 3], &[12, 3], &[12, 4], &[12], &[12]], |x| {
        gru(&x[0], [&x[1], &x[2], &x[3], &x[4]], &at(), true)
    });
    case(&mut all, "crf_loss", &[&[5, 3], &[3, 3], &[3], &[3]], |x| {
        let scores = Scores { transitions: &x[1], first: &x[2], last: &x[3] };
        crf::loss(&x[0], &i64s(&[0, 2, 1, 1, 2]), &at(), scores)
    });
    all
}

const NORMAL: et_init = et_init { kind: ET_INIT_NORMAL, reserved: 0, a: 0.0, b: 1.0 };

fn step_of(kind: i32, number: u64) -> et_optim_step {
    et_optim_step {
        struct_size: size_of::<et_optim_step>(),
        kind,
        nesterov: 0,
        lr: 0.01,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        momentum: 0.9,
        step: number,
        begin: 0,
        end: 0,
    }
}

/// A set of a table and two layers.
fn model() -> Params {
    let params = Params::new(11, ET_DTYPE_F32).unwrap();
    for (name, shape) in
        [("table", &[7, 6][..]), ("w1", &[6, 6]), ("b1", &[6]), ("w2", &[3, 6]), ("b2", &[3])]
    {
        params.root().param(name, shape, NORMAL).unwrap();
    }
    params.seal().unwrap();
    params
}

/// Two passes back, added, clipped, and a step; and so once more: norms, gradients and parameters.
fn training(kind: i32) -> Vec<Vec<f32>> {
    let params = model();
    let of = |name: &str| params.find(name).unwrap();
    let state: Map = optim::state(&params, kind).unwrap();
    let mut results = Vec::new();
    for number in 1..=2 {
        params.zero_grads();
        for ids in [[6i64, 0, 6, 2], [1, 1, 5, 6]] {
            let tensor = |name: &str| of(name).tensor().unwrap();
            let x = embedding_sum(&[&tensor("table")], &[&i64s(&ids)]).unwrap();
            let x = linear(&x, &tensor("w1"), Some(&tensor("b1")), Activation::None).unwrap();
            let x = unary::unary(ET_UNARY_TANH, &x).unwrap();
            let x = linear(&x, &tensor("w2"), Some(&tensor("b2")), Activation::None).unwrap();
            let loss = cross_entropy(&x, &i64s(&[2, 0, 1, 1]), None, -100, 0.0).unwrap();
            results.push(values(&loss));
            backward(&loss, None).unwrap();
        }
        params.scale_grads(0.5).unwrap();
        let norm = params.clip_grads(0.3).unwrap().value().to_scalar::<f64>().unwrap();
        results.push(vec![norm as f32, params.grad_norm().unwrap() as f32]);
        results.extend(params.all().iter().map(|param| values(&param.grad().unwrap().unwrap())));
        optim::step(&params, &state, &step_of(kind, number)).unwrap();
        results.extend(params.all().iter().map(|param| values(&param.tensor().unwrap())));
    }
    results
}

struct Expected {
    operations: Results,
    adamw: Vec<Vec<f32>>,
    sgd: Vec<Vec<f32>>,
}

/// What the CPU computes; the device is installed when this has returned.
fn expected() -> &'static Expected {
    static EXPECTED: OnceLock<Expected> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let expected = Expected {
            operations: operations(),
            adamw: training(ET_OPTIM_ADAMW),
            sgd: training(ET_OPTIM_SGD),
        };
        device::install(&*DEVICE).unwrap();
        expected
    })
}

#[track_caller]
fn assert_near(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "result {at}");
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() <= 2e-6 * y.abs().max(1e-2), "result {at}: {x} for {y}");
        }
    }
}

/// One test, because the device's counts are those of the process.
#[test]
fn a_device_with_its_own_memory_gives_what_the_cpu_gives_and_hears_of_everything() {
    let expected = expected();
    assert!(device::install(&*DEVICE).is_err(), "a process has one device");
    DEVICE.counted();

    // It declines everything: the CPU's way between two copies.
    let found = operations();
    for (name, expected) in &expected.operations {
        assert_eq!(&found[name], expected, "{name}");
    }
    let counted = DEVICE.counted();
    for name in expected.operations.keys() {
        let offered = if *name == "linear with gelu" { "linear" } else { name };
        let offered = if *name == "pool of maxima" { "pool" } else { offered };
        assert!(counted.contains_key(offered), "{name} was not offered: {counted:?}");
    }
    assert_eq!((counted["linear"], counted["pool"]), (2, 2));
    assert_eq!(counted["end_step"], expected.operations.len());
    assert!(counted["fell back"] > 50 && counted["recycle"] > 50, "{counted:?}");

    assert_near(&training(ET_OPTIM_ADAMW), &expected.adamw);
    let counted = DEVICE.counted();
    for (name, times) in [("clip", 2), ("optim_step", 2), ("embedding_sum", 4), ("linear", 8)] {
        assert_eq!(counted[name], times, "{name} {counted:?}");
    }
    assert!(counted.contains_key("square_sum") && counted.contains_key("scale"), "{counted:?}");

    // It computes some of it.
    {
        let _own = Own::new();
        assert_near(&operations()["linear"], &expected.operations["linear"]);
        DEVICE.counted();
        assert_near(&training(ET_OPTIM_ADAMW), &expected.adamw);
        let counted = DEVICE.counted();
        assert_eq!((counted["clip"], counted["optim_step"]), (2, 2), "{counted:?}");
        assert_eq!(counted["written in place"], 16, "{counted:?}");
        assert_near(&training(ET_OPTIM_SGD), &expected.sgd);
    }

    copies_follow_the_values();
    whoever_asks_the_device_is_answered();
}

/// A parameter's copy in bf16 is made once per version, and steps of the device write it along.
fn copies_follow_the_values() {
    let params = model();
    let state = optim::state(&params, ET_OPTIM_ADAMW).unwrap();
    let param = params.find("w1").unwrap();
    let copy = || {
        let tensor = param.tensor().unwrap();
        let copy = tensor.packs().unwrap().narrow(tensor.stored(), DType::BF16).unwrap();
        assert_eq!(copy.dims(), [6, 6]);
        let host: Raw = device::Device::download(&*DEVICE, &copy).unwrap();
        let found = host.flatten_all().unwrap().to_vec1::<bf16>().unwrap();
        let rounded: Vec<bf16> = values(&tensor).into_iter().map(bf16::from_f32).collect();
        assert_eq!(found, rounded);
    };
    let step = |number| {
        param.set_grad(&f32s(&[6, 6], number as usize)).unwrap();
        optim::step(&params, &state, &step_of(ET_OPTIM_ADAMW, number)).unwrap();
    };
    DEVICE.counted();
    copy();
    copy();
    assert_eq!(DEVICE.counted()["narrow"], 1);
    step(1);
    copy();
    assert_eq!(DEVICE.counted()["narrow"], 1, "the CPU's step left it stale");
    let own = Own::new();
    step(2);
    copy();
    let counted = DEVICE.counted();
    drop(own);
    assert_eq!((counted.get("narrow"), counted["copy written along"]), (None, 1));
    let held = easytransfer_core::held::bytes();
    assert!(held.values > 0 && held.states == 2 * held.values && 2 * held.copies == held.values);
}

fn whoever_asks_the_device_is_answered() {
    let step = &easytransfer_core::tables::step::TABLE;
    // SAFETY: the slots are filled, and the map lives.
    unsafe {
        assert_eq!(step.defers.unwrap()(), 1);
        let map = easytransfer_core::handle::into_raw(Map::new());
        assert!(step.prefetch.unwrap()(map).is_null());
        easytransfer_core::handle::release::<Map>(map);
    }
    assert_eq!(DEVICE.counted()["prefetch"], 1);
    profile::start(0);
    drop(profile::work("clip_grads"));
    profile::stop();
    assert!(DEVICE.counted()["mark"] >= 2);
    // What the device's kernels would read without a look is checked before it is offered.
    let (table, bad) = (f32s(&[3, 2], 1), i64s(&[3]));
    assert_eq!(embedding_sum(&[&table], &[&bad]).err().unwrap().code, ET_ERR_INVALID_ARGUMENT);
    assert!(!DEVICE.counted().contains_key("embedding_sum"));
}
