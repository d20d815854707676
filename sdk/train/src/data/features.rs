//! Features of the records of a data file, by row: made when a row's turn comes and kept while there is memory for
//! them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use easytransfer_plugin as plugin;
use easytransfer_plugin::{LoadedApp, Row, Tokenizer, profile};

use crate::data::collation::lengths;
use crate::data::prefetch::{Prefetch, caught};
use crate::data::records::OnBadRow;
use crate::data::store::{RecordStore, Storage};
use crate::error::{Error, Result};

/// Rows of a window in the file's order.
const WINDOW: usize = 4096;
/// Rows that one thread measures at a time.
const BLOCK: usize = 512;
/// What a row takes beside its tokens, about: its fields with their names.
const ROW_BYTES: usize = 512;
/// What a token takes, about: two fields of 64-bit integers.
const TOKEN_BYTES: usize = 16;

/// Makes features for one model.
#[derive(Clone)]
pub struct Featurizer {
    /// Put before the names of the fields, for instance "teacher/".
    pub prefix: String,
    /// The app.
    pub app: Arc<LoadedApp>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Most tokens of a record, 0 when the app does not say.
    pub longest: u32,
}

/// The rows of one file.
pub struct Features {
    records: RecordStore,
    makers: Vec<Featurizer>,
    lengths: Option<Vec<u32>>,
    kept: Mutex<Kept>,
}

struct Kept {
    rows: HashMap<u32, Arc<Row>>,
    /// Bytes that may still be kept.
    left: usize,
}

impl Features {
    /// Rows with the fields of all `makers`. About `keep` bytes of them are kept once they are made.
    pub fn new(records: RecordStore, makers: Vec<Featurizer>, keep: usize) -> Features {
        let kept = Mutex::new(Kept { rows: HashMap::new(), left: keep });
        Features { records, makers, lengths: None, kept }
    }

    /// The same without keeping rows, for those whose turn comes once.
    #[must_use]
    pub fn keep_none(self) -> Features {
        self.kept().left = 0;
        self
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records.
    pub fn records(&self) -> &RecordStore {
        &self.records
    }

    /// Lengths of all rows in tokens, after [`Features::measure`].
    pub fn lengths(&self) -> Option<&[u32]> {
        self.lengths.as_deref()
    }

    /// Most tokens of a row, 0 when an app does not say.
    pub fn longest(&self) -> u32 {
        let known = self.makers.iter().all(|maker| maker.longest > 0);
        if known { self.makers.iter().map(|maker| maker.longest).max().unwrap_or(0) } else { 0 }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The map is whole whatever a panicking thread was doing.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the features of a record; what an app says against the record is the inner error.
    fn make(&self, index: u32) -> Result<std::result::Result<Row, plugin::Error>> {
        let text = self.records.text(index as usize)?;
        let mut row = Row::new()?;
        for maker in &self.makers {
            let mut part = Row::new()?;
            if let Err(error) = maker.app.features_json(&maker.tokenizer, &text, &mut part) {
                return Ok(Err(error));
            }
            row.merge(&maker.prefix, &part)?;
        }
        Ok(Ok(row))
    }

    fn keep(&self, index: u32, row: Row) -> Arc<Row> {
        let row = Arc::new(row);
        let bytes = self.makers.len() * (ROW_BYTES + row.tokens_len() * TOKEN_BYTES);
        let mut kept = self.kept();
        if kept.left >= bytes {
            kept.left -= bytes;
            kept.rows.insert(index, row.clone());
        }
        row
    }

    fn row(&self, index: u32) -> Result<std::result::Result<Arc<Row>, plugin::Error>> {
        if let Some(row) = self.kept().rows.get(&index) {
            return Ok(Ok(row.clone()));
        }
        Ok(self.make(index)?.map(|row| self.keep(index, row)))
    }

    /// Features of some rows. Errors: a record that an app refuses, by file and line.
    pub fn rows(&self, indices: impl IntoIterator<Item = u32>) -> Result<Vec<Arc<Row>>> {
        let span = profile::span("data", "features");
        let rows = indices
            .into_iter()
            .map(|index| {
                self.row(index)?.map_err(|error| self.records.fault(index as usize, &error))
            })
            .collect::<Result<Vec<_>>>()?;
        span.note("records", rows.len() as f64);
        Ok(rows)
    }

    /// All rows in the file's order, in windows that `workers` threads make ahead.
    pub fn windows(self: &Arc<Self>, workers: usize) -> Prefetch<Vec<Arc<Row>>> {
        let features = self.clone();
        let count = self.len().div_ceil(WINDOW);
        Prefetch::new(count, workers, workers.max(1), move |index| {
            let end = features.len().min((index + 1) * WINDOW);
            features.rows(index as u32 * WINDOW as u32..end as u32)
        })
    }

    /// Makes the features of all rows once, on `workers` threads: so their lengths are known, and a record that an
    /// app refuses is found before anything is trained. Errors: such a record, unless bad rows are skipped;
    /// cancelled.
    pub fn measure(&mut self, workers: usize, storage: &Storage) -> Result<()> {
        let span = profile::span("data", "features");
        span.note("records", self.len() as f64);
        let mut all = Vec::with_capacity(self.len());
        let mut bad = Vec::new();
        let mut begin = 0;
        let mut bar = storage.bar("features", self.len());
        while begin < self.len() {
            storage.check_cancel()?;
            let blocks: Vec<Range<usize>> = (0..workers.max(1))
                .map(|block| begin + block * BLOCK..self.len().min(begin + (block + 1) * BLOCK))
                .filter(|block| !block.is_empty())
                .collect();
            let count = blocks.iter().map(Range::len).sum::<usize>();
            begin += count;
            for found in self.measure_blocks(blocks) {
                for length in found? {
                    match length {
                        Ok(length) => all.push(length),
                        Err((index, error)) if self.records.on_bad_row() == OnBadRow::Stop => {
                            return Err(self.records.fault(index, &error));
                        }
                        Err((index, _)) => bad.push(index),
                    }
                }
            }
            bar.advance(count as u64, count as u64, 0);
        }
        bar.clear();
        self.lengths = Some(all);
        if !bad.is_empty() {
            // Rows behind a bad one have other numbers now.
            let mut kept = self.kept();
            let rows = std::mem::take(&mut kept.rows);
            kept.rows = rows
                .into_iter()
                .map(|(index, row)| {
                    (index - bad.partition_point(|&b| b < index as usize) as u32, row)
                })
                .collect();
            drop(kept);
            self.records.remove(&bad)?;
        }
        Ok(())
    }

    fn measure_blocks(&self, blocks: Vec<Range<usize>>) -> Vec<Result<Vec<Measured>>> {
        let measure = |block: Range<usize>| {
            let item = block.start;
            caught(item, || block.map(|index| self.measure_one(index)).collect())
        };
        if blocks.len() <= 1 {
            return blocks.into_iter().map(measure).collect();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                blocks.into_iter().map(|block| scope.spawn(|| measure(block))).collect();
            let lost = |_| Err(Error::other("a thread that makes features is gone"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect()
        })
    }

    fn measure_one(&self, index: usize) -> Result<Measured> {
        let row = self.row(index as u32)?;
        Ok(row.map(|row| lengths(&[row])[0]).map_err(|error| (index, error)))
    }
}

/// The length of a row, or its index and what an app says against it.
type Measured = std::result::Result<u32, (usize, plugin::Error)>;
