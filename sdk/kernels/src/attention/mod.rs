//! Multi-head scaled dot product attention over runs of tokens, forward (Vaswani et al., "Attention is all you need",
//! 2017).
//!
//! Computed tile by tile with a running maximum and sum (Dao, "FlashAttention-2", 2023): no matrix of all scores
//! exists, and a run that fits one tile is never rescaled. The size of a tile and the order of all sums depend on the
//! lengths of the run only, never on the threads.

mod ahead;
pub mod backward;
mod gradients;
pub mod probabilities;
#[cfg(test)]
mod reference;
mod shape;
pub mod terms;
mod tile;

use std::ops::Range;

use crate::attention::ahead::{Ahead, product, steps_of};
use crate::attention::shape::{DropoutRows, Run};
use crate::attention::terms::AttentionTerms;
use crate::attention::terms::head::Head;
use crate::attention::terms::prepared::Prepared;
use crate::attention::tile::{
    KEEP_LEN, KEY_TILE, QUERY_TILE, Softmax, Tile, finish_softmax, multiply_rows, softmax_tile,
    tile_len,
};
use crate::gemm::{ALIGN_SLACK, Matrix, align, pack_panels, packed_len, panel_cols};
use crate::machine::lanes::LANES;
use crate::machine::scratch::{take, with_scratch};
use crate::philox::Dropout;
use crate::runs::{RowsView, SharedRows, for_each_weighed};
use crate::{Float, Result, check_len};

pub use crate::attention::shape::AttentionShape;

/// Where [`attention_forward`] writes. Everything is overwritten.
#[derive(Debug)]
pub struct AttentionOutputs<'a, F> {
    /// Output [Tq, H].
    pub o: &'a mut [F],
    /// Logarithms [Tq, heads] of the sums of the exponentials of a row's scores, which the backward pass needs.
    pub lse: &'a mut [F],
    /// Room for dropout's decisions, [`AttentionShape::decisions_len`] words, of which the backward pass then need
    /// not make them again.
    pub decisions: Option<&'a mut [u16]>,
}

/// Attention: for each head, `o = dropout(softmax(scale q k^T)) v` within each run.
///
/// `q` is [Tq, H], `k` and `v` are [Tk, H], each with its own row stride, so they may be thirds of one [T, 3 H]
/// buffer. A query without keys gives zeros (and -infinity in `lse`). For the random numbers of dropout see
/// [`AttentionShape::dropout_elements`].
///
/// # Errors
/// If the slices do not fit the shape, or the shape is not sound (no heads, bad starts, scale not finite).
pub fn attention_forward<F: Float>(
    shape: AttentionShape<'_>,
    q: RowsView<'_, F>,
    k: RowsView<'_, F>,
    v: RowsView<'_, F>,
    dropout: Option<Dropout>,
    outputs: AttentionOutputs<'_, F>,
) -> Result {
    forward::<F, false>(shape, AttentionTerms::default(), [q, k, v], dropout, outputs)
}

