//! Rows of data files. [`Reader::open`] accepts TSV, CSV, JSON Lines and plain text, each gzipped or not, from a file or
//! from standard input, and yields [`FileRow`]s in file order. Nothing is guessed silently: a row that does not fit is an
//! error naming file and line, or is skipped and counted when [`OnBadRow::Skip`] says so.
//!
//! | format | header | notes |
//! |---|---|---|
//! | TSV | first line, or a [`Schema`] | no quoting: a tab always ends a cell; blank lines are skipped unless there is one column |
//! | CSV | first line, or a [`Schema`] | RFC 4180 quotes, line breaks inside quotes, `""` for a quote |
//! | JSON Lines | the keys of the first 256 objects | values keep their types; a key that is absent is a missing cell |
//! | text | the one column `text` | every line is a text, an empty line is an empty text |
//!
//! A UTF-8 byte order mark is dropped, `\r\n` ends a line like `\n`, and a line may hold at most 64 MiB.

mod csv;
mod jsonl;
mod record;
mod schema;
mod source;
mod tsv;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::error::{DataError, Error, Result};
use crate::nearest::{nearest, quoted_list};
pub use record::{FileRow, Header};
pub use schema::{CellType, Schema, SchemaColumn};
use source::Source;

/// How many of the first objects of a JSON Lines file say which columns it has.
const JSON_LOOKAHEAD: usize = 256;
/// How many faults of skipped rows are kept for the summary.
const KEPT_FAULTS: usize = 5;

/// The format of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// By the name's ending (`.tsv`, `.csv`, `.jsonl`, `.ndjson`, `.txt`, each also with `.gz`), except that a `.csv` with
    /// a tab in its first line is TSV. A file with a schema, or
    /// with another name, and standard input are judged by the first line: `{` means JSON Lines, a tab TSV, a comma
    /// together with a schema CSV, anything else text (TSV when there is a schema).
    #[default]
    Auto,
    /// Tab-separated, no quoting.
    Tsv,
    /// Comma-separated with RFC 4180 quotes.
    Csv,
    /// One JSON object per line.
    JsonLines,
    /// One text per line, column `text`.
    Text,
}

/// What to do with a row that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadRow {
    /// Return the error; reading ends there.
    #[default]
    Stop,
    /// Leave the row out and count it. Faults that make the rest of the file unreadable (damaged compression, a quote
    /// that never closes) still end the reading.
    Skip,
}

/// How to read a data file.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The format.
    pub format: Format,
    /// Names and types of the columns of a file without a header line.
    pub schema: Option<Schema>,
    /// Keep only these columns, in this order; all when none. One that the file lacks is an error.
    pub wanted: Option<Vec<String>>,
    /// What to do with a row that does not fit.
    pub on_bad_row: OnBadRow,
}

/// One parsed row: its line and its cells.
type Row = (u64, Vec<Option<Value>>);

/// A JSON object and its line.
type Object = (u64, serde_json::Map<String, Value>);

/// Why a row could not be had.
pub(crate) enum Fault {
    /// This row is bad, the next can be read.
    Row(Error),
    /// Nothing more can be read.
    Fatal(Error),
}

impl Fault {
    fn into_error(self) -> Error {
        match self {
            Fault::Row(error) | Fault::Fatal(error) => error,
        }
    }
}

/// Reads the rows of one file; an iterator of [`FileRow`]s.
pub struct Reader {
    source: Source,
    format: Format,
    schema: Option<Schema>,
    /// The columns in the file's order.
    columns: Vec<String>,
    /// For each column handed out, its place in `columns`.
    picked: Vec<usize>,
    /// Whether only some columns are handed out.
    projected: bool,
    header: Arc<Header>,
    on_bad_row: OnBadRow,
    /// JSON objects that were read ahead.
    ahead: VecDeque<std::result::Result<Object, Fault>>,
    line: Vec<u8>,
    skipped: u64,
    faults: Vec<Error>,
    finished: bool,
}

