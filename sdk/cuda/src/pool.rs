//! One vector per run.

use super::launch::{Launch, Module::Rows};
use super::memory::{empty, floats, upload};
use super::mixed::{elements, gradient_type, named, type_of};
use easytransfer_abi::{ET_POOL_FIRST, ET_POOL_MAX, ET_POOL_MEAN};
use easytransfer_core::error::Result;
use easytransfer_core::nn::dense;
use easytransfer_core::storage::{self, Value};
use easytransfer_core::tape::record1;
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::padding::Pool;

/// x [T, h] f32 -> [B, h], kept in f32; `starts` is in host memory and was checked.
pub(crate) fn pool(x: &Tensor, starts: &Value, kind: Pool) -> Result<Tensor> {
    // The kernels' number of a pooling is that of its constant.
    let kind = match kind {
        Pool::Mean => ET_POOL_MEAN,
        Pool::First => ET_POOL_FIRST,
        Pool::Max => ET_POOL_MAX,
    };
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
