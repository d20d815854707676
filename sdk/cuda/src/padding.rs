//! Runs of rows to a padded block and back, in the bits in which they are kept.

use candle_core::Tensor as Raw;

use super::launch::{Launch, Module::Padding};
use super::memory::{empty, upload};
use easytransfer_core::device;
use easytransfer_core::error::Result;
use easytransfer_core::nn::dense;
use easytransfer_core::storage::{self, Value};
use easytransfer_core::tape::record_narrow;
use easytransfer_core::tensor::Tensor;

/// Slices of the rows of one run when padding is taken off.
const SLICES: usize = 64;

/// `x` [T, cols] to [B, len, cols] with `pad`, else the inverse; `starts` [B + 1] are in host memory and were checked.
pub(crate) fn padding(x: &Tensor, starts: &Value, sizes: device::Padding) -> Result<Tensor> {
    let device::Padding { rows, len, cols, pad } = sizes;
    let starts = {
        let starts = storage::read::<i64>(starts)?;
        upload(&starts, starts.len())?
    };
    let op = if pad { "to_padded" } else { "from_padded" };
    let plan = Plan { starts, rows, len, cols };
    let y = plan.moved(x.stored(), pad)?;
    Ok(record_narrow(op, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, plan.moved(&grad, !pad)?)
    }))
}

struct Plan {
    starts: Value,
    rows: usize,
    len: usize,
    cols: usize,
}

impl Plan {
    /// Elements to the padded block, or from it.
    fn moved(&self, x: &Raw, pad: bool) -> Result<Value> {
        let x = dense(x)?;
        let batch = self.starts.elem_count() - 1;
        let wide = x.dtype().size_in_bytes() == 4;
        let (name, shape, grid) = if pad {
            let name = if wide { "et_to_padded_32" } else { "et_to_padded_16" };
            (name, vec![batch, self.len, self.cols], [batch * self.len, 1])
        } else {
            let name = if wide { "et_from_padded_32" } else { "et_from_padded_16" };
            (name, vec![self.rows, self.cols], [batch, SLICES])
        };
        let y = empty(x.dtype(), shape)?;
        let launch = Launch::new(Padding, name).grid(grid[0], grid[1]);
        let launch = launch.u64(self.cols).u64(self.len).tensor(&self.starts);
        // SAFETY: the starts cover the rows of one side, and the other has batch * len rows; elements have the
        // kernel's size.
        unsafe { launch.tensor(&x).tensor(&y).run() }?;
        Ok(y)
    }
}
