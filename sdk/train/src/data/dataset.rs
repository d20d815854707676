//! Labelled or unlabelled data: the records of a file by role, part by part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use easytransfer_plugin as plugin;
use easytransfer_plugin::{Asked, Column, LoadedApp, Record, RecordFault, Tokenizer, profile};
use serde_json::{Map, Value};

use crate::data::collation::Sample;
use crate::data::columns::{Role, resolve, resolve_so_far};
use crate::data::input::Data;
use crate::data::records::{Choose, OnBadRow, ReadOptions, Reader};
use crate::error::{DataError, Error, OptionError, Result, place_name};

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
    /// Number of the first record in the file.
    first: u64,
    on_bad_row: OnBadRow,
}

/// How to read a data file for an app.
#[derive(Debug, Clone, Default)]
pub struct DataOptions {
    /// Format, schema, what to do with bad rows.
    pub read: ReadOptions,
    /// Columns that the user named, by role.
    pub named: BTreeMap<String, String>,
    /// Part of the data whose columns can be named apart ("valid"): messages then speak of `valid_columns`.
    pub split: Option<&'static str>,
    /// Whether targets must be there.
    pub targets: bool,
    /// Columns by role of the file that the app was trained on, empty when that is not known: their names count as
    /// usual ones; a role that is no target must have a column if it had one there, and is not looked for if it had
    /// none.
    pub trained: Map<String, Value>,
}

impl DataOptions {
    /// For labelled data, which training and evaluation need.
    pub fn labelled() -> DataOptions {
        DataOptions { targets: true, ..DataOptions::default() }
    }

    /// Checks every option, however it was set; `origin` names where they come from in messages and may be empty.
    /// Errors name the key, what was found and what is allowed.
    pub fn validate(&self, origin: &str) -> Result<()> {
        let fault = |key: String, expected: &str, found: String| -> Result<()> {
            let (origin, expected) = (origin.to_owned(), expected.to_owned());
            Err(OptionError { origin, key, expected, found, nearest: None }.into())
        };
        for (role, column) in &self.named {
            if role.is_empty() || column.is_empty() {
                let expected = "the name of a role and of its column";
                return fault(format!("columns.{role}"), expected, format!("`{column}`"));
            }
        }
        if let Some((role, column)) = self.trained.iter().find(|(_, column)| !column.is_string()) {
            let expected = "the name of a column";
            return fault(format!("trained.{role}"), expected, format!("`{column}`"));
        }
        if self.read.wanted.is_some() {
            let expected = "none: the columns follow from the app's roles";
            return fault("read.wanted".to_owned(), expected, "a list of columns".to_owned());
        }
        Ok(())
    }
}

/// The roles of an app's columns.
fn roles(columns: &[Column], options: &DataOptions) -> Vec<Role> {
    let trained = &options.trained;
    columns
        .iter()
        .filter(|column| {
            let always = column.required || column.target || trained.is_empty();
            always || trained.contains_key(&column.role)
        })
        .map(|column| {
            let mut names: Vec<&str> = column.names.iter().map(String::as_str).collect();
            let before = trained.get(&column.role).and_then(Value::as_str);
            if let Some(name) = before {
                names.retain(|known| *known != name);
                names.insert(0, name);
            }
            let required = column.required && (options.targets || !column.target);
            let mut role = Role::new(&column.role, &names, required);
            role.required |= before.is_some() && !column.target;
            role
        })
        .collect()
}

/// Bytes of texts in a part, beyond which it ends early.
const PART_BYTES: usize = 64 << 20;

/// A data file that is read part by part.
pub struct DatasetReader {
    reader: Reader,
    path: PathBuf,
    /// The roles, in the order of the records' cells.
    roles: Vec<Role>,
    on_bad_row: OnBadRow,
    /// Rows without a cell that must be there, which were left out.
    incomplete: u64,
    /// Skipped rows that earlier parts have counted.
    counted: u64,
    rows: usize,
}

impl DatasetReader {
    /// Opens data and finds the columns. Errors: see [`Reader`] and [`resolve`]; a column named for a role that the
    /// app does not have.
    pub fn open(data: &Data, columns: &[Column], options: &DataOptions) -> Result<DatasetReader> {
        options.validate("")?;
        let mut reader = data.open(options.read.clone())?;
        let mut roles = roles(columns, options);
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<String> = roles
            .iter()
            .flat_map(|role| role.defaults.iter().chain(options.named.get(&role.name)).cloned())
            .collect();
        // Texts are alike in all formats; targets keep their types.
        let is_target =
            |role: &Role| columns.iter().any(|column| column.target && column.role == role.name);
        let texts = roles.iter().map(|role| !is_target(role)).collect();
        reader.choose(&names, texts, chooser(roles.clone(), options))?;
        Ok(DatasetReader {
            reader,
            path: data.path().to_path_buf(),
            roles,
            on_bad_row: options.read.on_bad_row,
            incomplete: 0,
            counted: 0,
            rows: 0,
        })
    }

