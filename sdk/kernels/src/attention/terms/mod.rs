//! What attention may have beside the products of queries and keys: terms of the scores that come from positions and
//! segments, and limits on the keys that a query sees. Plain attention is compiled without all of this.
//!
//! The distance of a key from a query is `j - (i + lk - lq)` for query `i` and key `j` of a run with `lq` queries and
//! `lk` keys: the last query and the last key stand at one place, as with the cache of generation.

pub(super) mod head;
mod loops;
pub(super) mod prepared;
pub(super) mod shared;

#[cfg(test)]
mod tests;

use crate::runs::RowsView;

/// What is added to the scores, and what is hidden. Without members it is plain attention:
///
/// score(i, j) = scale (q_i k_j + p_i K`[b]` + k_j Q`[b]` + s[i, differ]) + bias`[c]`, where K and Q are tables of
/// positions, b and c the buckets of the distance between i and j, p the queries of positions and s the scores of
/// segments.
#[derive(Debug, Clone, Copy)]
pub struct AttentionTerms<'a, F> {
    /// A bias by distance for every head (Raffel et al. 2020, T5).
    pub bias: Option<DistanceBias<'a, F>>,
    /// Products with tables of positions (Dai et al. 2019, Transformer-XL; He et al. 2021, DeBERTa).
    pub positions: Option<Positions<'a, F>>,
    /// Scores by whether query and key are of one segment (Yang et al. 2019, XLNet).
    pub segments: Option<Segments<'a, F>>,
    /// Keys further away than this are not seen.
    pub window: Option<usize>,
    /// Keys that come later in an order are not seen.
    pub order: Option<Order<'a>>,
}

/// A bias that depends on the distance of the key from the query.
#[derive(Debug, Clone, Copy)]
pub struct DistanceBias<'a, F> {
    /// The bias [buckets, heads].
    pub table: &'a [F],
    /// Row of the table for each distance from `-reach` to `reach`, [2 reach + 1]; greater distances count as `reach`.
    pub buckets: &'a [i64],
}

/// Products of queries and keys with rows of tables that the distance chooses.
#[derive(Debug, Clone, Copy)]
pub struct Positions<'a, F> {
    /// Rows of the tables.
    pub rows: usize,
    /// Row of the tables for each distance, as in [`DistanceBias`].
    pub buckets: &'a [i64],
    /// Keys of positions [rows, H], which queries meet.
    pub keys: Option<RowsView<'a, F>>,
    /// The queries [Tq, H] that meet them, if those are not the queries themselves.
    pub query: Option<RowsView<'a, F>>,
    /// Queries of positions [rows, H], which keys meet.
    pub queries: Option<RowsView<'a, F>>,
}

/// Scores by whether query and key are of one segment.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a, F> {
    /// The scores [Tq, heads, 2] of the same and of another segment.
    pub scores: &'a [F],
    /// Segments of the queries `[Tq]`.
    pub of_queries: &'a [i64],
    /// Segments of the keys `[Tk]`.
    pub of_keys: &'a [i64],
}

/// Query `i` sees key `j` if `of_keys[j] < of_queries[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Places of the queries `[Tq]`.
    pub of_queries: &'a [i64],
    /// Places of the keys `[Tk]`.
    pub of_keys: &'a [i64],
    /// Whether keys at the query's own place are seen, too.
    pub inclusive: bool,
}

impl<F> Default for AttentionTerms<'_, F> {
    fn default() -> Self {
        Self { bias: None, positions: None, segments: None, window: None, order: None }
    }
}

impl<F> AttentionTerms<'_, F> {
    /// Whether this is plain attention.
    pub fn is_empty(&self) -> bool {
        let Self { bias, positions, segments, window, order } = self;
        bias.is_none()
            && positions.is_none()
            && segments.is_none()
            && window.is_none()
            && order.is_none()
    }
}

/// Where the backward pass writes the gradients of the terms, overwriting what is there; `None` where one is not
/// wanted. Nothing is written for a term that is absent.
#[derive(Debug)]
pub struct TermGradients<'a, F> {
    /// Of [`DistanceBias::table`].
    pub bias: Option<&'a mut [F]>,
    /// Of [`Positions::keys`], [rows, H].
    pub position_keys: Option<&'a mut [F]>,
    /// Of [`Positions::query`], [Tq, H].
    pub position_query: Option<&'a mut [F]>,
    /// Of [`Positions::queries`], [rows, H].
    pub position_queries: Option<&'a mut [F]>,
    /// Of [`Segments::scores`].
    pub segments: Option<&'a mut [F]>,
}

impl<F> Default for TermGradients<'_, F> {
    fn default() -> Self {
        Self {
            bias: None,
            position_keys: None,
            position_query: None,
            position_queries: None,
            segments: None,
        }
    }
}
