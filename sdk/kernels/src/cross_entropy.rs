//! Losses from logits: cross entropy, binary cross entropy, mean squared error.
//!
//! Each is a mean of row losses weighted by optional row weights: sum(w l) / sum(w). Sums are in
//! `f64` and in the order of the rows' blocks. Probabilities are never stored: the backward pass
//! makes them from the logits again.

use crate::machine::simd::{self, multiversion};
use crate::softmax::log_sum_exp;
use crate::{Float, KernelError, Result, check_len, for_each_task, map_tasks, rows_per_block};

/// Options of the cross entropy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropy {
    /// Rows with this target count neither in the sum nor in the mean; -100 by custom.
    pub ignore_index: i64,
    /// The share of the target that is spread evenly over all classes, in [0, 1] (Szegedy et al.,
    /// 2016).
    pub label_smoothing: f64,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { ignore_index: -100, label_smoothing: 0.0 }
    }
}

/// A weighted mean.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MeanLoss {
    /// sum(w l) / sum(w); 0 if the weights sum to 0 (for example if all rows are ignored).
    pub loss: f64,
    /// sum(w), which the backward pass takes.
    pub weight: f64,
}

impl MeanLoss {
    fn from_sums(sums: Vec<(f64, f64)>) -> Self {
        let (total, weight) = sums.into_iter().fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        Self { loss: if weight == 0.0 { 0.0 } else { total / weight }, weight }
    }

    /// What a row's gradient is multiplied by, apart from the row's weight.
    fn gradient_scale(&self, dloss: f64) -> f64 {
        if self.weight == 0.0 { 0.0 } else { dloss / self.weight }
    }
}

#[inline(always)]
fn row_weight<F: Float>(weights: Option<&[F]>, row: usize) -> f64 {
    weights.map_or(1.0, |w| w[row].to_f64())
}

multiversion! {
    fn log_sum_exp_rows<F: Float>(cols: usize, x: &[F], out: &mut [F]) {
        for (row, out) in x.chunks_exact(cols).zip(out) {
            *out = log_sum_exp(row);
        }
    }

    fn row_sum<F: Float>(x: &[F]) -> F {
        simd::sum(x)
    }

    fn softmax_gradient_row<F: Float>(x: &[F], normalizer: F, spread: F, scale: F, dx: &mut [F]) {
        for (dx, &x) in dx.iter_mut().zip(x) {
            *dx = ((x - normalizer).exp() - spread) * scale;
        }
    }

    // max(x, 0) - x t + ln(1 + exp(-|x|)), which does not overflow.
    fn binary_row_loss<F: Float>(x: &[F], target: &[F]) -> F {
        let target = &target[..x.len()];
        simd::sum_by(x.len(), |i| {
            x[i].max(F::ZERO) - x[i] * target[i] + (F::ONE + (-x[i].abs()).exp()).ln()
        })
    }

    fn binary_row_gradient<F: Float>(x: &[F], target: &[F], scale: F, dx: &mut [F]) {
        for ((dx, &x), &target) in dx.iter_mut().zip(x).zip(target) {
            *dx = (x.sigmoid() - target) * scale;
        }
    }

    fn square_row_loss<F: Float>(x: &[F], target: &[F]) -> F {
        let target = &target[..x.len()];
        simd::sum_by(x.len(), |i| (x[i] - target[i]) * (x[i] - target[i]))
    }

    fn square_row_gradient<F: Float>(x: &[F], target: &[F], scale: F, dx: &mut [F]) {
        let twice = scale + scale;
        for ((dx, &x), &target) in dx.iter_mut().zip(x).zip(target) {
            *dx = (x - target) * twice;
        }
    }
}

