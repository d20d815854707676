//! What attention computes: runs, heads, and where dropout's decisions are.

use std::ops::Range;

use crate::attention::tile::{KEY_TILE, QUERY_TILE, Tile, tile_len};
use crate::philox::Dropout;
use crate::runs::run_ranges;
use crate::{KernelError, Result, check_len};

/// What attention computes: H = `heads * head_size` columns, of which head `h` has `h * head_size..(h + 1) * head_size`.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape<'a> {
    /// Number of heads, at least 1.
    pub heads: usize,
    /// Columns of one head, at least 1.
    pub head_size: usize,
    /// Cumulative lengths [B + 1] of the runs of queries; ends with Tq.
    pub query_starts: &'a [i64],
    /// Cumulative lengths [B + 1] of the runs of keys and values; ends with Tk. Queries of run `b` see the keys of run `b`.
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

    /// Elements between two rows of probabilities in the stream of random numbers: the length of the longest run of keys,
    /// rounded up to a multiple of 4, so that every row begins with a block of Philox.
    fn dropout_row_len(&self) -> usize {
        let lengths = self.key_starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        (lengths.max().unwrap_or(0).max(0) as usize).next_multiple_of(4)
    }

    /// Elements of the stream that dropout uses: the caller's next offset is this much further on. The probability of head
    /// `h`, query row `t` (of all Tq) and key `j` (of its run) uses element `(t * heads + h) * m + j`, where `m` is the length of the
    /// longest run of keys, rounded up to a multiple of 4.
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
            next += self.heads * self.decisions_of(queries.len(), keys.len());
            Run { queries, keys, decisions: first..next, heads: self.heads }
        };
        Ok(queries.into_iter().zip(keys).map(run).collect())
    }

    /// Words of the decisions of one head of a run.
    fn decisions_of(&self, queries: usize, keys: usize) -> usize {
        let (query_step, key_step) = (tile_len(queries, QUERY_TILE), tile_len(keys, KEY_TILE));
        let causal_shift = self.causal_shift_of(queries, keys);
        let firsts = |len: usize, step: usize| (0..len).step_by(step.max(1));
        let tiles = firsts(queries, query_step)
            .flat_map(|first| firsts(keys, key_step).map(move |key| (first, key)));
        tiles
            .map(|(first_query, first_key)| {
                Tile {
                    queries: query_step.min(queries - first_query),
                    keys: key_step.min(keys - first_key),
                    first_query,
                    first_key,
                    causal_shift,
                }
                .trimmed()
                .keep_len()
            })
            .sum()
    }

    /// Words of 16 decisions that a forward pass with dropout can leave to the backward pass: one bit for every query, key of its run
    /// and head, up to rounding. Errors: as the passes.
    pub fn decisions_len(&self) -> Result<usize> {
        let (queries, keys) = (Self::rows_of(self.query_starts), Self::rows_of(self.key_starts));
        let runs = self.runs("attention", queries, keys)?;
        Ok(runs.last().map_or(0, |run| run.decisions.end))
    }

    /// Rows that the starts promise, 0 if there are none.
    pub(super) fn rows_of(starts: &[i64]) -> usize {
        starts.last().map_or(0, |&last| usize::try_from(last).unwrap_or(0))
    }

    pub(super) fn causal_shift(&self, run: &Run) -> Option<isize> {
        self.causal_shift_of(run.queries.len(), run.keys.len())
    }

    fn causal_shift_of(&self, queries: usize, keys: usize) -> Option<isize> {
        self.causal.then(|| keys as isize - queries as isize)
    }
}
