//! Layer norm (Ba, Kiros, Hinton, 2016) with residual and dropout, and RMS norm (Zhang and
//! Sennrich, 2019), forward.

mod backward;

use crate::machine::simd::{self, multiversion};
use crate::philox::Dropout;
use crate::{Float, KernelError, Result, check_len, for_each_task, rows_per_block};

pub use crate::norm::backward::{NormGradients, layer_norm_backward, rms_norm_backward};

/// What happens to the input of a layer norm before it is normalised: `residual + dropout(x)`.
#[derive(Debug, Clone, Copy)]
pub struct NormInput<'a, F> {
    /// [rows, cols].
    pub x: &'a [F],
    /// [rows, cols], added to `x`.
    pub residual: Option<&'a [F]>,
    /// Applied to `x` only; element i of `x` uses element i of its stream.
    pub dropout: Option<Dropout>,
}

/// What [`layer_norm_forward`] writes.
#[derive(Debug)]
pub struct NormOutput<'a, F> {
    /// The result, [rows, cols].
    pub y: &'a mut [F],
    /// `residual + dropout(x)`, [rows, cols]; needed by the backward pass. Must be given if there
    /// is a residual or a dropout; otherwise the backward pass takes `x` itself.
    pub summed: Option<&'a mut [F]>,
    /// Mean of each row, `[rows]`.
    pub mean: &'a mut [F],
    /// Reciprocal standard deviation of each row, `[rows]`.
    pub rstd: &'a mut [F],
}

/// dst = residual + dropout(x) for the elements from `start` on.
#[inline(always)]
fn sum_row<F: Float>(
    start: usize,
    x: &[F],
    residual: Option<&[F]>,
    dropout: Option<Dropout>,
    dst: &mut [F],
) {
    match dropout {
        Some(dropout) => {
            dropout.factors(start as u64, dst);
            dst.iter_mut().zip(x).for_each(|(dst, &x)| *dst *= x);
        }
        None => dst.copy_from_slice(x),
    }
    if let Some(residual) = residual {
        dst.iter_mut().zip(residual).for_each(|(dst, &r)| *dst += r);
    }
}

multiversion! {
    fn sum_rows<F: Float>(
        start: usize, cols: usize, x: &[F], residual: Option<&[F]>, dropout: Option<Dropout>,
        dst: &mut [F],
    ) {
        for (row, dst) in dst.chunks_exact_mut(cols).enumerate() {
            let range = row * cols..(row + 1) * cols;
            sum_row(start + row * cols, &x[range.clone()], residual.map(|r| &r[range]), dropout, dst);
        }
    }

    fn normalise_rows<F: Float>(
        summed: &[F], gamma: &[F], beta: &[F], eps: F, y: &mut [F], mean: &mut [F], rstd: &mut [F],
    ) {
        let cols = gamma.len();
        let beta = &beta[..cols];
        let scale = F::from_f64(1.0 / cols as f64);
        let rows = summed.chunks_exact(cols).zip(y.chunks_exact_mut(cols));
        for ((row, y), (mean, rstd)) in rows.zip(mean.iter_mut().zip(rstd)) {
            let centre = simd::sum(row) * scale;
            let variance = simd::sum_by(cols, |i| (row[i] - centre) * (row[i] - centre)) * scale;
            let inverse = F::ONE / (variance + eps).sqrt();
            for i in 0..cols {
                y[i] = (row[i] - centre) * inverse * gamma[i] + beta[i];
            }
            (*mean, *rstd) = (centre, inverse);
        }
    }

    // `normalise_rows` where the rows lie in `y` and nothing is kept.
    fn normalise_in_place<F: Float>(gamma: &[F], beta: &[F], eps: F, y: &mut [F]) {
        let cols = gamma.len();
        let beta = &beta[..cols];
        let scale = F::from_f64(1.0 / cols as f64);
        for row in y.chunks_exact_mut(cols) {
            let centre = simd::sum(row) * scale;
            let variance = simd::sum_by(cols, |i| (row[i] - centre) * (row[i] - centre)) * scale;
            let inverse = F::ONE / (variance + eps).sqrt();
            for i in 0..cols {
                row[i] = (row[i] - centre) * inverse * gamma[i] + beta[i];
            }
        }
    }

    // The last line of `normalise_rows` for known means and deviations.
    fn normalise_rows_again<F: Float>(
        summed: &[F], mean: &[F], rstd: &[F], gamma: &[F], beta: &[F], y: &mut [F],
    ) {
        let cols = gamma.len();
        let beta = &beta[..cols];
        let rows = summed.chunks_exact(cols).zip(y.chunks_exact_mut(cols));
        for ((row, y), (&centre, &inverse)) in rows.zip(mean.iter().zip(rstd)) {
            for i in 0..cols {
                y[i] = (row[i] - centre) * inverse * gamma[i] + beta[i];
            }
        }
    }

    fn rms_rows<F: Float>(x: &[F], gamma: &[F], eps: F, y: &mut [F], rstd: &mut [F]) {
        let cols = gamma.len();
        let scale = F::from_f64(1.0 / cols as f64);
        for ((row, y), rstd) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)).zip(rstd) {
            let inverse = F::ONE / (simd::dot(row, row) * scale + eps).sqrt();
            for i in 0..cols {
                y[i] = row[i] * inverse * gamma[i];
            }
            *rstd = inverse;
        }
    }
}

