//! Features of the records of a data file, by row: made when a row's turn comes and kept while there is memory for
//! them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use easytransfer_plugin as plugin;
use easytransfer_plugin::{
    ContextHost, LoadedApp, Record, Rng, Row, Tokenizer, features_rng, profile,
};

use crate::data::collation::{Sample, lengths};
use crate::data::extra::ExtraColumns;
use crate::data::prefetch::{Prefetch, caught};
use crate::data::records::OnBadRow;
use crate::data::store::{RecordStore, Storage};
use crate::error::{Error, Result};

/// Records of a window in the file's order.
const WINDOW: usize = 4096;
/// Records that one thread measures at a time.
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
    /// Whether features differ from epoch to epoch.
    pub fresh: bool,
}

/// What features are made for, and what their random numbers depend on beside the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purpose {
    /// For training; otherwise epochs do not count.
    pub training: bool,
    /// The run's seed.
    pub seed: u64,
    /// Number of the source.
    pub source: u64,
}

/// The records of one file as samples.
pub struct Features {
    records: RecordStore,
    makers: Vec<Featurizer>,
    purpose: Purpose,
    extra: Arc<ExtraColumns>,
    lengths: Option<Vec<u32>>,
    kept: Mutex<Kept>,
}

struct Kept {
    samples: HashMap<u32, Arc<Sample>>,
    /// Bytes that may still be kept.
    left: usize,
}

impl Features {
    /// Samples with the fields of all `makers` and of the `extra` columns. About `keep` bytes of them are kept once
    /// they are made.
    pub fn new(
        records: RecordStore,
        makers: Vec<Featurizer>,
        purpose: Purpose,
        extra: Arc<ExtraColumns>,
        keep: usize,
    ) -> Features {
        // What is made anew every epoch is not worth keeping.
        let keep = if makers.iter().any(|maker| maker.fresh) { 0 } else { keep };
        let kept = Mutex::new(Kept { samples: HashMap::new(), left: keep });
        Features { records, makers, purpose, extra, lengths: None, kept }
    }

    /// The same without keeping samples, for those whose turn comes once.
    #[must_use]
    pub fn keep_none(self) -> Features {
        self.kept().left = 0;
        self
    }

    /// Number of records.
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

    /// Lengths of all samples in tokens, after [`Features::measure`].
    pub fn lengths(&self) -> Option<&[u32]> {
        self.lengths.as_deref()
    }

