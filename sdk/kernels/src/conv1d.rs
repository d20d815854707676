//! One-dimensional convolution within runs of tokens: the taps of each output are gathered into a row, a part of the
//! rows at a time, and multiplied by the weight as one matrix.

use std::ops::Range;

use crate::elementwise::{Store, column_sum};
use crate::gemm::{Matrix, MatrixMut, gemm};
use crate::machine::scratch::with_scratch;
use crate::runs::run_ranges;
use crate::{BLOCK_LEN, Float, KernelError, Result, check_len, for_each_task};

/// What a convolution does at the borders of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// Zeros around the run, so that lengths stay: `dilation * (kernel - 1)` in all, half of them (rounded down)
    /// before.
    Same,
    /// Only outputs whose taps all lie within the run: `dilation * (kernel - 1)` fewer, none for shorter runs.
    Valid,
}

/// Sizes of a convolution: x [T, inputs], weight [outputs, inputs, kernel], y [T', outputs].
#[derive(Debug, Clone, Copy)]
pub struct Conv1dShape<'a> {
    /// Cumulative lengths [B + 1] of the runs of x.
    pub starts: &'a [i64],
    /// Columns of x.
    pub inputs: usize,
    /// Columns of y.
    pub outputs: usize,
    /// Taps, at least 1.
    pub kernel: usize,
    /// Tokens from one tap to the next, at least 1.
    pub dilation: usize,
    /// What happens at the borders of a run.
    pub border: Border,
}

