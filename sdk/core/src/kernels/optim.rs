//! Optimizer steps over arenas: one pass over the segments of parameters, gradients and moments.
//!
//! A [`Segment`] is one parameter (or a run of parameters with the same settings) inside the arena.
//! Work is cut into chunks of constant size inside segments. Adafactor, which needs matrices, is in
//! [`super::adafactor`].

use super::elementwise;
use super::simd::{self, multiversion};
use super::{Float, KernelError, Result, check_len, for_each_task, map_tasks};

/// One parameter inside an arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// First element in the arena.
    pub offset: usize,
    /// Elements.
    pub len: usize,
    /// Rows, if it is a matrix; `rows * cols == len`.
    pub rows: usize,
    /// Columns, 0 if it is not a matrix.
    pub cols: usize,
    /// The learning rate is multiplied by this.
    pub lr_scale: f64,
    /// Weight decay of this parameter.
    pub weight_decay: f64,
    /// Frozen parameters are skipped: neither they nor their moments change.
    pub active: bool,
}

/// Which rows of a segment's gradient mean anything; all others are zero, whatever their memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchedRows<'a> {
    /// Elements of a row; divides the segment.
    pub width: usize,
    /// Numbers of the rows, ascending.
    pub rows: &'a [u32],
}

/// Elements that one task updates.
pub const CHUNK: usize = 32 * 1024;

/// Moments and rates of Adam and its relatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The number of this step, from 1.
    pub step: u64,
    /// Gradients are multiplied by this first (clipping, loss scale).
    pub grad_scale: f64,
}

/// Rates of stochastic gradient descent, with the meaning of `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; with 0 the buffer is not used and may be empty.
    pub momentum: f64,
    /// The share of the gradient that does not enter the buffer.
    pub dampening: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// The number of this step, from 1: the first step fills the buffer.
    pub step: u64,
    /// Gradients are multiplied by this first.
    pub grad_scale: f64,
}

/// Fails unless the segments ascend without overlap inside an arena of `len` elements.
pub(crate) fn check_segments(kernel: &'static str, segments: &[Segment], len: usize) -> Result {
    let mut end = 0;
    for (position, s) in segments.iter().enumerate() {
        let stop = s.offset.checked_add(s.len);
        let inside = s.offset >= end && stop.is_some_and(|stop| stop <= len);
        if !inside || (s.cols != 0 && s.rows.checked_mul(s.cols) != Some(s.len)) {
            return Err(KernelError::Index {
                kernel,
                argument: "segments (ascending, disjoint, rows * cols = len)",
                position,
                value: s.offset as i64,
                bound: len,
            });
        }
        end = s.offset + s.len;
    }
    Ok(())
}

/// The active segments' parts of a mutable arena, each with its segment's number. The segments must
/// have been checked.
pub(crate) fn split<'a, T>(segments: &[Segment], arena: &'a mut [T]) -> Vec<&'a mut [T]> {
    let (mut rest, mut at) = (arena, 0);
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments {
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(segment.offset - at);
        let (part, tail) = tail.split_at_mut(segment.len);
        parts.push(part);
        (rest, at) = (tail, segment.offset + segment.len);
    }
    parts
}

/// One task: a chunk of a segment in every arena. `buffers` beyond those in use are empty.
struct Part<'a, F> {
    segment: &'a Segment,
    index: usize,
    p: &'a mut [F],
    g: &'a [F],
    m: &'a mut [F],
    v: &'a mut [F],
    /// Where the gradient is of rows: the number of the first row, and those of them that are touched.
    touched: Option<(usize, TouchedRows<'a>)>,
}

fn parts<'a, F: Float>(
    segments: &'a [Segment],
    p: &'a mut [F],
    g: &'a [F],
    m: &'a mut [F],
    v: &'a mut [F],
) -> Vec<Part<'a, F>> {
    parts_with_rows(segments, &[], p, g, m, v)
}

