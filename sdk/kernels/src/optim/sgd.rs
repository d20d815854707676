//! Stochastic gradient descent with momentum: one pass over the arenas.

use crate::machine::simd::multiversion;
use crate::optim::{Cut, Gradients, Part, Segment, check_segments, is_zero, parts};
use crate::{Float, Result, check_len, for_each_task};

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

multiversion! {
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

    // What `momentum_chunk` does where all gradients are zero, row by row: nothing where the buffer is zero and
    // nothing decays.
    fn momentum_still_rows<F: Float>(
        lr: F, l2: F, momentum: F, fresh: F, nesterov: bool, width: usize, p: &mut [F], m: &mut [F],
    ) {
        for (p, m) in p.chunks_exact_mut(width).zip(m.chunks_exact_mut(width)) {
            if l2 == F::ZERO && is_zero(m) {
                continue;
            }
            for (p, m) in p.iter_mut().zip(m) {
                let g = l2 * *p;
                *m = momentum * *m + fresh * g;
                *p -= lr * if nesterov { g + momentum * *m } else { *m };
            }
        }
    }

    fn decay_chunk<F: Float>(lr: F, l2: F, p: &mut [F]) {
        for p in p {
            *p -= lr * (l2 * *p);
        }
    }
}

/// One step of stochastic gradient descent, as `torch.optim.SGD`. `m` is the momentum buffer, empty
/// if there is no momentum.
///
/// # Errors
/// If the arenas' lengths differ, or a segment or a row lies outside; nothing is changed then.
pub fn sgd<'a, F: Float>(
    op: Sgd,
    segments: &[Segment],
    g: impl Into<Gradients<'a, F>>,
    p: &mut [F],
    m: &mut [F],
) -> Result {
    let g = g.into();
    let buffer = if op.momentum == 0.0 { m.len() } else { p.len() };
    check_len("sgd", "momentum buffer", buffer, m.len())?;
    check_segments("sgd", segments, p.len())?;
    g.check("sgd", segments, p.len())?;
    let f = F::from_f64;
    let m = if op.momentum == 0.0 { &mut [][..] } else { m };
    let is_first = op.step <= 1;
    let fresh = f(if is_first { 1.0 } else { 1.0 - op.dampening });
    let (momentum, nesterov) = (f(op.momentum), op.nesterov);
    for_each_task(parts(Cut::Rows, segments, &g, p, m, &mut []), |part| {
        let Part { segment, p, g, m, .. } = part;
        let (lr, l2) = (f(op.lr * segment.lr_scale), f(segment.weight_decay));
        let scale = f(op.grad_scale);
        if is_first {
            m.fill(F::ZERO);
        }
        g.for_each_piece(|range, is_touched| {
            let (p, values) = (&mut p[range.clone()], &g.values[range.clone()]);
            match (op.momentum == 0.0, g.width().filter(|_| !is_touched)) {
                (true, None) => sgd_chunk(lr, l2, scale, p, values),
                (true, Some(_)) if l2 == F::ZERO => {}
                (true, Some(_)) => decay_chunk(lr, l2, p),
                (false, None) => momentum_chunk(
                    lr,
                    l2,
                    scale,
                    momentum,
                    fresh,
                    nesterov,
                    p,
                    values,
                    &mut m[range],
                ),
                (false, Some(width)) => {
                    momentum_still_rows(lr, l2, momentum, fresh, nesterov, width, p, &mut m[range])
                }
            }
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::tests::segment;
    use crate::testing::assert_close;

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
                sgd(op, &segments, &g, &mut p, &mut m).unwrap();
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
}
