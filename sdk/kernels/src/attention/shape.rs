//! What attention computes: runs, heads, and where dropout's decisions are.

use std::ops::Range;

use crate::attention::tile::{KEY_TILE, QUERY_TILE, Tile, tile_len};
use crate::machine::lanes::LANES;
use crate::philox::Dropout;
use crate::runs::run_ranges;
use crate::{KernelError, Result, check_len};

/// What attention computes: H = `heads * head_size` columns, of which head `h` has `h * head_size..(h + 1) *
/// head_size`.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape<'a> {
    /// Number of heads, at least 1.
    pub heads: usize,
    /// Columns of one head, at least 1.
    pub head_size: usize,
    /// Cumulative lengths [B + 1] of the runs of queries; ends with Tq.
    pub query_starts: &'a [i64],
    /// Cumulative lengths [B + 1] of the runs of keys and values; ends with Tk. Queries of run `b` see the keys of
    /// run `b`.
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
    /// Where the decisions of its heads lie, head after head.
    decisions: Range<usize>,
    heads: usize,
}

impl Run {
    /// Where the decisions of one head lie, tile after tile in the order in which the tiles are visited.
    pub(super) fn decisions(&self, head: usize) -> Range<usize> {
        let len = self.decisions.len() / self.heads;
        let start = self.decisions.start + head * len;
        start..start + len
    }
}

/// Where the random numbers of one row of probabilities begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct DropoutRows {
    pub(super) dropout: Dropout,
    /// Elements between the rows of one head.
    pub(super) row_stride: u64,
    /// The element of (query 0 of the run, this head, key 0 of the run).
    start: u64,
}

impl DropoutRows {
    /// The element of query `query` and key `key`, both counted within the run.
    pub(super) fn element(&self, query: usize, key: usize) -> u64 {
        self.start + query as u64 * self.row_stride + key as u64
    }
}

impl AttentionShape<'_> {
    /// H, the columns of queries, keys, values and outputs.
    pub fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// The columns of one head.
    pub(super) fn columns(&self, head: usize) -> Range<usize> {
        head * self.head_size..(head + 1) * self.head_size
    }

    /// Elements between two rows of probabilities in the stream of random numbers: the length of the longest run of
    /// keys, rounded up to a multiple of 4, so that every row begins with a block of Philox.
    fn dropout_row_len(&self) -> usize {
        let lengths = self.key_starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        (lengths.max().unwrap_or(0).max(0) as usize).next_multiple_of(4)
    }

    /// Elements of the stream that dropout uses: the caller's next offset is this much further on. The probability of
    /// head `h`, query row `t` (of all Tq) and key `j` (of its run) uses element `(t * heads + h) * m + j`, where `m`
    /// is the length of the longest run of keys, rounded up to a multiple of 4.
    pub fn dropout_elements(&self) -> u64 {
        let rows = self.query_starts.last().copied().unwrap_or(0).max(0) as u64;
        rows * self.heads as u64 * self.dropout_row_len() as u64
    }

    /// What tells where the random numbers of a run and head begin.
    pub(super) fn dropout_rows(
        &self,
        dropout: Option<Dropout>,
    ) -> impl Fn(&Run, usize) -> Option<DropoutRows> + Send + Sync {
        let (row_len, heads) = (self.dropout_row_len() as u64, self.heads);
        move |run, head| {
            dropout.map(|dropout| DropoutRows {
                dropout,
                row_stride: heads as u64 * row_len,
                start: (run.queries.start * heads + head) as u64 * row_len,
            })
        }
    }

    /// The runs; fails unless the shape is sound for that many rows of queries and keys.
    pub(super) fn runs(
        &self,
        kernel: &'static str,
        queries: usize,
        keys: usize,
        window: Option<usize>,
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
        let mut next = 0;
        let run = |(queries, keys): (Range<usize>, Range<usize>)| {
            let first = next;
            next += self.heads * self.decisions_of(queries.len(), keys.len(), window);
            Run { queries, keys, decisions: first..next, heads: self.heads }
        };
        Ok(queries.into_iter().zip(keys).map(run).collect())
    }

    /// Words of the decisions of one head of a run.
    fn decisions_of(&self, queries: usize, keys: usize, window: Option<usize>) -> usize {
        let (query_step, key_step) = (tile_len(queries, QUERY_TILE), tile_len(keys, KEY_TILE));
        let sight = Sight::new(queries, keys, self.causal, window);
        let blocks = (0..queries).step_by(query_step.max(1));
        let tiles = blocks.flat_map(|first_query| {
            let count = query_step.min(queries - first_query);
            let seen = sight.keys(first_query..first_query + count);
            seen.clone().step_by(key_step.max(1)).map(move |first_key| Tile {
                queries: count,
                keys: key_step.min(seen.end - first_key),
                first_query,
                first_key,
                causal_shift: None,
            })
        });
        tiles.map(|tile| tile.keep_len()).sum()
    }

    /// Words of 16 decisions that a forward pass with dropout can leave to the backward pass: one bit for every
    /// query, key of its run and head, up to rounding. Errors: as the passes.
    pub fn decisions_len(&self) -> Result<usize> {
        self.decisions_len_within(None)
    }

    /// As [`AttentionShape::decisions_len`], for the passes with a window
    /// ([`crate::attention::terms::AttentionTerms::window`]).
    pub fn decisions_len_within(&self, window: Option<usize>) -> Result<usize> {
        let (queries, keys) = (Self::rows_of(self.query_starts), Self::rows_of(self.key_starts));
        let runs = self.runs("attention", queries, keys, window)?;
        Ok(runs.last().map_or(0, |run| run.decisions.end))
    }

    /// Rows that the starts promise, 0 if there are none.
    pub(super) fn rows_of(starts: &[i64]) -> usize {
        starts.last().map_or(0, |&last| usize::try_from(last).unwrap_or(0))
    }

    pub(super) fn causal_shift(&self, run: &Run) -> Option<isize> {
        self.causal.then(|| run.keys.len() as isize - run.queries.len() as isize)
    }
}

