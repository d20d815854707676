//! Softmax and log-softmax along the last axis.

use crate::machine::simd::{self, multiversion};
use crate::{Float, Result, check_len, for_each_task, rows_per_block};

/// Replaces a row by its softmax and returns ln(sum(exp(row))). A row of negative infinities
/// becomes zeros. To be inlined into `multiversion!` bodies.
#[inline(always)]
pub fn softmax_row<F: Float>(row: &mut [F]) -> F {
    let top = simd::max(row);
    if top == F::NEG_INFINITY {
        row.fill(F::ZERO);
        return top;
    }
    for value in row.iter_mut() {
        *value = (*value - top).exp();
    }
    let total = simd::sum(row);
    let inverse = F::ONE / total;
    for value in row.iter_mut() {
        *value *= inverse;
    }
    top + total.ln()
}

/// ln(sum(exp(row))). To be inlined into `multiversion!` bodies.
#[inline(always)]
pub fn log_sum_exp<F: Float>(row: &[F]) -> F {
    let top = simd::max(row);
    if top == F::NEG_INFINITY {
        return top;
    }
    top + simd::sum_by(row.len(), |i| (row[i] - top).exp()).ln()
}

multiversion! {
    fn softmax_rows<F: Float>(cols: usize, x: &mut [F]) {
        for row in x.chunks_exact_mut(cols) {
            softmax_row(row);
        }
    }

    fn log_softmax_rows<F: Float>(cols: usize, x: &mut [F]) {
        for row in x.chunks_exact_mut(cols) {
            let total = log_sum_exp(row);
            for value in row {
                *value -= total;
            }
        }
    }

    fn softmax_backward_rows<F: Float>(cols: usize, y: &[F], dy: &[F], dx: &mut [F]) {
        let rows = y.chunks_exact(cols).zip(dy.chunks_exact(cols));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(cols)) {
            let inner = simd::dot(y, dy);
            for i in 0..cols {
                dx[i] = y[i] * (dy[i] - inner);
            }
        }
    }

    fn log_softmax_backward_rows<F: Float>(cols: usize, y: &[F], dy: &[F], dx: &mut [F]) {
        let rows = y.chunks_exact(cols).zip(dy.chunks_exact(cols));
        for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(cols)) {
            let total = simd::sum(dy);
            for i in 0..cols {
                dx[i] = dy[i] - y[i].exp() * total;
            }
        }
    }
}

fn forward<F: Float>(
    kernel: &'static str,
    cols: usize,
    x: &[F],
    y: &mut [F],
    f: impl Fn(usize, &mut [F]) + Send + Sync,
) -> Result {
    check_len(kernel, "y", x.len(), y.len())?;
    check_len(kernel, "x", x.len() / cols.max(1) * cols, x.len())?;
    if x.is_empty() {
        return Ok(());
    }
    let block = rows_per_block(cols) * cols;
    for_each_task(x.chunks(block).zip(y.chunks_mut(block)).collect(), |(x, y)| {
        y.copy_from_slice(x);
        f(cols, y);
    });
    Ok(())
}

fn backward<F: Float>(
    kernel: &'static str,
    cols: usize,
    y: &[F],
    dy: &[F],
    dx: &mut [F],
    f: impl Fn(usize, &[F], &[F], &mut [F]) + Send + Sync,
) -> Result {
    check_len(kernel, "y", y.len() / cols.max(1) * cols, y.len())?;
    check_len(kernel, "dy", y.len(), dy.len())?;
    check_len(kernel, "dx", y.len(), dx.len())?;
    if y.is_empty() {
        return Ok(());
    }
    let block = rows_per_block(cols) * cols;
    let tasks = y.chunks(block).zip(dy.chunks(block)).zip(dx.chunks_mut(block));
    for_each_task(tasks.collect(), |((y, dy), dx)| f(cols, y, dy, dx));
    Ok(())
}

/// y = exp(x) / sum(exp(x)) for every row of `cols` elements. A row of negative infinities gives
/// zeros.
///
/// # Errors
/// If the lengths differ or are no whole number of rows; so do all functions of this file.
pub fn softmax_forward<F: Float>(cols: usize, x: &[F], y: &mut [F]) -> Result {
    forward("softmax_forward", cols, x, y, softmax_rows)
}

