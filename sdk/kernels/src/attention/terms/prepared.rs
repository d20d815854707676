//! Terms that were checked, with tables by distance that hold for all runs and heads of a call.

use std::ops::Range;

use crate::attention::AttentionShape;
use crate::attention::shape::Run;
use crate::attention::terms::{AttentionTerms, TermGradients};
use crate::{Float, KernelError, Result, check_len};

/// Terms of one call. A table by distance holds the value of distance `highest - p` at place `p`.
pub(in crate::attention) struct Prepared<'a, F> {
    pub(super) terms: AttentionTerms<'a, F>,
    pub(super) shape: AttentionShape<'a>,
    /// The greatest distance of any run.
    highest: usize,
    /// Places of a table by distance.
    pub(super) places: usize,
    /// The bias of every place, [heads, places].
    pub(super) bias: Vec<F>,
    bias_buckets: Vec<u32>,
    pub(super) position_buckets: Vec<u32>,
}

impl<'a, F: Float> Prepared<'a, F> {
    /// Fails unless the terms fit the runs.
    pub(in crate::attention) fn new(
        kernel: &'static str,
        shape: AttentionShape<'a>,
        terms: AttentionTerms<'a, F>,
        runs: &[Run],
    ) -> Result<Self> {
        let queries = AttentionShape::rows_of(shape.query_starts);
        let keys = AttentionShape::rows_of(shape.key_starts);
        let (heads, width) = (shape.heads, shape.width());
        let longest = |len: fn(&Run) -> usize| runs.iter().map(len).max().unwrap_or(0).max(1);
        let highest = longest(|run| run.queries.len()) - 1;
        let places = highest + longest(|run| run.keys.len());
        let expand = |argument, buckets: &[i64], rows| {
            by_place(kernel, argument, buckets, rows, highest, places)
        };
        let (mut bias, mut bias_buckets, mut position_buckets) = (vec![], vec![], vec![]);
        if let Some(term) = terms.bias {
            let rows = term.table.len() / heads;
            check_len(kernel, "bias", rows * heads, term.table.len())?;
            bias_buckets = expand("bias_buckets", term.buckets, rows)?;
            let value = |head, &bucket: &u32| term.table[bucket as usize * heads + head];
            bias = (0..heads).flat_map(|h| bias_buckets.iter().map(move |b| value(h, b))).collect();
        }
        if let Some(term) = terms.positions {
            position_buckets = expand("position_buckets", term.buckets, term.rows)?;
            if term.keys.is_none() && term.queries.is_none() {
                return Err(missing(
                    kernel,
                    "position_keys",
                    "given where position_queries is not",
                ));
            }
            if term.query.is_some() && term.keys.is_none() {
                return Err(missing(kernel, "position_keys", "given with position_query"));
            }
            for (argument, table, rows) in [
                ("position_keys", term.keys, term.rows),
                ("position_query", term.query, queries),
                ("position_queries", term.queries, term.rows),
            ] {
                table.map_or(Ok(()), |table| table.check(kernel, argument, rows, width))?;
            }
        }
        if let Some(term) = terms.segments {
            check_len(kernel, "segment_scores", queries * heads * 2, term.scores.len())?;
            check_len(kernel, "segments", queries, term.of_queries.len())?;
            check_len(kernel, "key_segments", keys, term.of_keys.len())?;
        }
        if let Some(term) = terms.order {
            check_len(kernel, "order", queries, term.of_queries.len())?;
            check_len(kernel, "key_order", keys, term.of_keys.len())?;
        }
        Ok(Self { terms, shape, highest, places, bias, bias_buckets, position_buckets })
    }

