//! Losses of each row by itself, by tensor operations: what the fused losses are the mean of.

use super::log_softmax;
use crate::{Result, Tensor};

/// Softmax cross entropy of each row, `[B]`: logits [B, C], labels `[B]`. Rows whose label is `ignore_index` have 0.
pub fn cross_entropy_rows(
    logits: &Tensor,
    labels: &Tensor,
    ignore_index: i64,
    label_smoothing: f64,
) -> Result<Tensor> {
    let labels = labels.to_vec::<i64>()?;
    let counts = |label: &i64| *label != ignore_index;
    let index: Vec<i64> = labels.iter().map(|l| if counts(l) { *l } else { 0 }).collect();
    let counts: Vec<f32> = labels.iter().map(|l| f32::from(u8::from(counts(l)))).collect();
    let log_p = log_softmax(logits)?;
    let own = log_p.gather(1, &Tensor::from_slice(&index, &[labels.len(), 1])?)?;
    let own = own.reshape(&[labels.len()])?.affine(label_smoothing - 1.0, 0.0)?;
    let loss = own.sub(&log_p.mean(&[1], false)?.affine(label_smoothing, 0.0)?)?;
    loss.mul(&Tensor::from_slice(&counts, &[labels.len()])?.cast(logits.dtype())?)
}

/// Binary cross entropy with logits of each row, the mean over its classes, `[B]`: logits and targets [B, C].
pub fn binary_cross_entropy_rows(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    // log(1 + e^x) - x t, written so that no power overflows.
    let soft = logits.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
    row_means(&logits.relu()?.add(&soft)?.sub(&logits.mul(targets)?)?)
}

/// Means over all axes but the first.
pub fn row_means(values: &Tensor) -> Result<Tensor> {
    let rows = values.extent(0)?;
    values.reshape(&[rows, values.len() / rows.max(1)])?.mean(&[1], false)
}
