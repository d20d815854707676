//! Multi-head scaled dot product attention over runs of tokens, forward (Vaswani et al., "Attention is all you need", 2017).
//!
//! Computed tile by tile with a running maximum and sum (Dao, "FlashAttention-2", 2023): no matrix of all scores exists.
//! The size of a tile and the order of all sums depend on the lengths of the run only, never on the threads.

use std::ops::Range;

use super::gemm::{Matrix, MatrixMut, gemm_serial};
use super::philox::Dropout;
use super::runs::{Rows, SharedRows, for_each_run_task, run_ranges};
use super::scratch::{take, with_scratch};
use super::simd::{self, multiversion};
use super::{Float, KernelError, Result, check_len};

/// Most queries of one tile.
pub(super) const QUERY_TILE: usize = 128;
/// Most keys of one tile.
pub(super) const KEY_TILE: usize = 256;
/// Tile widths are multiples of this, so that rows of a tile are whole vectors and whole Philox blocks.
const TILE_STEP: usize = 16;

/// What attention computes: H = `heads * head_size` columns, of which head `h` has `h * head_size..(h + 1) * head_size`.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape<'a> {
    /// Number of heads, at least 1.
    pub heads: usize,
    /// Columns of one head, at least 1.
    pub head_size: usize,
    /// Cumulative lengths [B + 1] of the runs of queries; ends with Tq.
    pub query_starts: &'a [i64],
    /// Cumulative lengths [B + 1] of the runs of keys and values; ends with Tk. Queries of run `b` see the keys of run `b`.
    pub key_starts: &'a [i64],
    /// Whether query `i` of a run with `lq` queries and `lk` keys sees only the keys `j <= i + lk - lq`.
    pub causal: bool,
    /// Factor on the scores; usually `1 / sqrt(head_size)`.
    pub scale: f64,
}

/// One run: its rows of queries and of keys.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
}

/// Where the random numbers of one row of probabilities begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct DropoutRows {
    pub(super) dropout: Dropout,
    /// Elements between the rows of one head.
    row_stride: u64,
    /// The element of (query 0 of the run, this head, key 0 of the run).
    start: u64,
}

impl DropoutRows {
    /// The element of query `query` and key `key`, both counted within the run.
    #[inline(always)]
    fn element(&self, query: usize, key: usize) -> u64 {
        self.start + query as u64 * self.row_stride + key as u64
    }
}

/// A tile of scores: where it lies in its run, and how many keys each of its rows sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) first_query: usize,
    pub(super) first_key: usize,
    /// `Some(lk - lq)` if causal.
    pub(super) causal_shift: Option<isize>,
    pub(super) dropout: Option<DropoutRows>,
}

impl Tile {
    /// Keys of the tile that row `row` of the tile sees; they are its first columns.
    #[inline(always)]
    pub(super) fn visible(&self, row: usize) -> usize {
        match self.causal_shift {
            None => self.cols,
            Some(shift) => {
                let seen = (self.first_query + row + 1) as isize + shift - self.first_key as isize;
                seen.clamp(0, self.cols as isize) as usize
            }
        }
    }

    /// The dropout factors of the first `len` keys of row `row`, written to `buffer`; `None` without dropout.
    #[inline(always)]
    pub(super) fn factors<'b, F: Float>(
        &self,
        row: usize,
        len: usize,
        buffer: &'b mut [F],
    ) -> Option<&'b [F]> {
        let rows = self.dropout.as_ref()?;
        let factors = &mut buffer[..len];
        rows.dropout.factors(rows.element(self.first_query + row, self.first_key), factors);
        Some(factors)
    }
}

/// Elements of `len` per tile: as even as steps of [`TILE_STEP`] allow and at most `most`.
pub(super) fn tile_len(len: usize, most: usize) -> usize {
    let tiles = len.div_ceil(most).max(1);
    len.div_ceil(tiles).next_multiple_of(TILE_STEP).min(most)
}

