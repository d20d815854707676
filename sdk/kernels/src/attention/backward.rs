//! Attention over runs, backward: the probabilities are made again, tile by tile, from the saved logarithms of their
//! sums (Dao, "FlashAttention-2", 2023, algorithm 2), and dropout's decisions from their counters unless the forward
//! pass kept them.

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::attention::ahead::{Ahead, product, steps_of};
use crate::attention::shape::{DropoutRows, Run};
use crate::attention::terms::head::{Head, HeadGradients};
use crate::attention::terms::prepared::Prepared;
use crate::attention::terms::shared::Shared;
use crate::attention::terms::{AttentionTerms, TermGradients};
use crate::attention::tile::{
    KEEP_LEN, KEY_TILE, QUERY_TILE, Tile, gradient_tile, inner_products, tile_len,
};
use crate::attention::{AttentionShape, pack_queries, scores_of};
use crate::gemm::{ALIGN_SLACK, align, packed_len, panel_cols};
use crate::machine::scratch::{take, with_scratch};
use crate::philox::Dropout;
use crate::runs::{RowsView, SharedRows, for_each_weighed};
use crate::{Float, Result, check_len};

pub use crate::attention::gradients::{AttentionGradients, AttentionSaved};

const NAME: &str = "attention_backward";

/// Gradients of [`crate::attention::attention_forward`] from `do_` [Tq, H]. `dropout` is the one of the forward pass.
///
/// # Errors
/// If the slices do not fit the shape, or the shape is not sound.
pub fn attention_backward<F: Float>(
    shape: AttentionShape<'_>,
    saved: AttentionSaved<'_, F>,
    dropout: Option<Dropout>,
    do_: &[F],
    gradients: AttentionGradients<'_, F>,
) -> Result {
    let runs = checked(&shape, &saved, do_, None)?;
    let (queries, keys) =
        (AttentionShape::rows_of(shape.query_starts), AttentionShape::rows_of(shape.key_starts));
    let gradients = gradients.into_rows(NAME, queries, keys, shape.width())?;
    let items: Vec<_> =
        runs.iter().flat_map(|run| (0..shape.heads).map(move |head| (run, head))).collect();
    let work = |(run, _): &(&Run, usize)| 5 * run.queries.len() * run.keys.len() * shape.head_size;
    let dropout_rows = shape.dropout_rows(dropout);
    for_each_weighed(&items, work, |&(run, head), next| {
        let dropout = dropout_rows(run, head);
        let item = Item::<F, false>::new(&shape, &saved, do_, dropout, run, head);
        item.run(&gradients, None, next.map(|&(run, head)| (run, head)));
    });
    Ok(())
}

/// Gradients of [`crate::attention::attention_forward_with`], also of its terms. Those that all runs share are summed
/// over a few groups of runs, of which the lengths alone tell which, so that threads do not change a sum.
///
/// # Errors
/// Also if terms or their gradients do not fit the shape.
pub fn attention_backward_with<F: Float>(
    shape: AttentionShape<'_>,
    terms: AttentionTerms<'_, F>,
    saved: AttentionSaved<'_, F>,
    dropout: Option<Dropout>,
    do_: &[F],
    gradients: AttentionGradients<'_, F>,
    mut term_gradients: TermGradients<'_, F>,
) -> Result {
    let runs = checked(&shape, &saved, do_, terms.window)?;
    let prepared = Prepared::new(NAME, shape, terms, &runs)?;
    prepared.clear(NAME, &mut term_gradients)?;
    if terms.is_empty() {
        return attention_backward(shape, saved, dropout, do_, gradients);
    }
    let (queries, keys) =
        (AttentionShape::rows_of(shape.query_starts), AttentionShape::rows_of(shape.key_starts));
    let gradients = gradients.into_rows(NAME, queries, keys, shape.width())?;
    let dropout_rows = shape.dropout_rows(dropout);
    let work = |run: &Run| 5 * run.queries.len() * run.keys.len() * shape.head_size;
    let mut shared = Shared::new(&prepared, term_gradients, &runs);
    let groups = shared.groups.iter().enumerate();
    let items: Vec<_> = groups
        .flat_map(|(group, runs)| (0..shape.heads).map(move |head| (group, runs.clone(), head)))
        .collect();
    let work_of = |(_, range, _): &(usize, Range<usize>, usize)| {
        runs[range.clone()].iter().map(work).sum::<usize>()
    };
    let sinks = shared.sinks();
    for_each_weighed(&items, work_of, |(group, range, head), _| {
        // SAFETY: every head of every group is one item.
        let mut sinks = unsafe { sinks.of(*group, *head) };
        for run in &runs[range.clone()] {
            let dropout = dropout_rows(run, *head);
            let item = Item::<F, true>::new(&shape, &saved, do_, dropout, run, *head);
            item.run(&gradients, Some((&prepared, &mut sinks)), None);
        }
    });
    drop(sinks);
    shared.finish(&prepared)
}

