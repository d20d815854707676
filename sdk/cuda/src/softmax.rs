//! Softmax and its logarithm over the last axis.

use super::launch::{Launch, Module::Rows};
use super::memory::floats;
use easytransfer_core::error::Result;
use easytransfer_core::nn::{dense, rows_cols};
use easytransfer_core::tape::record1;
use easytransfer_core::tensor::Tensor;

/// x is f32.
pub(crate) fn softmax(x: &Tensor, log: bool) -> Result<Tensor> {
    let op = if log { "log_softmax" } else { "softmax" };
    let (rows, cols) = rows_cols(op, x)?;
    let vx = dense(x.value())?;
    let shape = x.dims().to_vec();
    let y = floats(shape.clone())?;
    if cols > 0 {
        let launch = Launch::new(Rows, "et_softmax_forward").rows(rows).u64(rows).u64(cols);
        // SAFETY: x and y have rows * cols elements.
        unsafe { launch.flag(log).tensor(&vx).tensor(&y).run() }?;
    }
    let saved = y.clone();
    Ok(record1(op, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let dx = floats(shape)?;
        if cols > 0 {
            let launch = Launch::new(Rows, "et_softmax_backward").rows(rows).u64(rows).u64(cols);
            let launch = launch.flag(log).tensor(&saved).tensor(&grad).tensor(&dx);
            // SAFETY: y, dy and dx have rows * cols elements.
            unsafe { launch.run() }?;
        }
        pass.give(0, dx)
    }))
}