/// y = gamma (s - mean(s)) / sqrt(var(s) + eps) + beta for every row of s = residual + dropout(x),
/// with the biased variance. The rows have `gamma.len()` columns.
///
/// # Errors
/// If a slice does not fit, or `summed` is missing though there is a residual or a dropout.
pub fn layer_norm_forward<F: Float>(
    input: NormInput<'_, F>,
    gamma: &[F],
    beta: &[F],
    eps: f64,
    output: NormOutput<'_, F>,
) -> Result {
    const NAME: &str = "layer_norm_forward";
    let NormInput { x, residual, dropout } = input;
    let NormOutput { y, summed, mean, rstd } = output;
    let (rows, cols) = (mean.len(), gamma.len());
    check_len(NAME, "x", rows * cols, x.len())?;
    check_len(NAME, "beta", cols, beta.len())?;
    check_len(NAME, "y", x.len(), y.len())?;
    check_len(NAME, "rstd", rows, rstd.len())?;
    if let Some(residual) = residual {
        check_len(NAME, "residual", x.len(), residual.len())?;
    }
    let eps = F::from_f64(eps);
    let block_rows = rows_per_block(cols);
    let block = block_rows * cols;
    if x.is_empty() {
        return Ok(());
    }
    let results = y
        .chunks_mut(block)
        .zip(mean.chunks_mut(block_rows).zip(rstd.chunks_mut(block_rows)))
        .zip(x.chunks(block));
    match summed {
        Some(summed) => {
            check_len(NAME, "summed", x.len(), summed.len())?;
            let tasks = results.zip(summed.chunks_mut(block)).enumerate().collect();
            for_each_task(tasks, |(i, (((y, (mean, rstd)), x), summed))| {
                let start = i * block;
                let residual = residual.map(|r| &r[start..start + x.len()]);
                sum_rows(start, cols, x, residual, dropout, summed);
                normalise_rows(summed, gamma, beta, eps, y, mean, rstd);
            });
        }
        None if residual.is_some() || dropout.is_some() => {
            return Err(KernelError::Length {
                kernel: NAME,
                argument: "summed",
                expected: x.len(),
                found: 0,
            });
        }
        None => for_each_task(results.collect(), |((y, (mean, rstd)), x)| {
            normalise_rows(x, gamma, beta, eps, y, mean, rstd);
        }),
    }
    Ok(())
}