/// The runs; fails unless the slices fit the shape and it is sound.
fn checked<F: Float>(
    shape: &AttentionShape<'_>,
    saved: &AttentionSaved<'_, F>,
    do_: &[F],
    window: Option<usize>,
) -> Result<Vec<Run>> {
    let width = shape.width();
    let queries = AttentionShape::rows_of(shape.query_starts);
    let keys = AttentionShape::rows_of(shape.key_starts);
    let runs = shape.runs(NAME, queries, keys, window)?;
    saved.q.check(NAME, "q", queries, width)?;
    saved.k.check(NAME, "k", keys, width)?;
    saved.v.check(NAME, "v", keys, width)?;
    check_len(NAME, "o", queries * width, saved.o.len())?;
    check_len(NAME, "lse", queries * shape.heads, saved.lse.len())?;
    check_len(NAME, "do", queries * width, do_.len())?;
    if let Some(decisions) = saved.decisions {
        check_len(NAME, "decisions", shape.decisions_len_within(window)?, decisions.len())?;
    }
    Ok(runs)
}

/// One head of one run; nobody else uses its part of the gradients meanwhile. Without `TERMS` no code for them is
/// made.
struct Item<'a, F, const TERMS: bool> {
    shape: &'a AttentionShape<'a>,
    saved: &'a AttentionSaved<'a, F>,
    o: RowsView<'a, F>,
    do_: RowsView<'a, F>,
    dropout: Option<DropoutRows>,
    run: &'a Run,
    head: usize,
}

/// What a block of queries brings to every tile.
struct QueryBlock<'a, F> {
    /// Rows of the block.
    rows: Range<usize>,
    /// Its queries.
    q: RowsView<'a, F>,
    /// The gradients of its outputs.
    do_: RowsView<'a, F>,
    /// Both packed.
    packed: [&'a [F]; 2],
    /// Logarithms of the sums of exp(score).
    lse: &'a [F],
    /// Inner products of outputs and their gradients.
    delta: &'a [F],
}

impl<'a, F: Float, const TERMS: bool> Item<'a, F, TERMS> {
    fn new(
        shape: &'a AttentionShape<'a>,
        saved: &'a AttentionSaved<'a, F>,
        do_: &'a [F],
        dropout: Option<DropoutRows>,
        run: &'a Run,
        head: usize,
    ) -> Self {
        let (o, do_) = (RowsView::new(saved.o, shape.width()), RowsView::new(do_, shape.width()));
        Self { shape, saved, o, do_, dropout, run, head }
    }

    fn columns(&self) -> Range<usize> {
        self.shape.columns(self.head)
    }

    /// Writes zeros to rows of this head.
    fn clear(&self, out: &SharedRows<'_, F>, rows: Range<usize>) {
        for row in rows {
            // SAFETY: nobody else uses this head's part, and the segment is gone at once.
            unsafe { out.segment(row, self.columns()) }.fill(F::ZERO);
        }
    }

