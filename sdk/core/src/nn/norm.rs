//! Layer norm and RMS norm, and dropout.

use std::sync::Arc;

use super::{
    Direct, by_dtype, check_shape, dense, dropout_of, give_vec, given, owned, rows_cols, wanted,
};
use crate::device::{self, Norm};
use crate::error::{Result, fail};
use crate::kernels::elementwise::{Store, dropout_assign, dropout_into};
use crate::kernels::norm::{
    NormGradients, NormInput, NormOutput, layer_norm_again, layer_norm_alone, layer_norm_backward,
    layer_norm_forward, rms_norm_backward, rms_norm_forward,
};
use crate::kernels::philox::Dropout;
use crate::recompute::{self, Recipe};
use crate::rng::Rng;
use crate::storage::{self, Value};
use crate::tape::{keeps, record1};
use crate::tensor::Tensor;

/// Arguments of [`layer_norm`], as in `et_layer_norm`.
pub struct LayerNorm<'a> {
    /// Input [.., h].
    pub x: &'a Tensor,
    /// Added after dropout, same shape.
    pub residual: Option<&'a Tensor>,
    /// Scale `[h]`.
    pub gamma: &'a Tensor,
    /// Shift `[h]`.
    pub beta: &'a Tensor,
    /// Added to the variance, not negative.
    pub epsilon: f64,
    /// Probability of dropping an element of `x`.
    pub dropout: f64,
    /// Source of the dropout numbers; without one nothing is dropped.
    pub rng: Option<&'a Rng>,
}

fn check_epsilon(op: &str, epsilon: f64) -> Result<()> {
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        fail!(ET_ERR_INVALID_ARGUMENT, "{op}: epsilon must not be negative, found {epsilon}");
    }
    Ok(())
}

/// gamma (h - mean) / sqrt(var + epsilon) + beta with h = residual + dropout(x) (Ba et al. 2016). Errors: `SHAPE`,
/// `DTYPE`, `INVALID_ARGUMENT`.
pub fn layer_norm(args: LayerNorm<'_>) -> Result<Tensor> {
    const OP: &str = "layer_norm";
    check_epsilon(OP, args.epsilon)?;
    let (_, cols) = rows_cols(OP, args.x)?;
    check_shape(OP, "gamma", args.gamma, &[cols])?;
    check_shape(OP, "beta", args.beta, &[cols])?;
    if let Some(residual) = args.residual {
        check_shape(OP, "the residual", residual, args.x.dims())?;
    }
    let inputs = [Some(args.x), Some(args.gamma), Some(args.beta), args.residual];
    by_dtype(OP, &inputs, |inputs, double| {
        let len = args.x.elem_count();
        let dropout = dropout_of(OP, args.dropout, args.rng, len)?;
        if double {
            typed_layer_norm::<f64>(inputs, args.epsilon, dropout)
        } else {
            typed_layer_norm::<f32>(inputs, args.epsilon, dropout)
        }
    })
}

