//! Losses from logits.

use super::{Direct, by_dtype, check_shape, dense, give_vec, given, integers, wanted};
use crate::device;
use crate::error::{Result, fail};
use crate::kernels::Float;
use crate::kernels::cross_entropy::{CrossEntropy, ElementLoss, MeanLoss};
use crate::storage::{self, Real, Value};
use crate::tape::{Pass, record1};
use crate::tensor::Tensor;

/// The one element of a scalar's gradient.
fn scalar<F: Real>(grad: &Value) -> Result<f64> {
    let grad = dense(grad)?;
    Ok(storage::read::<F>(&grad)?.first().map_or(0.0, |g| g.to_f64()))
}

/// Gives the gradient of the row weights of sum(w l) / sum(w): (l_i - loss) / sum(w), 0 for rows that do not count.
fn give_weights<F: Direct>(
    pass: &mut Pass<'_>,
    mean: MeanLoss,
    dloss: f64,
    row_losses: &[f64],
    counts: impl Fn(usize) -> bool,
) -> Result<()> {
    let Some(mut dweights) = wanted::<F>(pass, 1, row_losses.len()) else { return Ok(()) };
    for (row, (target, loss)) in dweights.iter_mut().zip(row_losses).enumerate() {
        let gradient = if mean.weight == 0.0 || !counts(row) {
            0.0
        } else {
            dloss * (loss - mean.loss) / mean.weight
        };
        *target = <F as Float>::from_f64(gradient);
    }
    give_vec(pass, 1, &[row_losses.len()], Some(dweights))
}

/// Weighted mean cross entropy of logits [N, C] and labels (N) I64: sum(w l) / sum(w) over the rows whose label is not
/// `ignore_index`. Gradients flow to the logits and to the weights. Errors: `SHAPE`, `DTYPE`, `INVALID_ARGUMENT` for
/// a label that is no class and a smoothing outside [0, 1).
pub fn cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
    ignore_index: i64,
    smoothing: f64,
) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let &[rows, cols] = logits.dims() else {
        fail!(
            ET_ERR_SHAPE,
            "{OP}: the logits must have the shape [N, C], found {:?}",
            logits.dims()
        );
    };
    if !(0.0..1.0).contains(&smoothing) {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "{OP}: smoothing must be at least 0 and below 1, found {smoothing}"
        );
    }
    check_shape(OP, "labels", labels, &[rows])?;
    let labels = integers(OP, "labels", labels)?;
    if let Some(weights) = weights {
        check_shape(OP, "weights", weights, &[rows])?;
    }
    let options = CrossEntropy { ignore_index, label_smoothing: smoothing };
    by_dtype(OP, &[Some(logits), weights], |inputs, double| {
        let (logits, weights) = (given(inputs, 0)?, inputs[1].as_ref());
        if double {
            typed_cross_entropy::<f64>(logits, weights, labels, options, cols)
        } else {
            typed_cross_entropy::<f32>(logits, weights, labels, options, cols)
        }
    })
}

fn typed_cross_entropy<F: Direct>(
    logits: &Tensor,
    weights: Option<&Tensor>,
    labels: Value,
    options: CrossEntropy,
    cols: usize,
) -> Result<Tensor> {
    let mut tracked = vec![logits];
    tracked.extend(weights);
    let on_device =
        device::offer(&tracked, |device| device.cross_entropy(logits, &labels, weights, options))?;
    if let Some(loss) = on_device {
        return Ok(loss);
    }
    let rows = logits.dims()[0];
    let vx = dense(logits.value())?;
    let vw = weights.map(|weights| dense(weights.value())).transpose()?;
    let mut log_sums = storage::take::<F>(rows);
    let mut row_losses = weights.is_some_and(Tensor::is_tracked).then(|| storage::take::<F>(rows));
    let mean = {
        let weights = vw.as_deref().map(storage::read::<F>).transpose()?;
        options.forward(
            cols,
            &storage::read::<F>(&vx)?,
            &storage::read::<i64>(&labels)?,
            weights.as_deref(),
            &mut log_sums,
            row_losses.as_deref_mut(),
        )?
    };
    let y = storage::tensor_from_vec(vec![<F as Float>::from_f64(mean.loss)], ())?;
    let log_sums = Value::new(storage::tensor_from_vec(log_sums, rows)?);
    Ok(record1("cross_entropy", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dloss = scalar::<F>(&grad)?;
        let labels = storage::read::<i64>(&labels)?;
        if let Some(row_losses) = row_losses {
            let row_losses: Vec<f64> = row_losses.iter().map(|l| l.to_f64()).collect();
            let counts = |row: usize| labels[row] != options.ignore_index;
            give_weights::<F>(pass, mean, dloss, &row_losses, counts)?;
        }
        let Some(mut dx) = wanted::<F>(pass, 0, rows * cols) else { return Ok(()) };
        {
            let weights = vw.as_deref().map(storage::read::<F>).transpose()?;
            options.backward(
                cols,
                &storage::read::<F>(&vx)?,
                &labels,
                weights.as_deref(),
                &storage::read::<F>(&log_sums)?,
                mean,
                dloss,
                &mut dx,
            )?;
        }
        give_vec(pass, 0, &[rows, cols], Some(dx))
    }))
}

