//! Layer norm with residual and dropout, and RMS norm.

use std::sync::Arc;

use candle_core::{DType, Tensor as Raw};

use super::activation::{chunk_rows, finish_columns};
use super::launch::{Dropout, Launch, Module::Norm, Module::NormHalf};
use super::linear::give_written;
use super::memory::{address, empty, floats};
use super::mixed::{elements, gradient, gradient_type, is_half, named, type_of};
use easytransfer_core::device;
use easytransfer_core::error::Result;
use easytransfer_core::nn::rows_cols;
use easytransfer_core::recompute::{self, Recipe};
use easytransfer_core::storage::Value;
use easytransfer_core::tape::{record_narrow, records};
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::philox;

/// Shapes were checked; everything is f32, and the result is kept as x is.
pub(crate) fn norm(input: device::Norm<'_>) -> Result<Tensor> {
    let device::Norm { x, gamma, beta, residual, epsilon, dropout } = input;
    let name = if beta.is_some() { "layer_norm" } else { "rms_norm" };
    let (rows, cols) = rows_cols(name, x)?;
    let rms = beta.is_none();
    let mut tracked = vec![x, gamma];
    tracked.extend(beta);
    tracked.extend(residual);
    let kept = type_of(x);
    let back = gradient_type(kept);
    let (vx, vg) = (elements(x, kept)?, elements(gamma, DType::F32)?);
    let vb = beta.map(|beta| elements(beta, DType::F32)).transpose()?;
    let vr = residual.map(|residual| elements(residual, kept)).transpose()?;
    let shape = x.dims().to_vec();
    let y = empty(kept, shape.clone())?;
    let rstd = floats(rows)?;
    let mean = if rms { None } else { Some(floats(rows)?) };
    let sum =
        if vr.is_some() || dropout.is_some() { Some(empty(kept, shape.clone())?) } else { None };
    let names = ["et_norm_forward", "et_norm_forward_bf16", "et_norm_forward_f16"];
    let launch = launch(kept, names)
        .rows(rows)
        .u64(rows)
        .u64(cols)
        .flag(dropout.is_some())
        .flag(rms)
        .value(Dropout::from(dropout))
        .f32(epsilon as f32)
        .tensor(&vx)
        .maybe(vr.as_deref())
        .tensor(&vg)
        .maybe(vb.as_deref())
        .tensor(&y)
        .maybe(sum.as_deref())
        .maybe(mean.as_deref())
        .tensor(&rstd);
    if cols > 0 {
        // SAFETY: x, y, residual and sum have rows * cols elements, gamma and beta cols, mean and rstd rows.
        unsafe { launch.run() }?;
    }
    let summed = sum.unwrap_or(vx);
    let saved = Arc::new(Saved { rows, cols, kept, dropout, summed, mean, rstd, gamma: vg });
    let recipe = (recompute::is_cheap() && records(&tracked)).then(|| -> Recipe {
        let saved = saved.clone();
        Arc::new(move || saved.again(vb.as_deref()))
    });
    let residual_at = 2 + usize::from(beta.is_some());
    let y = record_narrow(name, &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = gradient(&grad, back)?;
        let want_columns = pass.wants(1) || (!rms && pass.wants(2));
        let (want_x, want_residual) = (pass.wants(0), pass.wants(residual_at));
        // Without dropout x and the residual have one gradient.
        let shared = saved.dropout.is_none();
        let dx = if want_x || (shared && want_residual) {
            Some(empty(back, shape.clone())?)
        } else {
            None
        };
        let dresidual = if want_residual && !shared { Some(empty(back, shape)?) } else { None };
        let want_rows = dx.is_some() || dresidual.is_some();
        let columns = if want_rows && want_columns && saved.is_held(&grad)? {
            Some(saved.gradients(&grad, dx.as_deref(), dresidual.as_deref())?)
        } else {
            if want_rows {
                saved.rows(&grad, dx.as_deref(), dresidual.as_deref())?;
            }
            want_columns.then(|| saved.columns(&grad)).transpose()?
        };
        if let Some((gammas, betas, parts)) = columns {
            give_written(pass, 1, &[cols], |out, add| {
                finish_columns(&gammas, parts, cols, add, out)
            })?;
            if !rms {
                give_written(pass, 2, &[cols], |out, add| {
                    finish_columns(&betas, parts, cols, add, out)
                })?;
            }
        }
        if want_residual {
            let own = if shared { dx.clone() } else { dresidual };
            if let Some(own) = own {
                pass.give(residual_at, own)?;
            }
        }
        match dx {
            Some(dx) if want_x => pass.give(0, dx),
            _ => Ok(()),
        }
    });
    Ok(match recipe {
        Some(recipe) => y.with_recipe(recipe),
        None => y,
    })
}