/// Which keys the queries of a run may see by where they stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    /// Query `i` stands where key `i + shift` does.
    shift: isize,
    keys: usize,
    /// How far before and after itself a query sees.
    before: isize,
    after: isize,
}

impl Sight {
    pub(super) fn new(queries: usize, keys: usize, causal: bool, window: Option<usize>) -> Self {
        // Further than any key, so that sums do not overflow.
        let all = (queries + keys) as isize;
        let window = window.map_or(all, |window| isize::try_from(window).unwrap_or(all).min(all));
        let (shift, after) = (keys as isize - queries as isize, if causal { 0 } else { window });
        Self { shift, keys, before: window, after }
    }

    /// The keys that some of the queries may see; begins at a multiple of [`LANES`].
    pub(super) fn keys(&self, queries: Range<usize>) -> Range<usize> {
        let within = |key: isize| key.clamp(0, self.keys as isize) as usize;
        let first = within(queries.start as isize + self.shift - self.before);
        let end = within(queries.end as isize + self.shift + self.after);
        (first / LANES * LANES).min(end)..end
    }

    /// The queries that may see a key, among those given.
    pub(super) fn queries(&self, key: usize, among: Range<usize>) -> Range<usize> {
        let within = |query: isize| query.clamp(among.start as isize, among.end as isize) as usize;
        let at = key as isize - self.shift;
        within(at - self.after)..within(at + self.before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sight_names_what_each_query_sees() {
        for (queries, keys) in [(5, 5), (3, 40), (40, 3), (70, 70)] {
            for (causal, window) in [(true, None), (false, Some(2)), (true, Some(0)), (false, None)]
            {
                let sight = Sight::new(queries, keys, causal, window);
                let sees = |i: usize, j: usize| {
                    let distance = j as isize - (i as isize + keys as isize - queries as isize);
                    (!causal || distance <= 0)
                        && window.is_none_or(|window| distance.unsigned_abs() <= window)
                };
                for j in 0..keys {
                    let expected: Vec<usize> = (1..queries).filter(|&i| sees(i, j)).collect();
                    assert_eq!(sight.queries(j, 1..queries).collect::<Vec<_>>(), expected);
                }
                for first in 0..queries {
                    let block = first..(first + 3).min(queries);
                    let seen = sight.keys(block.clone());
                    let any = |j: &usize| block.clone().any(|i| sees(i, *j));
                    let outside = (0..keys).filter(|j| !seen.contains(j));
                    assert!(outside.into_iter().all(|j| !any(&j)));
                    assert_eq!(seen.end, (0..keys).rfind(any).map_or(seen.end, |j| j + 1));
                }
            }
        }
    }
}
