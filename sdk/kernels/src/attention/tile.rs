//! What attention does with a tile of scores between its products: the running softmax and its gradient.
//!
//! A tile lies transposed, a row per key and a column per query: sixteen neighbouring queries are one vector, so
//! maxima and sums over keys need no step across lanes. Columns beyond the last query hold anything and are nobody's
//! input.

use std::ops::Range;

use crate::Float;
use crate::attention::shape::DropoutRows;
use crate::machine::lanes::{LANES, by_level};
use crate::machine::simd::multiversion;
use crate::philox::KEEP_LANES;
use crate::runs::{RowsView, SharedRows};

const _: () = assert!(LANES == KEEP_LANES, "a vector has a word of decisions");

/// Most queries of one tile.
pub(super) const QUERY_TILE: usize = 64;
/// Most keys of one tile.
pub(super) const KEY_TILE: usize = 128;
/// Words of decisions of one tile.
pub(super) const KEEP_LEN: usize = QUERY_TILE / LANES * KEY_TILE;

/// Elements of `len` per tile: as even as steps of [`LANES`] allow and at most `most`.
pub(super) fn tile_len(len: usize, most: usize) -> usize {
    let tiles = len.div_ceil(most).max(1);
    len.div_ceil(tiles).next_multiple_of(LANES).min(most)
}

/// Where a tile lies in its run, and which keys its queries see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) first_query: usize,
    pub(super) first_key: usize,
    /// `Some(lk - lq)` if causal.
    pub(super) causal_shift: Option<isize>,
}

impl Tile {
    /// Without the last keys that no query of the tile sees.
    pub(super) fn trimmed(self) -> Self {
        let Some(shift) = self.causal_shift else { return self };
        let seen = (self.first_query + self.queries) as isize + shift - self.first_key as isize;
        Self { keys: seen.clamp(0, self.keys as isize) as usize, ..self }
    }

    /// Elements from one key's scores to the next.
    pub(super) fn stride(&self) -> usize {
        self.queries.next_multiple_of(LANES)
    }

    /// The queries from column `column` on that see key `key` of the tile, as bits.
    #[inline(always)]
    fn seeing(&self, key: usize, column: usize) -> u16 {
        let Some(shift) = self.causal_shift else { return u16::MAX };
        let first = (self.first_key + key) as isize - shift - (self.first_query + column) as isize;
        if first >= LANES as isize { 0 } else { u16::MAX << first.max(0) }
    }

    /// Writes dropout's decisions, key after key for every sixteen queries.
    pub(super) fn decide(&self, rows: &DropoutRows, keep: &mut [u16]) {
        for (group, keep) in keep.chunks_exact_mut(self.keys).enumerate() {
            let column = group * LANES;
            let Some(lanes) = self.queries.checked_sub(column).filter(|&lanes| lanes > 0) else {
                break;
            };
            let start = rows.element(self.first_query + column, self.first_key);
            rows.dropout.keep_bits(start, rows.row_stride, lanes, keep);
        }
    }

    /// The part of `keep` that [`Tile::decide`] writes.
    pub(super) fn keep_len(&self) -> usize {
        self.stride() / LANES * self.keys
    }
}

/// What the running softmax knows of every query, and how its last tile changed that.
pub(super) struct Softmax<'a, F> {
    /// Largest score so far.
    pub(super) largest: &'a mut [F],
    /// Sum of exp(score - largest) so far.
    pub(super) sum: &'a mut [F],
    /// What sums over earlier tiles must be multiplied by.
    pub(super) correction: &'a mut [F],
}

