//! Small inputs that losses, metrics and operations are tried on, and the comparisons that all kinds share.

use easytransfer::plugin::abi::ET_ERR_PANIC;
use easytransfer::plugin::{self, DType, Map, Tensor};

use crate::report::{Outcome, failed};

/// Rows of every form of inputs.
pub const ROWS: usize = 4;

/// Logits with targets of one form.
#[derive(Clone, Copy)]
pub struct Form {
    /// For the report.
    pub name: &'static str,
    /// Columns of the logits.
    pub width: usize,
    targets: Targets,
}

#[derive(Clone, Copy)]
enum Targets {
    Classes,
    Numbers,
    Sets,
}

/// One class per row, one number per row, a set of classes per row.
pub const FORMS: [Form; 3] = [
    Form { name: "classes", width: 3, targets: Targets::Classes },
    Form { name: "numbers", width: 1, targets: Targets::Numbers },
    Form { name: "sets of classes", width: 3, targets: Targets::Sets },
];

/// Irregular numbers of moderate size, far from each other and from zero, so that no kink is near.
pub fn number(index: usize) -> f64 {
    let x = (index as f64 * 0.754_877_666 + 0.31).fract() * 2.0 - 1.0;
    x * 1.4 + if x < 0.0 { -0.05 } else { 0.05 }
}

/// A tensor of the given type from f64s.
pub fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> plugin::Result<Tensor> {
    Tensor::from_slice(values, shape)?.cast(dtype)
}

impl Form {
    /// Values of the logits, row-major [rows, width].
    pub fn logits(&self, rows: usize) -> Vec<f64> {
        (0..rows * self.width).map(number).collect()
    }

    /// Map "labels" for rows `begin..end`.
    pub fn batch(&self, begin: usize, end: usize, dtype: DType) -> plugin::Result<Map> {
        let mut batch = Map::new()?;
        let rows = end - begin;
        let labels = match self.targets {
            Targets::Classes => {
                let classes: Vec<i64> = (begin..end).map(|row| (row * 2 % 3) as i64).collect();
                Tensor::from_slice(&classes, &[rows])?
            }
            Targets::Numbers => {
                let values: Vec<f64> = (begin..end).map(|row| number(row + 50)).collect();
                tensor(&values, &[rows], dtype)?
            }
            Targets::Sets => {
                let values: Vec<f64> = (begin * self.width..end * self.width)
                    .map(|index| f64::from(u8::from(index % 2 == 0)))
                    .collect();
                tensor(&values, &[rows, self.width], dtype)?
            }
        };
        batch.put("labels", &labels)?;
        Ok(batch)
    }
}

/// All elements as f64.
pub fn values(tensor: &Tensor) -> plugin::Result<Vec<f64>> {
    tensor.cast(DType::F64)?.contiguous()?.to_vec::<f64>()
}

/// An error is an answer; a panic is not.
pub fn no_panic<T>(result: plugin::Result<T>) -> Outcome {
    match result {
        Err(error) if error.code() == ET_ERR_PANIC => failed(error.to_string()),
        _ => Ok(()),
    }
}

/// Compares a gradient with finite differences of `f` at `at`. `dtype` says in which precision `f` computes.
pub fn compare_gradient(
    at: &[f64],
    gradient: &[f64],
    dtype: DType,
    mut f: impl FnMut(&[f64]) -> Outcome<f64>,
) -> Outcome {
    let (step, tolerance) = if dtype == DType::F64 { (1e-5, 1e-6) } else { (1e-2, 2e-2) };
    if gradient.len() != at.len() {
        return failed(format!("expected {} numbers, found {}", at.len(), gradient.len()));
    }
    let mut point = at.to_vec();
    for index in 0..at.len() {
        point[index] = at[index] + step;
        let above = f(&point)?;
        point[index] = at[index] - step;
        let below = f(&point)?;
        point[index] = at[index];
        let expected = (above - below) / (2.0 * step);
        let difference = (gradient[index] - expected).abs();
        if difference.is_nan() || difference > tolerance * (1.0 + expected.abs()) {
            return failed(format!(
                "element {index}: expected {expected:.6e} by differences, found {:.6e}",
                gradient[index]
            ));
        }
    }
    Ok(())
}
