//! Labelled or unlabelled data in memory: records by role, and their features.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use easytransfer_plugin::{Column, LoadedApp, Record, Row, Tokenizer, profile};
use serde_json::{Map, Value};

use crate::columns::{Role, resolve};
use crate::error::{DataError, Error, Result};
use crate::prefetch::Prefetch;
use crate::records::{OnBadRow, ReadOptions, Reader};

/// Records of one file, by role.
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// The records.
    pub records: Vec<Record>,
    /// The line of each record, counted from 1.
    pub lines: Vec<u64>,
    /// Column by role, as the file names them.
    pub columns: Map<String, Value>,
    /// Rows that were left out because they did not fit.
    pub skipped: u64,
    on_bad_row: OnBadRow,
    /// Whether there may be more rows in the file than here.
    is_part: bool,
}

/// How to read a data file for an app.
#[derive(Debug, Clone, Default)]
pub struct DataOptions {
    /// Format, schema, what to do with bad rows.
    pub read: ReadOptions,
    /// Columns that the user named, by role.
    pub named: BTreeMap<String, String>,
    /// Part of the data for which the command has flags of its own ("valid").
    pub split: Option<&'static str>,
    /// Whether targets must be there.
    pub targets: bool,
}

/// The roles of an app's columns.
pub fn roles(columns: &[Column], targets: bool) -> Vec<Role> {
    columns
        .iter()
        .map(|column| {
            let names: Vec<&str> = column.names.iter().map(String::as_str).collect();
            Role::new(&column.role, &names, column.required && (targets || !column.target))
        })
        .collect()
}

/// A data file that is read part by part.
pub struct DatasetReader {
    reader: Reader,
    path: PathBuf,
    places: Vec<(String, usize)>,
    columns: Map<String, Value>,
    on_bad_row: OnBadRow,
    /// Skipped rows that earlier parts have counted.
    counted: u64,
    rows: usize,
}

impl DatasetReader {
    /// Opens a file and finds the columns. Errors: see [`Reader`] and [`resolve`].
    pub fn open(path: &Path, columns: &[Column], options: &DataOptions) -> Result<DatasetReader> {
        let reader = Reader::open(path, options.read.clone())?;
        let roles = roles(columns, options.targets);
        let places = resolve(reader.header(), &roles, &options.named, options.split)?;
        let names: Map<String, Value> = places
            .iter()
            .map(|(role, place)| {
                (role.to_owned(), Value::from(reader.header().columns()[place].clone()))
            })
            .collect();
        Ok(DatasetReader {
            reader,
            path: path.to_path_buf(),
            places: places.iter().map(|(role, place)| (role.to_owned(), place)).collect(),
            columns: names,
            on_bad_row: options.read.on_bad_row,
            counted: 0,
            rows: 0,
        })
    }

    /// Column by role, as the file names them.
    pub fn columns(&self) -> &Map<String, Value> {
        &self.columns
    }

    /// The next records, at most `most`; `None` at the end of the file. Errors: a bad row, unless those are skipped; no records in
    /// the whole file.
    pub fn part(&mut self, most: usize) -> Result<Option<Dataset>> {
        let mut part = Dataset {
            path: self.path.clone(),
            records: Vec::new(),
            lines: Vec::new(),
            columns: self.columns.clone(),
            skipped: 0,
            on_bad_row: self.on_bad_row,
            is_part: true,
        };
        for row in self.reader.by_ref().take(most) {
            let row = row?;
            let record = self
                .places
                .iter()
                .filter_map(|(role, place)| {
                    row.fields[*place].clone().map(|value| (role.to_owned(), value))
                })
                .collect();
            part.records.push(record);
            part.lines.push(row.line);
        }
        part.skipped = self.reader.skipped() - self.counted;
        self.counted = self.reader.skipped();
        self.rows += part.records.len();
        if self.rows == 0 {
            return Err(DataError::new(&self.path)
                .expected("at least one row of data")
                .found("none")
                .remedy("check the file, and that its first line is a header")
                .into());
        }
        Ok((!part.records.is_empty() || part.skipped > 0).then_some(part))
    }
}

impl Dataset {
    /// Reads all records of a file. Errors: see [`Reader`] and [`resolve`]; no records at all.
    pub fn load(path: &Path, columns: &[Column], options: &DataOptions) -> Result<Dataset> {
        let mut reader = DatasetReader::open(path, columns, options)?;
        match reader.part(usize::MAX)? {
            Some(part) => Ok(Dataset { is_part: false, ..part }),
            None => Err(Error::other("the first part of a file has its first rows")),
        }
    }

