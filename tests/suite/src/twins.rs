//! Comparison with twins in PyTorch whose parameters are a formula of their names and places, so that golden files
//! hold none (`tests/parity/make_word.py`, `make_imagebert.py`).

use std::path::PathBuf;

use easytransfer::plugin::{DType, Params, Tensor};
use serde_json::Value;

/// CRC-32 as zlib computes it (ISO 3309, reflected polynomial edb88320).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// `count` numbers in [-1, 1] that follow from `seed`.
pub fn wave(count: usize, seed: f64) -> impl Iterator<Item = f64> {
    (0..count).map(move |at| (at as f64 * (1.1 + seed / 1000.0) + seed).sin())
}

/// Gives all parameters their values; scales of norms are about 1.
pub fn fill(params: &Params) {
    for param in params.iter() {
        let (name, shape) = (param.name(), param.shape().to_vec());
        let scale = 1.5 / ((param.len() / shape[0]).max(1) as f64).sqrt();
        let is_scale = name.ends_with("LayerNorm.weight");
        let seed = f64::from(crc32(name.as_bytes()) % 1000);
        let values: Vec<f32> = wave(param.len(), seed)
            .map(|x| if is_scale { 1.0 + scale * x / 4.0 } else { scale * x })
            .map(|x| x as f32)
            .collect();
        let dtype = param.tensor().unwrap().dtype();
        let values = Tensor::from_slice(&values, &shape).unwrap().cast(dtype).unwrap();
        param.assign(&values).unwrap();
    }
}

/// The cases of a golden file, or of the file of another seed that the variable `instead` names.
pub fn cases(file: &str, instead: &str) -> Vec<Value> {
    let path = std::env::var_os(instead).map_or(crate::places::parity().join(file), PathBuf::from);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The numbers of a flat list.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// One number that depends on all elements: the sum of x sin(1), x sin(2), ...
pub fn weighted(x: &Tensor) -> Tensor {
    let weights: Vec<f64> = (0..x.len()).map(|at| (at as f64 + 1.0).sin()).collect();
    let weights = Tensor::from_slice(&weights, x.shape()).unwrap().cast(x.dtype()).unwrap();
    x.mul(&weights).unwrap().sum(&[], false).unwrap()
}

/// The elements in double precision, whatever their type.
pub fn doubles(x: &Tensor) -> Vec<f64> {
    x.cast(DType::F64).unwrap().to_vec().unwrap()
}

/// The element types in which twins are compared, with what outputs and gradients may differ by: single precision as
/// users have it, and double precision, which shows that what is left there is rounding.
pub const PRECISIONS: [(DType, f64, f64); 2] = [(DType::F32, 1e-5, 1e-4), (DType::F64, 2e-8, 1e-7)];

/// The largest difference of an output from its golden, relative to the largest number of that where it is above 1.
pub fn difference(found: &Tensor, expected: &Value) -> f64 {
    let (found, expected) = (doubles(found), numbers(expected));
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().map(|value| value.abs()).fold(1.0, f64::max);
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max) / scale
}

/// The largest difference of the parameters' gradients from the golden, relative to their norms and a hundredth of the
/// largest norm: a small gradient may be what larger numbers leave. `expected` has by name the norm, and the products
/// with sin(0), sin(1), ... and with cosines. Panics above `most`.
pub fn gradients(params: &Params, expected: &Value, most: f64, what: &str) -> f64 {
    let expected = expected.as_object().unwrap();
    assert_eq!(expected.len(), params.len(), "{what}");
    let largest = expected.values().map(|numbers| numbers[0].as_f64().unwrap()).fold(0.0, f64::max);
    let mut worst = 0.0f64;
    for (name, expected) in expected {
        let gradient = params.find(name).unwrap().grad().unwrap();
        let gradient = gradient.map_or(Vec::new(), |gradient| doubles(&gradient));
        let sum = |term: fn(f64, f64) -> f64| -> f64 {
            gradient.iter().enumerate().map(|(k, g)| term(k as f64, *g)).sum()
        };
        let found = [sum(|_, g| g * g).sqrt(), sum(|k, g| g * k.sin()), sum(|k, g| g * k.cos())];
        let expected = numbers(expected);
        for (found, number) in found.iter().zip(&expected) {
            let difference = (found - number).abs() / (1e-9 + 1e-2 * largest + expected[0]);
            worst = worst.max(difference);
            assert!(difference < most, "{what}: {name}: {found:?}, expected {expected:?}");
        }
    }
    worst
}
