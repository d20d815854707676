//! Adam and its relatives: AdamW, Adam and LAMB, each one pass over the arenas (LAMB two).

use crate::machine::scratch::with_scratch;
use crate::machine::simd::{self, multiversion};
use crate::optim::{Cut, Gradients, Part, Segment, check_segments, is_zero, parts};
use crate::{Float, Result, check_len, for_each_task, map_tasks};

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
        crate::check_range(kernel, "beta1", "at least 0 and below 1", 0.0..1.0, self.beta1)?;
        crate::check_range(kernel, "beta2", "at least 0 and below 1", 0.0..1.0, self.beta2)?;
        crate::check_range(kernel, "step", "at least 1", 1.0..f64::INFINITY, self.step as f64)
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

    // What `adam_chunk` does where all gradients are zero, row by row. A row that no gradient has ever reached has
    // moments of zero and keeps them, so its moments are read and not written.
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
}

/// mhat / (sqrt(vhat) + eps) + decay p, where `c.step_size` is 1 / (1 - beta1^t).
#[inline(always)]
fn lamb_direction<F: Float>(c: Coefficients<F>, decay: F, p: F, m: F, v: F) -> F {
    m * c.step_size / (v.sqrt() * c.root2 + c.eps) + decay * p
}

fn check_arenas<F: Float>(
    kernel: &'static str,
    segments: &[Segment],
    g: &Gradients<'_, F>,
    p: &[F],
    m: &[F],
    v: &[F],
) -> Result {
    check_len(kernel, "first moments", p.len(), m.len())?;
    check_len(kernel, "second moments", p.len(), v.len())?;
    check_segments(kernel, segments, p.len())?;
    g.check(kernel, segments, p.len())
}

/// One step of AdamW (Loshchilov and Hutter, 2019), as `torch.optim.AdamW`: p *= 1 - lr wd, then
/// p -= lr mhat / (sqrt(vhat) + eps). All arenas have one length.
///
/// # Errors
/// If the arenas' lengths differ, a segment or a row lies outside, or a rate is out of range; nothing is changed then.
pub fn adamw<'a, F: Float>(
    op: Adam,
    segments: &[Segment],
    g: impl Into<Gradients<'a, F>>,
    p: &mut [F],
    m: &mut [F],
    v: &mut [F],
) -> Result {
    step("adamw", op, segments, g.into(), [p, m, v], |lr, decay| op.coefficients(lr, decay, 0.0))
}

/// One step of Adam (Kingma and Ba, 2015), as `torch.optim.Adam`: weight decay is added to the gradient.
///
/// # Errors
/// As [`adamw`].
pub fn adam<'a, F: Float>(
    op: Adam,
    segments: &[Segment],
    g: impl Into<Gradients<'a, F>>,
    p: &mut [F],
    m: &mut [F],
    v: &mut [F],
) -> Result {
    step("adam", op, segments, g.into(), [p, m, v], |lr, decay| op.coefficients(lr, 0.0, decay))
}

/// One step with the coefficients that learning rate and weight decay of a segment give.
fn step<F: Float>(
    name: &'static str,
    op: Adam,
    segments: &[Segment],
    g: Gradients<'_, F>,
    [p, m, v]: [&mut [F]; 3],
    coefficients: impl Fn(f64, f64) -> Coefficients<F> + Send + Sync,
) -> Result {
    op.check(name)?;
    check_arenas(name, segments, &g, p, m, v)?;
    for_each_task(parts(Cut::Rows, segments, &g, p, m, v), |part| {
        let Part { segment, p, g, m, v, .. } = part;
        let c = coefficients(op.lr * segment.lr_scale, segment.weight_decay);
        g.for_each_piece(|range, is_touched| {
            let (p, m, v) = (&mut p[range.clone()], &mut m[range.clone()], &mut v[range.clone()]);
            match g.width() {
                Some(width) if !is_touched => adam_still_rows(c, width, p, m, v),
                _ => adam_chunk(c, p, &g.values[range], m, v),
            }
        });
    });
    Ok(())
}

