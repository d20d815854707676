//! Where records come from: a file, or the memory of the program.

use std::fmt;
use std::io::{Read, Result as IoResult};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use easytransfer_plugin::Record;

use crate::data::records::{Format, ReadOptions, Reader};
use crate::error::{DataError, IN_MEMORY, Result};

/// Records to be read. What is in memory is read as a file of JSON Lines with the same records is: roles are found by
/// the names of keys, texts may be numbers, and results are the same to the byte.
#[derive(Clone)]
pub enum Data {
    /// A file; `-` is standard input.
    File(PathBuf),
    /// Records in memory, each a map from a column's name, or a role, to a value.
    Records(Arc<[Record]>),
}

impl Data {
    /// Records in memory.
    pub fn records(records: impl IntoIterator<Item = Record>) -> Data {
        Data::Records(records.into_iter().collect())
    }

    /// The file; [`IN_MEMORY`] for records in memory.
    pub fn path(&self) -> &Path {
        match self {
            Data::File(path) => path,
            Data::Records(_) => Path::new(IN_MEMORY),
        }
    }

    /// Number of records, where it is known before they are read.
    pub fn known_len(&self) -> Option<u64> {
        match self {
            Data::File(_) => None,
            Data::Records(records) => Some(records.len() as u64),
        }
    }

    /// Opens it. Errors: see [`Reader::open`]; no records in memory.
    pub(crate) fn open(&self, options: ReadOptions) -> Result<Reader> {
        let records = match self {
            Data::File(path) => return Reader::open(path, options),
            Data::Records(records) => records.clone(),
        };
        if records.is_empty() {
            let fault = DataError::new(IN_MEMORY).expected("at least one").found("none");
            return Err(fault.remedy("pass some").into());
        }
        let lines = Lines { records, next: 0, text: Vec::new(), at: 0 };
        let options = ReadOptions { format: Format::JsonLines, ..options };
        Reader::from_lines(Path::new(IN_MEMORY), Box::new(lines), options)
    }
}

impl Default for Data {
    /// No file.
    fn default() -> Data {
        Data::File(PathBuf::new())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::File(path) => write!(f, "File({path:?})"),
            Data::Records(records) => write!(f, "Records({})", records.len()),
        }
    }
}

impl fmt::Display for Data {
    /// The file's name, or how many records there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::File(path) => path.display().fmt(f),
            Data::Records(records) => write!(f, "{} records in memory", records.len()),
        }
    }
}

macro_rules! from_path {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Data {
            fn from(path: $ty) -> Data {
                Data::File(path.into())
            }
        }
    )*};
}

from_path!(&str, String, &Path, PathBuf, &PathBuf);

impl From<Vec<Record>> for Data {
    fn from(records: Vec<Record>) -> Data {
        Data::Records(records.into())
    }
}

/// The records as lines of JSON, made as they are read.
struct Lines {
    records: Arc<[Record]>,
    next: usize,
    /// The line that is being handed out, up to `at`.
    text: Vec<u8>,
    at: usize,
}

impl Read for Lines {
    fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
        if self.at == self.text.len() {
            let Some(record) = self.records.get(self.next) else { return Ok(0) };
            self.text.clear();
            serde_json::to_writer(&mut self.text, record)?;
            self.text.push(b'\n');
            (self.next, self.at) = (self.next + 1, 0);
        }
        let count = out.len().min(self.text.len() - self.at);
        out[..count].copy_from_slice(&self.text[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn records(values: &[Value]) -> Data {
        Data::records(values.iter().map(|value| value.as_object().unwrap().clone()))
    }

    fn read(data: &Data) -> Result<Vec<String>> {
        let mut reader = data.open(ReadOptions::default())?;
        let rows = reader.read_all()?;
        let row = |row: crate::data::records::FileRow| {
            format!("{} {:?} {:?}", row.line, row.header.columns(), row.fields)
        };
        Ok(rows.into_iter().map(row).collect())
    }

    #[test]
    fn records_read_as_a_file_with_them_does() {
        let values = [
            json!({"text": "a\nb \"c\"\u{0}", "n": 1.0}),
            json!({"n": 10_000_000_000_000_000u64, "text": null}),
            json!({"late": ["x", 1e-7], "text": "é".repeat(100_000)}),
        ];
        let file = std::env::temp_dir().join(format!("et-input-{}.jsonl", std::process::id()));
        let lines: Vec<String> = values.iter().map(Value::to_string).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let expected = read(&Data::from(&file)).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(expected.len(), 3);
        assert_eq!(read(&records(&values)).unwrap(), expected);
        // A file with one object of lists may be a table by columns; a record is a record.
        assert_eq!(read(&records(&[json!({"tokens": ["a"], "tags": ["b"]})])).unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_an_error_and_none_is_named_after_a_file() {
        let error = read(&records(&[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the records in memory: expected at least one, found none; pass some"
        );
        assert!(read(&records(&[json!({})])).unwrap_err().to_string().starts_with("the records"));
    }
}