impl Reader {
    /// Opens the file at `path`, or standard input when it is `-`, and reads its header. Errors: no such file, a
    /// directory, an empty file, a damaged or unusable header, a wanted column that is not there.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Reader> {
        Reader::with_source(Source::open(path)?, options)
    }

    /// Reads `bytes`, a whole file (gzipped or not), which messages call `path`.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>, options: ReadOptions) -> Result<Reader> {
        let input = Box::new(std::io::Cursor::new(bytes));
        Reader::with_source(Source::new(path.to_path_buf(), input)?, options)
    }

    fn with_source(mut source: Source, options: ReadOptions) -> Result<Reader> {
        let format = match options.format {
            Format::Auto => guess_format(&mut source, options.schema.is_some())?,
            format => format,
        };
        if source.peek_line()?.is_none() {
            return Err(DataError::new(source.path())
                .expected("at least one line")
                .found("an empty file")
                .remedy("give a file with rows")
                .into());
        }
        let mut reader = Reader {
            header: Arc::new(Header::new(source.path(), Vec::new())),
            source,
            format,
            schema: options.schema,
            columns: Vec::new(),
            picked: Vec::new(),
            projected: options.wanted.is_some(),
            on_bad_row: options.on_bad_row,
            ahead: VecDeque::new(),
            line: Vec::new(),
            skipped: 0,
            faults: Vec::new(),
            finished: false,
        };
        reader.columns = reader.read_header()?;
        reader.pick_columns(options.wanted)?;
        Ok(reader)
    }

    fn read_header(&mut self) -> Result<Vec<String>> {
        if let Some(schema) = &self.schema {
            if matches!(self.format, Format::JsonLines | Format::Text) {
                return Err(DataError::new(self.source.path())
                    .expected(
                        "a TSV or CSV file without a header line, which is what a schema describes",
                    )
                    .found(if self.format == Format::Text { "plain text" } else { "JSON Lines" })
                    .remedy("leave the schema out, or state the format")
                    .into());
            }
            return Ok(schema.columns().iter().map(|column| column.name.clone()).collect());
        }
        let cells = match self.format {
            Format::Text => return Ok(vec!["text".to_string()]),
            Format::JsonLines => return self.look_ahead(),
            Format::Csv => csv::next_row(&mut self.source, &mut self.line),
            Format::Tsv | Format::Auto => tsv::next_row(&mut self.source, &mut self.line, true),
        };
        let (line, names) = match cells {
            Ok(Some(row)) => row,
            Ok(None) => {
                return Err(DataError::new(self.source.path())
                    .expected("a header line with the columns' names")
                    .found("blank lines only")
                    .remedy("give a file with rows")
                    .into());
            }
            Err(fault) => return Err(fault.into_error()),
        };
        let names: Vec<String> = names.into_iter().map(|name| name.trim().to_string()).collect();
        for (index, name) in names.iter().enumerate() {
            let found = if name.is_empty() {
                format!("no name for column {}", index + 1)
            } else if names[..index].contains(name) {
                format!("`{name}` twice")
            } else {
                continue;
            };
            return Err(DataError::new(self.source.path())
                .line(line)
                .expected("a header line with a different name for every column")
                .found(found)
                .remedy("correct the first line, or name the columns with `--schema` if it is data")
                .into());
        }
        Ok(names)
    }

    /// Reads the first objects of a JSON Lines file and collects their keys in order of appearance.
    fn look_ahead(&mut self) -> Result<Vec<String>> {
        let mut columns: Vec<String> = Vec::new();
        while self.ahead.len() < JSON_LOOKAHEAD {
            match jsonl::next_object(&mut self.source, &mut self.line) {
                Ok(None) => break,
                Ok(Some((line, object))) => {
                    for key in object.keys() {
                        if !columns.contains(key) {
                            columns.push(key.clone());
                        }
                    }
                    self.ahead.push_back(Ok((line, object)));
                }
                Err(fault) => {
                    let stop =
                        matches!(fault, Fault::Fatal(_)) || self.on_bad_row == OnBadRow::Stop;
                    self.ahead.push_back(Err(fault));
                    if stop {
                        break;
                    }
                }
            }
        }
        if columns.is_empty() {
            // Without a single usable object the first fault says more than "no columns".
            while let Some(item) = self.ahead.pop_front() {
                item.map_err(Fault::into_error)?;
            }
            return Err(DataError::new(self.source.path())
                .expected("JSON objects with at least one key")
                .found("none")
                .remedy("give one object per line, such as {\"text\": \"...\"}")
                .into());
        }
        Ok(columns)
    }

    fn pick_columns(&mut self, wanted: Option<Vec<String>>) -> Result<()> {
        let names = wanted.unwrap_or_else(|| self.columns.clone());
        self.picked.clear();
        for name in &names {
            let Some(index) = self.columns.iter().position(|column| column == name) else {
                let known = self.columns.iter().map(String::as_str);
                let near = nearest(name, known.clone());
                return Err(DataError::new(self.source.path())
                    .column(name)
                    .expected("a column of this name")
                    .found(format!("the columns {}", quoted_list(known)))
                    .remedy(near.map(|n| format!("did you mean `{n}`?")).unwrap_or_default())
                    .into());
            };
            self.picked.push(index);
        }
        self.header = Arc::new(Header::new(self.source.path(), names));
        Ok(())
    }

    /// The columns of the records, and the file they come from.
    pub fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// The format that is being read; never `Auto`.
    pub fn format(&self) -> Format {
        self.format
    }

    /// How many rows were left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The faults of the first rows that were left out; at most five.
    pub fn skipped_faults(&self) -> &[Error] {
        &self.faults
    }

    /// Reads all remaining rows. Errors: the first bad row unless those are skipped, and no row at all.
    pub fn read_all(&mut self) -> Result<Vec<FileRow>> {
        let records = self.by_ref().collect::<Result<Vec<FileRow>>>()?;
        if records.is_empty() {
            let found = match self.skipped {
                0 => "none".to_string(),
                count => {
                    format!("none, and {count} that were skipped; the first: {}", self.faults[0])
                }
            };
            return Err(DataError::new(self.source.path())
                .expected("at least one row")
                .found(found)
                .into());
        }
        Ok(records)
    }

    fn next_row(&mut self) -> std::result::Result<Option<Row>, Fault> {
        if self.format == Format::JsonLines {
            let item = match self.ahead.pop_front() {
                Some(item) => item.map(Some),
                None => jsonl::next_object(&mut self.source, &mut self.line),
            };
            let Some((line, mut object)) = item? else { return Ok(None) };
            let mut cells = Vec::with_capacity(self.picked.len());
            for (place, &index) in self.picked.iter().enumerate() {
                // A column that is wanted twice is copied but for the last time.
                let cell = if self.picked[place + 1..].contains(&index) {
                    object.get(&self.columns[index]).cloned()
                } else {
                    object.get_mut(&self.columns[index]).map(Value::take)
                };
                cells.push(cell.filter(|cell| !cell.is_null()));
            }
            return Ok(Some((line, cells)));
        }
        let row = match self.format {
            Format::Text => tsv::next_text(&mut self.source, &mut self.line)?,
            Format::Csv => csv::next_row(&mut self.source, &mut self.line)?,
            _ => tsv::next_row(&mut self.source, &mut self.line, self.columns.len() > 1)?,
        };
        let Some((line, cells)) = row else { return Ok(None) };
        if cells.len() != self.columns.len() {
            return Err(Fault::Row(self.wrong_count(line, cells.len()).into()));
        }
        let mut cells: Vec<Option<String>> = cells.into_iter().map(Some).collect();
        let mut values = Vec::with_capacity(self.picked.len());
        for &index in &self.picked {
            // A column may be wanted twice, so only the common case of all columns moves the text out.
            let cell = cells[index].as_ref().map_or("", String::as_str);
            values.push(Some(match &self.schema {
                None if !self.projected => Value::String(cells[index].take().unwrap_or_default()),
                None => Value::String(cell.to_string()),
                Some(schema) => {
                    let column = &schema.columns()[index];
                    column.parse(cell).map_err(|(expected, found)| {
                        Fault::Row(
                            DataError::new(self.source.path())
                                .line(line)
                                .column(&column.name)
                                .expected(expected)
                                .found(found)
                                .remedy("correct the row or the schema")
                                .into(),
                        )
                    })?
                }
            }));
        }
        Ok(Some((line, values)))
    }

    fn wrong_count(&self, line: u64, found: usize) -> DataError {
        let names = quoted_list(self.columns.iter().map(String::as_str));
        let remedy = match self.format {
            Format::Csv => "put texts that hold a comma between double quotes",
            _ => "a text must not hold a tab; remove it, or use CSV or JSON Lines",
        };
        DataError::new(self.source.path())
            .line(line)
            .expected(format!("{} columns ({names})", self.columns.len()))
            .found(found.to_string())
            .remedy(remedy)
    }
}