/// The output of [`layer_norm_forward`], to the same bits, where no backward pass will need more.
///
/// # Errors
/// If a slice does not fit.
pub fn layer_norm_alone<F: Float>(
    input: NormInput<'_, F>,
    gamma: &[F],
    beta: &[F],
    eps: f64,
    y: &mut [F],
) -> Result {
    const NAME: &str = "layer_norm_forward";
    let NormInput { x, residual, dropout } = input;
    let cols = gamma.len();
    check_len(NAME, "beta", cols, beta.len())?;
    check_len(NAME, "y", x.len(), y.len())?;
    check_len(NAME, "x", x.len() / cols.max(1) * cols, x.len())?;
    if let Some(residual) = residual {
        check_len(NAME, "residual", x.len(), residual.len())?;
    }
    if x.is_empty() {
        return Ok(());
    }
    let eps = F::from_f64(eps);
    let block = rows_per_block(cols) * cols;
    let tasks = y.chunks_mut(block).zip(x.chunks(block)).enumerate().collect();
    for_each_task(tasks, |(i, (y, x)): (usize, (&mut [F], &[F]))| {
        let start = i * block;
        let residual = residual.map(|r| &r[start..start + x.len()]);
        sum_rows(start, cols, x, residual, dropout, y);
        normalise_in_place(gamma, beta, eps, y);
    });
    Ok(())
}

/// The output of [`layer_norm_forward`], to the same bits, from what that wrote besides (`summed` is `x` if there was
/// neither residual nor dropout).
///
/// # Errors
/// If a slice does not fit.
pub fn layer_norm_again<F: Float>(
    summed: &[F],
    mean: &[F],
    rstd: &[F],
    gamma: &[F],
    beta: &[F],
    y: &mut [F],
) -> Result {
    const NAME: &str = "layer_norm_again";
    let (rows, cols) = (mean.len(), gamma.len());
    check_len(NAME, "summed input", rows * cols, summed.len())?;
    check_len(NAME, "rstd", rows, rstd.len())?;
    check_len(NAME, "beta", cols, beta.len())?;
    check_len(NAME, "y", rows * cols, y.len())?;
    if y.is_empty() {
        return Ok(());
    }
    let block_rows = rows_per_block(cols);
    let tasks = summed
        .chunks(block_rows * cols)
        .zip(mean.chunks(block_rows).zip(rstd.chunks(block_rows)))
        .zip(y.chunks_mut(block_rows * cols));
    for_each_task(tasks.collect(), |((summed, (mean, rstd)), y)| {
        normalise_rows_again(summed, mean, rstd, gamma, beta, y);
    });
    Ok(())
}

