//! One row of a data file and the header that all rows of the file share.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::error::{DataError, Result, excerpt};

/// The columns of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    path: PathBuf,
    columns: Vec<String>,
    line: Option<u64>,
}

impl Header {
    /// The header of the file at `path`.
    pub fn new(path: &Path, columns: Vec<String>) -> Header {
        Header { path: path.to_path_buf(), columns, line: None }
    }

    /// The same, on a line of the file, counted from 1.
    #[must_use]
    pub fn on_line(mut self, line: u64) -> Header {
        self.line = Some(line);
        self
    }

    /// The start of an error about the header.
    pub fn fault(&self) -> DataError {
        DataError { line: self.line, ..DataError::new(&self.path) }
    }

    /// The file; `-` is standard input.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The columns' names, in the order of [`FileRow::fields`].
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The place of the column `name`.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }
}

/// One row. Cells of TSV, CSV and text files are strings unless a schema says otherwise; JSON keeps its types.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRow {
    /// The line on which the row starts, counted from 1.
    pub line: u64,
    /// The columns.
    pub header: Arc<Header>,
    /// The cells, as many as the header has columns. None is a key that a JSON object lacks, or null; an empty cell of
    /// the other formats is an empty string.
    pub fields: Vec<Option<Value>>,
}

impl FileRow {
    /// The cell of the column `name`, if there is such a column and it is not missing in this row.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(self.header.index(name)?)?.as_ref()
    }

    /// The start of an error about column number `column` of this row.
    pub fn fault(&self, column: usize) -> DataError {
        let error = DataError::new(self.header.path()).line(self.line);
        match self.header.columns().get(column) {
            Some(name) => error.column(name),
            None => error,
        }
    }

    fn present(&self, column: usize, expected: &str) -> Result<&Value> {
        self.fields.get(column).and_then(Option::as_ref).ok_or_else(|| {
            self.fault(column)
                .expected(expected)
                .found("nothing")
                .remedy("give the value or skip such rows with `on_bad_row=skip`")
                .into()
        })
    }

    /// The cell as a text: numbers and truth values as JSON writes them, arrays joined with commas. Errors: a missing
    /// cell, an object.
    pub fn text(&self, column: usize) -> Result<Cow<'_, str>> {
        let value = self.present(column, "a text")?;
        as_text(value).ok_or_else(|| {
            self.fault(column)
                .expected("a text")
                .found(format!("`{}`", excerpt(&value.to_string())))
                .into()
        })
    }

    /// The cell as a finite number. Errors: a missing cell, anything that is not a number, NaN, infinities.
    pub fn number(&self, column: usize) -> Result<f64> {
        let value = self.present(column, "a number")?;
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse::<f64>().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| {
            let found = as_text(value).unwrap_or_else(|| Cow::Owned(value.to_string()));
            self.fault(column)
                .expected("a finite number")
                .found(format!("`{}`", excerpt(&found)))
                .remedy("correct the row or skip such rows with `on_bad_row=skip`")
                .into()
        })
    }

    /// The cell as a list of texts: an array's elements, or the parts of a text between commas, without the blanks
    /// around them and without empty parts. Errors: a missing cell, an object or array inside.
    pub fn list(&self, column: usize) -> Result<Vec<String>> {
        let value = self.present(column, "a list")?;
        let parts = match value {
            Value::Array(items) => items
                .iter()
                .map(|item| match item {
                    Value::Array(_) | Value::Object(_) | Value::Null => None,
                    item => as_text(item).map(Cow::into_owned),
                })
                .collect::<Option<Vec<String>>>(),
            value => as_text(value).map(|text| {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.map(str::to_string).collect()
            }),
        };
        parts.ok_or_else(|| {
            self.fault(column)
                .expected("an array of texts or numbers, or a text with commas")
                .found(format!("`{}`", excerpt(&value.to_string())))
                .into()
        })
    }
}

fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Array(items) => {
            let parts = items.iter().map(|item| match item {
                Value::Array(_) => None,
                item => as_text(item),
            });
            Some(Cow::Owned(parts.collect::<Option<Vec<_>>>()?.join(",")))
        }
        Value::Object(_) | Value::Null => None,
    }
}