fn parts_with_rows<'a, F: Float>(
    segments: &'a [Segment],
    touched: &[Option<TouchedRows<'a>>],
    p: &'a mut [F],
    g: &'a [F],
    m: &'a mut [F],
    v: &'a mut [F],
) -> Vec<Part<'a, F>> {
    let (has_m, has_v) = (!m.is_empty(), !v.is_empty());
    let mut ms = if has_m { split(segments, m) } else { Vec::new() }.into_iter();
    let mut vs = if has_v { split(segments, v) } else { Vec::new() }.into_iter();
    let mut all = Vec::new();
    for (index, (segment, p)) in segments.iter().zip(split(segments, p)).enumerate() {
        let m = ms.next().unwrap_or_default();
        let v = vs.next().unwrap_or_default();
        if !segment.active {
            continue;
        }
        let g = &g[segment.offset..segment.offset + segment.len];
        let touched = touched.get(index).copied().flatten().filter(|touched| touched.width > 0);
        let chunk = touched.map_or(CHUNK, |t| (CHUNK / t.width).max(1) * t.width);
        let (mut m, mut v) = (m.chunks_mut(chunk), v.chunks_mut(chunk));
        let mut rest = touched.map_or(&[][..], |touched| touched.rows);
        for (number, (p, g)) in p.chunks_mut(chunk).zip(g.chunks(chunk)).enumerate() {
            let (m, v) = (m.next().unwrap_or_default(), v.next().unwrap_or_default());
            let touched = touched.map(|TouchedRows { width, .. }| {
                let first = number * (chunk / width);
                let end = first + p.len() / width;
                let (rows, later) =
                    rest.split_at(rest.partition_point(|&row| (row as usize) < end));
                rest = later;
                (first, TouchedRows { width, rows })
            });
            all.push(Part { segment, index, p, g, m, v, touched });
        }
    }
    all
}

/// The numbers of one Adam chunk, in the element type.
#[derive(Clone, Copy)]
struct Coefficients<F> {
    keep: F,
    l2: F,
    step_size: F,
    beta1: F,
    rest1: F,
    beta2: F,
    rest2: F,
    root2: F,
    eps: F,
    grad_scale: F,
}

impl Adam {
    fn check(&self, kernel: &'static str) -> Result {
        super::check_range(kernel, "beta1", "at least 0 and below 1", 0.0..1.0, self.beta1)?;
        super::check_range(kernel, "beta2", "at least 0 and below 1", 0.0..1.0, self.beta2)?;
        super::check_range(kernel, "step", "at least 1", 1.0..f64::INFINITY, self.step as f64)
    }

    /// `decay` multiplies the parameter, `l2` is added to the gradient.
    fn coefficients<F: Float>(&self, lr: f64, decay: f64, l2: f64) -> Coefficients<F> {
        let power = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let f = F::from_f64;
        Coefficients {
            keep: f(1.0 - lr * decay),
            l2: f(l2),
            step_size: f(lr / power(self.beta1)),
            beta1: f(self.beta1),
            rest1: f(1.0 - self.beta1),
            beta2: f(self.beta2),
            rest2: f(1.0 - self.beta2),
            root2: f(1.0 / power(self.beta2).sqrt()),
            eps: f(self.eps),
            grad_scale: f(self.grad_scale),
        }
    }
}