/// y = gamma x / sqrt(mean(x^2) + eps) for every row. The rows have `gamma.len()` columns; `rstd`
/// has one element per row.
///
/// # Errors
/// If a slice does not fit.
pub fn rms_norm_forward<F: Float>(
    x: &[F],
    gamma: &[F],
    eps: f64,
    y: &mut [F],
    rstd: &mut [F],
) -> Result {
    check_len("rms_norm_forward", "x", rstd.len() * gamma.len(), x.len())?;
    check_len("rms_norm_forward", "y", x.len(), y.len())?;
    if x.is_empty() {
        return Ok(());
    }
    let block_rows = rows_per_block(gamma.len());
    let block = block_rows * gamma.len();
    let tasks = x.chunks(block).zip(y.chunks_mut(block)).zip(rstd.chunks_mut(block_rows));
    for_each_task(tasks.collect(), |((x, y), rstd)| {
        rms_rows(x, gamma, F::from_f64(eps), y, rstd);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::Store;
    use crate::philox::Counter;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    const ROWS: usize = 5;
    const COLS: usize = 21;
    const EPS: f64 = 1e-5;

    struct Forward<F> {
        y: Vec<F>,
        summed: Vec<F>,
        mean: Vec<F>,
        rstd: Vec<F>,
    }

    fn forward<F: Float>(input: NormInput<'_, F>, gamma: &[F], beta: &[F]) -> Forward<F> {
        let n = input.x.len();
        let zeros = |n| vec![F::ZERO; n];
        let rows = n / gamma.len();
        let mut f = Forward { y: zeros(n), summed: zeros(n), mean: zeros(rows), rstd: zeros(rows) };
        let output = NormOutput {
            y: &mut f.y,
            summed: Some(&mut f.summed),
            mean: &mut f.mean,
            rstd: &mut f.rstd,
        };
        layer_norm_forward(input, gamma, beta, EPS, output).unwrap();
        f
    }

    #[test]
    fn layer_norm_matches_naive() {
        let x: Vec<f32> = random(ROWS * COLS, 1);
        let (gamma, beta): (Vec<f32>, Vec<f32>) = (random(COLS, 2), random(COLS, 3));
        let mut expected = Vec::new();
        for row in x.chunks(COLS) {
            let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
            let mean = row.iter().sum::<f64>() / COLS as f64;
            let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / COLS as f64;
            expected.extend((0..COLS).map(|i| {
                (row[i] - mean) / (var + EPS).sqrt() * f64::from(gamma[i]) + f64::from(beta[i])
            }));
        }
        let input = NormInput { x: &x, residual: None, dropout: None };
        assert_close(&forward(input, &gamma, &beta).y, &expected, 1e-6);
        let (mut y, mut mean, mut rstd) = (vec![0f32; x.len()], vec![0f32; ROWS], vec![0f32; ROWS]);
        let output = NormOutput { y: &mut y, summed: None, mean: &mut mean, rstd: &mut rstd };
        layer_norm_forward(input, &gamma, &beta, EPS, output).unwrap();
        assert_close(&y, &expected, 1e-6);
    }

    #[test]
    fn layer_norm_alone_gives_the_same_bits() {
        // More rows than a task takes.
        let rows = 3 * rows_per_block(COLS) + 1;
        let (x, residual): (Vec<f32>, Vec<f32>) = (random(rows * COLS, 1), random(rows * COLS, 2));
        let (gamma, beta): (Vec<f32>, Vec<f32>) = (random(COLS, 3), random(COLS, 4));
        let dropout = Dropout::new(0.4, Counter::new(1, 2, 3)).ok();
        for (residual, dropout) in
            [(None, None), (Some(&residual[..]), None), (Some(&residual[..]), dropout)]
        {
            let input = NormInput { x: &x, residual, dropout };
            let (mut y, mut summed) = (vec![0f32; x.len()], vec![0f32; x.len()]);
            let (mut mean, mut rstd) = (vec![0f32; rows], vec![0f32; rows]);
            let output = NormOutput {
                y: &mut y,
                summed: Some(&mut summed),
                mean: &mut mean,
                rstd: &mut rstd,
            };
            layer_norm_forward(input, &gamma, &beta, EPS, output).unwrap();
            let mut alone = vec![f32::NAN; x.len()];
            layer_norm_alone(input, &gamma, &beta, EPS, &mut alone).unwrap();
            assert_same_bits(&alone, &y);
        }
        let input = NormInput { x: &x, residual: None, dropout: None };
        assert!(layer_norm_alone(input, &gamma, &beta, EPS, &mut [0.0; 3]).is_err());
    }

    #[test]
    fn layer_norm_gradients_match_differences() {
        let n = ROWS * COLS;
        let (x, residual): (Vec<f64>, Vec<f64>) = (random(n, 1), random(n, 2));
        let (gamma, beta): (Vec<f64>, Vec<f64>) = (random(COLS, 3), random(COLS, 4));
        let g: Vec<f64> = random(n, 5);
        for dropout in [None, Some(Dropout::new(0.4, Counter::new(1, 2, 3)).unwrap())] {
            let loss = |x: &[f64], residual: &[f64], gamma: &[f64], beta: &[f64]| {
                let input = NormInput { x, residual: Some(residual), dropout };
                dot(&forward(input, gamma, beta).y, &g)
            };
            let input = NormInput { x: &x, residual: Some(&residual), dropout };
            let f = forward(input, &gamma, &beta);
            let (mut dx, mut dr) = (vec![f64::NAN; n], vec![f64::NAN; n]);
            let (mut dgamma, mut dbeta) = (vec![0.0; COLS], vec![f64::NAN; COLS]);
            let gradients = NormGradients {
                x: Some(&mut dx),
                residual: Some(&mut dr),
                gamma: Some((Store::Add, &mut dgamma)),
                beta: Some((Store::Write, &mut dbeta)),
            };
            layer_norm_backward(&g, &f.summed, &f.mean, &f.rstd, &gamma, dropout, gradients)
                .unwrap();
            assert_close(&dx, &numeric_gradient(&x, |x| loss(x, &residual, &gamma, &beta)), 1e-7);
            assert_close(&dr, &numeric_gradient(&residual, |r| loss(&x, r, &gamma, &beta)), 1e-7);
            assert_close(
                &dgamma,
                &numeric_gradient(&gamma, |v| loss(&x, &residual, v, &beta)),
                1e-7,
            );
            assert_close(
                &dbeta,
                &numeric_gradient(&beta, |v| loss(&x, &residual, &gamma, v)),
                1e-7,
            );
            let mut alone = vec![f64::NAN; n];
            let gradients = NormGradients { x: Some(&mut alone), ..Default::default() };
            layer_norm_backward(&g, &f.summed, &f.mean, &f.rstd, &gamma, dropout, gradients)
                .unwrap();
            assert_eq!(alone, dx);
        }
    }

    #[test]
    fn rms_norm_value_and_gradients() {
        let n = ROWS * COLS;
        let (x, gamma): (Vec<f64>, Vec<f64>) = (random(n, 1), random(COLS, 3));
        let g: Vec<f64> = random(n, 5);
        let run = |x: &[f64], gamma: &[f64]| {
            let (mut y, mut rstd) = (vec![0.0; n], vec![0.0; ROWS]);
            rms_norm_forward(x, gamma, EPS, &mut y, &mut rstd).unwrap();
            (y, rstd)
        };
        let (y, rstd) = run(&x, &gamma);
        let square = x[..COLS].iter().map(|v| v * v).sum::<f64>() / COLS as f64;
        assert!((y[3] - x[3] * gamma[3] / (square + EPS).sqrt()).abs() < 1e-12);
        let (mut dx, mut dgamma) = (vec![0.0; n], vec![0.0; COLS]);
        let gradients = NormGradients {
            x: Some(&mut dx),
            gamma: Some((Store::Write, &mut dgamma)),
            ..Default::default()
        };
        rms_norm_backward(&g, &x, &rstd, &gamma, gradients).unwrap();
        assert_close(&dx, &numeric_gradient(&x, |x| dot(&run(x, &gamma).0, &g)), 1e-7);
        assert_close(&dgamma, &numeric_gradient(&gamma, |v| dot(&run(&x, v).0, &g)), 1e-7);
    }

    #[test]
    fn threads_do_not_change_bits() {
        let (rows, cols) = (600, 384);
        let n = rows * cols;
        let (x, r): (Vec<f32>, Vec<f32>) = (random(n, 1), random(n, 2));
        let (gamma, beta): (Vec<f32>, Vec<f32>) = (random(cols, 3), random(cols, 4));
        let dropout = Some(Dropout::new(0.1, Counter::new(1, 2, 3)).unwrap());
        let (one, three) = with_one_and_three_threads(|| {
            let f = forward(NormInput { x: &x, residual: Some(&r), dropout }, &gamma, &beta);
            let (mut dx, mut dgamma) = (vec![0f32; n], vec![0f32; cols]);
            let gradients = NormGradients {
                x: Some(&mut dx),
                gamma: Some((Store::Write, &mut dgamma)),
                ..Default::default()
            };
            layer_norm_backward(&r, &f.summed, &f.mean, &f.rstd, &gamma, dropout, gradients)
                .unwrap();
            [f.y, dx, dgamma].concat()
        });
        assert_same_bits(&one, &three);
    }

    #[test]
    fn residual_without_a_place_for_the_sum_is_refused() {
        let x = [1f32, 2.0];
        let (mut y, mut mean, mut rstd) = ([0f32; 2], [0f32; 1], [0f32; 1]);
        let input = NormInput { x: &x, residual: Some(&x), dropout: None };
        let output = NormOutput { y: &mut y, summed: None, mean: &mut mean, rstd: &mut rstd };
        assert!(layer_norm_forward(input, &[1.0; 2], &[0.0; 2], EPS, output).is_err());
    }
}