    /// The error for a record that an app refused.
    pub fn fault(&self, index: usize, message: &str) -> Error {
        let role = ["label", "text_pair", "text"]
            .into_iter()
            .find_map(|role| Some((role, message.find(&format!("{role}:"))?)));
        // What the app says of the value, without who says it.
        let said = role.map_or(message, |(role, at)| message[at + role.len() + 1..].trim());
        let (expected, found) = said.rsplit_once(", found ").unwrap_or(("a usable value", said));
        let expected = expected.rsplit_once("expected ").map_or(expected, |(_, rest)| rest);
        let column = role.and_then(|(role, _)| self.columns.get(role)).and_then(Value::as_str);
        let mut fault = DataError::new(&self.path).line(self.lines[index]);
        if let Some(column) = column {
            fault = fault.column(column);
        }
        fault
            .expected(expected)
            .found(found)
            .remedy("correct the row or skip such rows with `--on-bad-row skip`")
            .into()
    }

    /// Lets the app see every record.
    pub fn observe(&mut self, app: &mut LoadedApp) -> Result<()> {
        let mut bad = Vec::new();
        for index in 0..self.records.len() {
            if let Err(error) = app.observe(&self.records[index]) {
                if self.on_bad_row == OnBadRow::Stop {
                    return Err(self.fault(index, error.message()));
                }
                bad.push(index);
            }
        }
        self.remove(&bad)?;
        let path = self.path.display();
        app.observed().map_err(|error| Error::from(error.context(format!("`{path}`"))))
    }

    fn remove(&mut self, bad: &[usize]) -> Result<()> {
        self.skipped += bad.len() as u64;
        for &index in bad.iter().rev() {
            self.records.remove(index);
            self.lines.remove(index);
        }
        if self.records.is_empty() && !self.is_part {
            return Err(Error::user(format!(
                "`{}`: no row is left after skipping {} bad ones",
                self.path.display(),
                self.skipped
            )));
        }
        Ok(())
    }

    /// Features of all records, made by `workers` threads; companions add theirs under their name and a slash. Bad rows are skipped or end it, as the reading options say.
    pub fn featurize(
        &mut self,
        app: &Arc<LoadedApp>,
        tokenizer: &Tokenizer,
        companions: &[Featurizer],
        workers: usize,
    ) -> Result<Vec<Row>> {
        let span = profile::span("data", "features");
        span.note("records", self.records.len() as f64);
        let records = Arc::new(std::mem::take(&mut self.records));
        let mut all = vec![Featurizer {
            prefix: String::new(),
            app: app.clone(),
            tokenizer: tokenizer.clone(),
        }];
        all.extend(companions.iter().cloned());
        let jobs = {
            let records = records.clone();
            Prefetch::new(records.len(), workers, 1024, move |index| {
                // Faults of the data travel as values, so that they can be skipped; the rest as errors.
                let mut row = Row::new()?;
                for featurizer in &all {
                    let mut part = Row::new()?;
                    if let Err(error) =
                        featurizer.app.features(&featurizer.tokenizer, &records[index], &mut part)
                    {
                        return Ok(Err(error));
                    }
                    row.merge(&featurizer.prefix, &part)?;
                }
                Ok(Ok(row))
            })
        };
        let mut rows = Vec::with_capacity(records.len());
        let mut bad = Vec::new();
        let mut failure = None;
        for (index, row) in jobs.enumerate() {
            match row? {
                Ok(row) => rows.push(row),
                Err(error) if self.on_bad_row == OnBadRow::Stop => {
                    failure = Some((index, error));
                    break;
                }
                Err(_) => bad.push(index),
            }
        }
        // The workers are joined, so this is the only reference but for one that a panicking thread may have left.
        self.records = Arc::try_unwrap(records).unwrap_or_else(|shared| shared.to_vec());
        if let Some((index, error)) = failure {
            return Err(self.fault(index, error.message()));
        }
        self.remove(&bad)?;
        Ok(rows)
    }
}

/// Makes features for one model.
#[derive(Clone)]
pub struct Featurizer {
    /// Put before the names of the fields, for instance "teacher/".
    pub prefix: String,
    /// The app.
    pub app: Arc<LoadedApp>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}
