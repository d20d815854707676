//! Adafactor (Shazeer and Stern, 2018) with a given learning rate: `scale_parameter` and
//! `relative_step` off.

use crate::machine::scratch::with_scratch;
use crate::machine::simd::{self, multiversion};
use crate::optim::{Gradient, Gradients, Segment, check_segments, split};
use crate::{Float, KernelError, Result, blocks, check_len, elementwise, for_each_task, map_tasks};

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
    g: Gradient<'a, F>,
    state: &'a mut [F],
    m: &'a mut [F],
}

multiversion! {
    // Means of the squared gradient along some rows, mixed into the state, and along columns, added to `sums`.
    fn factored_moments<F: Float>(scale: F, eps: F, mix: F, g: &[F], rows: &mut [F], sums: &mut [F]) {
        let width = sums.len();
        let square = |g: F| g * scale * (g * scale) + eps;
        for (row, mean) in g.chunks_exact(width).zip(rows.iter_mut()) {
            let fresh = simd::sum_by(width, |i| square(row[i])) / F::from_f64(width as f64);
            *mean += (fresh - *mean) * mix;
            for (sum, &g) in sums.iter_mut().zip(row) {
                *sum += square(g);
            }
        }
    }

    // Updates of the elements from `first` on of a matrix.
    fn factored_update<F: Float>(
        scale: F, first: usize, g: &[F], row_factors: &[F], col_factors: &[F], u: &mut [F],
    ) {
        let width = col_factors.len();
        let mut at = first;
        let (mut g, mut u) = (g, u);
        while !u.is_empty() {
            let (row, column) = (at / width, at % width);
            let len = u.len().min(width - column);
            let (head, tail) = std::mem::take(&mut u).split_at_mut(len);
            let (factor, col_factors) = (row_factors[row], &col_factors[column..column + len]);
            for i in 0..len {
                head[i] = g[i] * scale * factor * col_factors[i];
            }
            (u, g, at) = (tail, &g[len..], at + len);
        }
    }

    fn plain_moments<F: Float>(scale: F, eps: F, mix: F, g: &[F], v: &mut [F]) {
        for (&g, v) in g.iter().zip(v) {
            let g = g * scale;
            *v += (g * g + eps - *v) * mix;
        }
    }

    fn plain_update<F: Float>(scale: F, g: &[F], v: &[F], u: &mut [F]) {
        for ((&g, &v), u) in g.iter().zip(v).zip(u) {
            *u = g * scale / v.sqrt();
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
/// If an arena's length is wrong, a segment or a row lies outside, or a rate is out of range; nothing is
/// changed then.
pub fn adafactor<'a, F: Float>(
    op: Adafactor,
    segments: &[Segment],
    g: impl Into<Gradients<'a, F>>,
    p: &mut [F],
    state: &mut [F],
    m: &mut [F],
) -> Result {
    const NAME: &str = "adafactor";
    let g = g.into();
    check_len(NAME, "first moments", if op.beta1.is_some() { p.len() } else { 0 }, m.len())?;
    check_segments(NAME, segments, p.len())?;
    g.check(NAME, segments, p.len())?;
    check_len(NAME, "state", segments.iter().map(adafactor_state_len).sum(), state.len())?;
    if op.step == 0 {
        let (argument, expected) = ("step", "at least 1");
        return Err(KernelError::Value { kernel: NAME, argument, expected, found: 0.0 });
    }
    crate::check_range(
        NAME,
        "clip_threshold",
        "positive",
        f64::MIN_POSITIVE..f64::INFINITY,
        op.clip_threshold,
    )?;
    let mut moments = if m.is_empty() { Vec::new() } else { split(segments, m) }.into_iter();
    let mut rest = state;
    let mut tasks = Vec::new();
    for (index, (segment, p)) in segments.iter().zip(split(segments, p)).enumerate() {
        let (state, tail) = rest.split_at_mut(adafactor_state_len(segment));
        rest = tail;
        let m = moments.next().unwrap_or_default();
        if segment.active && segment.len > 0 {
            tasks.push(Part { segment, p, g: g.of(index, segment), state, m });
        }
    }
    for_each_task(tasks, |part| step(op, part));
    Ok(())
}

/// What the update of an element is made of.
enum Factors<'a, F> {
    /// Of a matrix: a factor for each row and each column.
    Matrix(Vec<F>, Vec<F>),
    /// The second moments.
    Plain(&'a [F]),
}

impl<F: Float> Factors<'_, F> {
    /// Updates of the elements from `first` on, with their gradients times `scale`.
    fn update(&self, scale: F, first: usize, g: &[F], u: &mut [F]) {
        match self {
            Self::Matrix(rows, cols) => factored_update(scale, first, g, rows, cols, u),
            Self::Plain(v) => plain_update(scale, g, &v[first..first + g.len()], u),
        }
    }
}

/// Elements of which the update is made at a time.
const BLOCK: usize = crate::BLOCK_LEN;

/// Calls `f` with a part of the gradient, completed by zeros, and room for as many updates.
fn with_block<F: Float, R>(g: &Gradient<'_, F>, f: impl FnOnce(&[F], &mut [F]) -> R) -> R {
    let len = g.values.len();
    with_scratch::<F, _>(2 * len, |room| {
        let (whole, updates) = room.split_at_mut(len);
        f(g.whole(whole), updates)
    })
}

/// Mixes the squared gradient into the second moments, whose means of rows and columns the state of a matrix holds.
fn moments<F: Float>(op: Adafactor, segment: &Segment, g: &Gradient<'_, F>, state: &mut [F]) {
    let f = F::from_f64;
    let (scale, eps) = (f(op.grad_scale), f(op.eps));
    let mix = f((op.step as f64).powf(op.decay_rate));
    if segment.cols == 0 {
        return with_block(g, |g, _| plain_moments(scale, eps, mix, g, state));
    }
    let (rows, cols) = state.split_at_mut(segment.rows);
    let width = cols.len();
    let mut sums = vec![F::ZERO; width];
    let step = (BLOCK / width).max(1);
    for (number, rows) in rows.chunks_mut(step).enumerate() {
        let part = g.part(number * step * width, rows.len() * width);
        with_block(&part, |g, _| factored_moments(scale, eps, mix, g, rows, &mut sums));
    }
    let inverse = f(1.0 / segment.rows as f64);
    for (mean, &sum) in cols.iter_mut().zip(&sums) {
        *mean += (sum * inverse - *mean) * mix;
    }
}

fn step<F: Float>(op: Adafactor, part: Part<'_, F>) {
    let Part { segment, p, g, state, m } = part;
    let f = F::from_f64;
    let scale = f(op.grad_scale);
    moments(op, segment, &g, state);
    let factors = if segment.cols == 0 {
        Factors::Plain(state)
    } else {
        let (rows, cols) = state.split_at(segment.rows);
        // 1 / sqrt(row col / mean(rows)), as a product of two factors.
        let mean = elementwise::sum(rows) / rows.len() as f64;
        Factors::Matrix(
            rows.iter().map(|r| f((mean / r.to_f64()).sqrt())).collect(),
            cols.iter().map(|c| f(1.0 / c.to_f64().sqrt())).collect(),
        )
    };
    // Updates are made twice, once for their size and once to be applied, because memory for all would cost more.
    let ranges = blocks(p.len(), BLOCK);
    let squares = map_tasks(ranges.clone(), |range| {
        let g = g.part(range.start, range.len());
        if g.is_still() {
            return 0.0;
        }
        with_block(&g, |g, u| {
            factors.update(scale, range.start, g, u);
            elementwise::square_sum(u)
        })
    });
    let rms = (squares.into_iter().sum::<f64>() / p.len() as f64).sqrt();
    let lr = op.lr * segment.lr_scale;
    // `max` would drop a NaN; the comparison keeps it.
    let ratio = rms / op.clip_threshold;
    let divisor = if ratio < 1.0 { 1.0 } else { ratio };
    let (rate, keep) = (f(lr / divisor), f(1.0 - lr * segment.weight_decay));
    let mut moments = m.chunks_mut(BLOCK);
    let tasks = ranges.into_iter().zip(p.chunks_mut(BLOCK));
    let tasks = tasks.map(|(range, p)| (range, p, moments.next())).collect();
    for_each_task(tasks, |(range, p, m)| {
        let g = g.part(range.start, range.len());
        if g.is_still() && m.is_none() && keep == F::ONE {
            return;
        }
        with_block(&g, |g, u| {
            factors.update(scale, range.start, g, u);
            u.iter_mut().for_each(|u| *u *= rate);
            if let (Some(beta1), Some(m)) = (op.beta1, m) {
                mix_moment(f(beta1), m, u);
            }
            apply(keep, p, u);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::tests::segment;
    use crate::testing::{assert_close, assert_same_bits, random, with_one_and_three_threads};

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
            adafactor(op, &segments, &g, &mut p, &mut state, &mut m).unwrap();
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
        assert!(adafactor(op, &[frozen], &g, &mut p, &mut [0.0; 2], &mut []).is_err());
        adafactor(op, &[frozen], &g, &mut p, &mut [0.0; 3], &mut []).unwrap();
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
            adafactor(Adafactor::default(), &segments, &g, &mut p, &mut state, &mut []).unwrap();
            p
        });
        assert_same_bits(&one, &three);
    }
}