    fn run(
        &self,
        gradients: &[SharedRows<'_, F>; 3],
        mut terms: Option<(&Prepared<'_, F>, &mut HeadGradients<'_, F>)>,
        next: Option<(&Run, usize)>,
    ) {
        let Run { queries, keys, .. } = self.run;
        let causal_shift = self.shape.causal_shift(self.run);
        // Tiles that are not seen are passed over, so then everything is a sum that begins with zero.
        let cleared = TERMS || causal_shift.is_some() || queries.is_empty() || keys.is_empty();
        if cleared {
            let [dq, dk, dv] = gradients;
            self.clear(dq, queries.clone());
            self.clear(dk, keys.clone());
            self.clear(dv, keys.clone());
        }
        if queries.is_empty() || keys.is_empty() {
            return;
        }
        let head_size = self.shape.head_size;
        let query_step = tile_len(queries.len(), QUERY_TILE);
        let key_step = tile_len(keys.len(), KEY_TILE);
        let (tile_len, panels_len) =
            (query_step * key_step, packed_len::<F>(head_size, query_step).next_multiple_of(16));
        let mut len = ALIGN_SLACK + 2 * (tile_len + panels_len + query_step);
        if TERMS && let Some((terms, _)) = &terms {
            len += terms.head_len(self.run, query_step, true);
        }
        with_scratch::<F, _>(len, |buffer| {
            let mut rest = align(buffer);
            let scores = take(&mut rest, tile_len);
            let dscores = take(&mut rest, tile_len);
            let packed_queries = take(&mut rest, panels_len);
            let packed_outputs = take(&mut rest, panels_len);
            let lse = take(&mut rest, query_step);
            let delta = take(&mut rest, query_step);
            let tiles = [queries.len().div_ceil(query_step), keys.len().div_ceil(key_step)];
            let steps = 4 * steps_of::<F>(key_step) + steps_of::<F>(query_step);
            let mut ahead = Ahead::new(tiles[0] * tiles[1] * steps);
            if let Some((run, head)) = next {
                let columns = self.shape.columns(head);
                for x in [&self.saved.q, &self.do_, &self.o] {
                    ahead.want(x, run.queries.clone(), columns.clone());
                }
                for x in [&self.saved.k, &self.saved.v] {
                    ahead.want(x, run.keys.clone(), columns.clone());
                }
            }
            let first_column = self.columns().start;
            let mut decisions = self.saved.decisions.map(|all| &all[self.run.decisions(self.head)]);
            let k = self.saved.k.part(keys.start, first_column);
            let v = self.saved.v.part(keys.start, first_column);
            let mut terms = if TERMS {
                terms.as_mut().map(|(all, sinks)| {
                    let all_keys = &self.saved.k;
                    let (run, head) = (self.run, self.head);
                    (Head::new(all, run, head, all_keys, query_step, true, &mut rest), &mut **sinks)
                })
            } else {
                None
            };
            for first_query in (0..queries.len()).step_by(query_step) {
                let count = query_step.min(queries.len() - first_query);
                let rows = queries.start + first_query..queries.start + first_query + count;
                let q = self.saved.q.part(rows.start, first_column);
                let do_ = self.do_.part(rows.start, first_column);
                pack_queries(&q, [count, head_size], packed_queries);
                pack_queries(&do_, [count, head_size], packed_outputs);
                let o = self.o.part(rows.start, first_column);
                inner_products(&o, &do_, head_size, &mut delta[..count]);
                for (lse, row) in lse.iter_mut().zip(rows.clone()) {
                    *lse = self.saved.lse[row * self.shape.heads + self.head];
                    if TERMS && *lse == F::NEG_INFINITY {
                        // Of a query that sees nothing: its scores are -infinity, too, and that difference is no
                        // number.
                        *lse = F::ZERO;
                    }
                }
                let mut seen = 0..keys.len();
                if TERMS && let Some((terms, _)) = &mut terms {
                    let queries = first_query..first_query + count;
                    seen = terms.keys(queries.clone());
                    terms.begin(queries, seen.clone(), packed_queries);
                }
                let block = QueryBlock {
                    rows,
                    q,
                    do_,
                    packed: [packed_queries, packed_outputs],
                    lse,
                    delta,
                };
                for first_key in seen.clone().step_by(key_step) {
                    let tile = Tile {
                        queries: count,
                        keys: key_step.min(seen.end - first_key),
                        first_query,
                        first_key,
                        causal_shift: if TERMS { None } else { causal_shift },
                    }
                    .trimmed();
                    if tile.keys == 0 {
                        break;
                    }
                    let add = [cleared || first_key > 0, cleared || first_query > 0];
                    let (k, v) = (k.part(first_key, 0), v.part(first_key, 0));
                    let mut made;
                    let keep = match (&self.dropout, &mut decisions) {
                        (None, _) => &[][..],
                        (Some(_), Some(rest)) => {
                            let (keep, after) = rest.split_at(tile.keep_len());
                            *rest = after;
                            keep
                        }
                        (Some(rows), None) => {
                            made = [0u16; KEEP_LEN];
                            let keep = &mut made[..tile.keep_len()];
                            tile.decide(rows, keep);
                            keep
                        }
                    };
                    self.tile(
                        &tile,
                        &block,
                        [&k, &v],
                        keep,
                        [scores, dscores],
                        add,
                        gradients,
                        terms.as_mut().map(|(terms, sinks)| (terms, &mut **sinks)),
                        &mut ahead,
                    );
                }
                if TERMS && let Some((terms, sinks)) = &mut terms {
                    terms.end_block(&self.saved.q, &gradients[0], sinks);
                }
            }
            if TERMS && let Some((terms, sinks)) = terms {
                terms.end(&self.saved.k, &gradients[1], sinks);
            }
        });
    }

    /// The contributions of one tile; `add` says whether the gradients of queries and of keys are there already.
    #[allow(clippy::too_many_arguments, reason = "a tile brings all matrices together")]
    fn tile(
        &self,
        tile: &Tile,
        block: &QueryBlock<'_, F>,
        [k, v]: [&RowsView<'_, F>; 2],
        keep: &[u16],
        [scores, dscores]: [&mut [F]; 2],
        [add_queries, add_keys]: [bool; 2],
        [dq, dk, dv]: &[SharedRows<'_, F>; 3],
        mut terms: Option<(&mut Head<'_, F>, &mut HeadGradients<'_, F>)>,
        ahead: &mut Ahead<'_>,
    ) {
        let (head_size, columns) = (self.shape.head_size, self.columns());
        let scale = F::from_f64(self.shape.scale);
        let kept_scale = F::from_f64(self.dropout.map_or(1.0, |rows| rows.dropout.scale()));
        let first = self.run.keys.start + tile.first_key;
        let (rows, keys) = (block.rows.clone(), first..first + tile.keys);
        scores_of(tile, scale, k, head_size, block.packed[0], scores, ahead);
        if TERMS && let Some((terms, _)) = &terms {
            terms.add(tile, scores);
        }
        scores_of(tile, kept_scale, v, head_size, block.packed[1], dscores, ahead);
        gradient_tile(tile, scores, dscores, keep, block.lse, block.delta);
        if TERMS && let Some((terms, sinks)) = &mut terms {
            terms.collect(tile, dscores, sinks);
        }
        let (stride, panel) = (tile.stride(), panel_cols::<F>());
        let start = |add| if add { F::ONE } else { F::ZERO };
        let mut gradient = |factor, weights: &[F], x: &RowsView<'_, F>, out: &SharedRows<'_, F>| {
            // SAFETY: the tile has a row of `stride` numbers for every key; the blocks were checked to lie within
            // their matrices, and nobody else uses this head's part of the gradients.
            unsafe {
                product(
                    [tile.keys, head_size, tile.queries],
                    factor,
                    weights.as_ptr(),
                    [stride, 1],
                    x.block(0..tile.queries, 0..head_size),
                    [x.stride(), panel],
                    start(add_keys),
                    out.block(keys.clone(), columns.clone()),
                    out.stride(),
                    ahead,
                );
            }
        };
        gradient(kept_scale, scores, &block.do_, dv);
        gradient(scale, dscores, &block.q, dk);
        // SAFETY: as above.
        unsafe {
            product(
                [tile.queries, head_size, tile.keys],
                scale,
                dscores.as_ptr(),
                [1, stride],
                k.block(0..tile.keys, 0..head_size),
                [k.stride(), panel],
                start(add_queries),
                dq.block(rows.clone(), columns.clone()),
                dq.stride(),
                ahead,
            );
        }
    }
}
