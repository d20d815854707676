//! Between runs of tokens and padded batches, and from runs to one vector each.

use std::ops::Range;

use crate::runs::{for_each_run_task, run_ranges, split_runs};
use crate::{Float, Result, check_len};

/// The runs of `x` [T, cols], checked.
fn runs_of(
    kernel: &'static str,
    argument: &'static str,
    starts: &[i64],
    found: usize,
    cols: usize,
) -> Result<Vec<Range<usize>>> {
    let rows = found.checked_div(cols).unwrap_or_else(|| {
        // Without columns the number of rows is whatever the starts say.
        starts.last().map_or(0, |&last| usize::try_from(last).unwrap_or(0))
    });
    let runs = run_ranges(kernel, "starts", starts, rows)?;
    check_len(kernel, argument, rows * cols, found)?;
    Ok(runs)
}

/// Runs `x` [T, cols] padded with zeros to `out` [B, len, cols]; what is longer than `len` is cut. The backward pass
/// is [`from_padded`] of the gradient.
///
/// # Errors
/// If `starts` [B + 1] are not the cumulative lengths of T rows or `out` has another size.
pub fn to_padded<F: Float>(
    x: &[F],
    cols: usize,
    starts: &[i64],
    len: usize,
    out: &mut [F],
) -> Result {
    const NAME: &str = "to_padded";
    let runs = runs_of(NAME, "x", starts, x.len(), cols)?;
    check_len(NAME, "out", runs.len() * len * cols, out.len())?;
    let work = out.len();
    if work == 0 {
        return Ok(());
    }
    let tasks = runs.into_iter().zip(out.chunks_exact_mut(len * cols)).collect();
    for_each_run_task(work, tasks, |(run, out)| {
        let kept = run.len().min(len) * cols;
        let (tokens, padding) = out.split_at_mut(kept);
        tokens.copy_from_slice(&x[run.start * cols..][..kept]);
        padding.fill(F::ZERO);
    });
    Ok(())
}

/// The tokens of `x` [B, len, cols] without the padding, `out` [T, cols]; tokens past `len` are zeros. The backward
/// pass is [`to_padded`] of the gradient.
///
/// # Errors
/// If `starts` [B + 1] are not the cumulative lengths of T rows or `x` has another size.
pub fn from_padded<F: Float>(
    x: &[F],
    cols: usize,
    starts: &[i64],
    len: usize,
    out: &mut [F],
) -> Result {
    const NAME: &str = "from_padded";
    let runs = runs_of(NAME, "out", starts, out.len(), cols)?;
    check_len(NAME, "x", runs.len() * len * cols, x.len())?;
    let work = out.len();
    let tasks = split_runs(out, &runs, cols).into_iter().enumerate().collect();
    for_each_run_task(work, tasks, |(run, out)| {
        let kept = out.len().min(len * cols);
        let (tokens, lost) = out.split_at_mut(kept);
        tokens.copy_from_slice(&x[run * len * cols..][..kept]);
        lost.fill(F::ZERO);
    });
    Ok(())
}

/// How [`pool_forward`] makes one vector of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Mean over the tokens.
    Mean,
    /// The first token.
    First,
    /// Elementwise maximum; of equal values the first counts, a NaN is the largest.
    Max,
}

/// Whether `value` replaces `best` as the maximum.
#[inline(always)]
fn replaces<F: Float>(value: F, best: F) -> bool {
    value > best || (value.is_nan() && !best.is_nan())
}

/// One vector per run: `x` [T, cols] to `y` [B, cols]. An empty run gives zeros.
///
/// # Errors
/// If `starts` [B + 1] are not the cumulative lengths of T rows or `y` has another size.
pub fn pool_forward<F: Float>(
    pool: Pool,
    x: &[F],
    cols: usize,
    starts: &[i64],
    y: &mut [F],
) -> Result {
    const NAME: &str = "pool_forward";
    let runs = runs_of(NAME, "x", starts, x.len(), cols)?;
    check_len(NAME, "y", runs.len() * cols, y.len())?;
    if y.is_empty() {
        return Ok(());
    }
    let tasks = runs.into_iter().zip(y.chunks_exact_mut(cols)).collect();
    for_each_run_task(x.len(), tasks, |(run, y)| {
        let Some(first) = x[run.start * cols..run.end * cols].get(..cols) else {
            return y.fill(F::ZERO);
        };
        y.copy_from_slice(first);
        let others = || x[(run.start + 1) * cols..run.end * cols].chunks_exact(cols);
        match pool {
            Pool::First => {}
            Pool::Mean => {
                for row in others() {
                    y.iter_mut().zip(row).for_each(|(y, &x)| *y += x);
                }
                let factor = F::from_f64(1.0 / run.len() as f64);
                y.iter_mut().for_each(|y| *y *= factor);
            }
            Pool::Max => {
                for row in others() {
                    for (y, &x) in y.iter_mut().zip(row) {
                        *y = if replaces(x, *y) { x } else { *y };
                    }
                }
            }
        }
    });
    Ok(())
}

