//! Attention over runs, backward: the probabilities are made again, tile by tile, from the saved logarithms of their sums (Dao,
//! "FlashAttention-2", 2023, algorithm 2), and dropout's decisions from their counters unless the forward pass kept them.

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
use crate::runs::{Rows, SharedRows, for_each_weighed};
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

/// Gradients of [`crate::attention::attention_forward_with`], also of its terms. Those that all runs share are summed over a few
/// groups of runs, of which the lengths alone tell which, so that threads do not change a sum.
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

/// One head of one run; nobody else uses its part of the gradients meanwhile. Without `TERMS` no code for them is made.
struct Item<'a, F, const TERMS: bool> {
    shape: &'a AttentionShape<'a>,
    saved: &'a AttentionSaved<'a, F>,
    o: Rows<'a, F>,
    do_: Rows<'a, F>,
    dropout: Option<DropoutRows>,
    run: &'a Run,
    head: usize,
}

/// What a block of queries brings to every tile.
struct QueryBlock<'a, F> {
    /// Rows of the block.
    rows: Range<usize>,
    /// Its queries.
    q: Rows<'a, F>,
    /// The gradients of its outputs.
    do_: Rows<'a, F>,
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
        let (o, do_) = (Rows::new(saved.o, shape.width()), Rows::new(do_, shape.width()));
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
                        // Of a query that sees nothing: its scores are -infinity, too, and that difference is no number.
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
        [k, v]: [&Rows<'_, F>; 2],
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
        let mut gradient = |factor, weights: &[F], x: &Rows<'_, F>, out: &SharedRows<'_, F>| {
            // SAFETY: the tile has a row of `stride` numbers for every key; the blocks were checked to lie within their matrices,
            // and nobody else uses this head's part of the gradients.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttentionOutputs, attention_forward};
    use crate::philox::Counter;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    /// Output and, from `do_`, the gradients of q, k and v laid end to end.
    fn both<F: Float>(
        shape: AttentionShape<'_>,
        [q, k, v]: [&[F]; 3],
        dropout: Option<Dropout>,
        do_: &[F],
    ) -> (Vec<F>, Vec<F>) {
        let width = shape.width();
        let mut o = vec![F::ZERO; q.len()];
        let mut lse = vec![F::ZERO; q.len() / width * shape.heads];
        let [q, k, v] = [q, k, v].map(|x| Rows::new(x, width));
        let mut words = vec![0xaaaau16; shape.decisions_len().unwrap()];
        let decisions = Some(&mut words[..]);
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions };
        attention_forward(shape, q, k, v, dropout, outputs).unwrap();
        let keys = AttentionShape::rows_of(shape.key_starts) * width;
        // With dropout's decisions as they were kept, and with decisions that are made again.
        let [gradient, again] = [Some(&words[..]), None].map(|decisions| {
            let mut gradient = vec![F::from_f64(f64::NAN); o.len() + 2 * keys];
            let (dq, rest) = gradient.split_at_mut(o.len());
            let (dk, dv) = rest.split_at_mut(keys);
            let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions };
            let gradients = AttentionGradients::Separate { q: dq, k: dk, v: dv };
            attention_backward(shape, saved, dropout, do_, gradients).unwrap();
            gradient
        });
        assert!(gradient == again, "kept decisions are not those that are made again");
        (o, gradient)
    }

    fn check_differences(shape: AttentionShape<'_>, dropout: Option<Dropout>) {
        let (queries, keys) = (
            AttentionShape::rows_of(shape.query_starts) * shape.width(),
            AttentionShape::rows_of(shape.key_starts) * shape.width(),
        );
        let all: Vec<f64> = random(queries + 2 * keys, 1);
        let do_: Vec<f64> = random(queries, 2);
        let split = |x: &[f64]| {
            let parts = [&x[..queries], &x[queries..queries + keys], &x[queries + keys..]];
            both(shape, parts, dropout, &do_)
        };
        let expected = numeric_gradient(&all, |x| dot(&split(x).0, &do_));
        assert_close(&split(&all).1, &expected, 2e-8);
    }

    #[test]
    fn gradients_match_differences_with_and_without_dropout() {
        let starts = [0i64, 3, 3, 4, 11];
        let dropout = Dropout::new(0.3, Counter::new(9, 8, 7)).unwrap();
        for (causal, dropout) in
            [(false, None), (true, None), (false, Some(dropout)), (true, Some(dropout))]
        {
            check_differences(
                AttentionShape {
                    heads: 2,
                    head_size: 3,
                    query_starts: &starts,
                    key_starts: &starts,
                    causal,
                    scale: 0.9,
                },
                dropout,
            );
        }
    }

    #[test]
    fn cross_attention_gradients_match_differences() {
        // Runs without keys, without queries, with fewer keys than queries and with more.
        let (query_starts, key_starts) = ([0i64, 2, 2, 6, 8], [0i64, 0, 3, 5, 10]);
        for causal in [false, true] {
            check_differences(
                AttentionShape {
                    heads: 1,
                    head_size: 2,
                    query_starts: &query_starts,
                    key_starts: &key_starts,
                    causal,
                    scale: 1.0,
                },
                Dropout::new(0.2, Counter::new(1, 1, 1)).ok(),
            );
        }
    }

    #[test]
    fn several_tiles_match_differences_and_all_layouts_agree() {
        let rows = QUERY_TILE.max(KEY_TILE) + 20;
        let starts = [0i64, rows as i64];
        let dropout = Dropout::new(0.5, Counter::new(3, 2, 1)).ok();
        for causal in [false, true] {
            let shape = AttentionShape {
                heads: 2,
                head_size: 4,
                query_starts: &starts,
                key_starts: &starts,
                causal,
                scale: 0.5,
            };
            let width = shape.width();
            let n = rows * width;
            let qkv: Vec<f64> = random(3 * n, 1);
            let do_: Vec<f64> = random(n, 2);
            let part = |i: usize| &qkv[i * n..(i + 1) * n];
            let (_, gradient) = both(shape, [part(0), part(1), part(2)], dropout, &do_);
            // A directional derivative reaches all tiles at the price of two passes.
            let direction: Vec<f64> = random(3 * n, 3);
            let at = |step: f64| {
                let x: Vec<f64> = qkv.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                dot(&both(shape, [&x[..n], &x[n..2 * n], &x[2 * n..]], dropout, &do_).0, &do_)
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert_close(&[dot(&gradient, &direction)], &[expected], 1e-7);

            let fuse = |parts: &[&[f64]]| -> Vec<f64> {
                let row = |t: usize| {
                    parts.iter().flat_map(move |x| x[t * width..(t + 1) * width].to_vec())
                };
                (0..rows).flat_map(row).collect()
            };
            let fused = fuse(&[part(0), part(1), part(2)]);
            let rows_of = |i: usize| Rows::new(&fused[i * width..], 3 * width);
            let (mut o, mut lse) = (vec![0.0; n], vec![0.0; rows * 2]);
            let (q, k, v) = (rows_of(0), rows_of(1), rows_of(2));
            let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: None };
            attention_forward(shape, q, k, v, dropout, outputs).unwrap();
            let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions: None };
            let (mut dqkv, mut dq, mut dkv) = (vec![0.0; 3 * n], vec![0.0; n], vec![0.0; 2 * n]);
            let into = AttentionGradients::Fused(&mut dqkv);
            attention_backward(shape, saved, dropout, &do_, into).unwrap();
            let into = AttentionGradients::FusedKeyValue { q: &mut dq, kv: &mut dkv };
            attention_backward(shape, saved, dropout, &do_, into).unwrap();
            let third = |i: usize| &gradient[i * n..(i + 1) * n];
            assert_eq!(dqkv, fuse(&[third(0), third(1), third(2)]));
            assert_eq!((&dq[..], dkv), (third(0), fuse(&[third(1), third(2)])));
        }
    }

    #[test]
    fn single_precision_follows_double() {
        let starts = [0i64, 40, 190];
        let shape = AttentionShape {
            heads: 2,
            head_size: 16,
            query_starts: &starts,
            key_starts: &starts,
            causal: false,
            scale: 0.25,
        };
        let n = 190 * 32;
        let x: Vec<f32> = random(4 * n, 5);
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let dropout = Dropout::new(0.1, Counter::new(3, 2, 1)).ok();
        let (_, found) =
            both(shape, [&x[..n], &x[n..2 * n], &x[2 * n..3 * n]], dropout, &x[3 * n..]);
        let (_, expected) = both(
            shape,
            [&wide[..n], &wide[n..2 * n], &wide[2 * n..3 * n]],
            dropout,
            &wide[3 * n..],
        );
        assert_close(&found, &expected, 2e-5);
    }

    #[test]
    fn threads_do_not_change_bits() {
        let starts = [0i64, 200, 500, 507];
        let shape = AttentionShape {
            heads: 4,
            head_size: 32,
            query_starts: &starts,
            key_starts: &starts,
            causal: false,
            scale: 0.2,
        };
        let n = 507 * 128;
        let x: Vec<f32> = random(4 * n, 5);
        let dropout = Dropout::new(0.1, Counter::new(1, 2, 3)).ok();
        let (one, three) = with_one_and_three_threads(|| {
            both(shape, [&x[..n], &x[n..2 * n], &x[2 * n..3 * n]], dropout, &x[3 * n..]).1
        });
        assert_same_bits(&one, &three);
    }
}