impl Iterator for Reader {
    type Item = Result<FileRow>;

    fn next(&mut self) -> Option<Result<FileRow>> {
        while !self.finished {
            match self.next_row() {
                Ok(Some((line, fields))) => {
                    return Some(Ok(FileRow { line, header: self.header.clone(), fields }));
                }
                Ok(None) => self.finished = true,
                Err(Fault::Row(error)) if self.on_bad_row == OnBadRow::Skip => {
                    self.skipped += 1;
                    if self.faults.len() < KEPT_FAULTS {
                        self.faults.push(error);
                    }
                }
                Err(fault) => {
                    self.finished = true;
                    return Some(Err(fault.into_error()));
                }
            }
        }
        None
    }
}

fn guess_format(source: &mut Source, has_schema: bool) -> Result<Format> {
    let path: PathBuf = source.path().to_path_buf();
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let name = name.unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    match ending {
        Some("tsv") => return Ok(Format::Tsv),
        Some("jsonl" | "ndjson") => return Ok(Format::JsonLines),
        Some("txt" | "text") if !has_schema => return Ok(Format::Text),
        _ => {}
    }
    let first = source.peek_line()?.unwrap_or_default();
    let start = first.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(match start {
        Some(b'{') if ending != Some("csv") => Format::JsonLines,
        // Files of EasyTransfer and others are called `.csv` and separated by tabs all the same.
        _ if first.contains(&b'\t') => Format::Tsv,
        _ if ending == Some("csv") && !has_schema => Format::Csv,
        _ if has_schema && first.contains(&b',') => Format::Csv,
        _ if has_schema => Format::Tsv,
        _ => Format::Text,
    })
}

#[cfg(test)]
mod tests;
