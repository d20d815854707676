//! What recurrent layers over runs of tokens share: sizes, weights, the order of the steps, and the products that
//! need no recurrence.
//!
//! The input side of all gates is one product over all tokens. The steps then run over groups of runs, sorted by
//! length so that the runs which still go on stand first; a group has constant size, so results do not depend on the
//! threads.

use std::ops::Range;

use crate::elementwise::{Store, column_sum};
use crate::linear::{LinearShape, linear_backward_products};
use crate::runs::run_ranges;
use crate::{Float, Result, check_len};

/// Sizes of a recurrent layer: x is [T, inputs], y [T, hidden].
#[derive(Debug, Clone, Copy)]
pub struct RnnShape<'a> {
    /// Cumulative lengths [B + 1] of the runs; each begins with a state of zeros.
    pub starts: &'a [i64],
    /// Columns of x.
    pub inputs: usize,
    /// Columns of y and of the state.
    pub hidden: usize,
    /// Whether each run is read from its end; y stays in the order of x.
    pub reverse: bool,
}

/// Weights in PyTorch's layout; `g` is the number of gates: 4 (i, f, g, o) for the LSTM, 3 (r, z, n) for the GRU.
#[derive(Debug, Clone, Copy)]
pub struct RnnWeights<'a, F> {
    /// From the input, [g hidden, inputs].
    pub input: &'a [F],
    /// From the state, [g hidden, hidden].
    pub hidden: &'a [F],
    /// Bias of the input side, [g hidden].
    pub input_bias: &'a [F],
    /// Bias of the state's side, [g hidden].
    pub hidden_bias: &'a [F],
}

