//! The terms of one head of one run: products with the tables of positions, once for every block of queries or for all
//! keys, from which the tiles pick by distance, and the way back.

use std::ops::Range;

use crate::Float;
use crate::attention::pack_queries;
use crate::attention::shape::{Run, Sight};
use crate::attention::terms::loops::{
    Buckets, Span, add_by_distance, add_of_keys, add_of_queries, add_segments, collect_by_distance,
    collect_of_keys, collect_of_queries, collect_segments, hide_by_order,
};
use crate::attention::terms::prepared::Prepared;
use crate::attention::tile::Tile;
use crate::gemm::{packed_len, panel_cols, small_raw};
use crate::machine::lanes::LANES;
use crate::machine::scratch::take;
use crate::runs::{RowsView, SharedRows};

/// Where the gradients of terms go that have rows of their own for all runs of a task; nobody else uses this head's
/// part meanwhile.
pub(in crate::attention) struct HeadGradients<'a, F> {
    /// Sums by distance of this head.
    pub(in crate::attention) bias: Option<&'a mut [F]>,
    pub(in crate::attention) position_keys: Option<&'a SharedRows<'a, F>>,
    pub(in crate::attention) position_query: Option<&'a SharedRows<'a, F>>,
    pub(in crate::attention) position_queries: Option<&'a SharedRows<'a, F>>,
    pub(in crate::attention) segments: Option<&'a SharedRows<'a, F>>,
}

/// Products with a table of positions, and in a backward pass their gradients.
struct Products<'a, F> {
    packed: &'a mut [F],
    values: &'a mut [F],
    sums: Option<&'a mut [F]>,
    /// The bucket of the first row or column, and how many there are.
    low: u32,
    width: usize,
}

/// Two values of every query of a block, and in a backward pass the sums of their gradients.
struct Pairs<'a, F> {
    values: [&'a mut [F]; 2],
    sums: Option<[&'a mut [F]; 2]>,
}

/// One head of one run.
pub(in crate::attention) struct Head<'a, F> {
    prepared: &'a Prepared<'a, F>,
    run: &'a Run,
    head: usize,
    sight: Sight,
    scale: F,
    /// Queries times keys of positions, [buckets, stride of the block].
    of_queries: Option<Products<'a, F>>,
    /// Keys times queries of positions, [keys of the run, buckets].
    of_keys: Option<Products<'a, F>>,
    segments: Option<Pairs<'a, F>>,
    block: Range<usize>,
}

impl<'a, F: Float> Prepared<'a, F> {
    fn sight(&self, run: &Run) -> Sight {
        Sight::new(run.queries.len(), run.keys.len(), self.shape.causal, self.terms.window)
    }

    /// The buckets of positions that a run reaches.
    fn reached(&self, run: &Run) -> (u32, usize) {
        if self.terms.positions.is_none() || run.queries.is_empty() || run.keys.is_empty() {
            return (0, 0);
        }
        self.bucket_range(self.places_of(run, 0..run.queries.len(), 0..run.keys.len()))
    }

    /// Elements of scratch that [`Head::new`] takes.
    pub(in crate::attention) fn head_len(&self, run: &Run, step: usize, backward: bool) -> usize {
        let (head_size, times) = (self.shape.head_size, 1 + usize::from(backward));
        let mut len = 0;
        if let Some(positions) = self.terms.positions {
            let (_, width) = self.reached(run);
            if positions.keys.is_some() {
                len += packed_len::<F>(head_size, step).next_multiple_of(LANES);
                len += times * width * step.next_multiple_of(LANES);
            }
            if positions.queries.is_some() {
                len += packed_len::<F>(head_size, width).next_multiple_of(LANES);
                len += times * run.keys.len() * width.next_multiple_of(LANES);
            }
        }
        if self.terms.segments.is_some() {
            len += 2 * times * step.next_multiple_of(LANES);
        }
        len
    }
}

