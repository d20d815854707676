//! The loops over a tile of scores: a row per key and a column per query, as in [`crate::attention::tile`].
//!
//! Tables by distance hold the value of the greatest distance first, so that what the queries of one key need lies
//! side by side.

use crate::Float;
use crate::machine::simd::multiversion;

/// Where a tile lies in tables by distance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) keys: usize,
    pub(super) queries: usize,
    /// Elements from one key's scores to the next.
    pub(super) stride: usize,
    /// Place of the first query and the first key; that of query `i` and key `j` of the tile is `first + i - j`.
    pub(super) first: usize,
}

/// Rows of products, one for each bucket from `low` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets<'a> {
    /// The bucket of every place.
    pub(super) of_places: &'a [u32],
    /// The first bucket of which there are products.
    pub(super) low: u32,
    /// How many there are.
    pub(super) width: usize,
}

impl Buckets<'_> {
    /// The buckets of the queries of one key.
    ///
    /// # Panics
    /// In debug builds, if one has no products.
    #[inline(always)]
    fn row(&self, span: &Span, key: usize) -> &[u32] {
        let row = &self.of_places[span.first - key..][..span.queries];
        debug_assert!(row.iter().all(|&b| b >= self.low && ((b - self.low) as usize) < self.width));
        row
    }
}

