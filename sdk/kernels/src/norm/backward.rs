//! Layer norm and RMS norm, backward.

use crate::elementwise::{Store, rows_per_partial_sum, store_partial_sums};
use crate::machine::simd::{self, multiversion};
use crate::philox::Dropout;
use crate::{Float, Result, check_len, map_tasks};

/// Where a norm's backward pass stores its results; `None` for what nobody needs.
#[derive(Debug, Default)]
pub struct NormGradients<'a, F> {
    /// Gradient of `x`, through the dropout, [rows, cols].
    pub x: Option<&'a mut [F]>,
    /// Gradient of the residual, [rows, cols]. Without a dropout it equals the gradient of `x`.
    pub residual: Option<&'a mut [F]>,
    /// Gradient of gamma, `[cols]`.
    pub gamma: Option<(Store, &'a mut [F])>,
    /// Gradient of beta, `[cols]`; must be `None` for RMS norm.
    pub beta: Option<(Store, &'a mut [F])>,
}

multiversion! {
    // The gradient of the normalised input, row by row; the sums for gamma and beta on the way. An
    // empty `mean` means RMS norm. `dsummed` may be shorter than the other slices only if it is
    // empty (nobody needs it).
    fn backward_rows<F: Float>(
        dy: &[F], summed: &[F], mean: &[F], rstd: &[F], gamma: &[F],
        dsummed: &mut [F], dgamma: &mut [F], dbeta: &mut [F],
    ) {
        let cols = gamma.len();
        let (dgamma, dbeta) = (&mut dgamma[..cols], &mut dbeta[..cols]);
        let scale = F::from_f64(1.0 / cols as f64);
        for (r, &inverse) in rstd.iter().enumerate() {
            let range = r * cols..(r + 1) * cols;
            let (dy, row) = (&dy[range.clone()], &summed[range.clone()]);
            let centre = if mean.is_empty() { F::ZERO } else { mean[r] };
            for i in 0..cols {
                dgamma[i] += dy[i] * ((row[i] - centre) * inverse);
                dbeta[i] += dy[i];
            }
            if dsummed.is_empty() {
                continue;
            }
            let dsummed = &mut dsummed[range];
            let along = simd::sum_by(cols, |i| dy[i] * gamma[i] * ((row[i] - centre) * inverse)) * scale;
            let level = if mean.is_empty() {
                F::ZERO
            } else {
                simd::sum_by(cols, |i| dy[i] * gamma[i]) * scale
            };
            for i in 0..cols {
                let normal = (row[i] - centre) * inverse;
                dsummed[i] = inverse * (dy[i] * gamma[i] - level - normal * along);
            }
        }
    }

    fn dropout_rows<F: Float>(start: usize, dropout: Dropout, dsummed: &[F], dx: &mut [F]) {
        dropout.factors(start as u64, dx);
        dx.iter_mut().zip(dsummed).for_each(|(dx, &g)| *dx *= g);
    }
}

/// Gradients of [`crate::norm::layer_norm_forward`] from `dy` [rows, cols]. `summed`, `mean` and `rstd` are what
/// the forward pass wrote (`summed` is `x` if there was neither residual nor dropout); `dropout` is
/// that of the forward pass.
///
/// # Errors
/// If a slice does not fit.
#[allow(clippy::too_many_arguments, reason = "the saved values are separate tensors")]
pub fn layer_norm_backward<F: Float>(
    dy: &[F],
    summed: &[F],
    mean: &[F],
    rstd: &[F],
    gamma: &[F],
    dropout: Option<Dropout>,
    gradients: NormGradients<'_, F>,
) -> Result {
    check_len("layer_norm_backward", "mean", rstd.len(), mean.len())?;
    backward("layer_norm_backward", dy, summed, Some(mean), rstd, gamma, dropout, gradients)
}

/// Gradients of [`crate::norm::rms_norm_forward`] from `dy` [rows, cols]; `gradients.beta` and
/// `gradients.residual` are not written.
///
/// # Errors
/// If a slice does not fit.
pub fn rms_norm_backward<F: Float>(
    dy: &[F],
    x: &[F],
    rstd: &[F],
    gamma: &[F],
    gradients: NormGradients<'_, F>,
) -> Result {
    let gradients = NormGradients { beta: None, residual: None, ..gradients };
    backward("rms_norm_backward", dy, x, None, rstd, gamma, None, gradients)
}

#[allow(clippy::too_many_arguments, reason = "the union of two kernels' arguments")]
fn backward<F: Float>(
    name: &'static str,
    dy: &[F],
    summed: &[F],
    mean: Option<&[F]>,
    rstd: &[F],
    gamma: &[F],
    dropout: Option<Dropout>,
    gradients: NormGradients<'_, F>,
) -> Result {
    let (rows, cols) = (rstd.len(), gamma.len());
    let n = rows * cols;
    check_len(name, "dy", n, dy.len())?;
    check_len(name, "summed input", n, summed.len())?;
    let NormGradients { x: dx, residual: dresidual, gamma: dgamma, beta: dbeta } = gradients;
    for (argument, wanted, found) in [
        ("dx", n, dx.as_ref().map(|d| d.len())),
        ("dresidual", n, dresidual.as_ref().map(|d| d.len())),
        ("dgamma", cols, dgamma.as_ref().map(|(_, d)| d.len())),
        ("dbeta", cols, dbeta.as_ref().map(|(_, d)| d.len())),
    ] {
        check_len(name, argument, wanted, found.unwrap_or(wanted))?;
    }
    let block_rows = rows_per_partial_sum(cols);
    let block = (block_rows * cols).max(1);
    // One slice per task, empty where a result is not wanted.
    fn parts<F>(slice: Option<&mut [F]>, block: usize, tasks: usize) -> Vec<&mut [F]> {
        let mut parts: Vec<&mut [F]> =
            slice.map_or_else(Vec::new, |s| s.chunks_mut(block).collect());
        parts.resize_with(tasks, Default::default);
        parts
    }
    let count = n.div_ceil(block);
    let tasks = parts(dx, block, count).into_iter().zip(parts(dresidual, block, count)).enumerate();
    let partials = map_tasks(tasks.collect(), |(i, (dx, dresidual))| {
        let range = i * block..n.min((i + 1) * block);
        let row_range = i * block_rows..rows.min((i + 1) * block_rows);
        let (mut dgamma, mut dbeta) = (vec![F::ZERO; cols], vec![F::ZERO; cols]);
        let (dy, summed) = (&dy[range.clone()], &summed[range.clone()]);
        let mean = mean.map_or(&[][..], |m| &m[row_range.clone()]);
        let rstd = &rstd[row_range];
        let mut scratch = Vec::new();
        let target: &mut [F] = if !dresidual.is_empty() {
            &mut *dresidual
        } else if dropout.is_some() && !dx.is_empty() {
            scratch.resize(dx.len(), F::ZERO);
            &mut scratch
        } else {
            &mut *dx
        };
        backward_rows(dy, summed, mean, rstd, gamma, target, &mut dgamma, &mut dbeta);
        if !dx.is_empty() {
            let dsummed = if dresidual.is_empty() { &scratch[..] } else { &*dresidual };
            match dropout {
                Some(dropout) => dropout_rows(range.start, dropout, dsummed, dx),
                None if !dresidual.is_empty() => dx.copy_from_slice(dsummed),
                None => {}
            }
        }
        (dgamma, dbeta)
    });
    let (gammas, betas): (Vec<_>, Vec<_>) = partials.into_iter().unzip();
    if let Some((store, out)) = dgamma {
        store_partial_sums(&gammas, store, out);
    }
    if let Some((store, out)) = dbeta {
        store_partial_sums(&betas, store, out);
    }
    Ok(())
}
