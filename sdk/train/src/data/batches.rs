//! Batches of training: those of an epoch, made window by window by threads ahead of the step, and the endless ones
//! that strategies draw.

use std::sync::Arc;

use easytransfer_plugin::{Map, Row, step};
use serde::{Deserialize, Serialize};

use crate::data::batching::{BatchOptions, Epoch, needs_lengths};
use crate::data::collation::{collate, lengths};
use crate::data::features::Features;
use crate::data::prefetch::Prefetch;
use crate::error::{Error, Result};
use crate::options::config::TrainConfig;

/// The batching of an epoch of training.
pub fn batch_options(config: &TrainConfig, epoch: u64) -> BatchOptions {
    BatchOptions {
        max_tokens: config.batch.tokens,
        max_rows: config.batch.rows,
        window: config.batch.window,
        seed: config.seed,
        epoch,
    }
}

/// Whether the lengths of all rows must be known before the first step.
pub fn must_measure(config: &TrainConfig, features: &Features) -> bool {
    needs_lengths(&batch_options(config, 0), features.longest())
}

/// The order of an epoch. `stream` tells sources of strategies apart, so that two of one file do not come in the same
/// order.
pub fn epoch(features: &Features, config: &TrainConfig, stream: u64, number: u64) -> Arc<Epoch> {
    let options = batch_options(config, number);
    let options = BatchOptions { seed: options.seed.wrapping_add(stream), ..options };
    Arc::new(Epoch::new(features.len(), features.lengths(), &options))
}

/// Number of batches of each epoch in turn.
pub fn batch_counts(features: &Features, config: &TrainConfig) -> impl Iterator<Item = u64> {
    // Without lengths all epochs have the same number.
    let same = features.lengths().is_none().then(|| epoch(features, config, 0, 0).batches());
    (0..config.epochs)
        .map(move |number| same.unwrap_or_else(|| epoch(features, config, 0, number).batches()))
        .map(|batches| batches as u64)
}

/// The batches of an epoch from one on.
pub struct Batches {
    windows: Prefetch<Vec<Map>>,
    ready: std::vec::IntoIter<Map>,
}

impl Batches {
    /// Starts `workers` threads, each of which makes a window ahead.
    pub fn start(
        features: &Arc<Features>,
        epoch: &Arc<Epoch>,
        begin: usize,
        workers: usize,
    ) -> Batches {
        let (features, epoch) = (features.clone(), epoch.clone());
        let (first, done) = epoch.place(begin);
        let count = epoch.windows() - first;
        let windows = Prefetch::new(count, workers, workers.max(1), move |index| {
            window(&features, &epoch, first + index, if index == 0 { done } else { 0 })
        });
        Batches { windows, ready: Vec::new().into_iter() }
    }
}

/// The batches of a window but for the first `done`.
fn window(features: &Features, epoch: &Epoch, index: usize, done: usize) -> Result<Vec<Map>> {
    let rows: Vec<Arc<Row>> = features.rows(epoch.window(index).iter().copied())?;
    let plan = epoch.pack(index, &lengths(&rows)).map_err(|(expected, found)| {
        Error::other(format!(
            "features: expected {expected} batches of {} rows of at most {} tokens, found {found}; the app makes longer rows than its `longest` says",
            rows.len(),
            features.longest()
        ))
    })?;
    plan[done..].iter().map(|batch| collate(&rows, batch)).collect()
}

impl Iterator for Batches {
    type Item = Result<Map>;

    fn next(&mut self) -> Option<Result<Map>> {
        loop {
            if let Some(batch) = self.ready.next() {
                // A card gets the arrays of the next one while it computes this one.
                let next = self.ready.as_slice().first();
                let begun = next.map_or(Ok(()), |next| step::prefetch(next).map_err(Error::from));
                return Some(begun.map(|()| batch));
            }
            match self.windows.next()? {
                Ok(batches) => self.ready = batches.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Where a source of batches stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs begun.
    pub epoch: u64,
    /// Batches of the present epoch that were served.
    pub next: usize,
}

/// Batches of one file without end, in another order every epoch.
pub struct Source {
    features: Arc<Features>,
    position: Position,
    /// The batches of the present epoch from `position.next` on, and the number of all of them.
    present: Option<(Batches, usize)>,
}

impl Source {
    /// Starts at the first batch of epoch 0.
    pub fn new(features: Arc<Features>) -> Source {
        Source { features, position: Position::default(), present: None }
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Opens the epoch before `position.epoch`, the one that was begun last, at `position.next`.
    fn open(&mut self, config: &TrainConfig, stream: u64) {
        let Some(number) = self.position.epoch.checked_sub(1) else { return };
        let epoch = epoch(&self.features, config, stream, number);
        let count = epoch.batches();
        let begin = self.position.next.min(count);
        let batches = Batches::start(&self.features, &epoch, begin, config.workers);
        self.present = Some((batches, count));
    }

    /// Goes to where the source of an interrupted run stood. Errors: the data has fewer batches.
    pub fn resume(&mut self, config: &TrainConfig, stream: u64, position: Position) -> Result<()> {
        self.position = position;
        self.open(config, stream);
        let count = self.present.as_ref().map_or(0, |(_, count)| *count);
        if position.next > count {
            return Err(Error::user(format!(
                "expected at least {} batches as in the interrupted run, found {count}; its data has changed",
                position.next
            )));
        }
        Ok(())
    }

    /// The next batch. Errors: a record that an app refuses.
    pub fn next(&mut self, config: &TrainConfig, stream: u64) -> Result<Map> {
        if self.present.as_ref().is_none_or(|(_, count)| self.position.next >= *count) {
            self.position = Position { epoch: self.position.epoch + 1, next: 0 };
            self.open(config, stream);
        }
        let batch = self.present.as_mut().and_then(|(batches, _)| batches.next());
        let batch = batch.ok_or_else(|| Error::other("the batches ended early"))??;
        self.position.next += 1;
        Ok(batch)
    }
}