/// Weighted mean binary cross entropy of logits and targets of one shape, [N, C] or `[N]`; a row's loss is the mean
/// over its columns. Gradients flow to the logits and to the weights, not to the targets. Errors: `SHAPE`, `DTYPE`.
pub fn binary_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
) -> Result<Tensor> {
    const OP: &str = "binary_cross_entropy";
    let (rows, cols) = match *logits.dims() {
        [rows] => (rows, 1),
        [rows, cols] => (rows, cols),
        _ => fail!(
            ET_ERR_SHAPE,
            "{OP}: the logits must have the shape [N, C] or [N], found {:?}",
            logits.dims()
        ),
    };
    check_shape(OP, "targets", targets, logits.dims())?;
    if let Some(weights) = weights {
        check_shape(OP, "weights", weights, &[rows])?;
    }
    by_dtype(OP, &[Some(logits), Some(targets), weights], |inputs, double| {
        let (logits, targets) = (given(inputs, 0)?, given(inputs, 1)?);
        let weights = inputs[2].as_ref();
        if double {
            typed_binary::<f64>(logits, targets, weights, rows, cols)
        } else {
            typed_binary::<f32>(logits, targets, weights, rows, cols)
        }
    })
}

fn typed_binary<F: Direct>(
    logits: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
    rows: usize,
    cols: usize,
) -> Result<Tensor> {
    const LOSS: ElementLoss = ElementLoss::BinaryCrossEntropy;
    let on_device = device::offer(&[logits, targets], |device| {
        device.binary_cross_entropy(logits, targets, weights, rows, cols)
    })?;
    if let Some(loss) = on_device {
        return Ok(loss);
    }
    let (vx, vt) = (dense(logits.value())?, dense(targets.value())?);
    let vw = weights.map(|weights| dense(weights.value())).transpose()?;
    let mean = {
        let weights = vw.as_deref().map(storage::read::<F>).transpose()?;
        let (x, targets) = (storage::read::<F>(&vx)?, storage::read::<F>(&vt)?);
        if rows * cols == 0 {
            MeanLoss::default()
        } else {
            LOSS.forward(cols, &x, &targets, weights.as_deref())?
        }
    };
    let y = storage::tensor_from_vec(vec![<F as Float>::from_f64(mean.loss)], ())?;
    let shape = logits.dims().to_vec();
    let mut tracked = vec![logits];
    tracked.extend(weights);
    Ok(record1("binary_cross_entropy", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dloss = scalar::<F>(&grad)?;
        let (x, targets) = (storage::read::<F>(&vx)?, storage::read::<F>(&vt)?);
        if pass.wants(1) {
            // Loss of an element: max(x, 0) - x t + ln(1 + exp(-|x|)).
            let element = |(x, t): (&F, &F)| {
                let (x, t) = (x.to_f64(), t.to_f64());
                x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()
            };
            let row_losses: Vec<f64> = (0..rows)
                .map(|row| {
                    let range = row * cols..(row + 1) * cols;
                    let sum: f64 = x[range.clone()].iter().zip(&targets[range]).map(element).sum();
                    sum / cols.max(1) as f64
                })
                .collect();
            give_weights::<F>(pass, mean, dloss, &row_losses, |_| true)?;
        }
        let Some(mut dx) = wanted::<F>(pass, 0, rows * cols) else { return Ok(()) };
        if rows * cols > 0 {
            let weights = vw.as_deref().map(storage::read::<F>).transpose()?;
            LOSS.backward(cols, &x, &targets, weights.as_deref(), mean, dloss, &mut dx)?;
        }
        give_vec(pass, 0, &shape, Some(dx))
    }))
}