impl<'a, F: Float> Head<'a, F> {
    /// Blocks have at most `step` queries; `k` are all keys of the call.
    pub(in crate::attention) fn new(
        prepared: &'a Prepared<'a, F>,
        run: &'a Run,
        head: usize,
        k: &RowsView<'_, F>,
        step: usize,
        backward: bool,
        rest: &mut &'a mut [F],
    ) -> Self {
        let shape = &prepared.shape;
        let scale = F::from_f64(shape.scale);
        let (low, width) = prepared.reached(run);
        let stride = step.next_multiple_of(LANES);
        let mut products = |packed: usize, len: usize| Products {
            packed: take(rest, packed.next_multiple_of(LANES)),
            values: take(rest, len),
            sums: backward.then(|| take(rest, len)),
            low,
            width,
        };
        let positions = prepared.terms.positions;
        let of_queries = positions
            .and_then(|term| term.keys)
            .map(|_| products(packed_len::<F>(shape.head_size, step), width * stride));
        let of_keys = positions.and_then(|term| term.queries).map(|table| {
            let len = run.keys.len() * width.next_multiple_of(LANES);
            let mut products = products(packed_len::<F>(shape.head_size, width), len);
            products.of_all_keys(run, &table, k, [head, shape.head_size], scale);
            products
        });
        let segments = prepared.terms.segments.map(|_| Pairs {
            values: [take(rest, stride), take(rest, stride)],
            sums: backward.then(|| [take(rest, stride), take(rest, stride)]),
        });
        let sight = prepared.sight(run);
        Self { prepared, run, head, sight, scale, of_queries, of_keys, segments, block: 0..0 }
    }

    /// The keys that some queries of the run may see.
    pub(in crate::attention) fn keys(&self, queries: Range<usize>) -> Range<usize> {
        self.sight.keys(queries)
    }

    /// Begins a block of queries, counted within the run, which are packed and see `keys`.
    pub(in crate::attention) fn begin(
        &mut self,
        queries: Range<usize>,
        keys: Range<usize>,
        packed: &[F],
    ) {
        self.block = queries.clone();
        let (count, first_row) = (queries.len(), self.run.queries.start + queries.start);
        let shape = &self.prepared.shape;
        let columns = shape.columns(self.head);
        if let (Some(products), Some(positions)) =
            (&mut self.of_queries, &self.prepared.terms.positions)
            && let Some(table) = &positions.keys
        {
            products.width = 0;
            if !keys.is_empty() {
                let places = self.prepared.places_of(self.run, queries, keys);
                (products.low, products.width) = self.prepared.bucket_range(places);
                let packed = match &positions.query {
                    None => packed,
                    Some(x) => {
                        let rows = x.part(first_row, columns.start);
                        pack_queries(&rows, [count, shape.head_size], products.packed);
                        &*products.packed
                    }
                };
                let low = products.low as usize;
                let (stride, panel) = (count.next_multiple_of(LANES), panel_cols::<F>());
                assert!(products.values.len() >= products.width * stride);
                assert!(packed.len() >= packed_len::<F>(shape.head_size, count));
                // SAFETY: the block was checked to lie within the table; the other lengths were just checked.
                unsafe {
                    small_raw(
                        [products.width, count, shape.head_size],
                        self.scale,
                        table.block(low..low + products.width, columns),
                        [table.stride(), 1],
                        packed.as_ptr(),
                        [panel, shape.head_size * panel],
                        F::ZERO,
                        products.values.as_mut_ptr(),
                        stride,
                    );
                }
                if let Some(sums) = &mut products.sums {
                    sums[..products.width * stride].fill(F::ZERO);
                }
            }
        }
        if let (Some(pairs), Some(term)) = (&mut self.segments, &self.prepared.terms.segments) {
            for i in 0..count {
                let at = 2 * ((first_row + i) * shape.heads + self.head);
                pairs.values[0][i] = self.scale * term.scores[at];
                pairs.values[1][i] = self.scale * term.scores[at + 1];
            }
            if let Some(sums) = &mut pairs.sums {
                sums.iter_mut().for_each(|sums| sums.fill(F::ZERO));
            }
        }
    }

    fn span(&self, tile: &Tile) -> Span {
        Span {
            keys: tile.keys,
            queries: tile.queries,
            stride: tile.stride(),
            first: self.prepared.place(self.run, tile.first_query, tile.first_key),
        }
    }

