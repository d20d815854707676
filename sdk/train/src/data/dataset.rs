//! Labelled or unlabelled data: the records of a file by role, part by part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use easytransfer_plugin as plugin;
use easytransfer_plugin::{Column, LoadedApp, Record, RecordFault, Row, Tokenizer, profile};
use serde_json::{Map, Value};

use crate::data::columns::{Role, resolve};
use crate::data::records::{OnBadRow, ReadOptions, Reader};
use crate::error::{DataError, Error, Result};

/// Some records of a file, by role.
pub struct Part {
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
    pub fn part(&mut self, most: usize) -> Result<Option<Part>> {
        let mut part = Part {
            path: self.path.clone(),
            records: Vec::new(),
            lines: Vec::new(),
            columns: self.columns.clone(),
            skipped: 0,
            on_bad_row: self.on_bad_row,
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

impl Part {
    /// Features of all records. Bad rows are skipped or end it, as the reading options say.
    pub fn featurize(&mut self, app: &LoadedApp, tokenizer: &Tokenizer) -> Result<Vec<Row>> {
        let span = profile::span("data", "features");
        span.note("records", self.records.len() as f64);
        let mut rows = Vec::with_capacity(self.records.len());
        let mut bad = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            let mut row = Row::new()?;
            match app.features(tokenizer, record, &mut row) {
                Ok(()) => rows.push(row),
                Err(error) if self.on_bad_row == OnBadRow::Stop => {
                    return Err(fault(&self.path, &self.columns, self.lines[index], &error));
                }
                Err(_) => bad.push(index),
            }
        }
        self.skipped += bad.len() as u64;
        for &index in bad.iter().rev() {
            self.records.remove(index);
            self.lines.remove(index);
        }
        Ok(rows)
    }
}

/// The error for a record that an app refused: `path` and `line` say where it is, `columns` how the file names the roles.
pub fn fault(
    path: &Path,
    columns: &Map<String, Value>,
    line: u64,
    refusal: &plugin::Error,
) -> Error {
    let fault = DataError::new(path).line(line);
    let fault = match refusal.record_fault() {
        Some(RecordFault { role, expected, found }) => {
            let column = columns.get(&role).and_then(Value::as_str).unwrap_or(&role);
            fault.column(column).expected(expected).found(found)
        }
        None => fault.expected("a usable record").found(refusal.message()),
    };
    fault.remedy("correct the row or skip such rows with `--on-bad-row skip`").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(refusal: plugin::Error) -> String {
        let columns = Map::from_iter([("label".to_owned(), Value::from("class"))]);
        let Error::Data(fault) = fault(Path::new("a.tsv"), &columns, 3, &refusal) else {
            panic!("a fault of the data")
        };
        Error::Data(fault).to_string()
    }

    #[test]
    fn refusals_name_the_column_whatever_their_words_are() {
        let refusal = plugin::Error::record("label", "a word, found in text:", "\"text: x\"");
        assert_eq!(
            text(refusal.context("app x (plugin y)")),
            "`a.tsv`, line 3, column `class`: expected a word, found in text:, found \"text: x\"; \
             correct the row or skip such rows with `--on-bad-row skip`"
        );
        // A role that the file has no column for names itself.
        let refusal = plugin::Error::record("span", "a pair of numbers", "nothing");
        assert!(text(refusal).contains("column `span`: expected a pair of numbers, found nothing"));
    }

    #[test]
    fn refusals_without_parts_are_told_whole() {
        let refusal = plugin::Error::bad_input("label: expected this, found that");
        assert!(text(refusal).contains(
            "`a.tsv`, line 3: expected a usable record, found label: expected this, found that;"
        ));
    }
}
