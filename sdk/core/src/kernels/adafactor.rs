//! Adafactor (Shazeer and Stern, 2018) with a given learning rate: `scale_parameter` and
//! `relative_step` off.

use super::optim::{Segment, check_segments, split};
use super::simd::{self, multiversion};
use super::{Float, KernelError, Result, check_len, elementwise, for_each_task};

/// Rates of Adafactor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adafactor {
    /// Learning rate.
    pub lr: f64,
    /// The second moment's decay at step t is 1 - t^decay_rate; -0.8 in the paper.
    pub decay_rate: f64,
    /// Added to the squared gradient; 1e-30 in the paper.
    pub eps: f64,
    /// Updates with a greater root mean square are scaled down to it; 1.0 in the paper.
    pub clip_threshold: f64,
    /// Decay of a first moment; `None` for none (the paper's choice).
    pub beta1: Option<f64>,
    /// The number of this step, from 1.
    pub step: u64,
    /// Gradients are multiplied by this first.
    pub grad_scale: f64,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            decay_rate: -0.8,
            eps: 1e-30,
            clip_threshold: 1.0,
            beta1: None,
            step: 1,
            grad_scale: 1.0,
        }
    }
}

/// Elements of second-moment state of a segment: rows + cols for a matrix, else its length.
pub fn adafactor_state_len(segment: &Segment) -> usize {
    if segment.cols == 0 { segment.len } else { segment.rows + segment.cols }
}

/// One parameter with its state.
struct Part<'a, F> {
    segment: &'a Segment,
    p: &'a mut [F],
    g: &'a [F],
    state: &'a mut [F],
    m: &'a mut [F],
}

multiversion! {
    // Means of the squared gradient along rows and columns, mixed into the state.
    fn factored_moments<F: Float>(scale: F, eps: F, mix: F, g: &[F], rows: &mut [F], cols: &mut [F]) {
        let width = cols.len();
        let mut sums = vec![F::ZERO; width];
        let square = |g: F| g * scale * (g * scale) + eps;
        for (row, mean) in g.chunks_exact(width).zip(rows.iter_mut()) {
            let fresh = simd::sum_by(width, |i| square(row[i])) / F::from_f64(width as f64);
            *mean += (fresh - *mean) * mix;
            for (sum, &g) in sums.iter_mut().zip(row) {
                *sum += square(g);
            }
        }
        let inverse = F::from_f64(1.0 / rows.len() as f64);
        for (mean, &sum) in cols.iter_mut().zip(&sums) {
            *mean += (sum * inverse - *mean) * mix;
        }
    }

    fn factored_update<F: Float>(scale: F, g: &[F], row_factors: &[F], col_factors: &[F], u: &mut [F]) {
        let width = col_factors.len();
        let rows = g.chunks_exact(width).zip(u.chunks_exact_mut(width));
        for ((g, u), &factor) in rows.zip(row_factors) {
            for i in 0..width {
                u[i] = g[i] * scale * factor * col_factors[i];
            }
        }
    }

    fn plain_update<F: Float>(scale: F, eps: F, mix: F, g: &[F], v: &mut [F], u: &mut [F]) {
        for ((&g, v), u) in g.iter().zip(v).zip(u) {
            let g = g * scale;
            *v += (g * g + eps - *v) * mix;
            *u = g / v.sqrt();
        }
    }

    fn apply<F: Float>(keep: F, p: &mut [F], u: &[F]) {
        for (p, &u) in p.iter_mut().zip(u) {
            *p = *p * keep - u;
        }
    }

    fn mix_moment<F: Float>(beta1: F, m: &mut [F], u: &mut [F]) {
        for (m, u) in m.iter_mut().zip(u) {
            *m = beta1 * *m + (F::ONE - beta1) * *u;
            *u = *m;
        }
    }
}

/// One step of Adafactor, with the meaning of `transformers.Adafactor(scale_parameter=False,
/// relative_step=False)`. `state` holds [`adafactor_state_len`] elements for each segment (active
/// or not), one after the other; `m` is an arena like `p` if there is a `beta1`, else empty.
///
/// # Errors
/// If an arena's length is wrong, a segment lies outside, or a rate is out of range; nothing is
/// changed then.
pub fn adafactor<F: Float>(
    op: Adafactor,
    segments: &[Segment],
    p: &mut [F],
    g: &[F],
    state: &mut [F],
    m: &mut [F],
) -> Result {
    const NAME: &str = "adafactor";
    check_len(NAME, "gradients", p.len(), g.len())?;
    check_len(NAME, "first moments", if op.beta1.is_some() { p.len() } else { 0 }, m.len())?;
    check_segments(NAME, segments, p.len())?;
    check_len(NAME, "state", segments.iter().map(adafactor_state_len).sum(), state.len())?;
    if op.step == 0 {
        let (argument, expected) = ("step", "at least 1");
        return Err(KernelError::Value { kernel: NAME, argument, expected, found: 0.0 });
    }
    super::check_range(
        NAME,
        "clip_threshold",
        "positive",
        f64::MIN_POSITIVE..f64::INFINITY,
        op.clip_threshold,
    )?;
    let mut moments = if m.is_empty() { Vec::new() } else { split(segments, m) }.into_iter();
    let mut rest = state;
    let mut tasks = Vec::new();
    for (segment, p) in segments.iter().zip(split(segments, p)) {
        let (state, tail) = rest.split_at_mut(adafactor_state_len(segment));
        rest = tail;
        let m = moments.next().unwrap_or_default();
        if segment.active && segment.len > 0 {
            let g = &g[segment.offset..segment.offset + segment.len];
            tasks.push(Part { segment, p, g, state, m });
        }
    }
    for_each_task(tasks, |part| step(op, part));
    Ok(())
}