    /// The numbers of the tile's queries and keys, of those that all queries and keys of the call have.
    fn of_tile<'t>(
        &self,
        tile: &Tile,
        of_queries: &'t [i64],
        of_keys: &'t [i64],
    ) -> [&'t [i64]; 2] {
        let query = self.run.queries.start + tile.first_query;
        let key = self.run.keys.start + tile.first_key;
        [&of_queries[query..query + tile.queries], &of_keys[key..key + tile.keys]]
    }

    fn bias_places(&self) -> Range<usize> {
        self.head * self.prepared.places..(self.head + 1) * self.prepared.places
    }

    /// Adds the terms to the scores of a tile of the block and hides what is not seen.
    pub(in crate::attention) fn add(&self, tile: &Tile, scores: &mut [F]) {
        let (span, prepared) = (self.span(tile), self.prepared);
        if prepared.terms.bias.is_some() {
            add_by_distance(span, scores, &prepared.bias[self.bias_places()]);
        }
        if let Some(products) = &self.of_queries {
            add_of_queries(span, scores, products.buckets(prepared), products.values);
        }
        if let Some(products) = &self.of_keys {
            let row = products.width.next_multiple_of(LANES);
            let values = &products.values[tile.first_key * row..];
            add_of_keys(span, scores, products.buckets(prepared), values, row);
        }
        if let (Some(pairs), Some(term)) = (&self.segments, &prepared.terms.segments) {
            let [same, other] = &pairs.values;
            let numbers = self.of_tile(tile, term.of_queries, term.of_keys);
            add_segments(span, scores, numbers, [same, other]);
        }
        if let Some(term) = &prepared.terms.order {
            let numbers = self.of_tile(tile, term.of_queries, term.of_keys);
            hide_by_order(span, scores, numbers, term.inclusive);
        }
        let queries = tile.first_query..tile.first_query + tile.queries;
        for (key, row) in scores.chunks_exact_mut(span.stride).take(tile.keys).enumerate() {
            let seen = self.sight.queries(tile.first_key + key, queries.clone());
            row[..seen.start - queries.start].fill(F::NEG_INFINITY);
            row[seen.end - queries.start..tile.queries].fill(F::NEG_INFINITY);
        }
    }

    /// Collects the gradients of the terms from those of the scores of a tile.
    pub(in crate::attention) fn collect(
        &mut self,
        tile: &Tile,
        dscores: &[F],
        into: &mut HeadGradients<'_, F>,
    ) {
        let (span, prepared) = (self.span(tile), self.prepared);
        if let Some(sums) = &mut into.bias {
            collect_by_distance(span, dscores, sums);
        }
        if let Some(products) = &mut self.of_queries {
            let (buckets, sums) = products.sums(prepared);
            collect_of_queries(span, dscores, buckets, sums);
        }
        if let Some(products) = &mut self.of_keys {
            let row = products.width.next_multiple_of(LANES);
            let (buckets, sums) = products.sums(prepared);
            collect_of_keys(span, dscores, buckets, &mut sums[tile.first_key * row..], row);
        }
        if let Some(term) = &prepared.terms.segments {
            let numbers = self.of_tile(tile, term.of_queries, term.of_keys);
            if let Some(Pairs { sums: Some([same, other]), .. }) = &mut self.segments {
                collect_segments(span, dscores, numbers, [same, other]);
            }
        }
    }

    /// Ends a block of queries: `q` are all queries of the call and `dq` their gradients, to which is added.
    pub(in crate::attention) fn end_block(
        &mut self,
        q: &RowsView<'_, F>,
        dq: &SharedRows<'_, F>,
        into: &mut HeadGradients<'_, F>,
    ) {
        let shape = &self.prepared.shape;
        let first_row = self.run.queries.start;
        let rows = first_row + self.block.start..first_row + self.block.end;
        if let (Some(products), Some(positions)) =
            (&mut self.of_queries, &self.prepared.terms.positions)
            && let Some(table) = &positions.keys
            && products.width > 0
        {
            let (x, dx) = match &positions.query {
                Some(x) => (x, into.position_query),
                None => (q, Some(dq)),
            };
            let stride = rows.len().next_multiple_of(LANES);
            let back = Back {
                sums: products.sums.as_deref().unwrap_or_default(),
                strides: [stride, 1],
                buckets: products.low as usize..products.low as usize + products.width,
                rows: rows.clone(),
                columns: shape.columns(self.head),
                scale: self.scale,
            };
            back.add([table, x], [into.position_keys, dx]);
        }
        if let (Some(Pairs { sums: Some([same, other]), .. }), Some(out)) =
            (&self.segments, into.segments)
        {
            for (i, row) in rows.enumerate() {
                // SAFETY: nobody else uses this head's part, and the segment is gone at once.
                let out = unsafe { out.segment(row, 2 * self.head..2 * self.head + 2) };
                out[0] = self.scale * same[i];
                out[1] = self.scale * other[i];
            }
        }
    }

    /// Ends the run: `k` are all keys of the call and `dk` their gradients, to which is added.
    pub(in crate::attention) fn end(
        self,
        k: &RowsView<'_, F>,
        dk: &SharedRows<'_, F>,
        into: &HeadGradients<'_, F>,
    ) {
        if let (Some(products), Some(positions)) = (&self.of_keys, &self.prepared.terms.positions)
            && let Some(table) = &positions.queries
        {
            let back = Back {
                sums: products.sums.as_deref().unwrap_or_default(),
                strides: [1, products.width.next_multiple_of(LANES)],
                buckets: products.low as usize..products.low as usize + products.width,
                rows: self.run.keys.clone(),
                columns: self.prepared.shape.columns(self.head),
                scale: self.scale,
            };
            back.add([table, k], [into.position_queries, Some(dk)]);
        }
    }
}

