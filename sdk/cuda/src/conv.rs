//! Convolution over runs: the taps of every row are put side by side, and a linear layer does the rest.

use super::launch::{Launch, Module::Conv};
use super::linear::linear;
use super::memory::{empty, upload};
use super::mixed::{elements, gradient, gradient_type, is_half, type_of};
use easytransfer_core::error::Result;
use easytransfer_core::ops::shape::reshape;
use easytransfer_core::storage::{self, Value};
use easytransfer_core::tape::record_narrow;
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::activation::Activation;

/// Slices of the rows of one run.
const SLICES: usize = 64;

/// x [T, i] f32, weight [o, i, k], bias [o] -> [T, o], zeros around each run that keep its length; `starts` are in
/// host memory and shapes were checked.
pub(crate) fn conv1d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    starts: &Value,
    dilation: usize,
) -> Result<Tensor> {
    let (outputs, inputs, kernel) = (weight.dims()[0], weight.dims()[1], weight.dims()[2]);
    let taps = if kernel == 1 { x.clone() } else { unfold(x, starts, kernel, dilation)? };
    linear(&taps, &reshape(weight, &[outputs, inputs * kernel])?, bias, Activation::None)
}

/// x [T, i] -> [T, i * kernel].
fn unfold(x: &Tensor, starts: &Value, kernel: usize, dilation: usize) -> Result<Tensor> {
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let starts = {
        let starts = storage::read::<i64>(starts)?;
        upload(&starts, starts.len())?
    };
    let before = (dilation * (kernel - 1) / 2) as i64;
    let (kept, back) = (type_of(x), gradient_type(type_of(x)));
    let grid = starts.elem_count() - 1;
    let vx = elements(x, kept)?;
    let y = empty(kept, (rows, width * kernel))?;
    let launch = move |name| {
        let launch = Launch::new(Conv, name).grid(grid, SLICES).u64(width).u64(kernel);
        launch.i64(dilation as i64).i64(before)
    };
    let name = if is_half(kept) { "et_unfold_16" } else { "et_unfold_32" };
    // SAFETY: the starts cover the rows of x [rows, width] and y [rows, width * kernel], whose elements have the
    // kernel's size.
    unsafe { launch(name).tensor(&starts).tensor(&vx).tensor(&y).run() }?;
    Ok(record_narrow("unfold", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = gradient(&grad, back)?;
        let dx = empty(back, (rows, width))?;
        let name = if is_half(back) { "et_fold_bf16" } else { "et_fold_f32" };
        // SAFETY: as above; every row of dx is written.
        unsafe { launch(name).tensor(&starts).tensor(&grad).tensor(&dx).run() }?;
        pass.give(0, dx)
    }))
}