impl CrossEntropy {
    fn check<F: Float>(
        &self,
        kernel: &'static str,
        cols: usize,
        logits: &[F],
        targets: &[i64],
        weights: Option<&[F]>,
    ) -> Result {
        check_len(kernel, "logits", targets.len() * cols, logits.len())?;
        check_len(kernel, "row weights", targets.len(), weights.map_or(targets.len(), <[F]>::len))?;
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(KernelError::Value {
                kernel,
                argument: "label_smoothing",
                expected: "from 0 to 1",
                found: self.label_smoothing,
            });
        }
        let bad = |&t: &i64| t != self.ignore_index && t as u64 >= cols as u64;
        match targets.iter().position(bad) {
            None => Ok(()),
            Some(position) => Err(KernelError::Index {
                kernel,
                argument: "targets",
                position,
                value: targets[position],
                bound: cols,
            }),
        }
    }

    /// The loss of `logits` [rows, cols] against class indices `targets` `[rows]`. `log_sums` `[rows]`
    /// receives what the backward pass needs; `row_losses` `[rows]`, if given, the loss of each row
    /// (0 for ignored rows).
    ///
    /// # Errors
    /// If a slice does not fit, or a target is neither a class nor `ignore_index`.
    pub fn forward<F: Float>(
        &self,
        cols: usize,
        logits: &[F],
        targets: &[i64],
        weights: Option<&[F]>,
        log_sums: &mut [F],
        row_losses: Option<&mut [F]>,
    ) -> Result<MeanLoss> {
        const NAME: &str = "cross_entropy_forward";
        self.check(NAME, cols, logits, targets, weights)?;
        check_len(NAME, "log_sums", targets.len(), log_sums.len())?;
        let mut own = Vec::new();
        let row_losses = row_losses.unwrap_or_else(|| {
            own.resize(targets.len(), F::ZERO);
            &mut own
        });
        check_len(NAME, "row_losses", targets.len(), row_losses.len())?;
        if logits.is_empty() {
            row_losses.fill(F::ZERO);
            return Ok(MeanLoss::default());
        }
        let rows = rows_per_block(cols);
        let tasks = logits
            .chunks(rows * cols)
            .zip(log_sums.chunks_mut(rows).zip(row_losses.chunks_mut(rows)))
            .enumerate()
            .collect();
        let smoothing = self.label_smoothing;
        let sums = map_tasks(tasks, |(block, (x, (log_sums, row_losses)))| {
            log_sum_exp_rows(cols, x, log_sums);
            let (mut total, mut weight) = (0.0, 0.0);
            for (i, x) in x.chunks_exact(cols).enumerate() {
                let row = block * rows + i;
                if targets[row] == self.ignore_index {
                    row_losses[i] = F::ZERO;
                    continue;
                }
                let normalizer = log_sums[i].to_f64();
                let mut loss = (1.0 - smoothing) * (normalizer - x[targets[row] as usize].to_f64());
                if smoothing > 0.0 {
                    loss += smoothing * (normalizer - row_sum(x).to_f64() / cols as f64);
                }
                row_losses[i] = F::from_f64(loss);
                let w = row_weight(weights, row);
                total += w * loss;
                weight += w;
            }
            (total, weight)
        });
        Ok(MeanLoss::from_sums(sums))
    }

    /// dlogits = dloss (softmax - target) w / sum(w), zero for ignored rows; `mean` and `log_sums`
    /// come from the forward pass.
    ///
    /// # Errors
    /// As [`CrossEntropy::forward`].
    #[allow(clippy::too_many_arguments, reason = "the forward pass's arguments and the gradient")]
    pub fn backward<F: Float>(
        &self,
        cols: usize,
        logits: &[F],
        targets: &[i64],
        weights: Option<&[F]>,
        log_sums: &[F],
        mean: MeanLoss,
        dloss: f64,
        dlogits: &mut [F],
    ) -> Result {
        const NAME: &str = "cross_entropy_backward";
        self.check(NAME, cols, logits, targets, weights)?;
        check_len(NAME, "log_sums", targets.len(), log_sums.len())?;
        check_len(NAME, "dlogits", logits.len(), dlogits.len())?;
        let scale = mean.gradient_scale(dloss);
        let spread = F::from_f64(self.label_smoothing / cols as f64);
        each_row(cols, dlogits, |row, dx| {
            if targets[row] == self.ignore_index {
                return dx.fill(F::ZERO);
            }
            let scale = F::from_f64(scale * row_weight(weights, row));
            let x = &logits[row * cols..(row + 1) * cols];
            softmax_gradient_row(x, log_sums[row], spread, scale, dx);
            dx[targets[row] as usize] -= F::from_f64(1.0 - self.label_smoothing) * scale;
        });
        Ok(())
    }
}

/// Calls `f` with the number of each row and the row.
fn each_row<F: Float>(cols: usize, dx: &mut [F], f: impl Fn(usize, &mut [F]) + Send + Sync) {
    if dx.is_empty() {
        return;
    }
    let rows = rows_per_block(cols);
    let tasks = dx.chunks_mut(rows * cols).enumerate().collect();
    for_each_task(tasks, |(block, dx)| {
        for (i, dx) in dx.chunks_exact_mut(cols).enumerate() {
            f(block * rows + i, dx);
        }
    });
}