/// Gradient `dx` [T, cols] (overwritten) of [`pool_forward`] from `dy` [B, cols]; `x` is read by [`Pool::Max`] only.
///
/// # Errors
/// If `starts` [B + 1] are not the cumulative lengths of T rows, or a slice has another size.
pub fn pool_backward<F: Float>(
    pool: Pool,
    x: &[F],
    cols: usize,
    starts: &[i64],
    dy: &[F],
    dx: &mut [F],
) -> Result {
    const NAME: &str = "pool_backward";
    let runs = runs_of(NAME, "dx", starts, dx.len(), cols)?;
    check_len(NAME, "dy", runs.len() * cols, dy.len())?;
    if pool == Pool::Max {
        check_len(NAME, "x", dx.len(), x.len())?;
    }
    let work = dx.len();
    if work == 0 {
        return Ok(());
    }
    let parts = split_runs(dx, &runs, cols);
    let tasks = runs.into_iter().zip(dy.chunks_exact(cols)).zip(parts).collect();
    for_each_run_task(work, tasks, |((run, dy), dx)| {
        if run.is_empty() {
            return;
        }
        match pool {
            Pool::Mean => {
                let factor = F::from_f64(1.0 / run.len() as f64);
                for row in dx.chunks_exact_mut(cols) {
                    row.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx = dy * factor);
                }
            }
            Pool::First => {
                let (first, rest) = dx.split_at_mut(cols);
                first.copy_from_slice(dy);
                rest.fill(F::ZERO);
            }
            Pool::Max => {
                dx.fill(F::ZERO);
                let x = &x[run.start * cols..run.end * cols];
                for (col, &dy) in dy.iter().enumerate() {
                    let mut best = col;
                    for at in (col..x.len()).step_by(cols) {
                        best = if replaces(x[at], x[best]) { at } else { best };
                    }
                    dx[best] = dy;
                }
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    #[test]
    fn padding_places_cuts_and_returns_tokens() {
        let starts = [0i64, 2, 2, 5];
        let x: Vec<f32> = (1..=10).map(|v| v as f32).collect();
        let mut padded = vec![f32::NAN; 3 * 2 * 2];
        to_padded(&x, 2, &starts, 2, &mut padded).unwrap();
        assert_eq!(padded, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 8.0]);
        let mut back = vec![f32::NAN; 10];
        from_padded(&padded, 2, &starts, 2, &mut back).unwrap();
        assert_eq!(back, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0]);
        let mut wide = vec![f32::NAN; 3 * 4 * 2];
        to_padded(&x, 2, &starts, 4, &mut wide).unwrap();
        assert_eq!(&wide[4..18], [0.0; 12].iter().copied().chain([5.0, 6.0]).collect::<Vec<_>>());
        from_padded(&wide, 2, &starts, 4, &mut back).unwrap();
        assert_eq!(back, x);
        assert!(to_padded(&x, 2, &[0, 4], 2, &mut padded[..4]).is_err());
        assert!(to_padded(&x, 2, &starts, 2, &mut padded[1..]).is_err());
        to_padded::<f32>(&[], 0, &starts, 2, &mut []).unwrap();
        to_padded(&x, 2, &starts, 0, &mut []).unwrap();
        from_padded(&[], 2, &starts, 0, &mut back).unwrap();
        assert_eq!(back, [0.0; 10]);
    }

    #[test]
    fn padding_gradients_are_each_other() {
        let starts = [0i64, 2, 2, 5];
        let (x, g): (Vec<f64>, Vec<f64>) = (random(10, 1), random(12, 2));
        let expected = numeric_gradient(&x, |x| {
            let mut out = vec![0.0; 12];
            to_padded(x, 2, &starts, 2, &mut out).unwrap();
            dot(&out, &g)
        });
        let mut dx = vec![0.0; 10];
        from_padded(&g, 2, &starts, 2, &mut dx).unwrap();
        assert_close(&dx, &expected, 1e-8);
    }

    #[test]
    fn pools_match_their_definitions() {
        let starts = [0i64, 3, 3, 4];
        let x = [1.0f32, 9.0, 4.0, 2.0, 4.0, 1.0, -7.0, f32::NAN];
        let run = |pool| {
            let mut y = vec![f32::NAN; 6];
            pool_forward(pool, &x, 2, &starts, &mut y).unwrap();
            y
        };
        assert_eq!(run(Pool::Mean)[..5], [3.0, 4.0, 0.0, 0.0, -7.0]);
        assert_eq!(run(Pool::First)[..5], [1.0, 9.0, 0.0, 0.0, -7.0]);
        assert_eq!(run(Pool::Max)[..5], [4.0, 9.0, 0.0, 0.0, -7.0]);
        assert!(run(Pool::Max)[5].is_nan());
        let mut dx = [f32::NAN; 8];
        let dy = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        pool_backward(Pool::Max, &x, 2, &starts, &dy, &mut dx).unwrap();
        assert_eq!(dx, [0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 5.0, 6.0]);
    }

    #[test]
    fn pool_gradients_match_differences() {
        let starts = [0i64, 4, 4, 5, 9];
        let (x, g): (Vec<f64>, Vec<f64>) = (random(27, 1), random(12, 2));
        for pool in [Pool::Mean, Pool::First, Pool::Max] {
            let expected = numeric_gradient(&x, |x| {
                let mut y = vec![0.0; 12];
                pool_forward(pool, x, 3, &starts, &mut y).unwrap();
                dot(&y, &g)
            });
            let mut dx = vec![f64::NAN; 27];
            pool_backward(pool, &x, 3, &starts, &g, &mut dx).unwrap();
            assert_close(&dx, &expected, 1e-8);
        }
    }

    #[test]
    fn threads_do_not_change_bits() {
        let starts: Vec<i64> = (0..=40).map(|run| run * 50).collect();
        let x: Vec<f32> = random(2000 * 300, 1);
        let (one, three) = with_one_and_three_threads(|| {
            let mut y = vec![0f32; 40 * 300];
            pool_forward(Pool::Mean, &x, 300, &starts, &mut y).unwrap();
            let mut dx = vec![0f32; x.len()];
            pool_backward(Pool::Max, &x, 300, &starts, &y, &mut dx).unwrap();
            [y, dx].concat()
        });
        assert_same_bits(&one, &three);
    }
}