    /// Column by role, as the file names them, of all columns found so far.
    pub fn columns(&self) -> Map<String, Value> {
        self.roles
            .iter()
            .zip(self.reader.header().columns())
            .zip(self.reader.picked())
            .filter(|(_, place)| place.is_some())
            .map(|((role, name), _)| (role.name.clone(), Value::from(name.clone())))
            .collect()
    }

    /// The next records, at most `most`; `None` at the end of the file. Errors: a bad row, unless those are skipped;
    /// no records in the whole file.
    pub fn part(&mut self, most: usize) -> Result<Option<Part>> {
        let (mut records, mut lines) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while records.len() < most && bytes < PART_BYTES {
            let Some(row) = self.reader.next() else { break };
            let row = row?;
            let missing = self
                .roles
                .iter()
                .zip(&row.fields)
                .position(|(role, cell)| role.in_every_row && cell.is_none());
            if let Some(missing) = missing {
                if self.on_bad_row == OnBadRow::Skip {
                    self.incomplete += 1;
                    continue;
                }
                return Err(row
                    .fault(missing)
                    .expected("a value")
                    .found("nothing")
                    .remedy("correct the row or skip such rows with `on_bad_row=skip`")
                    .into());
            }
            let cells = self.roles.iter().zip(row.fields);
            let record: Record =
                cells.filter_map(|(role, cell)| Some((role.name.clone(), cell?))).collect();
            bytes +=
                record.values().map(|value| value.as_str().map_or(16, str::len)).sum::<usize>();
            records.push(record);
            lines.push(row.line);
        }
        let skipped = self.reader.skipped() + self.incomplete;
        let part = Part {
            path: self.path.clone(),
            records,
            lines,
            columns: self.columns(),
            skipped: skipped - self.counted,
            first: self.rows as u64,
            on_bad_row: self.on_bad_row,
        };
        self.counted = skipped;
        self.rows += part.records.len();
        if self.rows == 0 {
            let found = match self.reader.skipped_faults().first() {
                Some(first) => format!("none but {skipped} bad ones, the first: {first}"),
                None => "none".to_string(),
            };
            return Err(DataError::new(&self.path)
                .expected("at least one row of data")
                .found(found)
                .remedy("check the file, and that its first line is a header")
                .into());
        }
        Ok((!part.records.is_empty() || part.skipped > 0).then_some(part))
    }
}

/// Finds the columns of roles, again when a file turns out to have more of them. Then a role may find a column that
/// had none, but not change the one that it had.
fn chooser(roles: Vec<Role>, options: &DataOptions) -> Choose {
    let (named, split) = (options.named.clone(), options.split);
    // Without a column that every row must have the next row is bad; any other may still come.
    let mut so_far = roles.clone();
    let stops = options.read.on_bad_row == OnBadRow::Stop;
    so_far.iter_mut().for_each(|role| role.required &= role.in_every_row && stops);
    let mut before: Vec<Option<usize>> = vec![None; roles.len()];
    Box::new(move |header, is_whole| {
        let columns = if is_whole {
            resolve(header, &roles, &named, split)?
        } else {
            resolve_so_far(header, &so_far, &named, split)?
        };
        let found: Vec<Option<usize>> = roles.iter().map(|role| columns.get(&role.name)).collect();
        for ((role, old), new) in roles.iter().zip(&before).zip(&found) {
            let (Some(old), Some(new)) = (old, new) else { continue };
            if old != new {
                let (old, new) = (&header.columns()[*old], &header.columns()[*new]);
                return Err(DataError::new(header.path())
                    .expected(format!("no column but `{old}` for `{}`, as up to here", role.name))
                    .found(format!("`{new}`, which is as usual a name"))
                    .remedy(format!("say which it is with `{}=COLUMN`", role.setting))
                    .into());
            }
        }
        before.clone_from(&found);
        Ok(found)
    })
}

impl Part {
    /// Features of all records. Bad rows are skipped or end it, as the reading options say.
    pub fn featurize(&mut self, app: &LoadedApp, tokenizer: &Tokenizer) -> Result<Vec<Sample>> {
        let span = profile::span("data", "features");
        span.note("records", self.records.len() as f64);
        let mut samples = Vec::with_capacity(self.records.len());
        let mut bad = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            let number = self.first + index as u64;
            match app.features(&mut Asked::new(number), tokenizer, record) {
                Ok(rows) => samples.push(Sample::new(rows)),
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
        Ok(samples)
    }
}

/// The error for a record that an app refused: `path` and `line` say where it is, `columns` how the file names the
/// roles.
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
    fault.remedy("correct the row or skip such rows with `on_bad_row=skip`").into()
}

/// The error for data of which no row is left.
pub fn none_left(path: &Path, skipped: u64) -> Error {
    let place = place_name(path);
    Error::user(format!("{place}: no row is left after skipping {skipped} bad ones"))
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
             correct the row or skip such rows with `on_bad_row=skip`"
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