/// Losses that compare every element of [rows, cols] with a target of its own; a row's loss is the
/// mean over its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementLoss {
    /// Binary cross entropy of logits against targets in [0, 1]: multi-label classification.
    BinaryCrossEntropy,
    /// (x - target)^2: regression.
    MeanSquared,
}

impl ElementLoss {
    fn check<F: Float>(cols: usize, x: &[F], targets: &[F], weights: Option<&[F]>) -> Result {
        const NAME: &str = "element_loss";
        let rows = x.len() / cols.max(1);
        check_len(NAME, "x", rows * cols, x.len())?;
        check_len(NAME, "targets", x.len(), targets.len())?;
        check_len(NAME, "row weights", rows, weights.map_or(rows, <[F]>::len))
    }

    /// The loss of `x` [rows, cols] against `targets` [rows, cols]; `weights` has one element per
    /// row.
    ///
    /// # Errors
    /// If a slice does not fit.
    pub fn forward<F: Float>(
        self,
        cols: usize,
        x: &[F],
        targets: &[F],
        weights: Option<&[F]>,
    ) -> Result<MeanLoss> {
        Self::check(cols, x, targets, weights)?;
        if x.is_empty() {
            return Ok(MeanLoss::default());
        }
        let rows = rows_per_block(cols);
        let tasks = x.chunks(rows * cols).zip(targets.chunks(rows * cols)).enumerate().collect();
        let sums = map_tasks(tasks, |(block, (x, targets))| {
            let (mut total, mut weight) = (0.0, 0.0);
            for (i, (x, t)) in x.chunks_exact(cols).zip(targets.chunks_exact(cols)).enumerate() {
                let loss = match self {
                    Self::BinaryCrossEntropy => binary_row_loss(x, t),
                    Self::MeanSquared => square_row_loss(x, t),
                };
                let w = row_weight(weights, block * rows + i);
                total += w * loss.to_f64() / cols as f64;
                weight += w;
            }
            (total, weight)
        });
        Ok(MeanLoss::from_sums(sums))
    }