/// One step of LAMB (You et al., 2020): p -= lr r u with u = mhat / (sqrt(vhat) + eps) + wd p and
/// the trust ratio r = |p| / |u| of each segment, 1 if either norm is zero. A segment must be
/// exactly one parameter.
///
/// # Errors
/// As [`adamw`].
pub fn lamb<'a, F: Float>(
    op: Adam,
    segments: &[Segment],
    g: impl Into<Gradients<'a, F>>,
    p: &mut [F],
    m: &mut [F],
    v: &mut [F],
) -> Result {
    op.check("lamb")?;
    let g = g.into();
    check_arenas("lamb", segments, &g, p, m, v)?;
    let c = op.coefficients::<F>(1.0, 0.0, 0.0);
    let partials = map_tasks(parts(Cut::Even, segments, &g, p, m, v), |part| {
        let decay = F::from_f64(part.segment.weight_decay);
        // Norms are sums over all elements, so rows are completed within the cache.
        let room_len = if part.g.width().is_some() { part.p.len() } else { 0 };
        let norms = with_scratch(room_len, |room| {
            lamb_update(c, decay, part.p, part.g.whole(room), part.m, part.v)
        });
        (part.index, norms)
    });
    let mut norms = vec![(0.0, 0.0); segments.len()];
    for (index, (parameter, update)) in partials {
        norms[index].0 += parameter;
        norms[index].1 += update;
    }
    for_each_task(parts(Cut::Even, segments, &g, p, m, v), |part| {
        let (parameter, update): (f64, f64) = norms[part.index];
        let trust = if parameter > 0.0 && update > 0.0 { (parameter / update).sqrt() } else { 1.0 };
        let rate = F::from_f64(op.lr * part.segment.lr_scale * trust);
        let decay = F::from_f64(part.segment.weight_decay);
        lamb_apply(c, decay, rate, part.p, part.m, part.v);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::tests::segment;
    use crate::optim::{CHUNK, squared_norm};
    use crate::testing::{assert_close, assert_same_bits, random, with_one_and_three_threads};

    const ADAM: Adam =
        Adam { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1, grad_scale: 0.5 };

    type Step = fn(Adam, &[Segment], &[f64], &mut [f64], &mut [f64], &mut [f64]) -> Result;

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
        let steps: [(&str, Step); 3] = [
            ("adamw", |op, segments, g, p, m, v| adamw(op, segments, g, p, m, v)),
            ("adam", |op, segments, g, p, m, v| adam(op, segments, g, p, m, v)),
            ("lamb", |op, segments, g, p, m, v| lamb(op, segments, g, p, m, v)),
        ];
        for (kind, step) in steps {
            let start: Vec<f64> = random(50, 1);
            let mut p = start.clone();
            let (mut m, mut v) = (vec![0.0; 50], vec![0.0; 50]);
            for t in 1..=3 {
                let op = Adam { step: t as u64, ..ADAM };
                step(op, &segments, &gradient(t), &mut p, &mut m, &mut v).unwrap();
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

    #[test]
    fn lamb_trust_ratio_is_one_for_zero_norms() {
        let s = [Segment { weight_decay: 0.0, ..segment(0, 2) }];
        let (mut p, mut m, mut v) = ([0f64; 2], [0f64; 2], [0f64; 2]);
        let op = Adam { grad_scale: 1.0, ..ADAM };
        lamb(op, &s, &[1.0, -1.0], &mut p, &mut m, &mut v).unwrap();
        assert_close(&p, &[-0.01, 0.01], 1e-9);
    }

    #[test]
    fn threads_do_not_change_bits() {
        let n = 3 * CHUNK + 100;
        let segments = [segment(0, CHUNK + 5), segment(CHUNK + 5, 2 * CHUNK)];
        let (start, g): (Vec<f32>, Vec<f32>) = (random(n, 1), random(n, 2));
        let (one, three) = with_one_and_three_threads(|| {
            let (mut p, mut m, mut v) = (start.clone(), vec![0f32; n], vec![0f32; n]);
            adamw(ADAM, &segments, &g, &mut p, &mut m, &mut v).unwrap();
            lamb(ADAM, &segments, &g, &mut p, &mut m, &mut v).unwrap();
            p.push(squared_norm(&segments, &g).unwrap() as f32);
            p
        });
        assert_same_bits(&one, &three);
    }
}
