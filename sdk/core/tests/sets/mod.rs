//! Small parameter sets with gradients, and what is done between them, as numbers: computed in either type, on the
//! CPU or on a device.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::collections::BTreeMap;

use candle_core::DType;
use easytransfer_abi::*;
use easytransfer_core::nn::embedding::embedding_sum;
use easytransfer_core::ops::create;
use easytransfer_core::optim;
use easytransfer_core::params::Params;
use easytransfer_core::storage::tensor_from_vec;
use easytransfer_core::tape::backward;
use easytransfer_core::tensor::Tensor;

const NORMAL: et_init = et_init { kind: ET_INIT_NORMAL, reserved: 0, a: 0.0, b: 1.0 };

/// Names and shapes of the parameters of [`set`]; the last one is frozen.
pub const SHAPES: [(&str, &[usize]); 6] = [
    ("encoder.table", &[7, 6]),
    ("encoder.weight", &[6, 6]),
    ("encoder.bias", &[6]),
    ("head.weight", &[3, 6]),
    ("head.bias", &[3]),
    ("encoder.scale", &[5]),
];

/// All optimizers.
pub const KINDS: [i32; 5] =
    [ET_OPTIM_ADAMW, ET_OPTIM_ADAM, ET_OPTIM_SGD, ET_OPTIM_LAMB, ET_OPTIM_ADAFACTOR];

/// A sealed set of [`SHAPES`].
pub fn set(seed: u64, dtype: i32) -> Params {
    let params = Params::new(seed, dtype).unwrap();
    for (name, shape) in SHAPES {
        params.root().param(name, shape, NORMAL).unwrap();
    }
    params.find("encoder.scale").unwrap().set_trainable(false).unwrap();
    params.seal().unwrap();
    params
}

/// Reproducible values in [-1, 1) that f32 holds exactly.
pub fn noise(len: usize, seed: usize) -> Vec<f64> {
    let word = |i: usize| (i as u32 + 1).wrapping_mul(2_654_435_761).wrapping_add(seed as u32 * 97);
    let each = |i: usize| (word(i).wrapping_mul(word(i) >> 9 | 1) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..len).map(|i| f64::from(each(i))).collect()
}

pub fn tensor(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
    let data = noise(shape.iter().product(), seed);
    Tensor::new(match dtype {
        DType::F64 => tensor_from_vec(data, shape.to_vec()).unwrap(),
        _ => tensor_from_vec(data.into_iter().map(|x| x as f32).collect(), shape.to_vec()).unwrap(),
    })
}

/// The elements of a tensor, wherever it is.
pub fn values(x: &Tensor) -> Vec<f64> {
    let mut bytes = vec![0; x.elem_count() * x.dtype().size_in_bytes()];
    create::read(x, &mut bytes).unwrap();
    match x.dtype() {
        DType::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_ne_bytes(*bytes)).collect(),
        _ => bytes.as_chunks().0.iter().map(|x| f64::from(f32::from_ne_bytes(*x))).collect(),
    }
}

/// The values of all parameters by their names.
pub fn all_values(params: &Params) -> BTreeMap<String, Vec<f64>> {
    let each = |param: &easytransfer_core::params::Param| {
        (param.name().to_owned(), values(&param.tensor().unwrap()))
    };
    params.all().iter().map(each).collect()
}

/// The gradients that are there.
pub fn all_grads(params: &Params) -> BTreeMap<String, Vec<f64>> {
    let all = params.all();
    let each = all.iter().filter_map(|p| Some((p.name().to_owned(), p.grad().unwrap()?)));
    each.map(|(name, grad)| (name, values(&grad))).collect()
}

/// Adds to the gradients of all trainable parameters but "head.bias"; that of the table is of rows where rows can be.
pub fn pass(params: &Params, seed: usize) {
    let table = params.find("encoder.table").unwrap().tensor().unwrap();
    let ids = [[6i64, 0, 6, 2], [1, 1, 5, 6], [3, 2, 2, 3]][seed % 3];
    let ids = Tensor::new(tensor_from_vec(ids.to_vec(), 4).unwrap());
    let x = embedding_sum(&[&table], &[&ids]).unwrap();
    backward(&x, Some(&tensor(params.dtype(), &[4, 6], seed))).unwrap();
    for (name, shape) in
        [("encoder.weight", &[6usize, 6][..]), ("encoder.bias", &[6]), ("head.weight", &[3, 6])]
    {
        let x = params.find(name).unwrap().tensor().unwrap();
        backward(&x, Some(&tensor(params.dtype(), shape, seed + shape[0]))).unwrap();
    }
}

pub fn step_of(kind: i32, number: u64, begin: usize, end: usize) -> et_optim_step {
    let adafactor = kind == ET_OPTIM_ADAFACTOR;
    et_optim_step {
        struct_size: size_of::<et_optim_step>(),
        kind,
        nesterov: 1,
        lr: 0.01,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: if adafactor { -0.8 } else { 0.99 },
        epsilon: if adafactor { 1e-30 } else { 1e-8 },
        momentum: if adafactor { 1.0 } else { 0.9 },
        step: number,
        begin,
        end,
    }
}

/// Three steps of training, each cut at `bounds` of the arena.
pub fn train(
    dtype: i32,
    kind: i32,
    patterns: Option<&[&str]>,
    bounds: &[usize],
) -> BTreeMap<String, Vec<f64>> {
    let params = set(5, dtype);
    params.find("encoder.bias").unwrap().set_lr_scale(0.5).unwrap();
    let over = patterns.map_or_else(|| params.clone(), |patterns| params.part(patterns).unwrap());
    let state = optim::state(&over, kind).unwrap();
    let len = params.arena_len();
    for number in 1..=3u64 {
        params.zero_grads();
        pass(&params, number as usize);
        params.scale_grads(0.37).unwrap();
        let mut begin = 0;
        for &end in bounds.iter().chain([&len]) {
            optim::step(&over, &state, &step_of(kind, number, begin, end)).unwrap();
            begin = end;
        }
    }
    all_values(&params)
}

type Results = Vec<(&'static str, BTreeMap<String, Vec<f64>>)>;

/// What one does between sets, in f32 or f64.
pub fn between(dtype: i32) -> Results {
    let (a, b) = (set(1, dtype), set(2, dtype));
    let mut results: Results = vec![("a", all_values(&a)), ("b", all_values(&b))];
    a.lerp(&b, 0.25).unwrap();
    results.push(("a quarter of the way", all_values(&a)));
    a.lerp(&b, 1.0).unwrap();
    results.push(("all of it", all_values(&a)));
    pass(&a, 1);
    pass(&b, 2);
    b.scale_grads(3.0).unwrap();
    results.push(("gradients of a", all_grads(&a)));
    results.push(("gradients of b", all_grads(&b)));
    a.zero_grads();
    b.zero_grads();
    pass(&a, 1);
    pass(&b, 2);
    a.scale_grads(2.0).unwrap();
    b.scale_grads(3.0).unwrap();
    a.add_grads(&b, 0.5).unwrap();
    results.push(("added", all_grads(&a)));
    results.push(("added from", all_grads(&b)));
    a.zero_grads();
    a.add_grads(&b, 1.0).unwrap();
    results.push(("added to nothing", all_grads(&a)));
    a.add_grads(&a, -0.5).unwrap();
    results.push(("added to itself", all_grads(&a)));
    results
}