impl AttentionShape<'_> {
    /// H, the columns of queries, keys, values and outputs.
    pub fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Elements between two rows of probabilities in the stream of random numbers: the length of the longest run of keys,
    /// rounded up to a multiple of 4, so that every row begins with a block of Philox.
    fn dropout_row_len(&self) -> usize {
        let lengths = self.key_starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        (lengths.max().unwrap_or(0).max(0) as usize).next_multiple_of(4)
    }

    /// Elements of the stream that dropout uses: the caller's next offset is this much further on. The probability of head
    /// `h`, query row `t` (of all Tq) and key `j` (of its run) uses element `(t * heads + h) * m + j`, where `m` is the length of the
    /// longest run of keys, rounded up to a multiple of 4.
    pub fn dropout_elements(&self) -> u64 {
        let rows = self.query_starts.last().copied().unwrap_or(0).max(0) as u64;
        rows * self.heads as u64 * self.dropout_row_len() as u64
    }

    pub(super) fn dropout_rows(&self, dropout: &Dropout, run: &Run, head: usize) -> DropoutRows {
        let row_len = self.dropout_row_len() as u64;
        DropoutRows {
            dropout: *dropout,
            row_stride: self.heads as u64 * row_len,
            start: (run.queries.start * self.heads + head) as u64 * row_len,
        }
    }

    /// The runs; fails unless the shape is sound for that many rows of queries and keys.
    pub(super) fn runs(
        &self,
        kernel: &'static str,
        queries: usize,
        keys: usize,
    ) -> Result<Vec<Run>> {
        for (argument, found) in [("heads", self.heads), ("head_size", self.head_size)] {
            if found == 0 {
                return Err(KernelError::Value {
                    kernel,
                    argument,
                    expected: "at least 1",
                    found: 0.0,
                });
            }
        }
        if !self.scale.is_finite() {
            return Err(KernelError::Value {
                kernel,
                argument: "scale",
                expected: "a finite number",
                found: self.scale,
            });
        }
        check_len(kernel, "key_starts", self.query_starts.len(), self.key_starts.len())?;
        let queries = run_ranges(kernel, "query_starts", self.query_starts, queries)?;
        let keys = run_ranges(kernel, "key_starts", self.key_starts, keys)?;
        Ok(queries.into_iter().zip(keys).map(|(queries, keys)| Run { queries, keys }).collect())
    }

    /// Rows that the starts promise, 0 if there are none.
    pub(super) fn rows_of(starts: &[i64]) -> usize {
        starts.last().map_or(0, |&last| usize::try_from(last).unwrap_or(0))
    }

    /// Multiply-adds of one product with all scores.
    pub(super) fn work(&self, runs: &[Run]) -> usize {
        runs.iter().map(|run| run.queries.len() * run.keys.len() * self.width()).sum()
    }

    pub(super) fn causal_shift(&self, run: &Run) -> Option<isize> {
        self.causal.then(|| run.keys.len() as isize - run.queries.len() as isize)
    }
}

/// The columns of one head in `rows` rows from `first` on.
pub(super) fn head_matrix<'a, F: Float>(
    x: &Rows<'a, F>,
    rows: Range<usize>,
    head: usize,
    head_size: usize,
) -> Result<Matrix<'a, F>> {
    let data = if rows.is_empty() { &[] } else { x.from(rows.start, head * head_size) };
    Matrix::strided(data, [rows.len(), head_size], [x.stride(), 1])
}

/// A row-major matrix whose rows are `stride` apart.
pub(super) fn strided_mut<F: Float>(
    data: &mut [F],
    rows: usize,
    cols: usize,
    stride: usize,
) -> Result<MatrixMut<'_, F>> {
    MatrixMut::strided(data, [rows, cols], [stride, 1])
}

/// What the running softmax of some rows knows.
struct Softmax<'a, F> {
    /// Largest score so far, per row.
    largest: &'a mut [F],
    /// Sum of exp(score - largest) so far, per row.
    sum: &'a mut [F],
    /// Weighted sum of values so far, [rows, head_size].
    values: &'a mut [F],
}