fn typed_layer_norm<F: Direct>(
    inputs: &[Option<Tensor>],
    epsilon: f64,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let (x, gamma, beta) = (given(inputs, 0)?, given(inputs, 1)?, given(inputs, 2)?);
    let residual = inputs[3].as_ref();
    let mut tracked = vec![x, gamma, beta];
    tracked.extend(residual);
    let norm = Norm { x, gamma, beta: Some(beta), residual, epsilon, dropout };
    if let Some(y) = device::offer(&tracked, |device| device.norm(norm))? {
        return Ok(y);
    }
    let (rows, cols) = rows_cols("layer_norm", x)?;
    let (vx, vg, vb) = (dense(x.value())?, dense(gamma.value())?, dense(beta.value())?);
    let mut y = storage::take::<F>(rows * cols);
    if !keeps(&tracked) {
        {
            let vr = residual.map(|residual| dense(residual.value())).transpose()?;
            let residual = vr.as_deref().map(storage::read::<F>).transpose()?;
            let (x, gamma, beta) =
                (storage::read::<F>(&vx)?, storage::read::<F>(&vg)?, storage::read::<F>(&vb)?);
            let input = NormInput { x: &x, residual: residual.as_deref(), dropout };
            layer_norm_alone(input, &gamma, &beta, epsilon, &mut y)?;
        }
        let y = storage::tensor_from_vec(y, x.dims().to_vec())?;
        return Ok(record1("layer_norm", &tracked, y, |_| Ok(())));
    }
    let (mut mean, mut rstd) = (storage::take::<F>(rows), storage::take::<F>(rows));
    let mut sum =
        (residual.is_some() || dropout.is_some()).then(|| storage::take::<F>(rows * cols));
    {
        let vr = residual.map(|residual| dense(residual.value())).transpose()?;
        let residual = vr.as_deref().map(storage::read::<F>).transpose()?;
        let (x, gamma, beta) =
            (storage::read::<F>(&vx)?, storage::read::<F>(&vg)?, storage::read::<F>(&vb)?);
        let output =
            NormOutput { y: &mut y, summed: sum.as_deref_mut(), mean: &mut mean, rstd: &mut rstd };
        let input = NormInput { x: &x, residual: residual.as_deref(), dropout };
        layer_norm_forward(input, &gamma, &beta, epsilon, output)?;
    }
    let shape = x.dims().to_vec();
    let y = storage::tensor_from_vec(y, shape.clone())?;
    let summed = match sum {
        Some(sum) => Value::new(storage::tensor_from_vec(sum, rows * cols)?),
        None => vx,
    };
    let mean = Value::new(storage::tensor_from_vec(mean, rows)?);
    let rstd = Value::new(storage::tensor_from_vec(rstd, rows)?);
    let recipe = recompute::is_cheap().then(|| -> Recipe {
        let (summed, mean, rstd) = (summed.clone(), mean.clone(), rstd.clone());
        let (vg, shape) = (vg.clone(), shape.clone());
        Arc::new(move || {
            let mut y = storage::take::<F>(rows * cols);
            layer_norm_again(
                &storage::read::<F>(&summed)?,
                &storage::read::<F>(&mean)?,
                &storage::read::<F>(&rstd)?,
                &storage::read::<F>(&vg)?,
                &storage::read::<F>(&vb)?,
                &mut y,
            )?;
            Ok(Value::new(storage::tensor_from_vec(y, shape.clone())?))
        })
    });
    let y = record1("layer_norm", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let len = rows * cols;
        // Without dropout x and the residual have one gradient.
        let shared = dropout.is_none();
        let mut dx = (pass.wants(0) || (shared && pass.wants(3))).then(|| storage::take::<F>(len));
        let mut dresidual = if shared { None } else { wanted::<F>(pass, 3, len) };
        let (mut dgamma, mut dbeta) = (wanted::<F>(pass, 1, cols), wanted::<F>(pass, 2, cols));
        layer_norm_backward(
            &storage::read::<F>(&grad)?,
            &storage::read::<F>(&summed)?,
            &storage::read::<F>(&mean)?,
            &storage::read::<F>(&rstd)?,
            &storage::read::<F>(&vg)?,
            dropout,
            NormGradients {
                x: dx.as_deref_mut(),
                residual: dresidual.as_deref_mut(),
                gamma: dgamma.as_deref_mut().map(|d| (Store::Write, d)),
                beta: dbeta.as_deref_mut().map(|d| (Store::Write, d)),
            },
        )?;
        give_vec(pass, 1, &[cols], dgamma)?;
        give_vec(pass, 2, &[cols], dbeta)?;
        give_vec(pass, 3, &shape, dresidual)?;
        if let Some(dx) = dx {
            let dx = Value::new(storage::tensor_from_vec(dx, shape)?);
            if shared && pass.wants(3) {
                pass.give(3, dx.clone())?;
            }
            pass.give(0, dx)?;
        }
        Ok(())
    });
    Ok(match recipe {
        Some(recipe) => y.with_recipe(recipe),
        None => y,
    })
}