/// A launch of the kernel for values that are kept in this type.
fn launch(kept: DType, names: [&'static str; 3]) -> Launch {
    Launch::new(if is_half(kept) { NormHalf } else { Norm }, named(kept, names))
}

struct Saved {
    rows: usize,
    cols: usize,
    kept: DType,
    dropout: Option<philox::Dropout>,
    summed: Value,
    mean: Option<Value>,
    rstd: Value,
    gamma: Value,
}

impl Saved {
    /// The arguments from which a kernel makes the gradients of rows.
    fn with_rows(
        &self,
        launch: Launch,
        dy: &Raw,
        dx: Option<&Raw>,
        dresidual: Option<&Raw>,
    ) -> Launch {
        launch
            .flag(self.dropout.is_some())
            .flag(self.mean.is_none())
            .value(Dropout::from(self.dropout))
            .tensor(dy)
            .tensor(&self.summed)
            .maybe(self.mean.as_deref())
            .tensor(&self.rstd)
            .tensor(&self.gamma)
            .maybe(dx)
            .maybe(dresidual)
    }

    fn rows(&self, dy: &Raw, dx: Option<&Raw>, dresidual: Option<&Raw>) -> Result<()> {
        if self.cols == 0 {
            return Ok(());
        }
        let names = ["et_norm_backward", "et_norm_backward_bf16", "et_norm_backward_f16"];
        let launch = launch(self.kept, names).rows(self.rows).u64(self.rows).u64(self.cols);
        let launch = self.with_rows(launch, dy, dx, dresidual);
        // SAFETY: dy, summed, dx and dresidual have rows * cols elements, gamma cols, mean and rstd rows.
        unsafe { launch.run() }
    }

    /// The output once more, to the same bits.
    fn again(&self, beta: Option<&Raw>) -> Result<Value> {
        let y = empty(self.kept, self.summed.shape())?;
        let names = ["et_norm_again", "et_norm_again_bf16", "et_norm_again_f16"];
        let launch = launch(self.kept, names)
            .rows(self.rows)
            .u64(self.rows)
            .u64(self.cols)
            .tensor(&self.summed)
            .maybe(self.mean.as_deref())
            .tensor(&self.rstd)
            .tensor(&self.gamma)
            .maybe(beta)
            .tensor(&y);
        if self.cols > 0 {
            // SAFETY: summed and y have rows * cols elements, gamma and beta cols, mean and rstd rows.
            unsafe { launch.run() }?;
        }
        Ok(y)
    }

    /// Room for partial sums for gamma and beta over blocks of `chunk` rows, and how many rows those sums have.
    fn room(&self, chunk: usize) -> Result<(Value, Value, usize)> {
        let parts = self.rows.div_ceil(chunk);
        let room = (parts.max(1), self.cols);
        Ok((floats(room)?, floats(room)?, parts))
    }

    /// True if [`Saved::gradients`] can do the work: rows that a warp holds in registers, and reads 16 bytes at once.
    fn is_held(&self, dy: &Raw) -> Result<bool> {
        if !is_half(self.kept) || !self.cols.is_multiple_of(8) || !(1..=1024).contains(&self.cols) {
            return Ok(false);
        }
        for x in [dy, &*self.summed, &*self.gamma] {
            if !address(x)?.is_multiple_of(16) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// [`Saved::rows`] and [`Saved::columns`] in one pass; dx and dresidual are new tensors.
    fn gradients(
        &self,
        dy: &Raw,
        dx: Option<&Raw>,
        dresidual: Option<&Raw>,
    ) -> Result<(Value, Value, usize)> {
        // Two blocks for each multiprocessor of an H100, each of six warps. It depends on the shape only, so the
        // order of sums does too.
        let chunk = self.rows.div_ceil(264).max(6);
        let (gammas, betas, parts) = self.room(chunk)?;
        let names = ["", "et_norm_gradients_bf16", "et_norm_gradients_f16"];
        let launch = launch(self.kept, names)
            .block(192, 1)
            .grid(parts, 1)
            .u64(self.rows)
            .u64(self.cols)
            .u64(chunk);
        let launch = self.with_rows(launch, dy, dx, dresidual).tensor(&gammas).tensor(&betas);
        // SAFETY: dy, summed, dx and dresidual have rows * cols elements, gamma cols, mean and rstd rows, and the
        // partial sums one row per block. `is_held` checked the addresses of what is read; new tensors begin at
        // multiples of 256 bytes.
        unsafe { launch.run() }?;
        Ok((gammas, betas, parts))
    }

    /// Partial sums for gamma and beta, and how many rows they have.
    fn columns(&self, dy: &Raw) -> Result<(Value, Value, usize)> {
        let chunk = chunk_rows(self.rows, self.cols);
        let (gammas, betas, parts) = self.room(chunk)?;
        let names = ["et_norm_columns", "et_norm_columns_bf16", "et_norm_columns_f16"];
        let width = if is_half(self.kept) { 128 } else { 32 };
        let launch = launch(self.kept, names)
            .block(32, 8)
            .grid(self.cols.div_ceil(width), parts)
            .u64(self.rows)
            .u64(self.cols)
            .u64(chunk)
            .flag(self.mean.is_none())
            .tensor(dy)
            .tensor(&self.summed)
            .maybe(self.mean.as_deref())
            .tensor(&self.rstd)
            .tensor(&gammas)
            .tensor(&betas);
        // SAFETY: dy and summed have rows * cols elements, mean and rstd rows; the partial sums have one row per row
        // of blocks.
        unsafe { launch.run() }?;
        Ok((gammas, betas, parts))
    }
}
