//! A data file as windows of records with their features, made by a thread of its own while the caller computes on
//! the window before. Only a few windows are in memory, so a file may be larger than memory.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use easytransfer_plugin::{Asked, LoadedApp, Record, Tokenizer};

use crate::data::collation::Sample;
use crate::data::dataset::{DatasetReader, Part};
use crate::error::{Error, Result};

/// Records of the first window: few, so that the engine soon has something to do.
const FIRST: usize = 256;
/// Most records of a window. Batches are sorted by length within a window.
const LARGEST: usize = 4096;

/// Some records of a file in its order, and their features.
pub struct Window {
    /// The records.
    pub records: Vec<Record>,
    /// The line of each record, counted from 1.
    pub lines: Vec<u64>,
    /// The features of each record.
    pub samples: Vec<Sample>,
    /// Rows that were left out because they did not fit.
    pub skipped: u64,
}

/// Iterates over the windows of a file. An error ends it. Dropping it stops the thread after the window that it works
/// on.
pub struct Windows {
    receiver: Option<Receiver<Result<Window>>>,
    thread: Option<JoinHandle<()>>,
}

impl Windows {
    /// Starts to read a file. Errors: the system refuses a thread.
    pub fn start(
        mut reader: DatasetReader,
        app: Arc<LoadedApp>,
        tokenizer: Tokenizer,
    ) -> Result<Windows> {
        Windows::made_by(move |most| {
            let Some(mut part) = reader.part(most)? else { return Ok(None) };
            let samples = part.featurize(&app, &tokenizer)?;
            let Part { records, lines, skipped, .. } = part;
            Ok(Some(Window { records, lines, samples, skipped }))
        })
    }

    /// Starts to make features of records. Errors: the system refuses a thread.
    pub fn of_records(
        records: Vec<Record>,
        app: Arc<LoadedApp>,
        tokenizer: Tokenizer,
    ) -> Result<Windows> {
        let mut next = 0;
        let mut left = records.into_iter();
        Windows::made_by(move |most| {
            let records: Vec<Record> = left.by_ref().take(most).collect();
            if records.is_empty() {
                return Ok(None);
            }
            let first = next;
            next += records.len();
            let samples = records.iter().zip(first..);
            let samples = samples.map(|(record, index)| features(index, record, &app, &tokenizer));
            let samples = samples.collect::<Result<Vec<Sample>>>()?;
            Ok(Some(Window { records, lines: Vec::new(), samples, skipped: 0 }))
        })
    }

    /// `make` gets the most records of the next window and answers with it, or with `None` at the end.
    fn made_by(
        mut make: impl FnMut(usize) -> Result<Option<Window>> + Send + 'static,
    ) -> Result<Windows> {
        let (sender, receiver) = sync_channel(1);
        let work = move || {
            let mut most = FIRST;
            while let Some(window) = make(most).transpose() {
                let failed = window.is_err();
                if sender.send(window).is_err() || failed {
                    return;
                }
                most = (2 * most).min(LARGEST);
            }
        };
        let thread = std::thread::Builder::new().name("features".to_owned()).spawn(work);
        let thread =
            thread.map_err(|error| Error::other(format!("a thread for features: {error}")))?;
        Ok(Windows { receiver: Some(receiver), thread: Some(thread) })
    }
}

/// Features of one record, which messages call by its index.
pub fn features(
    index: usize,
    record: &Record,
    app: &LoadedApp,
    tokenizer: &Tokenizer,
) -> Result<Sample> {
    let rows = app
        .features(&mut Asked::new(index as u64), tokenizer, record)
        .map_err(|error| error.context(format!("record {index}")))?;
    Ok(Sample::new(rows))
}

impl Iterator for Windows {
    type Item = Result<Window>;

    fn next(&mut self) -> Option<Result<Window>> {
        let window = self.receiver.as_ref()?.recv();
        if let Ok(window) = window {
            return Some(window);
        }
        // The thread is done, or it panicked.
        self.receiver = None;
        match self.thread.take()?.join() {
            Ok(()) => None,
            Err(_) => Some(Err(Error::other("the thread that makes features panicked"))),
        }
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        // Without a receiver the thread cannot send and ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // A panic has nowhere to go while this is dropped.
            let _ = thread.join();
        }
    }
}
