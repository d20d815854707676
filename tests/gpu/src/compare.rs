//! One function run in f32 and in f64 on the same numbers, with its gradients compared.

use std::sync::atomic::{AtomicBool, Ordering};

use easytransfer::Tensor;
use easytransfer::plugin::{DType, Result};

/// Whether [`numbers`] are those of bfloat16. Where products round their operands, others would be compared with the
/// product of other operands: at the kink of a ReLU a rounded sum may even have another sign.
pub static COARSE: AtomicBool = AtomicBool::new(false);

/// Numbers in [-1, 1) that an f32 holds exactly, and with [`COARSE`] a bfloat16: a multiplicative congruential
/// generator (Park and Miller 1988).
pub fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let step = if COARSE.load(Ordering::Relaxed) { 1 << 11 } else { 1 };
    let mut state = (seed * 2_654_435_761 + 12_345) % 2_147_483_647;
    (0..len)
        .map(|_| {
            state = state * 48_271 % 2_147_483_647;
            let whole = (state % (1 << 20)) as i32 - (1 << 19);
            f64::from(whole.div_euclid(step) * step) / f64::from(1 << 19)
        })
        .collect()
}

/// A tensor of these numbers in a type.
pub fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> Result<Tensor> {
    Tensor::from_slice(values, shape)?.cast(dtype)
}

/// Value and gradients of `f` on inputs of a type.
fn run(
    inputs: &[(Vec<f64>, Vec<usize>)],
    dtype: DType,
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Vec<f64>>> {
    let leaves = inputs
        .iter()
        .map(|(values, shape)| tensor(values, shape, dtype)?.leaf())
        .collect::<Result<Vec<_>>>()?;
    let y = f(&leaves)?;
    let mut all = vec![y.cast(DType::F64)?.to_vec::<f64>()?];
    let seed = tensor(&numbers(y.len(), 99), y.shape(), dtype)?;
    y.backward_from(&seed)?;
    for leaf in &leaves {
        let grad = leaf.leaf_grad()?;
        all.push(match grad {
            Some(grad) => grad.cast(DType::F64)?.to_vec::<f64>()?,
            None => vec![0.0; leaf.len()],
        });
    }
    Ok(all)
}

/// Largest difference of two lists over the largest number of the second (NaN counts as infinite).
pub fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0f64, |a, b| a.max(b.abs())).max(1e-6);
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let apart = apart.fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    if found.len() == expected.len() { apart / largest } else { f64::INFINITY }
}

/// Prints one line and answers with 1 if something is further apart than `tolerance`.
pub fn check(
    name: &str,
    tolerance: f64,
    inputs: &[(Vec<f64>, Vec<usize>)],
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<usize> {
    let result = run(inputs, DType::F32, f);
    let expected = run(inputs, DType::F64, f)?;
    let (text, good) = match result {
        Ok(found) => {
            let apart: Vec<f64> =
                found.iter().zip(&expected).map(|(a, b)| distance(a, b)).collect();
            let good = apart.iter().all(|&apart| apart <= tolerance);
            (apart.iter().map(|a| format!("{a:.1e}")).collect::<Vec<_>>().join(" "), good)
        }
        Err(error) => (error.to_string(), false),
    };
    println!("{} {name}: {text}", if good { "ok    " } else { "FAILED" });
    Ok(usize::from(!good))
}