/// x / sqrt(mean(x^2) + epsilon) * gamma over the last axis (Zhang and Sennrich 2019). Errors as for [`layer_norm`].
pub fn rms_norm(x: &Tensor, gamma: &Tensor, epsilon: f64) -> Result<Tensor> {
    const OP: &str = "rms_norm";
    check_epsilon(OP, epsilon)?;
    let (_, cols) = rows_cols(OP, x)?;
    check_shape(OP, "gamma", gamma, &[cols])?;
    by_dtype(OP, &[Some(x), Some(gamma)], |inputs, double| {
        let (x, gamma) = (given(inputs, 0)?, given(inputs, 1)?);
        if double {
            typed_rms_norm::<f64>(x, gamma, epsilon)
        } else {
            typed_rms_norm::<f32>(x, gamma, epsilon)
        }
    })
}

fn typed_rms_norm<F: Direct>(x: &Tensor, gamma: &Tensor, epsilon: f64) -> Result<Tensor> {
    let norm = Norm { x, gamma, beta: None, residual: None, epsilon, dropout: None };
    if let Some(y) = device::offer(&[x, gamma], |device| device.norm(norm))? {
        return Ok(y);
    }
    let (rows, cols) = rows_cols("rms_norm", x)?;
    let (vx, vg) = (dense(x.value())?, dense(gamma.value())?);
    let (mut y, mut rstd) = (storage::take::<F>(rows * cols), storage::take::<F>(rows));
    rms_norm_forward(
        &storage::read::<F>(&vx)?,
        &storage::read::<F>(&vg)?,
        epsilon,
        &mut y,
        &mut rstd,
    )?;
    let shape = x.dims().to_vec();
    let y = storage::tensor_from_vec(y, shape.clone())?;
    let rstd = Value::new(storage::tensor_from_vec(rstd, rows)?);
    Ok(record1("rms_norm", &[x, gamma], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let (mut dx, mut dgamma) = (wanted::<F>(pass, 0, rows * cols), wanted::<F>(pass, 1, cols));
        rms_norm_backward(
            &storage::read::<F>(&grad)?,
            &storage::read::<F>(&vx)?,
            &storage::read::<F>(&rstd)?,
            &storage::read::<F>(&vg)?,
            NormGradients {
                x: dx.as_deref_mut(),
                residual: None,
                gamma: dgamma.as_deref_mut().map(|d| (Store::Write, d)),
                beta: None,
            },
        )?;
        give_vec(pass, 1, &[cols], dgamma)?;
        give_vec(pass, 0, &shape, dx)
    }))
}

/// Each element dropped with probability `p`, the rest divided by 1 - p; the identity without `rng`. Errors:
/// `INVALID_ARGUMENT` when `p` is outside [0, 1), `DTYPE`.
pub fn dropout(x: &Tensor, p: f64, rng: Option<&Rng>) -> Result<Tensor> {
    by_dtype("dropout", &[Some(x)], |inputs, double| {
        let x = given(inputs, 0)?;
        match dropout_of("dropout", p, rng, x.elem_count())? {
            None => Ok(x.clone()),
            Some(dropout) if double => typed_dropout::<f64>(x, dropout),
            Some(dropout) => typed_dropout::<f32>(x, dropout),
        }
    })
}

fn typed_dropout<F: Direct>(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    if let Some(y) = device::offer(&[x], |device| device.dropout(x, dropout))? {
        return Ok(y);
    }
    let vx = dense(x.value())?;
    let mut y = storage::take::<F>(vx.elem_count());
    dropout_into(dropout, &storage::read::<F>(&vx)?, &mut y)?;
    let y = storage::tensor_from_vec(y, x.dims().to_vec())?;
    Ok(record1("dropout", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = owned::<F>(grad)?;
        storage::with_mut::<F, _>(&grad, |grad| dropout_assign(dropout, grad))?;
        pass.give(0, grad)
    }))
}