/// Where a backward pass stores its results; `None` for what nobody needs. Shapes are those of [`RnnWeights`].
#[derive(Debug, Default)]
pub struct RnnGradients<'a, F> {
    /// Gradient of x, [T, inputs].
    pub x: Option<(Store, &'a mut [F])>,
    /// Gradient of the weight from the input.
    pub input: Option<(Store, &'a mut [F])>,
    /// Gradient of the weight from the state.
    pub hidden: Option<(Store, &'a mut [F])>,
    /// Gradient of the input side's bias.
    pub input_bias: Option<(Store, &'a mut [F])>,
    /// Gradient of the state side's bias.
    pub hidden_bias: Option<(Store, &'a mut [F])>,
}

/// Most runs of one group.
const GROUP_RUNS: usize = 8;

/// Runs that are stepped through together, longest first, none empty.
#[derive(Debug)]
pub struct Group {
    runs: Vec<Range<usize>>,
    reverse: bool,
}

impl Group {
    /// All runs that are not empty, as one group.
    pub fn one(mut runs: Vec<Range<usize>>, reverse: bool) -> Self {
        runs.retain(|run| !run.is_empty());
        runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
        Self { runs, reverse }
    }

    /// All runs that are not empty, in groups.
    pub(super) fn all(runs: Vec<Range<usize>>, reverse: bool) -> Vec<Self> {
        let all = Self::one(runs, reverse);
        all.runs.chunks(GROUP_RUNS).map(|runs| Self { runs: runs.to_vec(), reverse }).collect()
    }

    /// Number of runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Length of the longest run.
    pub fn steps(&self) -> usize {
        self.runs.first().map_or(0, Range::len)
    }

    /// Number of runs that have a token at `step`; they are the first ones.
    pub fn active(&self, step: usize) -> usize {
        self.runs.partition_point(|run| run.len() > step)
    }

    /// The token that run `run` of the group reads at `step`.
    pub fn row(&self, run: usize, step: usize) -> usize {
        let run = &self.runs[run];
        if self.reverse { run.end - 1 - step } else { run.start + step }
    }
}

impl RnnShape<'_> {
    /// Checks all that the passes read, and returns the runs.
    pub(super) fn check<F: Float>(
        &self,
        kernel: &'static str,
        gates: usize,
        x: &[F],
        weights: &RnnWeights<'_, F>,
    ) -> Result<Vec<Range<usize>>> {
        let last = self.starts.last().map_or(0, |&last| usize::try_from(last).unwrap_or(0));
        let runs = run_ranges(kernel, "starts", self.starts, last)?;
        let Self { inputs, hidden, .. } = *self;
        check_len(kernel, "x", last * inputs, x.len())?;
        check_len(kernel, "weight of the input", gates * hidden * inputs, weights.input.len())?;
        check_len(kernel, "weight of the state", gates * hidden * hidden, weights.hidden.len())?;
        check_len(kernel, "bias of the input", gates * hidden, weights.input_bias.len())?;
        check_len(kernel, "bias of the state", gates * hidden, weights.hidden_bias.len())?;
        Ok(runs)
    }

    /// Multiply-adds of the products with the state.
    pub(super) fn work(&self, gates: usize, rows: usize) -> usize {
        rows * gates * self.hidden * self.hidden
    }

    /// The gradients that need no recurrence, from those of the gates: `dinput` and `dhidden` [T, gates * hidden],
    /// before the gates' functions, on the input's and on the state's side.
    pub(super) fn products<F: Float>(
        &self,
        runs: &[Range<usize>],
        (x, y): (&[F], &[F]),
        weights: &RnnWeights<'_, F>,
        (dinput, dhidden): (&[F], &[F]),
        gradients: RnnGradients<'_, F>,
    ) -> Result {
        let Self { inputs, hidden, .. } = *self;
        let outputs = weights.input_bias.len();
        let rows = runs.last().map_or(0, |run| run.end);
        let shape = LinearShape { rows, inputs, outputs, bf16: false };
        linear_backward_products(shape, x, weights.input, dinput, gradients.x, gradients.input)?;
        if let Some(dweight) = gradients.hidden {
            let before = self.states_before(runs, y);
            let shape = LinearShape { rows, inputs: hidden, outputs, bf16: false };
            linear_backward_products(shape, &before, weights.hidden, dhidden, None, Some(dweight))?;
        }
        let biases = [(dinput, gradients.input_bias), (dhidden, gradients.hidden_bias)];
        for (gates, dbias) in biases {
            if let Some((store, dbias)) = dbias {
                check_len("recurrent backward", "gradient of a bias", outputs, dbias.len())?;
                column_sum(gates, store, dbias)?;
            }
        }
        Ok(())
    }

    /// The state that each token met, [T, hidden].
    fn states_before<F: Float>(&self, runs: &[Range<usize>], y: &[F]) -> Vec<F> {
        let hidden = self.hidden;
        let mut before = vec![F::ZERO; y.len()];
        for run in runs.iter().filter(|run| run.len() > 1) {
            let (all, first, last) =
                (run.start * hidden..run.end * hidden, run.start + 1, run.end - 1);
            let (from, to) = if self.reverse {
                (first * hidden..all.end, all.start..last * hidden)
            } else {
                (all.start..last * hidden, first * hidden..all.end)
            };
            before[to].copy_from_slice(&y[from]);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_visit_every_token_once_in_either_direction() {
        let runs = vec![0..2, 2..2, 2..7, 7..8];
        for reverse in [false, true] {
            let groups = Group::all(runs.clone(), reverse);
            let group = &groups[0];
            assert_eq!((groups.len(), group.len(), group.steps()), (1, 3, 5));
            assert_eq!([0, 1, 2, 4, 5].map(|step| group.active(step)), [3, 2, 1, 1, 0]);
            let mut seen: Vec<usize> = (0..5)
                .flat_map(|step| (0..group.active(step)).map(move |run| group.row(run, step)))
                .collect();
            assert_eq!(seen[0], if reverse { 6 } else { 2 });
            seen.sort();
            assert_eq!(seen, (0..8).collect::<Vec<_>>());
        }
        assert_eq!(Group::all((0..20).map(|i| i..i + 1).collect(), false).len(), 3);
    }
}
