//! Attention over runs, and what the families of models add to it.

use super::{raw, raw_rng, supports};
use crate::host::{call, tables};
use crate::tensor::produce;
use crate::{Error, Result, Rng, Tensor};
use easytransfer_abi as abi;
use std::ptr::null_mut;

/// Options of [`attention`].
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Number of heads; divides the last axis.
    pub heads: usize,
    /// Factor on the scores; `None` means 1 / sqrt(head size).
    pub scale: Option<f64>,
    /// Probability of dropping a weight while an rng is given.
    pub dropout: f64,
    /// A token may not look at later ones. Where a run has more keys than queries, the last query stands at the last
    /// key.
    pub causal: bool,
}

/// What [`attention_with`] adds to the scores and what it hides; nothing by default.
///
/// The distance of key `j` from query `i`, in a run with `lq` queries and `lk` keys, is `j - (i + lk - lq)`. A map of
/// buckets, I64 [2 reach + 1], gives the row of a table for each distance from -reach to reach; greater ones count as
/// reach.
#[derive(Clone, Copy, Default)]
pub struct AttentionTerms<'a> {
    /// Cumulative lengths [B + 1] I64 of the runs of keys and values, where they are not those of the queries:
    /// attention to other runs, or a cache of keys.
    pub key_starts: Option<&'a Tensor>,
    /// A bias by distance: T5, ALiBi.
    pub bias: Option<DistanceBias<'a>>,
    /// Products with tables of positions: DeBERTa, Transformer-XL, XLNet.
    pub positions: Option<Positions<'a>>,
    /// Scores by segment: XLNet.
    pub segments: Option<Segments<'a>>,
    /// Greatest distance at which a key is seen, at least 1: ModernBERT; with `causal` a sliding window over the past.
    pub window: Option<usize>,
    /// Which tokens come before which: XLNet's permutations, prefix language models.
    pub order: Option<Order<'a>>,
}

/// A bias that depends on head and distance (Raffel et al. 2020). It is added after the scale.
#[derive(Clone, Copy)]
pub struct DistanceBias<'a> {
    /// The bias [buckets, heads].
    pub table: &'a Tensor,
    /// Its row for each distance.
    pub buckets: &'a Tensor,
}

/// Products of queries and keys with rows of tables [P, heads * d] that the distance chooses. They are scaled as the
/// others.
#[derive(Clone, Copy)]
pub struct Positions<'a> {
    /// Row of both tables for each distance.
    pub buckets: &'a Tensor,
    /// Keys of positions, which queries meet (content to position).
    pub keys: Option<&'a Tensor>,
    /// The queries [Tq, heads * d] that meet them, if those are not the queries themselves.
    pub query: Option<&'a Tensor>,
    /// Queries of positions, which keys meet (position to content).
    pub queries: Option<&'a Tensor>,
}

/// Scores by whether query and key are of one segment (Yang et al. 2019). They are scaled as products are.
#[derive(Clone, Copy)]
pub struct Segments<'a> {
    /// Scores [Tq, heads, 2] of keys of the query's own segment and of other segments.
    pub scores: &'a Tensor,
    /// Segments of the queries, I64 `[Tq]`.
    pub of_queries: &'a Tensor,
    /// Those of the keys, I64 `[Tk]`, if they differ.
    pub of_keys: Option<&'a Tensor>,
}

/// Places in an order: a query sees the keys that stand before it, and nothing if there are none, which gives zeros.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// Places of the queries, I64 `[Tq]`.
    pub of_queries: &'a Tensor,
    /// Those of the keys, I64 `[Tk]`, if they differ.
    pub of_keys: Option<&'a Tensor>,
    /// Keys of the query's own place are seen, too.
    pub inclusive: bool,
}

/// Scaled dot product attention of each token within its run (Vaswani et al. 2017): query, key, value [T, heads * d]
/// -> [T, heads * d].
pub fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    starts: &Tensor,
    options: Attention,
    rng: Option<&Rng>,
) -> Result<Tensor> {
    let terms = AttentionTerms::default();
    attention_with(query, [key, value], starts, options, &terms, rng)
}

/// [`attention`] with other runs of keys, more in its scores, and other limits on what is seen: query [Tq, heads * d],
/// key and value [Tk, heads * d], starts [B + 1] of the queries -> [Tq, heads * d].
pub fn attention_with(
    query: &Tensor,
    [key, value]: [&Tensor; 2],
    starts: &Tensor,
    options: Attention,
    terms: &AttentionTerms<'_>,
    rng: Option<&Rng>,
) -> Result<Tensor> {
    let &AttentionTerms { key_starts, bias, positions, segments, window, order } = terms;
    if window == Some(0) {
        return Err(Error::invalid("attention: the window must be at least 1, found 0"));
    }
    let more = bias.is_some()
        || positions.is_some()
        || segments.is_some()
        || window.is_some()
        || order.is_some();
    if more && !supports(c"attention", abi::ET_ATTENTION_TERMS, query.dtype()) {
        // An older host would pass over what it does not know.
        let message = "attention: this host knows plain attention only; a newer one is needed";
        return Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, message));
    }
    let args = abi::et_attention {
        struct_size: size_of::<abi::et_attention>(),
        query: query.as_raw(),
        key: key.as_raw(),
        value: value.as_raw(),
        starts: starts.as_raw(),
        key_starts: raw(key_starts),
        heads: options.heads,
        scale: options.scale.unwrap_or(0.0),
        dropout: options.dropout,
        rng: raw_rng(rng),
        causal: i32::from(options.causal),
        reserved: 0,
        window: window.unwrap_or(0),
        bias: raw(bias.map(|term| term.table)),
        bias_buckets: raw(bias.map(|term| term.buckets)),
        position_keys: raw(positions.and_then(|term| term.keys)),
        position_query: raw(positions.and_then(|term| term.query)),
        position_queries: raw(positions.and_then(|term| term.queries)),
        position_buckets: raw(positions.map(|term| term.buckets)),
        segment_scores: raw(segments.map(|term| term.scores)),
        segments: raw(segments.map(|term| term.of_queries)),
        key_segments: raw(segments.and_then(|term| term.of_keys)),
        order: raw(order.map(|term| term.of_queries)),
        key_order: raw(order.and_then(|term| term.of_keys)),
        order_inclusive: i32::from(order.is_some_and(|term| term.inclusive)),
        reserved_2: 0,
    };
    produce!(et_host_nn.attention(&args))
}