fn step<F: Float>(op: Adafactor, part: Part<'_, F>) {
    let Part { segment, p, g, state, m } = part;
    let f = F::from_f64;
    let (scale, eps) = (f(op.grad_scale), f(op.eps));
    let mix = f((op.step as f64).powf(op.decay_rate));
    let mut u = vec![F::ZERO; g.len()];
    if segment.cols == 0 {
        plain_update(scale, eps, mix, g, state, &mut u);
    } else {
        let (rows, cols) = state.split_at_mut(segment.rows);
        factored_moments(scale, eps, mix, g, rows, cols);
        // 1 / sqrt(row col / mean(rows)), as a product of two factors.
        let mean = elementwise::sum(rows) / rows.len() as f64;
        let row_factors: Vec<F> = rows.iter().map(|r| f((mean / r.to_f64()).sqrt())).collect();
        let col_factors: Vec<F> = cols.iter().map(|c| f(1.0 / c.to_f64().sqrt())).collect();
        factored_update(scale, g, &row_factors, &col_factors, &mut u);
    }
    let rms = (elementwise::square_sum(&u) / u.len() as f64).sqrt();
    let lr = op.lr * segment.lr_scale;
    // `max` would drop a NaN; the comparison keeps it.
    let ratio = rms / op.clip_threshold;
    let divisor = if ratio < 1.0 { 1.0 } else { ratio };
    elementwise::scale(f(lr / divisor), &mut u);
    if let Some(beta1) = op.beta1 {
        mix_moment(f(beta1), m, &mut u);
    }
    apply(f(1.0 - lr * segment.weight_decay), p, &u);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::optim::tests::segment;
    use crate::kernels::testing::{
        assert_close, assert_same_bits, random, with_one_and_three_threads,
    };

    #[test]
    fn matches_the_paper_for_matrix_and_vector() {
        let matrix = Segment { rows: 3, cols: 4, ..segment(0, 12) };
        let segments = [matrix, segment(12, 5)];
        let mut p: Vec<f64> = random(17, 1);
        let mut expected = p.clone();
        let (mut state, mut m) = (vec![0.0; 3 + 4 + 5], vec![0.0; 17]);
        let (mut r, mut c, mut v, mut moment) = ([0.0; 3], [0.0; 4], [0.0; 5], [0.0; 17]);
        for t in 1..=3u64 {
            let g: Vec<f64> = random(17, 20 + t);
            let op = Adafactor { lr: 0.05, step: t, beta1: Some(0.9), ..Default::default() };
            adafactor(op, &segments, &mut p, &g, &mut state, &mut m).unwrap();
            let beta2 = 1.0 - (t as f64).powf(-0.8);
            for i in 0..3 {
                let mean = (0..4).map(|j| g[4 * i + j].powi(2)).sum::<f64>() / 4.0;
                r[i] = beta2 * r[i] + (1.0 - beta2) * mean;
            }
            for j in 0..4 {
                let mean = (0..3).map(|i| g[4 * i + j].powi(2)).sum::<f64>() / 3.0;
                c[j] = beta2 * c[j] + (1.0 - beta2) * mean;
            }
            let mut u = [0.0; 17];
            for i in 0..12 {
                let second = r[i / 4] * c[i % 4] / (r.iter().sum::<f64>() / 3.0);
                u[i] = g[i] / second.sqrt();
            }
            for i in 0..5 {
                v[i] = beta2 * v[i] + (1.0 - beta2) * g[12 + i].powi(2);
                u[12 + i] = g[12 + i] / v[i].sqrt();
            }
            for range in [0..12, 12..17] {
                let n = range.len() as f64;
                let rms = (u[range.clone()].iter().map(|x| x * x).sum::<f64>() / n).sqrt();
                for i in range {
                    moment[i] = 0.9 * moment[i] + 0.1 * 0.05 * u[i] / rms.max(1.0);
                    expected[i] -= 0.05 * 0.1 * expected[i] + moment[i];
                }
            }
        }
        assert_close(&p, &expected, 1e-12);
    }

    #[test]
    fn wrong_state_is_refused_and_frozen_is_skipped() {
        let frozen = Segment { active: false, ..segment(0, 3) };
        let (mut p, g) = ([1f32; 3], [1f32; 3]);
        let op = Adafactor::default();
        assert!(adafactor(op, &[frozen], &mut p, &g, &mut [0.0; 2], &mut []).is_err());
        adafactor(op, &[frozen], &mut p, &g, &mut [0.0; 3], &mut []).unwrap();
        assert_eq!(p, [1.0; 3]);
    }

    #[test]
    fn threads_do_not_change_bits() {
        let segments: Vec<Segment> = (0..3)
            .map(|i| Segment { rows: 120, cols: 300, ..segment(i * 36_000, 36_000) })
            .collect();
        let (start, g): (Vec<f32>, Vec<f32>) = (random(108_000, 1), random(108_000, 2));
        let (one, three) = with_one_and_three_threads(|| {
            let (mut p, mut state) = (start.clone(), vec![0f32; 3 * 420]);
            adafactor(Adafactor::default(), &segments, &mut p, &g, &mut state, &mut []).unwrap();
            p
        });
        assert_same_bits(&one, &three);
    }
}
