//! Softmax and its logarithm.

use super::{Direct, by_dtype, dense, give_vec, given, rows_cols};
use crate::device;
use crate::error::Result;
use crate::kernels::softmax::{
    log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward,
};
use crate::storage::{self, Value};
use crate::tape::record1;
use crate::tensor::Tensor;

/// Softmax over the last axis. Errors: `SHAPE` for a scalar, `DTYPE`.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    by_dtype("softmax", &[Some(x)], |inputs, double| {
        let x = given(inputs, 0)?;
        if double { typed::<f64>(x, false) } else { typed::<f32>(x, false) }
    })
}

/// Logarithm of softmax over the last axis. Errors as for [`softmax`].
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    by_dtype("log_softmax", &[Some(x)], |inputs, double| {
        let x = given(inputs, 0)?;
        if double { typed::<f64>(x, true) } else { typed::<f32>(x, true) }
    })
}

fn typed<F: Direct>(x: &Tensor, log: bool) -> Result<Tensor> {
    if let Some(y) = device::offer(&[x], |device| device.softmax(x, log))? {
        return Ok(y);
    }
    let op = if log { "log_softmax" } else { "softmax" };
    let (_, cols) = rows_cols(op, x)?;
    let vx = dense(x.value())?;
    let mut y = storage::take::<F>(vx.elem_count());
    let fwd = if log { log_softmax_forward } else { softmax_forward };
    fwd(cols, &storage::read::<F>(&vx)?, &mut y)?;
    let shape = x.dims().to_vec();
    let y = storage::tensor_from_vec(y, shape.clone())?;
    let saved = Value::new(y.clone());
    Ok(record1(op, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let mut dx = storage::take::<F>(grad.elem_count());
        let bwd = if log { log_softmax_backward } else { softmax_backward };
        bwd(cols, &storage::read::<F>(&saved)?, &storage::read::<F>(&grad)?, &mut dx)?;
        give_vec(pass, 0, &shape, Some(dx))
    }))
}