impl<F: Float> Products<'_, F> {
    fn buckets<'p>(&self, prepared: &'p Prepared<'_, F>) -> Buckets<'p> {
        Buckets { of_places: &prepared.position_buckets, low: self.low, width: self.width }
    }

    fn sums<'p>(&mut self, prepared: &'p Prepared<'_, F>) -> (Buckets<'p>, &mut [F]) {
        let buckets = self.buckets(prepared);
        (buckets, self.sums.as_deref_mut().unwrap_or_default())
    }

    /// Products of all keys of a run with the queries of the positions it reaches.
    fn of_all_keys(
        &mut self,
        run: &Run,
        table: &RowsView<'_, F>,
        k: &RowsView<'_, F>,
        [head, head_size]: [usize; 2],
        scale: F,
    ) {
        if self.width == 0 {
            return;
        }
        let (columns, low) = (head * head_size..(head + 1) * head_size, self.low as usize);
        let rows = table.part(low, columns.start);
        pack_queries(&rows, [self.width, head_size], self.packed);
        let (stride, panel) = (self.width.next_multiple_of(LANES), panel_cols::<F>());
        assert!(self.values.len() >= run.keys.len() * stride);
        // SAFETY: the block was checked to lie within the keys; the other lengths are checked above and by the
        // packing.
        unsafe {
            small_raw(
                [run.keys.len(), self.width, head_size],
                scale,
                k.block(run.keys.clone(), columns),
                [k.stride(), 1],
                self.packed.as_ptr(),
                [panel, head_size * panel],
                F::ZERO,
                self.values.as_mut_ptr(),
                stride,
            );
        }
        if let Some(sums) = &mut self.sums {
            sums.fill(F::ZERO);
        }
    }
}

/// The gradients of products of a table's rows with rows of queries or keys.
struct Back<'a, F> {
    sums: &'a [F],
    /// From one bucket to the next, and from one row to the next.
    strides: [usize; 2],
    buckets: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
    scale: F,
}

impl<F: Float> Back<'_, F> {
    /// Adds the gradients of the table and of `x`, where they are wanted.
    fn add(&self, [table, x]: [&RowsView<'_, F>; 2], into: [Option<&SharedRows<'_, F>>; 2]) {
        let [buckets, rows] = [&self.buckets, &self.rows];
        let [bucket, row] = self.strides;
        if buckets.is_empty() || rows.is_empty() {
            return;
        }
        assert!(self.sums.len() > (buckets.len() - 1) * bucket + (rows.len() - 1) * row);
        let ways = [
            (buckets, rows, [bucket, row], x, into[0]),
            (rows, buckets, [row, bucket], table, into[1]),
        ];
        for (outer, inner, strides, factor, out) in ways {
            let Some(out) = out else { continue };
            // SAFETY: the sums were just checked; the blocks are checked to lie within their matrices, and nobody else
            // uses this head's part of the gradients.
            unsafe {
                small_raw(
                    [outer.len(), self.columns.len(), inner.len()],
                    self.scale,
                    self.sums.as_ptr(),
                    strides,
                    factor.block(inner.clone(), self.columns.clone()),
                    [factor.stride(), panel_cols::<F>()],
                    F::ONE,
                    out.block(outer.clone(), self.columns.clone()),
                    out.stride(),
                );
            }
        }
    }
}