multiversion! {
    /// Replaces the scores of a tile by exp(score - largest) times the dropout factors, and brings the earlier sums to the new
    /// maximum. `factors` is a buffer for one row.
    fn softmax_tile<F: Float>(
        tile: &Tile, scores: &mut [F], stride: usize, state: &mut Softmax<'_, F>, factors: &mut [F],
    ) {
        let head_size = state.values.len() / tile.rows;
        for row in 0..tile.rows {
            let visible = tile.visible(row);
            let (live, dead) = scores[row * stride..row * stride + tile.cols].split_at_mut(visible);
            dead.fill(F::ZERO);
            if live.is_empty() {
                continue;
            }
            let before = state.largest[row];
            let here = simd::max(live);
            // A NaN among the scores stays: the comparison is false.
            let largest = if before > here { before } else { here };
            for score in live.iter_mut() {
                *score = (*score - largest).exp();
            }
            let correction = (before - largest).exp();
            state.sum[row] = state.sum[row] * correction + simd::sum(live);
            state.largest[row] = largest;
            for value in &mut state.values[row * head_size..(row + 1) * head_size] {
                *value *= correction;
            }
            if let Some(factors) = tile.factors(row, visible, factors) {
                for (score, &factor) in live.iter_mut().zip(factors) {
                    *score *= factor;
                }
            }
        }
    }

    /// out = values / sum; returns the logarithm of the sum of exp(score). A row without keys gives zeros and -infinity.
    fn finish_row<F: Float>(largest: F, sum: F, values: &[F], out: &mut [F]) -> F {
        if sum == F::ZERO {
            out.fill(F::ZERO);
            return F::NEG_INFINITY;
        }
        let factor = F::ONE / sum;
        for (out, &value) in out.iter_mut().zip(values) {
            *out = value * factor;
        }
        largest + sum.ln()
    }
}

/// Attention: for each head, `o = dropout(softmax(scale q k^T)) v` within each run.
///
/// `q` is [Tq, H], `k` and `v` are [Tk, H], each with its own row stride, so they may be thirds of one [T, 3 H] buffer. Writes
/// `o` [Tq, H] and `lse` [Tq, heads], the logarithm of the sum of the exponentials of a row's scores, which the backward
/// pass needs. A query without keys gives zeros (and -infinity in `lse`). For the random numbers of dropout see
/// [`AttentionShape::dropout_elements`].
///
/// # Errors
/// If the slices do not fit the shape, or the shape is not sound (no heads, bad starts, scale not finite).
pub fn attention_forward<F: Float>(
    shape: AttentionShape<'_>,
    q: Rows<'_, F>,
    k: Rows<'_, F>,
    v: Rows<'_, F>,
    dropout: Option<Dropout>,
    o: &mut [F],
    lse: &mut [F],
) -> Result {
    const NAME: &str = "attention_forward";
    let AttentionShape { heads, head_size, .. } = shape;
    let queries = AttentionShape::rows_of(shape.query_starts);
    let keys = AttentionShape::rows_of(shape.key_starts);
    let runs = shape.runs(NAME, queries, keys)?;
    q.check(NAME, "q", queries, shape.width())?;
    k.check(NAME, "k", keys, shape.width())?;
    v.check(NAME, "v", keys, shape.width())?;
    check_len(NAME, "o", queries * shape.width(), o.len())?;
    check_len(NAME, "lse", queries * heads, lse.len())?;

    let mut tasks = Vec::new();
    for run in &runs {
        let step = tile_len(run.queries.len(), QUERY_TILE);
        for first in (0..run.queries.len()).step_by(step.max(1)) {
            let block = first..(first + step).min(run.queries.len());
            tasks.extend((0..heads).map(|head| (run, block.clone(), head)));
        }
    }
    let (o, lse) = (SharedRows::new(o, shape.width()), SharedRows::new(lse, heads));
    for_each_run_task(2 * shape.work(&runs), tasks, |(run, block, head)| {
        let key_step = tile_len(run.keys.len(), KEY_TILE);
        let rows = block.len();
        let len = rows * key_step + key_step + rows * (head_size + 2);
        with_scratch::<F, _>(len, |mut rest| {
            let scores = take(&mut rest, rows * key_step);
            let factors = take(&mut rest, key_step);
            let mut state = Softmax {
                largest: take(&mut rest, rows),
                sum: take(&mut rest, rows),
                values: take(&mut rest, rows * head_size),
            };
            forward_block(
                &shape,
                [&q, &k, &v],
                (run, block.clone(), head),
                dropout.map(|dropout| shape.dropout_rows(&dropout, run, head)),
                (scores, factors, key_step),
                &mut state,
            )
            .expect("extents were checked above");
            for row in 0..rows {
                let t = run.queries.start + block.start + row;
                let values = &state.values[row * head_size..(row + 1) * head_size];
                // SAFETY: a task is the only one with its query rows and head, so no other segment shares an element.
                let (o, lse) = unsafe {
                    let columns = head * head_size..(head + 1) * head_size;
                    (o.segment(t, columns), lse.segment(t, head..head + 1))
                };
                lse[0] = finish_row(state.largest[row], state.sum[row], values, o);
            }
        });
    });
    Ok(())
}