    /// Most tokens of a sample, 0 when an app does not say.
    pub fn longest(&self) -> u32 {
        let known = self.makers.iter().all(|maker| maker.longest > 0);
        let sum = |sum: u32, maker: &Featurizer| sum.saturating_add(maker.longest);
        if known { self.makers.iter().fold(0, sum) } else { 0 }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The map is whole whatever a panicking thread was doing.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the features of a record; what an app says against the record is the inner error.
    fn make(&self, index: u32, epoch: u64) -> Result<std::result::Result<Sample, plugin::Error>> {
        let text = self.records.text(index as usize)?;
        let mut sample: Vec<Row> = Vec::new();
        for (at, maker) in self.makers.iter().enumerate() {
            let mut making = Making { features: self, index, epoch, rng: None };
            let rows = match maker.app.features_json(&mut making, &maker.tokenizer, &text) {
                Ok(rows) => rows,
                Err(error) => return Ok(Err(error)),
            };
            if at == 0 && maker.prefix.is_empty() {
                sample = rows;
                continue;
            }
            if at == 0 {
                sample = rows.iter().map(|_| Row::new()).collect::<plugin::Result<_>>()?;
            }
            if rows.len() != sample.len() {
                return Err(Error::other(format!(
                    "features: model {:?} makes {} rows of a record, the model under training {}; both must cut texts alike",
                    maker.prefix.trim_end_matches('/'),
                    rows.len(),
                    sample.len()
                )));
            }
            for (row, part) in sample.iter_mut().zip(&rows) {
                row.merge(&maker.prefix, part)?;
            }
        }
        if let Err(error) = self.extra.fill(&text, &mut sample) {
            return Ok(Err(error));
        }
        Ok(Ok(Sample::new(sample)))
    }

    fn keep(&self, index: u32, sample: Sample) -> Arc<Sample> {
        let sample = Arc::new(sample);
        let bytes = self.makers.len() * ROW_BYTES * sample.rows().len()
            + self.makers.len() * sample.tokens_len() * TOKEN_BYTES;
        let mut kept = self.kept();
        if kept.left >= bytes {
            kept.left -= bytes;
            kept.samples.insert(index, sample.clone());
        }
        sample
    }

    fn sample(
        &self,
        index: u32,
        epoch: u64,
    ) -> Result<std::result::Result<Arc<Sample>, plugin::Error>> {
        if let Some(sample) = self.kept().samples.get(&index) {
            return Ok(Ok(sample.clone()));
        }
        Ok(self.make(index, epoch)?.map(|sample| self.keep(index, sample)))
    }

    /// Features of some records in an epoch, from 0. Errors: a record that an app refuses, by file and line.
    pub fn samples(
        &self,
        indices: impl IntoIterator<Item = u32>,
        epoch: u64,
    ) -> Result<Vec<Arc<Sample>>> {
        let span = profile::span("data", "features");
        let samples = indices
            .into_iter()
            .map(|index| {
                self.sample(index, epoch)?
                    .map_err(|error| self.records.fault(index as usize, &error))
            })
            .collect::<Result<Vec<_>>>()?;
        span.note("records", samples.len() as f64);
        Ok(samples)
    }

    /// A record as apps see it.
    pub fn record(&self, index: u32) -> Result<Record> {
        serde_json::from_str(&self.records.text(index as usize)?)
            .map_err(|error| Error::other(format!("read a record back: {error}")))
    }

    /// All samples in the file's order, in windows that `workers` threads make ahead.
    pub fn windows(self: &Arc<Self>, workers: usize) -> Prefetch<Vec<Arc<Sample>>> {
        let features = self.clone();
        let count = self.len().div_ceil(WINDOW);
        Prefetch::new(count, workers, workers.max(1), move |index| {
            let end = features.len().min((index + 1) * WINDOW);
            features.samples(index as u32 * WINDOW as u32..end as u32, 0)
        })
    }

    /// Makes the features of all records once, on `workers` threads: so their lengths are known, and a record that an
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
            let samples = std::mem::take(&mut kept.samples);
            kept.samples = samples
                .into_iter()
                .map(|(index, sample)| {
                    (index - bad.partition_point(|&b| b < index as usize) as u32, sample)
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
        let sample = self.sample(index as u32, 0)?;
        Ok(sample.map(|sample| lengths(&[sample])[0]).map_err(|error| (index, error)))
    }
}

/// What an app can ask while it makes the features of a record.
struct Making<'a> {
    features: &'a Features,
    index: u32,
    epoch: u64,
    rng: Option<Rng>,
}

impl ContextHost for Making<'_> {
    fn training(&self) -> bool {
        self.features.purpose.training
    }
    fn epoch(&self) -> u64 {
        self.epoch
    }
    fn source(&self) -> u64 {
        self.features.purpose.source
    }
    fn record(&self) -> u64 {
        u64::from(self.index)
    }
    fn records_len(&self) -> u64 {
        self.features.records.len() as u64
    }
    fn record_at(&mut self, index: u64) -> plugin::Result<String> {
        let records = &self.features.records;
        match usize::try_from(index).ok().filter(|&index| index < records.len()) {
            Some(index) => Ok(records.text(index)?),
            None => Err(plugin::Error::new(
                plugin::abi::ET_ERR_NOT_FOUND,
                format!("record_at({index}): there are {} records", records.len()),
            )),
        }
    }
    fn rng(&mut self) -> plugin::Result<&Rng> {
        let Purpose { seed, source, .. } = self.features.purpose;
        let rng = match self.rng.take() {
            Some(rng) => rng,
            None => features_rng(seed, source, self.epoch, u64::from(self.index))?,
        };
        Ok(self.rng.insert(rng))
    }
}

/// The length of a sample, or its index and what an app says against it.
type Measured = std::result::Result<u32, (usize, plugin::Error)>;
