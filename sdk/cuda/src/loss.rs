//! Cross entropy and binary cross entropy from logits; probabilities are never stored and nothing waits for the loss.

use candle_core::{DType, Tensor as Raw};

use super::launch::{Launch, Module::Losses, Module::Rows};
use super::memory::{empty, floats, on_card, upload};
use super::mixed::{elements, gradient_type, named, type_of};
use easytransfer_core::error::{Result, fail};
use easytransfer_core::storage::{self, Value};
use easytransfer_core::tape::record1;
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::cross_entropy::CrossEntropy;

/// Weighted mean cross entropy of logits [N, C] f32; `labels` [N] I64 are in host memory. The gradient flows to the
/// logits: row weights that are tracked take another way. Errors: `INVALID_ARGUMENT` for a label that is no class.
pub(crate) fn cross_entropy(
    logits: &Tensor,
    labels: &Value,
    weights: Option<&Tensor>,
    options: CrossEntropy,
) -> Result<Tensor> {
    let (rows, cols) = (logits.dims()[0], logits.dims()[1]);
    let labels = {
        let labels = storage::read::<i64>(labels)?;
        let bad = labels
            .iter()
            .position(|&label| label != options.ignore_index && label as u64 >= cols as u64);
        if let Some(position) = bad {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "cross_entropy_forward: targets: {} at position {position} is out of range, expected 0 to {}",
                labels[position],
                cols.saturating_sub(1)
            );
        }
        upload(&labels, rows)?
    };
    let kept = type_of(logits);
    let vx = elements(logits, kept)?;
    let vw = weights.map(weights_of).transpose()?;
    let (log_sums, losses) = (floats(rows)?, floats(rows)?);
    let (loss, inverse) = (floats(())?, floats(())?);
    let smoothing = options.label_smoothing as f32;
    if rows > 0 {
        let names =
            ["et_cross_entropy_rows", "et_cross_entropy_rows_bf16", "et_cross_entropy_rows_f16"];
        let launch = Launch::new(Rows, named(kept, names))
            .rows(rows)
            .u64(rows)
            .u64(cols)
            .i64(options.ignore_index)
            .f32(smoothing)
            .tensor(&vx)
            .tensor(&labels)
            .maybe(vw.as_deref())
            .tensor(&log_sums)
            .tensor(&losses);
        // SAFETY: the logits have rows * cols elements, everything else rows; labels are classes or ignored.
        unsafe { launch.run() }?;
    }
    let launch = Launch::new(Rows, "et_cross_entropy_mean")
        .u64(rows)
        .i64(options.ignore_index)
        .tensor(&labels)
        .maybe(vw.as_deref())
        .tensor(&losses)
        .tensor(&loss)
        .tensor(&inverse);
    // SAFETY: labels, weights and losses have rows elements, the results one; the grid is one block.
    unsafe { launch.run() }?;
    let saved = Saved { rows, cols, options, vx, labels, vw, log_sums, inverse };
    let mut tracked = vec![logits];
    tracked.extend(weights);
    Ok(record1("cross_entropy", &tracked, loss, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        if !pass.wants(0) {
            return Ok(());
        }
        let dx = saved.gradient(&on_card(&grad)?)?;
        pass.give(0, dx)
    }))
}

struct Saved {
    rows: usize,
    cols: usize,
    options: CrossEntropy,
    vx: Value,
    labels: Value,
    vw: Option<Value>,
    log_sums: Value,
    inverse: Value,
}

impl Saved {
    fn gradient(&self, dloss: &Raw) -> Result<Value> {
        let dx = empty(gradient_type(self.vx.dtype()), (self.rows, self.cols))?;
        let names = [
            "et_cross_entropy_backward",
            "et_cross_entropy_backward_bf16",
            "et_cross_entropy_backward_f16",
        ];
        let launch = Launch::new(Rows, named(self.vx.dtype(), names))
            .grid(self.rows, 1)
            .u64(self.rows)
            .u64(self.cols)
            .i64(self.options.ignore_index)
            .f32(self.options.label_smoothing as f32)
            .tensor(&self.vx)
            .tensor(&self.labels)
            .maybe(self.vw.as_deref())
            .tensor(&self.log_sums)
            .tensor(dloss)
            .tensor(&self.inverse)
            .tensor(&dx);
        // SAFETY: the logits and their gradient have rows * cols elements, labels, weights and sums rows, the rest
        // one.
        unsafe { launch.run() }?;
        Ok(dx)
    }
}

/// Weights of rows, f32 on the card.
fn weights_of(weights: &Tensor) -> Result<Value> {
    Ok(Value::new(on_card(&elements(weights, DType::F32)?.contiguous()?)?))
}

/// Weighted mean binary cross entropy of logits [rows, cols] f32 (or [rows]) and targets of their shape. The gradient
/// flows to the logits: row weights that are tracked take another way.
pub(crate) fn binary_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
    rows: usize,
    cols: usize,
) -> Result<Tensor> {
    let (vx, vt) = (elements(logits, DType::F32)?, elements(targets, DType::F32)?);
    let vw = weights.map(weights_of).transpose()?;
    let losses = floats(rows)?;
    let (loss, inverse) = (floats(())?, floats(())?);
    let launch = Launch::new(Losses, "et_binary_rows").rows(rows).u64(rows).u64(cols);
    let launch = launch.tensor(&vx).tensor(&vt).maybe(vw.as_deref()).tensor(&losses);
    // SAFETY: logits and targets have rows * cols elements, weights and losses rows.
    unsafe { launch.run() }?;
    let launch = Launch::new(Losses, "et_binary_mean").u64(rows).maybe(vw.as_deref());
    // SAFETY: weights and losses have rows elements, the results one; the grid is one block.
    unsafe { launch.tensor(&losses).tensor(&loss).tensor(&inverse).run() }?;
    let shape = logits.dims().to_vec();
    let mut tracked = vec![logits];
    tracked.extend(weights);
    Ok(record1("binary_cross_entropy", &tracked, loss, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        if !pass.wants(0) {
            return Ok(());
        }
        let dx = floats(shape)?;
        let launch = Launch::new(Losses, "et_binary_backward").elements(rows * cols);
        let launch = launch.u64(rows).u64(cols).tensor(&vx).tensor(&vt).maybe(vw.as_deref());
        let dloss = on_card(&grad)?;
        // SAFETY: logits, targets and the gradient have rows * cols elements, weights rows, the rest one.
        unsafe { launch.tensor(&dloss).tensor(&inverse).tensor(&dx).run() }?;
        pass.give(0, dx)
    }))
}