by_level! {
    /// Replaces the scores of a tile by exp(score - largest), or zero where a decision (if there are any) drops them.
    /// `first` says that the softmax knows nothing yet.
    pub(super) fn softmax_tile<F, L>(
        tile: &Tile, scores: &mut [F], keep: &[u16], state: &mut Softmax<'_, F>, first: bool,
    ) {
        let (stride, keys) = (tile.stride(), tile.keys);
        assert!(scores.len() >= keys * stride && (keep.is_empty() || keep.len() >= tile.keep_len()));
        for column in (0..stride).step_by(LANES) {
            let range = column..column + LANES;
            let largest = state.largest[range.clone()].as_mut_ptr();
            let sum = state.sum[range.clone()].as_mut_ptr();
            let correction = state.correction[range].as_mut_ptr();
            let keep = keep.get(column / LANES * keys..).filter(|keep| !keep.is_empty());
            // SAFETY: rows of scores have whole vectors, as have the three slices above.
            unsafe {
                let place = scores.as_mut_ptr().add(column);
                let lowest = L::splat(F::NEG_INFINITY);
                let before = if first { lowest } else { L::load(largest) };
                // Four chains, because one would wait for each maximum. A NaN is passed over here and makes the sum
                // NaN.
                let mut tops = [before, lowest, lowest, lowest];
                if tile.causal_shift.is_some() {
                    for key in 0..keys {
                        let value = L::load(place.add(key * stride));
                        tops[0] = value.or(tile.seeing(key, column), lowest).max(tops[0]);
                    }
                } else {
                    let mut key = 0;
                    while key + 4 <= keys {
                        for (i, top) in tops.iter_mut().enumerate() {
                            *top = L::load(place.add((key + i) * stride)).max(*top);
                        }
                        key += 4;
                    }
                    for key in key..keys {
                        tops[0] = L::load(place.add(key * stride)).max(tops[0]);
                    }
                }
                let top = tops[0].max(tops[1]).max(tops[2].max(tops[3]));
                // Queries that have seen no key have the largest score minus infinity, from which nothing can be
                // subtracted.
                let shift = top.max(L::splat(F::from_f64(-1e30)));
                let mut total = L::splat(F::ZERO);
                for key in 0..keys {
                    let place = place.add(key * stride);
                    let mut value = L::load(place).sub(shift).exp();
                    if tile.causal_shift.is_some() {
                        value = value.keep(tile.seeing(key, column));
                    }
                    total = total.add(value);
                    if let Some(keep) = keep {
                        value = value.keep(keep[key]);
                    }
                    value.store(place);
                }
                if !first {
                    let factor = before.sub(shift).exp();
                    factor.store(correction);
                    total = L::load(sum).mul(factor).add(total);
                }
                top.store(largest);
                total.store(sum);
            }
        }
    }

    /// From scores and from the gradients of the weights: `scores` becomes the probabilities that no decision drops,
    /// `dscores` the gradient of the scores, `p (dweight - delta)`, with `dweight` zero where dropped.
    pub(super) fn gradient_tile<F, L>(
        tile: &Tile, scores: &mut [F], dscores: &mut [F], keep: &[u16], lse: &[F], delta: &[F],
    ) {
        let (stride, keys) = (tile.stride(), tile.keys);
        let len = keys * stride;
        assert!(scores.len() >= len && dscores.len() >= len);
        assert!(keep.is_empty() || keep.len() >= tile.keep_len());
        for column in (0..stride).step_by(LANES) {
            let range = column..column + LANES;
            let keep = keep.get(column / LANES * keys..).filter(|keep| !keep.is_empty());
            let (lse, delta) = (lse[range.clone()].as_ptr(), delta[range].as_ptr());
            // SAFETY: rows of scores have whole vectors, as have the slices above.
            unsafe {
                let (lse, delta) = (L::load(lse), L::load(delta));
                for key in 0..keys {
                    let score = scores.as_mut_ptr().add(key * stride + column);
                    let dscore = dscores.as_mut_ptr().add(key * stride + column);
                    let mut p = L::load(score).sub(lse).exp();
                    if tile.causal_shift.is_some() {
                        p = p.keep(tile.seeing(key, column));
                    }
                    let kept = keep.map_or(p, |keep| p.keep(keep[key]));
                    kept.store(score);
                    kept.mul_sub(L::load(dscore), p.mul(delta)).store(dscore);
                }
            }
        }
    }
}

by_level! {
    /// Inner products of the first rows, as many as `out` has, and `cols` columns of two matrices.
    pub(super) fn inner_products<F, L>(a: &RowsView<'_, F>, b: &RowsView<'_, F>, cols: usize, out: &mut [F]) {
        let whole = cols / LANES * LANES;
        for (row, out) in out.iter_mut().enumerate() {
            let (a, b) = (a.segment(row, 0..cols), b.segment(row, 0..cols));
            // SAFETY: vectors end before `whole`.
            unsafe {
                let mut sum = L::splat(F::ZERO);
                for first in (0..whole).step_by(LANES) {
                    let product = L::load(a.as_ptr().add(first)).mul(L::load(b.as_ptr().add(first)));
                    sum = sum.add(product);
                }
                *out = sum.sum();
            }
            for (&a, &b) in a[whole..].iter().zip(&b[whole..]) {
                *out += a * b;
            }
        }
    }
}

multiversion! {
    /// From what the softmax of some queries found, the factors (dropout's `scale` over the sum) of their weighted
    /// values, written to `sum`, and the logarithms of the sums of exp(score), written to `largest`. A query without
    /// keys gets zero and -infinity.
    pub(super) fn finish_softmax<F: Float>(scale: F, largest: &mut [F], sum: &mut [F]) {
        for (largest, sum) in largest.iter_mut().zip(sum) {
            let empty = *sum == F::ZERO;
            let (factor, lse) = (scale / *sum, *largest + sum.ln());
            *sum = if empty { F::ZERO } else { factor };
            *largest = if empty { F::NEG_INFINITY } else { lse };
        }
    }

    /// Multiplies the columns `cols` of the rows from `first` on by one factor per row.
    ///
    /// No other reference to these elements may be in use.
    pub(super) fn multiply_rows<F: Float>(
        out: &SharedRows<'_, F>, first: usize, cols: Range<usize>, factors: &[F],
    ) {
        for (row, &factor) in factors.iter().enumerate() {
            // SAFETY: nobody else uses the elements meanwhile, and the last segment is gone.
            let segment = unsafe { out.segment(first + row, cols.clone()) };
            for out in segment {
                *out *= factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_even_and_bounded() {
        assert_eq!(
            [1, 16, 100, 128, 129, 300].map(|len| tile_len(len, 128)),
            [16, 16, 112, 128, 80, 112]
        );
        assert_eq!(tile_len(0, 128), 0);
    }

    #[test]
    fn queries_see_the_keys_before_them() {
        let tile =
            Tile { queries: 20, keys: 32, first_query: 4, first_key: 8, causal_shift: Some(3) };
        for (key, query) in (0..32).flat_map(|key| (0..20).map(move |query| (key, query))) {
            let seen = tile.seeing(key, query / 16 * 16) >> (query % 16) & 1 == 1;
            assert_eq!(seen, 8 + key <= 4 + query + 3, "key {key}, query {query}");
        }
        assert_eq!(tile.trimmed().keys, 19);
        assert_eq!(Tile { causal_shift: Some(-30), ..tile }.trimmed().keys, 0);
        assert_eq!(Tile { causal_shift: None, ..tile }.trimmed().keys, 32);
    }
}