multiversion! {
    fn adam_chunk<F: Float>(c: Coefficients<F>, p: &mut [F], g: &[F], m: &mut [F], v: &mut [F]) {
        let n = p.len();
        let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = g[i] * c.grad_scale + c.l2 * p[i];
            // As torch's lerp, which is exact where gradient and moment agree.
            m[i] += (g - m[i]) * c.rest1;
            v[i] = v[i] * c.beta2 + g * g * c.rest2;
            p[i] = p[i] * c.keep - c.step_size * (m[i] / (v[i].sqrt() * c.root2 + c.eps));
        }
    }

    // What `adam_chunk` does where all gradients are zero, row by row. A row that no gradient has ever reached has moments of zero and
    // keeps them, so its moments are read and not written.
    fn adam_still_rows<F: Float>(
        c: Coefficients<F>, width: usize, p: &mut [F], m: &mut [F], v: &mut [F],
    ) {
        let rows = p.chunks_exact_mut(width).zip(m.chunks_exact_mut(width));
        for ((p, m), v) in rows.zip(v.chunks_exact_mut(width)) {
            if c.l2 == F::ZERO && c.eps > F::ZERO && is_zero(m) && is_zero(v) {
                if c.keep != F::ONE {
                    p.iter_mut().for_each(|p| *p *= c.keep);
                }
                continue;
            }
            for i in 0..width {
                let g = c.l2 * p[i];
                m[i] += (g - m[i]) * c.rest1;
                v[i] = v[i] * c.beta2 + g * g * c.rest2;
                p[i] = p[i] * c.keep - c.step_size * (m[i] / (v[i].sqrt() * c.root2 + c.eps));
            }
        }
    }

    fn lamb_update<F: Float>(
        c: Coefficients<F>, decay: F, p: &[F], g: &[F], m: &mut [F], v: &mut [F],
    ) -> (f64, f64) {
        let n = p.len();
        let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = g[i] * c.grad_scale;
            m[i] = m[i] * c.beta1 + g * c.rest1;
            v[i] = v[i] * c.beta2 + g * g * c.rest2;
        }
        let (m, v) = (&m[..n], &v[..n]);
        let square = |x: F| x.to_f64() * x.to_f64();
        let update = |i: usize| lamb_direction(c, decay, p[i], m[i], v[i]);
        (simd::sum_by(n, |i| square(p[i])), simd::sum_by(n, |i| square(update(i))))
    }

    fn lamb_apply<F: Float>(c: Coefficients<F>, decay: F, rate: F, p: &mut [F], m: &[F], v: &[F]) {
        for ((p, &m), &v) in p.iter_mut().zip(m).zip(v) {
            *p -= rate * lamb_direction(c, decay, *p, m, v);
        }
    }

    fn sgd_chunk<F: Float>(lr: F, l2: F, grad_scale: F, p: &mut [F], g: &[F]) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p -= lr * (g * grad_scale + l2 * *p);
        }
    }

    fn momentum_chunk<F: Float>(
        lr: F, l2: F, grad_scale: F, momentum: F, fresh: F, nesterov: bool,
        p: &mut [F], g: &[F], m: &mut [F],
    ) {
        for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
            let g = g * grad_scale + l2 * *p;
            *m = momentum * *m + fresh * g;
            *p -= lr * if nesterov { g + momentum * *m } else { *m };
        }
    }
}

/// True if all elements are zero.
#[inline(always)]
fn is_zero<F: Float>(x: &[F]) -> bool {
    // Whole blocks, because a search that stops at each element does not vectorise.
    x.chunks(64).all(|block| block.iter().fold(true, |zero, x| zero & (*x == F::ZERO)))
}

/// mhat / (sqrt(vhat) + eps) + decay p, where `c.step_size` is 1 / (1 - beta1^t).
#[inline(always)]
fn lamb_direction<F: Float>(c: Coefficients<F>, decay: F, p: F, m: F, v: F) -> F {
    m * c.step_size / (v.sqrt() * c.root2 + c.eps) + decay * p
}

fn check_arenas<F: Float>(
    kernel: &'static str,
    segments: &[Segment],
    p: &[F],
    g: &[F],
    m: &[F],
    v: &[F],
) -> Result {
    check_len(kernel, "gradients", p.len(), g.len())?;
    check_len(kernel, "first moments", p.len(), m.len())?;
    check_len(kernel, "second moments", p.len(), v.len())?;
    check_segments(kernel, segments, p.len())
}

/// One step of AdamW (Loshchilov and Hutter, 2019), as `torch.optim.AdamW`: p *= 1 - lr wd, then
/// p -= lr mhat / (sqrt(vhat) + eps). All arenas have one length.
///
/// # Errors
/// If the arenas' lengths differ, a segment lies outside, or a rate is out of range; nothing is
/// changed then.
pub fn adamw<F: Float>(
    op: Adam,
    segments: &[Segment],
    p: &mut [F],
    g: &[F],
    m: &mut [F],
    v: &mut [F],
) -> Result {
    adam_with_rows(Decay::Decoupled, op, segments, &[], p, g, m, v)
}