multiversion! {
    /// Adds the value of its distance to every score.
    pub(super) fn add_by_distance<F: Float>(span: Span, scores: &mut [F], values: &[F]) {
        for (key, row) in scores.chunks_exact_mut(span.stride).take(span.keys).enumerate() {
            let values = &values[span.first - key..][..span.queries];
            for (score, &value) in row.iter_mut().zip(values) {
                *score += value;
            }
        }
    }

    /// Adds the gradient of every score to the sum of its distance.
    pub(super) fn collect_by_distance<F: Float>(span: Span, dscores: &[F], sums: &mut [F]) {
        for (key, row) in dscores.chunks_exact(span.stride).take(span.keys).enumerate() {
            let sums = &mut sums[span.first - key..][..span.queries];
            for (sum, &dscore) in sums.iter_mut().zip(row) {
                *sum += dscore;
            }
        }
    }

    /// Adds products [buckets, stride] of positions with the tile's queries.
    pub(super) fn add_of_queries<F: Float>(
        span: Span, scores: &mut [F], buckets: Buckets<'_>, products: &[F],
    ) {
        assert!(products.len() >= buckets.width * span.stride && span.queries <= span.stride);
        let (low, stride) = (buckets.low, span.stride as u32);
        for (key, row) in scores.chunks_exact_mut(span.stride).take(span.keys).enumerate() {
            for (i, (score, &bucket)) in row.iter_mut().zip(buckets.row(&span, key)).enumerate() {
                let at = (bucket.wrapping_sub(low)).wrapping_mul(stride).wrapping_add(i as u32);
                debug_assert!((at as usize) < products.len());
                // SAFETY: the bucket has a row of products, by the caller's choice of buckets, and the column is below
                // the stride.
                *score += unsafe { *products.get_unchecked(at as usize) };
            }
        }
    }

    /// Adds the gradient of every score to that of its product; the inverse of [`add_of_queries`].
    pub(super) fn collect_of_queries<F: Float>(
        span: Span, dscores: &[F], buckets: Buckets<'_>, sums: &mut [F],
    ) {
        assert!(sums.len() >= buckets.width * span.stride && span.queries <= span.stride);
        for (key, row) in dscores.chunks_exact(span.stride).take(span.keys).enumerate() {
            for (i, (&dscore, &bucket)) in row.iter().zip(buckets.row(&span, key)).enumerate() {
                let at = (bucket - buckets.low) as usize * span.stride + i;
                debug_assert!(at < sums.len());
                // SAFETY: as above.
                *unsafe { sums.get_unchecked_mut(at) } += dscore;
            }
        }
    }

    /// Adds products [keys, width] of positions with the tile's keys; rows are `width` apart.
    pub(super) fn add_of_keys<F: Float>(
        span: Span, scores: &mut [F], buckets: Buckets<'_>, products: &[F], width: usize,
    ) {
        let scores = scores.chunks_exact_mut(span.stride).take(span.keys);
        for (key, (row, products)) in scores.zip(products.chunks_exact(width)).enumerate() {
            assert!(products.len() >= buckets.width);
            for (score, &bucket) in row.iter_mut().zip(buckets.row(&span, key)) {
                let at = bucket.wrapping_sub(buckets.low) as usize;
                debug_assert!(at < products.len());
                // SAFETY: the bucket has a column of products, by the caller's choice of buckets.
                *score += unsafe { *products.get_unchecked(at) };
            }
        }
    }

    /// Adds the gradient of every score to that of its product; the inverse of [`add_of_keys`].
    pub(super) fn collect_of_keys<F: Float>(
        span: Span, dscores: &[F], buckets: Buckets<'_>, sums: &mut [F], width: usize,
    ) {
        let dscores = dscores.chunks_exact(span.stride).take(span.keys);
        for (key, (row, sums)) in dscores.zip(sums.chunks_exact_mut(width)).enumerate() {
            assert!(sums.len() >= buckets.width);
            for (&dscore, &bucket) in row.iter().zip(buckets.row(&span, key)) {
                let at = (bucket - buckets.low) as usize;
                debug_assert!(at < sums.len());
                // SAFETY: as above.
                *unsafe { sums.get_unchecked_mut(at) } += dscore;
            }
        }
    }

    /// Adds one of two values of every query, by whether the key is of its segment.
    pub(super) fn add_segments<F: Float>(
        span: Span, scores: &mut [F], segments: [&[i64]; 2], values: [&[F]; 2],
    ) {
        let ([of_queries, of_keys], [same, other]) = (segments, values);
        let (same, other) = (&same[..span.queries], &other[..span.queries]);
        for (row, &of_key) in scores.chunks_exact_mut(span.stride).zip(&of_keys[..span.keys]) {
            let values = of_queries[..span.queries].iter().zip(same.iter().zip(other));
            for (score, (&of_query, (&same, &other))) in row.iter_mut().zip(values) {
                *score += if of_query == of_key { same } else { other };
            }
        }
    }

    /// Adds the gradients of every query's scores to the sums of the same and of other segments.
    pub(super) fn collect_segments<F: Float>(
        span: Span, dscores: &[F], segments: [&[i64]; 2], sums: [&mut [F]; 2],
    ) {
        let ([of_queries, of_keys], [same, other]) = (segments, sums);
        for (row, &of_key) in dscores.chunks_exact(span.stride).zip(&of_keys[..span.keys]) {
            let sums = same[..span.queries].iter_mut().zip(&mut other[..span.queries]);
            let dscores = row.iter().zip(&of_queries[..span.queries]);
            for ((same, other), (&dscore, &of_query)) in sums.zip(dscores) {
                let equal = of_query == of_key;
                *same += if equal { dscore } else { F::ZERO };
                *other += if equal { F::ZERO } else { dscore };
            }
        }
    }

    /// Hides keys that do not come before a query: their scores become -infinity.
    pub(super) fn hide_by_order<F: Float>(
        span: Span, scores: &mut [F], places: [&[i64]; 2], inclusive: bool,
    ) {
        let [of_queries, of_keys] = places;
        for (row, &of_key) in scores.chunks_exact_mut(span.stride).zip(&of_keys[..span.keys]) {
            let scores = row.iter_mut().zip(&of_queries[..span.queries]);
            if inclusive {
                for (score, &of_query) in scores {
                    *score = if of_key <= of_query { *score } else { F::NEG_INFINITY };
                }
            } else {
                for (score, &of_query) in scores {
                    *score = if of_key < of_query { *score } else { F::NEG_INFINITY };
                }
            }
        }
    }
}