    /// Gradient of [`ElementLoss::forward`] by `x`; `mean` comes from the forward pass.
    ///
    /// # Errors
    /// If a slice does not fit.
    #[allow(clippy::too_many_arguments, reason = "the forward pass's arguments and the gradient")]
    pub fn backward<F: Float>(
        self,
        cols: usize,
        x: &[F],
        targets: &[F],
        weights: Option<&[F]>,
        mean: MeanLoss,
        dloss: f64,
        dx: &mut [F],
    ) -> Result {
        Self::check(cols, x, targets, weights)?;
        check_len("element_loss", "dx", x.len(), dx.len())?;
        let scale = mean.gradient_scale(dloss) / cols as f64;
        each_row(cols, dx, |row, dx| {
            let range = row * cols..(row + 1) * cols;
            let (x, t) = (&x[range.clone()], &targets[range]);
            let scale = F::from_f64(scale * row_weight(weights, row));
            match self {
                Self::BinaryCrossEntropy => binary_row_gradient(x, t, scale, dx),
                Self::MeanSquared => square_row_gradient(x, t, scale, dx),
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numeric_gradient, random, with_one_and_three_threads};

    const COLS: usize = 7;
    const TARGETS: [i64; 5] = [0, 6, -100, 3, 3];

    fn run(op: CrossEntropy, x: &[f64], weights: Option<&[f64]>) -> (MeanLoss, Vec<f64>, Vec<f64>) {
        let (mut log_sums, mut rows) = (vec![0.0; 5], vec![0.0; 5]);
        let mean = op.forward(COLS, x, &TARGETS, weights, &mut log_sums, Some(&mut rows)).unwrap();
        (mean, log_sums, rows)
    }

    #[test]
    fn cross_entropy_matches_naive() {
        let x: Vec<f64> = random(5 * COLS, 1);
        let weights = [1.0, 0.5, 7.0, 0.0, 2.0];
        for label_smoothing in [0.0, 0.1] {
            let op = CrossEntropy { label_smoothing, ..Default::default() };
            let (mean, _, rows) = run(op, &x, Some(&weights));
            let (mut total, mut weight) = (0.0, 0.0);
            for (r, row) in x.chunks(COLS).enumerate().filter(|(r, _)| *r != 2) {
                let z = row.iter().map(|v| v.exp()).sum::<f64>().ln();
                let loss: f64 = (0..COLS)
                    .map(|c| {
                        let hard = f64::from(u8::from(TARGETS[r] == c as i64));
                        ((1.0 - label_smoothing) * hard + label_smoothing / COLS as f64)
                            * (z - row[c])
                    })
                    .sum();
                assert!((rows[r] - loss).abs() < 1e-12);
                total += weights[r] * loss;
                weight += weights[r];
            }
            assert!((mean.loss - total / weight).abs() < 1e-12 && mean.weight == weight);
            assert_eq!(rows[2], 0.0);
        }
    }

    #[test]
    fn cross_entropy_gradient_matches_differences() {
        let x: Vec<f64> = random(5 * COLS, 1);
        let weights = [1.0, 0.5, 7.0, 0.0, 2.0];
        for (label_smoothing, weights) in [(0.0, None), (0.2, Some(&weights[..]))] {
            let op = CrossEntropy { label_smoothing, ..Default::default() };
            let (mean, log_sums, _) = run(op, &x, weights);
            let mut dx = vec![f64::NAN; x.len()];
            op.backward(COLS, &x, &TARGETS, weights, &log_sums, mean, 3.0, &mut dx).unwrap();
            let expected = numeric_gradient(&x, |x| 3.0 * run(op, x, weights).0.loss);
            assert_close(&dx, &expected, 1e-8);
        }
    }

    #[test]
    fn all_rows_ignored_gives_zero_and_bad_targets_are_named() {
        let op = CrossEntropy::default();
        let x = [1f32; 6];
        let mut log_sums = [0f32; 2];
        let mean = op.forward(3, &x, &[-100, -100], None, &mut log_sums, None).unwrap();
        assert_eq!(mean, MeanLoss::default());
        let mut dx = [9f32; 6];
        op.backward(3, &x, &[-100, -100], None, &log_sums, mean, 1.0, &mut dx).unwrap();
        assert_eq!(dx, [0.0; 6]);
        let error = op.forward(3, &x, &[0, 3], None, &mut log_sums, None).unwrap_err();
        assert!(error.to_string().contains("targets[1] is 3, expected 0 to 2"));
        let op = CrossEntropy { label_smoothing: f64::NAN, ..op };
        assert!(op.forward(3, &x, &[0, 1], None, &mut log_sums, None).is_err());
    }

    #[test]
    fn element_losses_match_naive_and_differences() {
        let (x, t): (Vec<f64>, Vec<f64>) = (random(12, 1), random(12, 2));
        let t: Vec<f64> = t.iter().map(|v| v.abs()).collect();
        let weights = [1.0, 0.25, 2.0];
        for op in [ElementLoss::BinaryCrossEntropy, ElementLoss::MeanSquared] {
            let naive = |x: f64, t: f64| match op {
                ElementLoss::MeanSquared => (x - t).powi(2),
                ElementLoss::BinaryCrossEntropy => {
                    let p = 1.0 / (1.0 + (-x).exp());
                    -(t * p.ln() + (1.0 - t) * (1.0 - p).ln())
                }
            };
            let total: f64 = (0..12).map(|i| weights[i / 4] * naive(x[i], t[i]) / 4.0).sum();
            let mean = op.forward(4, &x, &t, Some(&weights)).unwrap();
            assert!((mean.loss - total / 3.25).abs() < 1e-12);
            let mut dx = vec![0.0; 12];
            op.backward(4, &x, &t, Some(&weights), mean, 2.0, &mut dx).unwrap();
            let expected =
                numeric_gradient(&x, |x| 2.0 * op.forward(4, x, &t, Some(&weights)).unwrap().loss);
            assert_close(&dx, &expected, 1e-8);
            assert_eq!(op.forward::<f64>(4, &[], &[], None).unwrap(), MeanLoss::default());
        }
        let far = ElementLoss::BinaryCrossEntropy.forward(1, &[-1000f32], &[1.0], None).unwrap();
        assert_eq!(far.loss, 1000.0);
    }

    #[test]
    fn threads_do_not_change_bits() {
        let (rows, cols) = (900, 151);
        let x: Vec<f32> = random(rows * cols, 1);
        let targets: Vec<i64> = (0..rows as i64).map(|i| i % cols as i64).collect();
        let (one, three) = with_one_and_three_threads(|| {
            let mut log_sums = vec![0f32; rows];
            let op = CrossEntropy { label_smoothing: 0.1, ..Default::default() };
            op.forward(cols, &x, &targets, None, &mut log_sums, None).unwrap().loss.to_bits()
        });
        assert_eq!(one, three);
    }
}