/// One step of Adam (Kingma and Ba, 2015), as `torch.optim.Adam`: weight decay is added to the
/// gradient.
///
/// # Errors
/// As [`adamw`].
pub fn adam<F: Float>(
    op: Adam,
    segments: &[Segment],
    p: &mut [F],
    g: &[F],
    m: &mut [F],
    v: &mut [F],
) -> Result {
    adam_with_rows(Decay::Gradient, op, segments, &[], p, g, m, v)
}

/// Where Adam's weight decay goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// To the parameter, as in AdamW.
    Decoupled,
    /// To the gradient, as in Adam.
    Gradient,
}

/// [`adamw`] or [`adam`] where some segments' gradients are rows: `touched[i]` says which of segment i, whole gradients where it is
/// `None` or missing. Gives the bits of a whole gradient with zeros in all other rows.
///
/// # Errors
/// As [`adamw`]; or if rows do not fit their segment.
#[allow(clippy::too_many_arguments, reason = "the arenas are separate slices")]
pub fn adam_with_rows<F: Float>(
    decay: Decay,
    op: Adam,
    segments: &[Segment],
    touched: &[Option<TouchedRows<'_>>],
    p: &mut [F],
    g: &[F],
    m: &mut [F],
    v: &mut [F],
) -> Result {
    let name = if decay == Decay::Decoupled { "adamw" } else { "adam" };
    op.check(name)?;
    check_arenas(name, segments, p, g, m, v)?;
    for (segment, touched) in segments.iter().zip(touched) {
        let Some(TouchedRows { width, rows }) = *touched else { continue };
        check_len(name, "touched rows", segment.len / width.max(1) * width, segment.len)?;
        let end = rows.last().map_or(0, |&last| (last as usize + 1) * width);
        check_len(name, "touched rows", end.min(segment.len), end)?;
    }
    let parts = parts_with_rows(segments, touched, p, g, m, v);
    for_each_task(parts, |part| {
        let s = part.segment;
        let lr = op.lr * s.lr_scale;
        let c = match decay {
            Decay::Decoupled => op.coefficients(lr, s.weight_decay, 0.0),
            Decay::Gradient => op.coefficients(lr, 0.0, s.weight_decay),
        };
        let Some((first, TouchedRows { width, rows })) = part.touched else {
            return adam_chunk(c, part.p, part.g, part.m, part.v);
        };
        let mut at = 0;
        for &row in rows {
            let row = (row as usize - first) * width;
            let still = at..row;
            adam_still_rows(
                c,
                width,
                &mut part.p[still.clone()],
                &mut part.m[still.clone()],
                &mut part.v[still],
            );
            at = row + width;
            let (m, v) = (&mut part.m[row..at], &mut part.v[row..at]);
            adam_chunk(c, &mut part.p[row..at], &part.g[row..at], m, v);
        }
        adam_still_rows(c, width, &mut part.p[at..], &mut part.m[at..], &mut part.v[at..]);
    });
    Ok(())
}

/// One step of LAMB (You et al., 2020): p -= lr r u with u = mhat / (sqrt(vhat) + eps) + wd p and
/// the trust ratio r = |p| / |u| of each segment, 1 if either norm is zero. A segment must be
/// exactly one parameter.
///
/// # Errors
/// As [`adamw`].
pub fn lamb<F: Float>(
    op: Adam,
    segments: &[Segment],
    p: &mut [F],
    g: &[F],
    m: &mut [F],
    v: &mut [F],
) -> Result {
    op.check("lamb")?;
    check_arenas("lamb", segments, p, g, m, v)?;
    let c = op.coefficients::<F>(1.0, 0.0, 0.0);
    let partials = map_tasks(parts(segments, p, g, m, v), |part| {
        let decay = F::from_f64(part.segment.weight_decay);
        (part.index, lamb_update(c, decay, part.p, part.g, part.m, part.v))
    });
    let mut norms = vec![(0.0, 0.0); segments.len()];
    for (index, (parameter, update)) in partials {
        norms[index].0 += parameter;
        norms[index].1 += update;
    }
    for_each_task(parts(segments, p, g, m, v), |part| {
        let (parameter, update): (f64, f64) = norms[part.index];
        let trust = if parameter > 0.0 && update > 0.0 { (parameter / update).sqrt() } else { 1.0 };
        let rate = F::from_f64(op.lr * part.segment.lr_scale * trust);
        let decay = F::from_f64(part.segment.weight_decay);
        lamb_apply(c, decay, rate, part.p, part.m, part.v);
    });
    Ok(())
}

/// One step of stochastic gradient descent, as `torch.optim.SGD`. `m` is the momentum buffer, empty
/// if there is no momentum.
///
/// # Errors
/// As [`adamw`].
pub fn sgd<F: Float>(op: Sgd, segments: &[Segment], p: &mut [F], g: &[F], m: &mut [F]) -> Result {
    let buffer = if op.momentum == 0.0 { m.len() } else { p.len() };
    check_len("sgd", "gradients", p.len(), g.len())?;
    check_len("sgd", "momentum buffer", buffer, m.len())?;
    check_segments("sgd", segments, p.len())?;
    let f = F::from_f64;
    let m = if op.momentum == 0.0 { &mut [][..] } else { m };
    for_each_task(parts(segments, p, g, m, &mut []), |part| {
        let s = part.segment;
        let (lr, l2, scale) = (f(op.lr * s.lr_scale), f(s.weight_decay), f(op.grad_scale));
        if op.momentum == 0.0 {
            return sgd_chunk(lr, l2, scale, part.p, part.g);
        }
        let first = op.step <= 1;
        if first {
            part.m.fill(F::ZERO);
        }
        let fresh = f(if first { 1.0 } else { 1.0 - op.dampening });
        let (momentum, nesterov) = (f(op.momentum), op.nesterov);
        momentum_chunk(lr, l2, scale, momentum, fresh, nesterov, part.p, part.g, part.m);
    });
    Ok(())
}

/// Sum of the squared gradients of all active segments, in `f64`, in the order of the arena. Not
/// finite if a gradient is not.
///
/// # Errors
/// If a segment lies outside the arena.
pub fn squared_norm<F: Float>(segments: &[Segment], g: &[F]) -> Result<f64> {
    check_segments("squared_norm", segments, g.len())?;
    let active = segments.iter().filter(|s| s.active);
    let tasks = active.flat_map(|s| g[s.offset..s.offset + s.len].chunks(CHUNK)).collect();
    // A chunk's inner blocks run on the same thread pool; their order is fixed as well.
    Ok(map_tasks(tasks, |chunk| elementwise::square_sum(chunk)).into_iter().sum())
}

/// Multiplies all active segments by `factor`.
///
/// # Errors
/// If a segment lies outside the arena.
pub fn scale<F: Float>(segments: &[Segment], factor: f64, x: &mut [F]) -> Result {
    check_segments("scale", segments, x.len())?;
    for (segment, part) in segments.iter().zip(split(segments, x)) {
        if segment.active {
            elementwise::scale(F::from_f64(factor), part);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernels::testing::{
        assert_close, assert_same_bits, random, with_one_and_three_threads,
    };

    pub(crate) fn segment(offset: usize, len: usize) -> Segment {
        let (rows, cols, lr_scale, weight_decay) = (0, 0, 1.0, 0.1);
        Segment { offset, len, rows, cols, lr_scale, weight_decay, active: true }
    }

    const ADAM: Adam =
        Adam { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1, grad_scale: 0.5 };

    type Step = fn(Adam, &[Segment], &mut [f64], &[f64], &mut [f64], &mut [f64]) -> Result;

    /// Three steps of the textbook formulas on one parameter of the arena.
    fn naive(kind: &str, s: Segment, p: &mut [f64]) {
        let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
        for t in 1..=3 {
            let mut u = vec![0.0; p.len()];
            for i in 0..p.len() {
                let mut g = 0.5 * gradient(t)[s.offset + i];
                if kind == "adam" {
                    g += s.weight_decay * p[i];
                }
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.999f64.powi(t)));
                u[i] = mh / (vh.sqrt() + 1e-8);
                if kind != "adam" {
                    u[i] += s.weight_decay * p[i];
                }
            }
            let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
            let trust = if kind == "lamb" { norm(p) / norm(&u) } else { 1.0 };
            for i in 0..p.len() {
                p[i] -= 0.01 * s.lr_scale * trust * u[i];
            }
        }
    }

    fn gradient(t: i32) -> Vec<f64> {
        random(50, 10 + t as u64)
    }

    #[test]
    fn adam_family_matches_textbook_and_leaves_the_rest_alone() {
        let frozen = Segment { active: false, ..segment(20, 10) };
        let segments = [segment(2, 18), frozen, Segment { lr_scale: 0.3, ..segment(30, 15) }];
        for (kind, step) in [("adamw", adamw as Step), ("adam", adam), ("lamb", lamb)] {
            let start: Vec<f64> = random(50, 1);
            let mut p = start.clone();
            let (mut m, mut v) = (vec![0.0; 50], vec![0.0; 50]);
            for t in 1..=3 {
                let op = Adam { step: t as u64, ..ADAM };
                step(op, &segments, &mut p, &gradient(t), &mut m, &mut v).unwrap();
            }
            let mut expected = start;
            for s in [segments[0], segments[2]] {
                naive(kind, s, &mut expected[s.offset..s.offset + s.len]);
            }
            assert_close(&p, &expected, 1e-12);
            assert_eq!(p[20..30], expected[20..30], "{kind} moved a frozen parameter");
            assert_eq!(m[20..30], [0.0; 10]);
        }
    }

    /// Two steps by the documented recurrences, with weight decay, momentum and Nesterov.
    #[test]
    fn sgd_variants_match_formulas() {
        let segments = [segment(0, 2)];
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let (mut p, mut m) = ([1.0f64, -2.0], [7.0f64, 7.0]);
            let mut expected = p;
            let mut buffer = [0.0; 2];
            for (t, g) in [[0.5, 0.25], [-1.0, 2.0]].into_iter().enumerate() {
                let step = t as u64 + 1;
                let (lr, dampening, grad_scale) = (0.1, 0.0, 1.0);
                let op = Sgd { lr, momentum, dampening, nesterov, step, grad_scale };
                sgd(op, &segments, &mut p, &g, &mut m).unwrap();
                for i in 0..2 {
                    let d = g[i] + 0.1 * expected[i];
                    buffer[i] = momentum * buffer[i] + d;
                    let nesterov_step = d + momentum * buffer[i];
                    expected[i] -= 0.1 * if nesterov { nesterov_step } else { buffer[i] };
                }
            }
            assert_close(&p, &expected, 1e-15);
        }
    }

    #[test]
    fn lamb_trust_ratio_is_one_for_zero_norms() {
        let s = [Segment { weight_decay: 0.0, ..segment(0, 2) }];
        let (mut p, mut m, mut v) = ([0f64; 2], [0f64; 2], [0f64; 2]);
        let op = Adam { grad_scale: 1.0, ..ADAM };
        lamb(op, &s, &mut p, &[1.0, -1.0], &mut m, &mut v).unwrap();
        assert_close(&p, &[-0.01, 0.01], 1e-9);
    }

    #[test]
    fn norm_and_scale_see_active_segments_only() {
        let segments = [segment(0, 2), Segment { active: false, ..segment(2, 1) }, segment(3, 1)];
        let mut g = [3f32, 4.0, 100.0, 12.0];
        assert_eq!(squared_norm(&segments, &g).unwrap(), 169.0);
        scale(&segments, 0.5, &mut g).unwrap();
        assert_eq!(g, [1.5, 2.0, 100.0, 6.0]);
        g[0] = f32::NAN;
        assert!(squared_norm(&segments, &g).unwrap().is_nan());
    }

    #[test]
    fn bad_segments_are_refused() {
        let g = [0f32; 4];
        for segments in [
            [segment(0, 5), segment(5, 0)],
            [segment(0, 3), segment(2, 1)],
            [segment(0, 1), segment(usize::MAX, 2)],
            [segment(0, 1), Segment { rows: 2, cols: 2, ..segment(1, 3) }],
        ] {
            assert!(squared_norm(&segments, &g).is_err());
        }
    }

    #[test]
    fn threads_do_not_change_bits() {
        let n = 3 * CHUNK + 100;
        let segments = [segment(0, CHUNK + 5), segment(CHUNK + 5, 2 * CHUNK)];
        let (start, g): (Vec<f32>, Vec<f32>) = (random(n, 1), random(n, 2));
        let (one, three) = with_one_and_three_threads(|| {
            let (mut p, mut m, mut v) = (start.clone(), vec![0f32; n], vec![0f32; n]);
            adamw(ADAM, &segments, &mut p, &g, &mut m, &mut v).unwrap();
            lamb(ADAM, &segments, &mut p, &g, &mut m, &mut v).unwrap();
            p.push(squared_norm(&segments, &g).unwrap() as f32);
            p
        });
        assert_same_bits(&one, &three);
    }

    #[test]
    fn rows_give_the_bits_of_a_whole_gradient_with_zeros() {
        // Two segments: a table of more rows than one task takes, and a whole one.
        let (width, rows) = (48, 2000);
        let len = rows * width;
        let touched: Vec<u32> =
            (0..rows as u32).filter(|row| row % 7 == 3 || *row == 1999).collect();
        let of = |offset, len, weight_decay| Segment {
            offset,
            len,
            rows: 0,
            cols: 0,
            lr_scale: 1.0,
            weight_decay,
            active: true,
        };
        for (decay, weight_decay) in
            [(0.01, 0.01), (0.0, 0.01), (0.01, 0.0)].into_iter().flat_map(|(table, whole)| {
                [(Decay::Decoupled, (table, whole)), (Decay::Gradient, (table, whole))]
            })
        {
            let segments = [of(0, len, weight_decay.0), of(len, 100, weight_decay.1)];
            let n = len + 100;
            let start: Vec<f32> = random(n, 1);
            let (mut whole, mut by_rows) =
                ([start.clone(), vec![0.0; n], vec![0.0; n]], [start, vec![0.0; n], vec![0.0; n]]);
            for step in 1..=3u64 {
                // Other rows in every step, and garbage where the rows' gradient is not meant.
                let now: Vec<u32> =
                    touched.iter().map(|row| (row + step as u32) % rows as u32).collect();
                let mut now = now;
                now.sort_unstable();
                let garbage: Vec<f32> = random(n, 10 + step);
                let mut clean = garbage.clone();
                for row in 0..rows {
                    if now.binary_search(&(row as u32)).is_err() {
                        clean[row * width..(row + 1) * width].fill(0.0);
                    }
                }
                let op =
                    Adam { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, step, grad_scale: 0.37 };
                let [p, m, v] = &mut whole;
                adam_with_rows(decay, op, &segments, &[], p, &clean, m, v).unwrap();
                let [p, m, v] = &mut by_rows;
                let rows = [Some(TouchedRows { width, rows: &now }), None];
                adam_with_rows(decay, op, &segments, &rows, p, &garbage, m, v).unwrap();
                // Zeros may differ in sign.
                assert!(whole == by_rows, "{decay:?} {weight_decay:?} step {step}");
            }
        }
        let mut one = [0f32; 8];
        let (mut m, mut v) = (one, one);
        let beyond = [Some(TouchedRows { width: 4, rows: &[2] })];
        let op = Adam { lr: 0.1, beta1: 0.9, beta2: 0.9, eps: 1e-8, step: 1, grad_scale: 1.0 };
        let segment = [of(0, 8, 0.0)];
        let g = [1f32; 8];
        assert!(
            adam_with_rows(Decay::Decoupled, op, &segment, &beyond, &mut one, &g, &mut m, &mut v)
                .is_err()
        );
        assert_eq!(one, [0.0; 8]);
    }
}