/// Where [`conv1d_backward`] stores its results; `None` for what nobody needs.
#[derive(Debug, Default)]
pub struct Conv1dGradients<'a, F> {
    /// Gradient of x, [T, inputs].
    pub x: Option<(Store, &'a mut [F])>,
    /// Gradient of the weight, [outputs, inputs, kernel].
    pub weight: Option<(Store, &'a mut [F])>,
    /// Gradient of the bias, `[outputs]`.
    pub bias: Option<(Store, &'a mut [F])>,
}

/// Gathered elements that are multiplied at a time.
const PART_LEN: usize = 1 << 20;
/// Fewest rows of such a part: each product packs the weight again.
const PART_ROWS: usize = 256;

impl Conv1dShape<'_> {
    /// Cumulative lengths [B + 1] of the runs of y.
    pub fn output_starts(&self) -> Vec<i64> {
        if self.border == Border::Same {
            return self.starts.to_vec();
        }
        let lost = (self.dilation * self.kernel.saturating_sub(1)) as i64;
        let mut end = 0;
        let lengths = self.starts.windows(2).map(|pair| (pair[1] - pair[0] - lost).max(0));
        std::iter::once(0)
            .chain(lengths.map(|len| {
                end += len;
                end
            }))
            .collect()
    }

    /// The runs of x and of y.
    fn runs(&self, kernel: &'static str) -> Result<[Vec<Range<usize>>; 2]> {
        for (argument, found) in [("kernel", self.kernel), ("dilation", self.dilation)] {
            if found == 0 {
                return Err(KernelError::Value {
                    kernel,
                    argument,
                    expected: "at least 1",
                    found: 0.0,
                });
            }
        }
        let last =
            |starts: &[i64]| starts.last().map_or(0, |&last| usize::try_from(last).unwrap_or(0));
        let runs = run_ranges(kernel, "starts", self.starts, last(self.starts))?;
        let starts = self.output_starts();
        Ok([runs, run_ranges(kernel, "starts of the output", &starts, last(&starts))?])
    }

    /// Position in x of tap `tap` of the output at position 0.
    fn tap(&self, tap: usize) -> isize {
        let before = match self.border {
            Border::Same => self.dilation * (self.kernel - 1) / 2,
            Border::Valid => 0,
        };
        (tap * self.dilation) as isize - before as isize
    }
}

fn rows_of(runs: &[Range<usize>]) -> usize {
    runs.last().map_or(0, |run| run.end)
}

/// Rows of one part of a gathered matrix with `cols` columns.
fn part_rows(cols: usize) -> usize {
    (PART_LEN / cols.max(1)).max(PART_ROWS)
}

/// Rows `rows` of the gathered matrix [targets, taps * cols]: for target position `i` of a run, tap `tap` is row
/// `i + taps[tap]` of the same run of `sources`, or zeros beyond its ends.
fn gather<F: Float>(
    source: &[F],
    cols: usize,
    sources: &[Range<usize>],
    targets: &[Range<usize>],
    taps: &[isize],
    rows: Range<usize>,
    out: &mut [F],
) {
    let width = taps.len() * cols;
    let step = (BLOCK_LEN / width.max(1)).max(1);
    let tasks = out[..rows.len() * width].chunks_mut(step * width).enumerate().collect();
    for_each_task(tasks, |(i, out)| {
        let first = rows.start + i * step;
        let mut run = targets.partition_point(|run| run.end <= first);
        for (row, out) in (first..).zip(out.chunks_exact_mut(width)) {
            while targets[run].end <= row {
                run += 1;
            }
            let position = (row - targets[run].start) as isize;
            for (&tap, out) in taps.iter().zip(out.chunks_exact_mut(cols)) {
                match usize::try_from(position + tap) {
                    Ok(at) if at < sources[run].len() => {
                        out.copy_from_slice(&source[(sources[run].start + at) * cols..][..cols]);
                    }
                    _ => out.fill(F::ZERO),
                }
            }
        }
    });
}

/// The weight [outputs, inputs, kernel] as [outputs, kernel, inputs].
fn taps_first<F: Float>(shape: &Conv1dShape<'_>, weight: &[F]) -> Vec<F> {
    let mut out = vec![F::ZERO; weight.len()];
    for (i, &w) in weight.iter().enumerate() {
        out[place(shape, i)] = w;
    }
    out
}

/// Where element `i` of the weight stands in [`taps_first`].
fn place(shape: &Conv1dShape<'_>, i: usize) -> usize {
    let (tap, input, output) =
        (i % shape.kernel, i / shape.kernel % shape.inputs, i / shape.kernel / shape.inputs);
    (output * shape.kernel + tap) * shape.inputs + input
}

/// y = x * weight + bias within each run: y[t, o] is the sum over inputs c and taps k of x[t + k dilation - before, c]
/// weight[o, c, k] (a cross-correlation, as in all deep-learning libraries).
///
/// # Errors
/// If a slice does not fit `shape`, `starts` are no cumulative lengths, or `kernel` or `dilation` is 0.
pub fn conv1d_forward<F: Float>(
    shape: Conv1dShape<'_>,
    x: &[F],
    weight: &[F],
    bias: Option<&[F]>,
    y: &mut [F],
) -> Result {
    const NAME: &str = "conv1d_forward";
    let Conv1dShape { inputs, outputs, kernel, .. } = shape;
    let [sources, targets] = shape.runs(NAME)?;
    let rows = rows_of(&targets);
    check_len(NAME, "x", rows_of(&sources) * inputs, x.len())?;
    check_len(NAME, "weight", outputs * inputs * kernel, weight.len())?;
    check_len(NAME, "y", rows * outputs, y.len())?;
    if let Some(bias) = bias {
        check_len(NAME, "bias", outputs, bias.len())?;
        y.chunks_exact_mut(outputs.max(1)).for_each(|row| row.copy_from_slice(bias));
    } else {
        y.fill(F::ZERO);
    }
    if y.is_empty() || inputs == 0 {
        return Ok(());
    }
    let weight = taps_first(&shape, weight);
    let taps: Vec<isize> = (0..kernel).map(|tap| shape.tap(tap)).collect();
    let width = inputs * kernel;
    let step = part_rows(width);
    with_scratch::<F, _>(step.min(rows) * width, |columns| {
        for first in (0..rows).step_by(step) {
            let part = first..rows.min(first + step);
            gather(x, inputs, &sources, &targets, &taps, part.clone(), columns);
            let left = Matrix::new(columns, part.len(), width)?;
            let right = Matrix::new(&weight, outputs, width)?.t();
            let y = &mut y[part.start * outputs..part.end * outputs];
            gemm(F::ONE, left, right, F::ONE, &mut MatrixMut::new(y, part.len(), outputs)?)?;
        }
        Ok(())
    })
}

/// Gradients of [`conv1d_forward`] from `dy` [T', outputs]: of x [T, inputs], of the weight [outputs, inputs, kernel]
/// and of the bias `[outputs]`, those that `gradients` asks for.
///
/// # Errors
/// As [`conv1d_forward`].
pub fn conv1d_backward<F: Float>(
    shape: Conv1dShape<'_>,
    x: &[F],
    weight: &[F],
    dy: &[F],
    gradients: Conv1dGradients<'_, F>,
) -> Result {
    const NAME: &str = "conv1d_backward";
    let Conv1dShape { inputs, outputs, kernel, .. } = shape;
    let [sources, targets] = shape.runs(NAME)?;
    check_len(NAME, "x", rows_of(&sources) * inputs, x.len())?;
    check_len(NAME, "weight", outputs * inputs * kernel, weight.len())?;
    check_len(NAME, "dy", rows_of(&targets) * outputs, dy.len())?;
    let Conv1dGradients { x: dx, weight: dweight, bias: dbias } = gradients;
    if let Some((store, dbias)) = dbias {
        check_len(NAME, "dbias", outputs, dbias.len())?;
        column_sum(dy, store, dbias)?;
    }
    if let Some((store, dweight)) = dweight {
        check_len(NAME, "dweight", weight.len(), dweight.len())?;
        if store == Store::Write {
            dweight.fill(F::ZERO);
        }
        if !dweight.is_empty() {
            weight_gradient(&shape, x, dy, [&sources, &targets], dweight)?;
        }
    }
    if let Some((store, dx)) = dx {
        check_len(NAME, "dx", x.len(), dx.len())?;
        if store == Store::Write {
            dx.fill(F::ZERO);
        }
        if !dx.is_empty() && outputs > 0 {
            input_gradient(&shape, weight, dy, [&sources, &targets], dx)?;
        }
    }
    Ok(())
}

/// dweight += dy^T x, part by part in order.
fn weight_gradient<F: Float>(
    shape: &Conv1dShape<'_>,
    x: &[F],
    dy: &[F],
    [sources, targets]: [&[Range<usize>]; 2],
    dweight: &mut [F],
) -> Result {
    let Conv1dShape { inputs, outputs, kernel, .. } = *shape;
    let (rows, width) = (rows_of(targets), inputs * kernel);
    let taps: Vec<isize> = (0..kernel).map(|tap| shape.tap(tap)).collect();
    let step = part_rows(width);
    let mut sum = vec![F::ZERO; dweight.len()];
    with_scratch::<F, _>(step.min(rows) * width, |columns| {
        for first in (0..rows).step_by(step) {
            let part = first..rows.min(first + step);
            gather(x, inputs, sources, targets, &taps, part.clone(), columns);
            let dy = &dy[part.start * outputs..part.end * outputs];
            let left = Matrix::new(dy, part.len(), outputs)?.t();
            let right = Matrix::new(columns, part.len(), width)?;
            gemm(F::ONE, left, right, F::ONE, &mut MatrixMut::new(&mut sum, outputs, width)?)?;
        }
        Ok(())
    })?;
    for (i, dweight) in dweight.iter_mut().enumerate() {
        *dweight += sum[place(shape, i)];
    }
    Ok(())
}

/// dx += the convolution of dy with the transposed weight.
fn input_gradient<F: Float>(
    shape: &Conv1dShape<'_>,
    weight: &[F],
    dy: &[F],
    [sources, targets]: [&[Range<usize>]; 2],
    dx: &mut [F],
) -> Result {
    let Conv1dShape { inputs, outputs, kernel, .. } = *shape;
    let (rows, width) = (rows_of(sources), outputs * kernel);
    // [kernel, outputs, inputs], to be multiplied by rows of [kernel, outputs].
    let mut by_tap = vec![F::ZERO; weight.len()];
    for (i, &w) in weight.iter().enumerate() {
        let (tap, input, output) = (i % kernel, i / kernel % inputs, i / kernel / inputs);
        by_tap[(tap * outputs + output) * inputs + input] = w;
    }
    let taps: Vec<isize> = (0..kernel).map(|tap| -shape.tap(tap)).collect();
    let step = part_rows(width);
    with_scratch::<F, _>(step.min(rows) * width, |columns| {
        for first in (0..rows).step_by(step) {
            let part = first..rows.min(first + step);
            gather(dy, outputs, targets, sources, &taps, part.clone(), columns);
            let left = Matrix::new(columns, part.len(), width)?;
            let right = Matrix::new(&by_tap, width, inputs)?;
            let dx = &mut dx[part.start * inputs..part.end * inputs];
            gemm(F::ONE, left, right, F::ONE, &mut MatrixMut::new(dx, part.len(), inputs)?)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    fn forward<F: Float>(shape: Conv1dShape<'_>, x: &[F], w: &[F], b: &[F]) -> Vec<F> {
        let rows = *shape.output_starts().last().unwrap() as usize;
        let mut y = vec![F::from_f64(f64::NAN); rows * shape.outputs];
        conv1d_forward(shape, x, w, Some(b), &mut y).unwrap();
        y
    }

    fn naive(shape: Conv1dShape<'_>, x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let mut y = vec![];
        let total = (shape.dilation * (shape.kernel - 1)) as i64;
        for run in shape.starts.windows(2) {
            let len = run[1] - run[0];
            let (before, count) =
                if shape.border == Border::Same { (total / 2, len) } else { (0, len - total) };
            for t in 0..count {
                for o in 0..shape.outputs {
                    let mut sum = b[o];
                    for c in 0..shape.inputs {
                        for k in 0..shape.kernel {
                            let at = t + (k * shape.dilation) as i64 - before;
                            if (0..len).contains(&at) {
                                sum += x[(run[0] + at) as usize * shape.inputs + c]
                                    * w[(o * shape.inputs + c) * shape.kernel + k];
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
        y
    }

    const STARTS: [i64; 5] = [0, 4, 4, 5, 12];

    fn shapes() -> Vec<Conv1dShape<'static>> {
        let mut all = vec![];
        for border in [Border::Same, Border::Valid] {
            for (kernel, dilation) in [(1, 1), (3, 1), (4, 1), (3, 2), (9, 1)] {
                all.push(Conv1dShape {
                    starts: &STARTS,
                    inputs: 3,
                    outputs: 2,
                    kernel,
                    dilation,
                    border,
                });
            }
        }
        all
    }

    #[test]
    fn values_match_plain_loops() {
        for shape in shapes() {
            let x: Vec<f64> = random(36, 1);
            let (w, b): (Vec<f64>, Vec<f64>) = (random(6 * shape.kernel, 2), random(2, 3));
            assert_close(&forward(shape, &x, &w, &b), &naive(shape, &x, &w, &b), 1e-13);
        }
    }

    #[test]
    fn gradients_match_differences() {
        for shape in shapes() {
            let x: Vec<f64> = random(36, 1);
            let (w, b): (Vec<f64>, Vec<f64>) = (random(6 * shape.kernel, 2), random(2, 3));
            let dy: Vec<f64> = random(*shape.output_starts().last().unwrap() as usize * 2, 4);
            let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&forward(shape, x, w, b), &dy);
            let (mut dx, mut dw, mut db) = (vec![f64::NAN; 36], vec![1.0; w.len()], vec![1.0; 2]);
            let gradients = Conv1dGradients {
                x: Some((Store::Write, &mut dx)),
                weight: Some((Store::Add, &mut dw)),
                bias: Some((Store::Add, &mut db)),
            };
            conv1d_backward(shape, &x, &w, &dy, gradients).unwrap();
            let plus_one = |v: Vec<f64>| v.iter().map(|v| v + 1.0).collect::<Vec<_>>();
            assert_close(&dx, &numeric_gradient(&x, |x| loss(x, &w, &b)), 1e-8);
            assert_close(&dw, &plus_one(numeric_gradient(&w, |w| loss(&x, w, &b))), 1e-8);
            assert_close(&db, &plus_one(numeric_gradient(&b, |b| loss(&x, &w, b))), 1e-8);
        }
    }

    #[test]
    fn several_parts_match_and_threads_do_not_change_bits() {
        let starts = [0i64, 900, 907, 3000];
        let shape = Conv1dShape {
            starts: &starts,
            inputs: 160,
            outputs: 24,
            kernel: 5,
            dilation: 1,
            border: Border::Same,
        };
        assert!(part_rows(shape.inputs * shape.kernel) < 3000);
        let (x, w): (Vec<f32>, Vec<f32>) = (random(3000 * 160, 1), random(24 * 160 * 5, 2));
        let (b, dy): (Vec<f32>, Vec<f32>) = (random(24, 3), random(3000 * 24, 4));
        let (one, three) = with_one_and_three_threads(|| {
            let (mut dx, mut dw, mut db) =
                (vec![0f32; x.len()], vec![0f32; w.len()], vec![0f32; 24]);
            let gradients = Conv1dGradients {
                x: Some((Store::Write, &mut dx)),
                weight: Some((Store::Write, &mut dw)),
                bias: Some((Store::Write, &mut db)),
            };
            conv1d_backward(shape, &x, &w, &dy, gradients).unwrap();
            [forward(shape, &x, &w, &b), dx, dw, db].concat()
        });
        assert_same_bits(&one, &three);
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let expected = naive(shape, &wide(&x), &wide(&w), &wide(&b));
        assert_close(&one[..3000 * 24], &expected, 5e-5);
    }

    #[test]
    fn bad_sizes_are_refused_and_empty_ones_are_not() {
        let shape = shapes()[0];
        let run = |shape| conv1d_forward(shape, &[0f32; 36], &[0.0; 6], None, &mut [0.0; 24]);
        run(shape).unwrap();
        assert!(run(Conv1dShape { kernel: 0, ..shape }).is_err());
        assert!(run(Conv1dShape { dilation: 0, ..shape }).is_err());
        assert!(run(Conv1dShape { starts: &[0, 9, 8, 12], ..shape }).is_err());
        assert!(run(Conv1dShape { outputs: 3, ..shape }).is_err());
        let none = Conv1dShape { starts: &[0, 0], ..shape };
        conv1d_forward::<f32>(none, &[], &[0.0; 6], None, &mut []).unwrap();
    }
}