/// [`attention_forward`] with more in its scores; for the room for decisions see
/// [`AttentionShape::decisions_len_within`].
///
/// # Errors
/// Also if the terms do not fit the shape.
pub fn attention_forward_with<F: Float>(
    shape: AttentionShape<'_>,
    terms: AttentionTerms<'_, F>,
    inputs: [RowsView<'_, F>; 3],
    dropout: Option<Dropout>,
    outputs: AttentionOutputs<'_, F>,
) -> Result {
    if terms.is_empty() {
        return forward::<F, false>(shape, terms, inputs, dropout, outputs);
    }
    forward::<F, true>(shape, terms, inputs, dropout, outputs)
}

/// Without `TERMS` these are not looked at, and no code for them is made.
fn forward<F: Float, const TERMS: bool>(
    shape: AttentionShape<'_>,
    terms: AttentionTerms<'_, F>,
    [q, k, v]: [RowsView<'_, F>; 3],
    dropout: Option<Dropout>,
    outputs: AttentionOutputs<'_, F>,
) -> Result {
    const NAME: &str = "attention_forward";
    let AttentionShape { heads, head_size, .. } = shape;
    let AttentionOutputs { o, lse, decisions } = outputs;
    let queries = AttentionShape::rows_of(shape.query_starts);
    let keys = AttentionShape::rows_of(shape.key_starts);
    let runs = shape.runs(NAME, queries, keys, terms.window)?;
    let prepared = if TERMS { Some(Prepared::new(NAME, shape, terms, &runs)?) } else { None };
    q.check(NAME, "q", queries, shape.width())?;
    k.check(NAME, "k", keys, shape.width())?;
    v.check(NAME, "v", keys, shape.width())?;
    check_len(NAME, "o", queries * shape.width(), o.len())?;
    check_len(NAME, "lse", queries * heads, lse.len())?;
    let decisions = match decisions {
        Some(decisions) => {
            let len = shape.decisions_len_within(terms.window)?;
            check_len(NAME, "decisions", len, decisions.len())?;
            Some(SharedRows::new(decisions, len))
        }
        None => None,
    };

    let items: Vec<_> =
        runs.iter().flat_map(|run| (0..heads).map(move |head| (run, head))).collect();
    let work = |(run, _): &(&Run, usize)| 2 * run.queries.len() * run.keys.len() * head_size;
    let dropout_rows = shape.dropout_rows(dropout);
    let (o, lse) = (SharedRows::new(o, shape.width()), SharedRows::new(lse, heads));
    for_each_weighed(&items, work, |&(run, head), next| {
        let item = Item::<F, TERMS> {
            shape: &shape,
            terms: prepared.as_ref(),
            inputs: [&q, &k, &v],
            run,
            head,
            dropout: dropout_rows(run, head),
            decisions: decisions.as_ref(),
            o: &o,
            lse: &lse,
        };
        item.run(next.copied());
    });
    Ok(())
}

/// One head of one run; nobody else uses its part of the outputs meanwhile.
struct Item<'a, 'o, F, const TERMS: bool> {
    shape: &'a AttentionShape<'a>,
    terms: Option<&'a Prepared<'a, F>>,
    inputs: [&'a RowsView<'a, F>; 3],
    run: &'a Run,
    head: usize,
    dropout: Option<DropoutRows>,
    decisions: Option<&'a SharedRows<'o, u16>>,
    o: &'a SharedRows<'o, F>,
    lse: &'a SharedRows<'o, F>,
}

/// The memory in which a block of queries is computed.
struct Room<'a, F> {
    panels: &'a mut [F],
    scores: &'a mut [F],
    state: Softmax<'a, F>,
}

impl<F: Float, const TERMS: bool> Item<'_, '_, F, TERMS> {
    fn run(&self, next: Option<(&Run, usize)>) {
        let Run { queries, keys, .. } = self.run;
        let (columns, head_size) = (self.shape.columns(self.head), self.shape.head_size);
        let query_step = tile_len(queries.len(), QUERY_TILE).max(1);
        let key_step = tile_len(keys.len(), KEY_TILE).max(1);
        let width = query_step.next_multiple_of(LANES);
        let panels_len = packed_len::<F>(head_size, query_step).next_multiple_of(LANES);
        let mut len = ALIGN_SLACK + panels_len + key_step * width + 3 * width;
        if TERMS && let Some(terms) = self.terms {
            len += terms.head_len(self.run, query_step, false);
        }
        let tiles = [queries.len().div_ceil(query_step), keys.len().div_ceil(key_step)];
        let steps = steps_of::<F>(key_step) + steps_of::<F>(query_step);
        let mut ahead = Ahead::new(tiles[0] * tiles[1] * steps);
        if let Some((run, head)) = next {
            let columns = self.shape.columns(head);
            let [q, k, v] = self.inputs;
            ahead.want(q, run.queries.clone(), columns.clone());
            ahead.want(k, run.keys.clone(), columns.clone());
            ahead.want(v, run.keys.clone(), columns);
        }
        with_scratch::<F, _>(len, |buffer| {
            let mut rest = align(buffer);
            let mut room = Room {
                panels: take(&mut rest, panels_len),
                scores: take(&mut rest, key_step * width),
                state: Softmax {
                    largest: take(&mut rest, width),
                    sum: take(&mut rest, width),
                    correction: take(&mut rest, width),
                },
            };
            let [q, k, v] = self.inputs;
            let mut terms = if TERMS {
                self.terms
                    .map(|all| Head::new(all, self.run, self.head, k, query_step, false, &mut rest))
            } else {
                None
            };
            let mut decisions = self.decisions.map(|all| {
                // SAFETY: nobody else uses this head's words.
                unsafe { all.segment(0, self.run.decisions(self.head)) }
            });
            for first in (0..queries.len()).step_by(query_step) {
                let block = first..(first + query_step).min(queries.len());
                let rows = q.part(queries.start + first, columns.start);
                pack_queries(&rows, [block.len(), head_size], room.panels);
                let terms = terms.as_mut();
                self.block(block, [k, v], key_step, &mut room, terms, &mut decisions, &mut ahead);
            }
        });
    }

    /// Outputs and logarithms of one block of queries, counted within the run, which are packed.
    #[allow(clippy::too_many_arguments, reason = "a block brings all matrices together")]
    fn block(
        &self,
        queries: Range<usize>,
        [k, v]: [&RowsView<'_, F>; 2],
        key_step: usize,
        Room { panels, scores, state }: &mut Room<'_, F>,
        mut terms: Option<&mut Head<'_, F>>,
        decisions: &mut Option<&mut [u16]>,
        ahead: &mut Ahead<'_>,
    ) {
        let (columns, head_size) = (self.shape.columns(self.head), self.shape.head_size);
        let first_row = self.run.queries.start;
        let rows = first_row + queries.start..first_row + queries.end;
        let mut seen = 0..self.run.keys.len();
        if TERMS && let Some(terms) = &mut terms {
            seen = terms.keys(queries.clone());
            terms.begin(queries.clone(), seen.clone(), panels);
        }
        let mut keep;
        let mut known = false;
        for first_key in seen.clone().step_by(key_step) {
            let tile = Tile {
                queries: rows.len(),
                keys: key_step.min(seen.end - first_key),
                first_query: queries.start,
                first_key,
                causal_shift: if TERMS { None } else { self.shape.causal_shift(self.run) },
            }
            .trimmed();
            if tile.keys == 0 {
                break;
            }
            let scale = F::from_f64(self.shape.scale);
            let first = self.run.keys.start + first_key;
            let keys = k.part(first, columns.start);
            scores_of(&tile, scale, &keys, head_size, panels, scores, ahead);
            if TERMS && let Some(terms) = &terms {
                terms.add(&tile, scores);
            }
            let keep = match &self.dropout {
                None => &[][..],
                Some(rows) => {
                    let keep = match decisions {
                        Some(rest) => take(rest, tile.keep_len()),
                        None => {
                            keep = [0u16; KEEP_LEN];
                            &mut keep[..tile.keep_len()]
                        }
                    };
                    tile.decide(rows, keep);
                    keep
                }
            };
            softmax_tile(&tile, scores, keep, state, !known);
            if known {
                let corrections = &state.correction[..rows.len()];
                multiply_rows(self.o, rows.start, columns.clone(), corrections);
            }
            // SAFETY: the tile has a row of `stride` scores for every key; the other blocks are checked to lie within
            // their matrices, and nobody else uses this head's part of `o`.
            unsafe {
                product(
                    [rows.len(), head_size, tile.keys],
                    F::ONE,
                    scores.as_ptr(),
                    [1, tile.stride()],
                    v.block(first..first + tile.keys, columns.clone()),
                    [v.stride(), panel_cols::<F>()],
                    if known { F::ONE } else { F::ZERO },
                    self.o.block(rows.clone(), columns.clone()),
                    self.o.stride(),
                    ahead,
                );
            }
            known = true;
        }
        let (largest, sum) = (&mut state.largest[..rows.len()], &mut state.sum[..rows.len()]);
        if !known {
            sum.fill(F::ZERO);
        }
        let scale = self.dropout.map_or(1.0, |rows| rows.dropout.scale());
        finish_softmax(F::from_f64(scale), largest, sum);
        multiply_rows(self.o, rows.start, columns.clone(), sum);
        for (row, (&factor, &log)) in rows.zip(sum.iter().zip(largest.iter())) {
            // SAFETY: nobody else uses this head's parts of `lse` and `o`; the segments are gone at once.
            unsafe {
                self.lse.segment(row, self.head..self.head + 1)[0] = log;
                if factor == F::ZERO {
                    self.o.segment(row, columns.clone()).fill(F::ZERO);
                }
            }
        }
    }
}

/// Packs the transposed first rows and columns of `x`: a query or a row of gradients becomes a column.
fn pack_queries<F: Float>(x: &RowsView<'_, F>, [rows, cols]: [usize; 2], out: &mut [F]) {
    let matrix = Matrix::strided(x.from(0, 0), [cols, rows], [1, x.stride()]);
    pack_panels(matrix.expect("the rows were checked"), out);
}

/// Writes `factor` times the inner products of a tile: a row for every key, whose `cols` numbers are in `x`, and a
/// column for every packed query.
fn scores_of<F: Float>(
    tile: &Tile,
    factor: F,
    x: &RowsView<'_, F>,
    cols: usize,
    panels: &[F],
    scores: &mut [F],
    ahead: &mut Ahead<'_>,
) {
    assert!(panels.len() >= packed_len::<F>(cols, tile.queries));
    assert!(scores.len() >= tile.keys * tile.stride());
    let panel = panel_cols::<F>();
    // SAFETY: the block was checked to lie within its matrix; the lengths of the others were just checked.
    unsafe {
        product(
            [tile.keys, tile.queries, cols],
            factor,
            x.block(0..tile.keys, 0..cols),
            [x.stride(), 1],
            panels.as_ptr(),
            [panel, cols * panel],
            F::ZERO,
            scores.as_mut_ptr(),
            tile.stride(),
            ahead,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::Counter;
    use crate::testing::{assert_close, assert_same_bits, random, with_one_and_three_threads};

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
        let part = |third: usize| RowsView::new(qkv.get(third * h..).unwrap_or(&[]), 3 * h);
        let (mut o, mut lse) = (vec![F::ONE; rows * h], vec![F::ONE; rows * shape.heads]);
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: None };
        attention_forward(shape, part(0), part(1), part(2), dropout, outputs).unwrap();
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
            let rows = RowsView::new(&x, 2);
            let (mut o, mut lse) = ([0.0; 4], [0.0; 2]);
            let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: None };
            attention_forward(shape, rows, rows, rows, None, outputs)
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
