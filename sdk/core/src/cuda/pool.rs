//! One vector per run.

use super::launch::{Launch, Module::Rows};
use super::memory::{empty, floats, upload};
use super::mixed::{elements, gradient_type, named, type_of};
use crate::error::Result;
use crate::nn::dense;
use crate::storage::{self, Value};
use crate::tape::record1;
use crate::tensor::Tensor;

/// x [T, h] f32 -> [B, h], kept in f32; `starts` is in host memory and was checked, `kind` is an `ET_POOL_` constant.
pub(crate) fn pool(x: &Tensor, starts: &Value, kind: i32) -> Result<Tensor> {
    let (rows, cols) = (x.dims()[0], x.dims()[1]);
    let batch = starts.elem_count() - 1;
    let kept = type_of(x);
    let vx = elements(x, kept)?;
    let starts = upload(&storage::read::<i64>(starts)?, batch + 1)?;
    let y = floats((batch, cols))?;
    let names = ["et_pool_forward", "et_pool_forward_bf16", "et_pool_forward_f16"];
    let launch = Launch::new(Rows, named(kept, names)).grid(batch, 1).i32(kind).u64(cols);
    // SAFETY: the starts lie within x; y has one row per run.
    unsafe { launch.tensor(&starts).tensor(&vx).tensor(&y).run() }?;
    Ok(record1("pool", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let dx = empty(gradient_type(kept), (rows, cols))?;
        let names = ["et_pool_backward", "et_pool_backward_bf16", "et_pool_backward_f16"];
        let launch = Launch::new(Rows, named(kept, names)).grid(batch, 1).i32(kind).u64(cols);
        let launch = launch.tensor(&starts).tensor(&vx).tensor(&grad).tensor(&dx);
        // SAFETY: as above; the runs cover every row of dx.
        unsafe { launch.run() }?;
        pass.give(0, dx)
    }))
}
