//! The records of a data file by their number, for data that need not fit into memory: read once, in the file's
//! order, checked and kept in a [`Spool`] as the JSON texts that apps get.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use easytransfer_plugin as plugin;
use easytransfer_plugin::{Column, profile};
use serde_json::{Map, Value};

use crate::data::dataset::{DataOptions, DatasetReader, fault, none_left};
use crate::data::input::Data;
use crate::data::records::OnBadRow;
use crate::data::spool::{Spool, SpoolWriter};
use crate::error::{Error, Result, place_name};
use crate::report::progress::{ProgressLine, ProgressMode};

/// Records that are read at a time.
const PART: usize = 4096;

/// Where data waits until it is used, and who may stop the waiting.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Bytes of records, and as many of features, of one file that are kept in memory.
    pub memory: usize,
    /// Where files with the rest are made; if it does not exist, in the next directory above it.
    pub directory: PathBuf,
    /// How to show that data is read.
    pub progress: ProgressMode,
    /// Set from elsewhere to cancel.
    pub cancel: Arc<AtomicBool>,
}

impl Storage {
    /// What is shown while `total` rows (0 if not known) are being worked on.
    pub fn bar(&self, name: &str, total: usize) -> ProgressLine {
        ProgressLine::new(name, total as u64, self.progress, Duration::from_secs(10))
    }

    /// Errors: `Cancelled`.
    pub fn check_cancel(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// The records of one file.
pub struct RecordStore {
    path: PathBuf,
    columns: Map<String, Value>,
    on_bad_row: OnBadRow,
    spool: Spool,
    skipped: u64,
    digest: u64,
}

impl RecordStore {
    /// Reads data. `see` gets every record as JSON; a record that it refuses is a bad row. Errors: see
    /// [`DatasetReader`]; a bad row, unless those are skipped; no row that is left; more than `u32::MAX` rows;
    /// cancelled.
    pub fn read(
        data: &Data,
        columns: &[Column],
        options: &DataOptions,
        storage: &Storage,
        mut see: impl FnMut(&str) -> plugin::Result<()>,
    ) -> Result<RecordStore> {
        let _span = profile::span("data", "read");
        let path = data.path();
        let mut reader = DatasetReader::open(data, columns, options)?;
        let on_bad_row = options.read.on_bad_row;
        let mut spool = SpoolWriter::new(&storage.directory, storage.memory);
        let (mut skipped, mut digest) = (0, FNV_OFFSET);
        let mut bar = storage.bar(&format!("read {data}"), data.known_len().unwrap_or(0) as usize);
        while let Some(part) = reader.part(PART)? {
            storage.check_cancel()?;
            skipped += part.skipped;
            bar.advance(part.records.len() as u64, part.records.len() as u64, 0);
            for (record, &line) in part.records.iter().zip(&part.lines) {
                let text = serde_json::to_string(record)
                    .map_err(|error| Error::other(format!("write a record as JSON: {error}")))?;
                if let Err(error) = see(&text) {
                    if on_bad_row == OnBadRow::Stop {
                        return Err(fault(path, &reader.columns(), line, &error));
                    }
                    skipped += 1;
                    continue;
                }
                digest = fnv(digest, text.as_bytes());
                spool.push(line, &text)?;
            }
            if spool.len() >= u32::MAX as usize {
                return Err(Error::user(format!(
                    "{}: expected fewer than {} rows; split the file",
                    place_name(path),
                    u32::MAX
                )));
            }
        }
        bar.clear();
        let store = RecordStore {
            path: path.to_path_buf(),
            columns: reader.columns(),
            on_bad_row,
            spool: spool.finish()?,
            skipped,
            digest,
        };
        store.check_left()?;
        Ok(store)
    }

    fn check_left(&self) -> Result<()> {
        if !self.spool.is_empty() {
            return Ok(());
        }
        Err(none_left(&self.path, self.skipped))
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.spool.len()
    }

    /// Whether there are none; never after reading.
    pub fn is_empty(&self) -> bool {
        self.spool.is_empty()
    }

    /// Column by role, as the file names them.
    pub fn columns(&self) -> &Map<String, Value> {
        &self.columns
    }

    /// Rows that were left out because they did not fit.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What to do with a record that an app refuses.
    pub fn on_bad_row(&self) -> OnBadRow {
        self.on_bad_row
    }

    /// A text that files with other records do not have, but for chance.
    pub fn digest(&self) -> String {
        format!("{:016x}", self.digest)
    }

    /// A record as JSON. Errors: the system refuses to read it back.
    pub fn text(&self, index: usize) -> Result<String> {
        Ok(self.spool.get(index)?.1)
    }

    /// The error for a record that an app refused.
    pub fn fault(&self, index: usize, refusal: &plugin::Error) -> Error {
        match self.spool.get(index) {
            Ok((line, _)) => fault(&self.path, &self.columns, line, refusal),
            Err(error) => error,
        }
    }

    /// Leaves out records, which count as bad rows. `left_out` is sorted. Errors: none is left.
    pub fn remove(&mut self, left_out: &[usize]) -> Result<()> {
        self.skipped += left_out.len() as u64;
        self.spool.remove(left_out);
        self.check_left()
    }
}

/// Offset of the 64-bit hash of Fowler, Noll and Vo (FNV-1a).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(start: u64, bytes: &[u8]) -> u64 {
    // A byte that no JSON text has ends each text.
    bytes
        .iter()
        .chain(&[0])
        .fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