/// Gradient of [`softmax_forward`] from its result `y` and `dy`: dx = y (dy - sum(y dy)).
///
/// # Errors
/// As [`softmax_forward`].
pub fn softmax_backward<F: Float>(cols: usize, y: &[F], dy: &[F], dx: &mut [F]) -> Result {
    backward("softmax_backward", cols, y, dy, dx, softmax_backward_rows)
}

/// y = x - ln(sum(exp(x))) for every row of `cols` elements.
///
/// # Errors
/// As [`softmax_forward`].
pub fn log_softmax_forward<F: Float>(cols: usize, x: &[F], y: &mut [F]) -> Result {
    forward("log_softmax_forward", cols, x, y, log_softmax_rows)
}

/// Gradient of [`log_softmax_forward`] from its result `y` and `dy`: dx = dy - exp(y) sum(dy).
///
/// # Errors
/// As [`softmax_forward`].
pub fn log_softmax_backward<F: Float>(cols: usize, y: &[F], dy: &[F], dx: &mut [F]) -> Result {
    backward("log_softmax_backward", cols, y, dy, dx, log_softmax_backward_rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    #[test]
    fn values_match_naive_even_for_large_inputs() {
        let cols = 37;
        let x: Vec<f32> = random::<f32>(5 * cols, 1).iter().map(|v| v * 10.0 + 500.0).collect();
        let (mut y, mut log) = (vec![0f32; x.len()], vec![0f32; x.len()]);
        softmax_forward(cols, &x, &mut y).unwrap();
        log_softmax_forward(cols, &x, &mut log).unwrap();
        let mut expected = Vec::new();
        for row in x.chunks(cols) {
            let e: Vec<f64> = row.iter().map(|&v| (f64::from(v) - 500.0).exp()).collect();
            expected.extend(e.iter().map(|v| v / e.iter().sum::<f64>()));
        }
        assert_close(&y, &expected, 1e-6);
        let logs: Vec<f64> = expected.iter().map(|v| v.ln()).collect();
        assert_close(&log, &logs, 1e-5);
    }

    #[test]
    fn gradients_match_differences() {
        let cols = 19;
        let (x, g): (Vec<f64>, Vec<f64>) = (random(3 * cols, 1), random(3 * cols, 2));
        type Pass = (
            fn(usize, &[f64], &mut [f64]) -> Result,
            fn(usize, &[f64], &[f64], &mut [f64]) -> Result,
        );
        let passes: [Pass; 2] =
            [(softmax_forward, softmax_backward), (log_softmax_forward, log_softmax_backward)];
        for (forward, backward) in passes {
            let run = |x: &[f64]| {
                let mut y = vec![0.0; x.len()];
                forward(cols, x, &mut y).unwrap();
                y
            };
            let mut dx = vec![0.0; x.len()];
            backward(cols, &run(&x), &g, &mut dx).unwrap();
            assert_close(&dx, &numeric_gradient(&x, |x| dot(&run(x), &g)), 1e-8);
        }
    }

    #[test]
    fn masked_and_nan_rows() {
        let (inf, nan) = (f32::NEG_INFINITY, f32::NAN);
        let mut y = [1f32; 6];
        softmax_forward(2, &[inf, inf, inf, 3.0, nan, 1.0], &mut y).unwrap();
        assert_eq!(y[..4], [0.0, 0.0, 0.0, 1.0]);
        assert!(y[4].is_nan() && y[5].is_nan());
        softmax_forward::<f32>(3, &[], &mut []).unwrap();
        assert!(softmax_forward(4, &[0f32; 6], &mut y).is_err());
    }

    #[test]
    fn threads_do_not_change_bits() {
        let x: Vec<f32> = random(500 * 129, 1);
        let (one, three) = with_one_and_three_threads(|| {
            let mut y = vec![0f32; x.len()];
            softmax_forward(129, &x, &mut y).unwrap();
            y
        });
        assert_same_bits(&one, &three);
    }
}