/// The running softmax and weighted values of one block of queries of one head.
fn forward_block<F: Float>(
    shape: &AttentionShape<'_>,
    [q, k, v]: [&Rows<'_, F>; 3],
    (run, block, head): (&Run, Range<usize>, usize),
    dropout: Option<DropoutRows>,
    (scores, factors, key_step): (&mut [F], &mut [F], usize),
    state: &mut Softmax<'_, F>,
) -> Result {
    let head_size = shape.head_size;
    state.largest.fill(F::NEG_INFINITY);
    state.sum.fill(F::ZERO);
    state.values.fill(F::ZERO);
    let rows = run.queries.start + block.start..run.queries.start + block.end;
    let queries = head_matrix(q, rows, head, head_size)?;
    for first_key in (0..run.keys.len()).step_by(key_step.max(1)) {
        let cols = key_step.min(run.keys.len() - first_key);
        let tile = Tile {
            rows: block.len(),
            cols,
            first_query: block.start,
            first_key,
            causal_shift: shape.causal_shift(run),
            dropout,
        };
        if tile.visible(tile.rows - 1) == 0 {
            break;
        }
        let rows = run.keys.start + first_key..run.keys.start + first_key + cols;
        let keys = head_matrix(k, rows.clone(), head, head_size)?;
        let mut product = strided_mut(scores, tile.rows, cols, key_step)?;
        gemm_serial(F::from_f64(shape.scale), queries, keys.t(), F::ZERO, &mut product)?;
        softmax_tile(&tile, scores, key_step, state, factors);
        let weights = Matrix::strided(scores, [tile.rows, cols], [key_step, 1])?;
        let mut values = strided_mut(state.values, tile.rows, head_size, head_size)?;
        gemm_serial(F::ONE, weights, head_matrix(v, rows, head, head_size)?, F::ONE, &mut values)?;
    }
    Ok(())
}

/// The probabilities themselves, for inspection: one vector per run, [heads, queries, keys], without dropout.
///
/// # Errors
/// As [`attention_forward`].
pub fn attention_probabilities<F: Float>(
    shape: AttentionShape<'_>,
    q: Rows<'_, F>,
    k: Rows<'_, F>,
) -> Result<Vec<Vec<F>>> {
    const NAME: &str = "attention_probabilities";
    let queries = AttentionShape::rows_of(shape.query_starts);
    let keys = AttentionShape::rows_of(shape.key_starts);
    let runs = shape.runs(NAME, queries, keys)?;
    q.check(NAME, "q", queries, shape.width())?;
    k.check(NAME, "k", keys, shape.width())?;
    let mut all = Vec::with_capacity(runs.len());
    for run in &runs {
        let (rows, cols) = (run.queries.len(), run.keys.len());
        let mut out = vec![F::ZERO; shape.heads * rows * cols];
        if out.is_empty() {
            all.push(out);
            continue;
        }
        for (head, scores) in out.chunks_exact_mut(rows * cols).enumerate() {
            let queries = head_matrix(&q, run.queries.clone(), head, shape.head_size)?;
            let keys = head_matrix(&k, run.keys.clone(), head, shape.head_size)?;
            let mut product = MatrixMut::new(scores, rows, cols)?;
            gemm_serial(F::from_f64(shape.scale), queries, keys.t(), F::ZERO, &mut product)?;
            let causal_shift = shape.causal_shift(run);
            let tile =
                Tile { rows, cols, first_query: 0, first_key: 0, causal_shift, dropout: None };
            let (mut largest, mut sum) = (vec![F::NEG_INFINITY; rows], vec![F::ZERO; rows]);
            let mut state = Softmax { largest: &mut largest, sum: &mut sum, values: &mut [] };
            softmax_tile(&tile, scores, cols, &mut state, &mut []);
            for (row, &sum) in scores.chunks_exact_mut(cols).zip(&sum) {
                let factor = if sum == F::ZERO { F::ZERO } else { F::ONE / sum };
                row.iter_mut().for_each(|p| *p *= factor);
            }
        }
        all.push(out);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::philox::Counter;
    use crate::kernels::testing::{
        assert_close, assert_same_bits, random, with_one_and_three_threads,
    };

    /// Plain loops over fused q, k, v [T, 3 H] in `f64`.
    fn naive(shape: &AttentionShape<'_>, qkv: &[f64], keep: impl Fn(u64) -> f64) -> Vec<f64> {
        let (h, d) = (shape.width(), shape.head_size);
        let mut out = vec![0.0; qkv.len() / 3];
        let lengths = shape.key_starts.windows(2).map(|p| p[1] - p[0]);
        let row_len = (lengths.max().unwrap() as u64).next_multiple_of(4);
        for run in shape.query_starts.windows(2) {
            let run = run[0] as usize..run[1] as usize;
            for (t, head) in run.clone().flat_map(|t| (0..shape.heads).map(move |head| (t, head))) {
                let end = if shape.causal { t + 1 } else { run.end };
                let at = |row: usize, third: usize, c: usize| {
                    qkv[row * 3 * h + third * h + head * d + c]
                };
                let p: Vec<f64> = (run.start..end)
                    .map(|s| {
                        (shape.scale * (0..d).map(|c| at(t, 0, c) * at(s, 1, c)).sum::<f64>()).exp()
                    })
                    .collect();
                let sum: f64 = p.iter().sum();
                for (j, p) in p.iter().enumerate() {
                    let element = (t * shape.heads + head) as u64 * row_len + j as u64;
                    for c in 0..d {
                        out[t * h + head * d + c] +=
                            p / sum * keep(element) * at(run.start + j, 2, c);
                    }
                }
            }
        }
        out
    }

    fn forward<F: Float>(shape: AttentionShape<'_>, qkv: &[F], dropout: Option<Dropout>) -> Vec<F> {
        let h = shape.width();
        let rows = qkv.len() / (3 * h);
        let part = |third: usize| Rows::new(qkv.get(third * h..).unwrap_or(&[]), 3 * h);
        let (mut o, mut lse) = (vec![F::ONE; rows * h], vec![F::ONE; rows * shape.heads]);
        attention_forward(shape, part(0), part(1), part(2), dropout, &mut o, &mut lse).unwrap();
        o
    }

    #[test]
    fn matches_plain_loops_over_several_tiles() {
        // Longer than a tile in both directions, an empty run, a single token.
        let starts = [0i64, 5, 5, 6, 310, 330];
        let dropout = Dropout::new(0.25, Counter::new(5, 6, 7)).unwrap();
        for (heads, head_size, causal) in [(2, 8, false), (3, 5, true)] {
            let scale = 3.0 / (head_size as f64).sqrt();
            let (query_starts, key_starts) = (&starts[..], &starts[..]);
            let shape =
                AttentionShape { heads, head_size, query_starts, key_starts, causal, scale };
            let qkv: Vec<f32> = random(330 * 3 * shape.width(), 1);
            let wide: Vec<f64> = qkv.iter().map(|&v| f64::from(v)).collect();
            assert_close(&forward(shape, &qkv, None), &naive(&shape, &wide, |_| 1.0), 3e-6);
            let mut factors = vec![0f64; shape.dropout_elements() as usize];
            dropout.write_factors(0, &mut factors);
            let expected = naive(&shape, &wide, |element| factors[element as usize]);
            assert_close(&forward(shape, &qkv, Some(dropout)), &expected, 3e-6);
        }
    }

    #[test]
    fn probabilities_give_the_output_and_respect_causality() {
        let starts = [0i64, 4, 4, 9];
        let (query_starts, key_starts) = (&starts[..], &starts[..]);
        let shape = AttentionShape {
            heads: 2,
            head_size: 3,
            query_starts,
            key_starts,
            causal: true,
            scale: 0.7,
        };
        let qkv: Vec<f64> = random(9 * 18, 3);
        let part = |third: usize| Rows::new(&qkv[third * 6..], 18);
        let all = attention_probabilities(shape, part(0), part(1)).unwrap();
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [32, 0, 50]);
        let o = forward(shape, &qkv, None);
        for (run, (start, len)) in [(0, (0, 4)), (2, (4, 5))] {
            for (head, i) in (0..2).flat_map(|head| (0..len).map(move |i| (head, i))) {
                let p = &all[run][(head * len + i) * len..][..len];
                assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(p[i + 1..].iter().all(|&p| p == 0.0));
                let value = |j: usize| qkv[(start + j) * 18 + 12 + head * 3];
                let expected: f64 = p.iter().enumerate().map(|(j, p)| p * value(j)).sum();
                assert!((o[(start + i) * 6 + head * 3] - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn tiles_are_even_and_bounded() {
        assert_eq!(
            [1, 16, 100, 128, 129, 300].map(|len| tile_len(len, 128)),
            [16, 16, 112, 128, 80, 112]
        );
        assert_eq!(tile_len(0, 128), 0);
    }

    #[test]
    fn large_scores_stay_finite() {
        let starts = [0i64, 600];
        let (query_starts, key_starts) = (&starts[..], &starts[..]);
        let shape = AttentionShape {
            heads: 1,
            head_size: 4,
            query_starts,
            key_starts,
            causal: false,
            scale: 1e4,
        };
        let qkv: Vec<f32> = random(600 * 12, 4);
        assert!(forward(shape, &qkv, None).iter().all(|o| o.abs() <= 1.0));
    }

    #[test]
    fn threads_do_not_change_bits() {
        let starts = [0i64, 200, 500, 507];
        let (query_starts, key_starts) = (&starts[..], &starts[..]);
        let shape = AttentionShape {
            heads: 4,
            head_size: 32,
            query_starts,
            key_starts,
            causal: false,
            scale: 0.2,
        };
        let qkv: Vec<f32> = random(507 * 3 * 128, 1);
        let dropout = Dropout::new(0.1, Counter::new(1, 2, 3)).ok();
        let (one, three) = with_one_and_three_threads(|| forward(shape, &qkv, dropout));
        assert_same_bits(&one, &three);
    }

    #[test]
    fn unsound_shapes_are_refused() {
        let starts = [0i64, 2];
        let good = AttentionShape {
            heads: 1,
            head_size: 2,
            query_starts: &starts,
            key_starts: &starts,
            causal: false,
            scale: 1.0,
        };
        let x = [0f32; 4];
        let run = |shape| {
            let rows = Rows::new(&x, 2);
            attention_forward(shape, rows, rows, rows, None, &mut [0.0; 4], &mut [0.0; 2])
        };
        run(good).unwrap();
        assert!(run(AttentionShape { heads: 0, ..good }).is_err());
        assert!(run(AttentionShape { scale: f64::NAN, ..good }).is_err());
        assert!(run(AttentionShape { key_starts: &[0, 3], ..good }).is_err());
        assert!(run(AttentionShape { key_starts: &[0, 1, 2], ..good }).is_err());
        assert!(run(AttentionShape { query_starts: &[0, -1], ..good }).is_err());
        assert!(run(AttentionShape { query_starts: &[], key_starts: &[], ..good }).is_err());
        assert!(run(AttentionShape { head_size: 3, ..good }).is_err());
    }
}