    /// Fails unless the gradients have the lengths of what they belong to; fills them with zeros.
    pub(in crate::attention) fn clear(
        &self,
        kernel: &'static str,
        into: &mut TermGradients<'_, F>,
    ) -> Result<()> {
        let AttentionTerms { bias, positions, segments, .. } = self.terms;
        let width = self.shape.width();
        let queries = AttentionShape::rows_of(self.shape.query_starts);
        let tables = positions.map_or(0, |term| term.rows * width);
        let table = |given: bool| if given { tables } else { 0 };
        let keys = table(positions.is_some_and(|term| term.keys.is_some()));
        let back = table(positions.is_some_and(|term| term.queries.is_some()));
        let query =
            if positions.is_some_and(|term| term.query.is_some()) { queries * width } else { 0 };
        for (argument, expected, found) in [
            ("dbias", bias.map_or(0, |term| term.table.len()), &mut into.bias),
            ("dposition_keys", keys, &mut into.position_keys),
            ("dposition_query", query, &mut into.position_query),
            ("dposition_queries", back, &mut into.position_queries),
            ("dsegment_scores", segments.map_or(0, |term| term.scores.len()), &mut into.segments),
        ] {
            let Some(found) = found else { continue };
            check_len(kernel, argument, expected, found.len())?;
            found.fill(F::ZERO);
        }
        Ok(())
    }

    /// The place of query `query` and key `key`, both counted within the run.
    pub(super) fn place(&self, run: &Run, query: usize, key: usize) -> usize {
        self.highest + query + run.keys.len() - run.queries.len() - key
    }

    /// The places of some queries and keys.
    ///
    /// # Panics
    /// If there are none.
    pub(super) fn places_of(
        &self,
        run: &Run,
        queries: Range<usize>,
        keys: Range<usize>,
    ) -> Range<usize> {
        self.place(run, queries.start, keys.end - 1)
            ..self.place(run, queries.end - 1, keys.start) + 1
    }

    /// The first of the buckets of positions in some places, and how many there are up to the last one.
    pub(super) fn bucket_range(&self, places: Range<usize>) -> (u32, usize) {
        let all = &self.position_buckets[places];
        let low = all.iter().copied().min().unwrap_or(0);
        (low, all.iter().max().map_or(0, |&high| (high - low) as usize + 1))
    }

    /// Adds sums [heads, places] of the gradients of all distances to those of their buckets.
    pub(in crate::attention) fn fold_bias(&self, sums: &[F], out: &mut [F]) {
        let heads = self.shape.heads;
        for (head, sums) in sums.chunks_exact(self.places).enumerate() {
            for (&sum, &bucket) in sums.iter().zip(&self.bias_buckets) {
                out[bucket as usize * heads + head] += sum;
            }
        }
    }

    /// Elements of the sums of [`Prepared::fold_bias`]; those of one head are a row.
    pub(in crate::attention) fn bias_sums(&self) -> [usize; 2] {
        [self.shape.heads, self.places]
    }
}

fn missing(kernel: &'static str, argument: &'static str, expected: &'static str) -> KernelError {
    KernelError::Value { kernel, argument, expected, found: f64::NAN }
}

/// The bucket of every place. Fails unless `buckets` has a middle and each is a row of the table.
fn by_place(
    kernel: &'static str,
    argument: &'static str,
    buckets: &[i64],
    rows: usize,
    highest: usize,
    places: usize,
) -> Result<Vec<u32>> {
    if buckets.len().is_multiple_of(2) {
        return Err(KernelError::Value {
            kernel,
            argument,
            expected: "of an odd length, 2 reach + 1 for the distances from -reach to reach",
            found: buckets.len() as f64,
        });
    }
    let bound = rows.min(u32::MAX as usize >> 7);
    if let Some(position) =
        buckets.iter().position(|&b| usize::try_from(b).map_or(true, |b| b >= bound))
    {
        return Err(KernelError::Index {
            kernel,
            argument,
            position,
            value: buckets[position],
            bound,
        });
    }
    let reach = (buckets.len() / 2) as isize;
    let bucket = |place: usize| {
        let distance = (highest as isize - place as isize).clamp(-reach, reach);
        buckets[(distance + reach) as usize] as u32
    };
    Ok((0..places).map(bucket).collect())
}
