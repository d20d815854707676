//! Rows of data files. [`Reader::open`] accepts TSV, CSV, JSON and plain text, each gzipped or not, from a file or
//! from standard input, and yields [`FileRow`]s in file order. Nothing is guessed silently: a row that does not fit
//! is an error naming file and line, or is skipped and counted when [`OnBadRow::Skip`] says so. A column that nobody
//! asked for is nobody's fault.
//!
//! | format | header | notes |
//! |---|---|---|
//! | TSV | first line, or a [`Schema`] | no quoting, no escapes: a tab always ends a cell; blank lines are skipped unless there is one column |
//! | CSV | first line, or a [`Schema`] | RFC 4180 quotes, line breaks inside quotes, `""` for a quote; a line `sep=;` before the header, or a header with `;` and without `,`, sets another separator |
//! | JSON | the keys of the objects, also those that first appear late | one object per line, objects over many lines, or an array of objects; values keep their types; a key that is absent is a missing cell |
//! | text | the one column `text` | every line is a text, an empty line is an empty text |
//!
//! A column without a name is called `Unnamed: N`, counted from 0, as pandas does. Names may repeat as long as nobody
//! asks for them. Separators behind the last cell are no cells. A CSV row may end before columns that nobody asked
//! for; a TSV row may not, since a line break within a text would look the same.
//!
//! A UTF-8 byte order mark is dropped, `\r\n` ends a line like `\n`, and a line, a row or an object may take at most
//! 64 MiB.

mod csv;
mod format;
mod header;
mod json;
mod objects;
mod record;
mod schema;
mod source;
mod tsv;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{DataError, Error, IN_MEMORY, Result};
use crate::nearest::{nearest, quoted_list};
pub use format::Format;
pub use record::{FileRow, Header};
pub use schema::{CellType, Schema, SchemaColumn};
use source::Source;

/// The most columns of a file.
const MOST_COLUMNS: usize = 1 << 22;
/// How many faults of skipped rows are kept for the summary.
const KEPT_FAULTS: usize = 5;

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

/// Says which columns of a file are handed out, by their places; none for a cell that is missing in every row. The
/// other argument says whether these are all columns of the file; if not, it is asked again when one appears late,
/// and at the end.
pub type Choose = Box<dyn FnMut(&Header, bool) -> Result<Vec<Option<usize>>> + Send>;

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
    layout: json::Layout,
    separator: u8,
    schema: Option<Schema>,
    /// The columns in the file's order.
    columns: Arc<Header>,
    /// JSON: the place of each column in `columns`.
    places: HashMap<String, usize>,
    /// TSV and CSV: columns up to the last with a name.
    named: usize,
    /// For each cell handed out, its column's place in `columns`.
    picked: Vec<Option<usize>>,
    /// For each place, the cells of `picked` that have it.
    slots: HashMap<usize, Vec<usize>>,
    /// For each cell handed out, whether JSON's numbers are texts in it.
    texts: Vec<bool>,
    choose: Option<Choose>,
    /// Whether all columns of the file are known.
    is_whole: bool,
    /// JSON: names, in lower case, of late columns that matter; all when none.
    interesting: Option<HashSet<String>>,
    /// The columns that are handed out.
    header: Arc<Header>,
    on_bad_row: OnBadRow,
    /// Texts of JSON objects that were read ahead.
    ahead: VecDeque<(u64, Vec<u8>)>,
    /// What ended the reading behind them.
    behind: Option<Error>,
    line: Vec<u8>,
    skipped: u64,
    faults: Vec<Error>,
    finished: bool,
}

impl Reader {
    /// Opens the file at `path`, or standard input when it is `-`, and reads its header. Errors: no such file, a
    /// directory, a device, a pipe with a name, an empty file, a damaged or unusable header, a wanted column that is
    /// not there.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Reader> {
        Reader::with_source(Source::open(path)?, options)
    }

    /// Reads JSON Lines, each an object, from `input`, which messages call `path`.
    pub(crate) fn from_lines(
        path: &Path,
        input: Box<dyn std::io::Read + Send>,
        options: ReadOptions,
    ) -> Result<Reader> {
        Reader::with_source(Source::new(path.to_path_buf(), input)?, options)
    }

    /// Reads `bytes`, a whole file (gzipped or not), which messages call `path`.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>, options: ReadOptions) -> Result<Reader> {
        let input = Box::new(std::io::Cursor::new(bytes));
        Reader::with_source(Source::new(path.to_path_buf(), input)?, options)
    }

    fn with_source(mut source: Source, options: ReadOptions) -> Result<Reader> {
        let format = match options.format {
            Format::Auto => format::guess(&mut source, options.schema.is_some())?,
            format => format,
        };
        let by_line = source.path().as_os_str() == IN_MEMORY
            || matches!(format::ending(source.path()).as_deref(), Some("jsonl" | "ndjson"));
        let start = source.peek_start()?;
        if start.is_empty() {
            return Err(DataError::new(source.path())
                .expected("at least one line")
                .found("an empty file")
                .remedy("give a file with rows")
                .into());
        }
        let layout = json::layout(start, by_line);
        if let Some(at) = header::old_line_ends(start) {
            return Err(DataError::new(source.path())
                .line(1)
                .expected("lines that end with a line feed")
                .found(format!("carriage returns alone, the first at position {}", at + 1))
                .remedy("convert the file, for instance with `tr '\\r' '\\n'`")
                .into());
        }
        let nothing = Arc::new(Header::new(source.path(), Vec::new()));
        let mut reader = Reader {
            source,
            format,
            layout,
            separator: b',',
            schema: options.schema,
            columns: nothing.clone(),
            places: HashMap::new(),
            named: 0,
            picked: Vec::new(),
            slots: HashMap::new(),
            texts: Vec::new(),
            choose: None,
            is_whole: true,
            interesting: None,
            header: nothing,
            on_bad_row: options.on_bad_row,
            ahead: VecDeque::new(),
            behind: None,
            line: Vec::new(),
            skipped: 0,
            faults: Vec::new(),
            finished: false,
        };
        let columns = reader.read_header()?;
        reader.check_columns(columns.len())?;
        let header = Header::new(reader.source.path(), columns);
        // JSON has none, and was read ahead.
        let is_on_line = reader.source.line() > 0 && reader.places.is_empty();
        let line = reader.source.line();
        reader.columns = Arc::new(if is_on_line { header.on_line(line) } else { header });
        match options.wanted {
            Some(names) => reader.pick_columns(&names)?,
            None => reader.pick_all(),
        }
        Ok(reader)
    }

    /// Hands out the columns that `choose` names instead of all: for each record as many cells as it answers. `texts`
    /// says of each cell whether numbers and truth values of JSON are the texts that stand in the file. `names` are
    /// those, without regard to case, that can change the answer when a column with one of them appears late. Errors:
    /// those of `choose`.
    pub fn choose(&mut self, names: &[String], texts: Vec<bool>, mut choose: Choose) -> Result<()> {
        self.picked = choose(&self.columns, self.is_whole)?;
        self.texts = texts;
        self.interesting = Some(names.iter().map(|name| name.to_lowercase()).collect());
        self.choose = Some(choose);
        self.name_picked();
        Ok(())
    }

    fn pick_all(&mut self) {
        self.picked = (0..self.columns.columns().len()).map(Some).collect();
        self.find_slots();
        self.header = self.columns.clone();
    }

    fn name_picked(&mut self) {
        let name = |place: &Option<usize>| {
            place.map_or(String::new(), |place| self.columns.columns()[place].clone())
        };
        let names = self.picked.iter().map(name).collect();
        self.find_slots();
        self.header = Arc::new(Header::new(self.source.path(), names));
    }

    fn find_slots(&mut self) {
        self.slots.clear();
        for (slot, place) in self.picked.iter().enumerate() {
            if let Some(place) = place {
                self.slots.entry(*place).or_default().push(slot);
            }
        }
    }

    fn check_columns(&self, count: usize) -> Result<()> {
        if count <= MOST_COLUMNS {
            return Ok(());
        }
        Err(DataError::new(self.source.path())
            .expected(format!("at most {MOST_COLUMNS} columns"))
            .found(count.to_string())
            .remedy("leave out those that are not needed")
            .into())
    }

    fn read_header(&mut self) -> Result<Vec<String>> {
        if let Some(schema) = &self.schema {
            if !self.format.honours().contains(&"schema") {
                return Err(DataError::new(self.source.path())
                    .expected(
                        "a TSV or CSV file without a header line, which is what a schema describes",
                    )
                    .found(self.format.name())
                    .remedy("leave the schema out, or state the format")
                    .into());
            }
            let names: Vec<String> =
                schema.columns().iter().map(|column| column.name.clone()).collect();
            self.named = names.len();
            if self.format == Format::Csv {
                self.separator = header::separator(&mut self.source, &mut self.line, false)?;
            }
            return Ok(names);
        }
        let cells = match self.format {
            Format::Text => {
                self.named = 1;
                return Ok(vec!["text".to_string()]);
            }
            Format::JsonLines => return self.look_ahead(),
            Format::Csv => {
                self.separator = header::separator(&mut self.source, &mut self.line, true)?;
                csv::next_row(&mut self.source, &mut self.line, self.separator)
            }
            Format::Tsv | Format::Auto => tsv::next_row(&mut self.source, &mut self.line, true),
        };
        match cells {
            Ok(Some((_, cells))) => {
                let (names, named) = header::names(cells);
                self.named = named;
                Ok(names)
            }
            Ok(None) => Err(DataError::new(self.source.path())
                .expected("a header line with the columns' names")
                .found("blank lines only")
                .remedy("give a file with rows")
                .into()),
            Err(fault) => Err(fault.into_error()),
        }
    }

    fn pick_columns(&mut self, names: &[String]) -> Result<()> {
        self.picked.clear();
        for name in names {
            let Some(index) = self.columns.index(name) else {
                let known = self.columns.columns().iter().map(String::as_str);
                let near = nearest(name, known.clone());
                return Err(DataError::new(self.source.path())
                    .column(name)
                    .expected("a column of this name")
                    .found(format!("the columns {}", quoted_list(known)))
                    .remedy(near.map(|n| format!("did you mean `{n}`?")).unwrap_or_default())
                    .into());
            };
            if self.columns.columns()[index + 1..].contains(name) {
                return Err(DataError::new(self.source.path())
                    .column(name)
                    .expected("one column of this name")
                    .found(format!("`{name}` twice"))
                    .remedy("give the columns different names")
                    .into());
            }
            self.picked.push(Some(index));
        }
        self.interesting = Some(HashSet::new());
        self.name_picked();
        Ok(())
    }

    /// All columns of the file, as far as it was read.
    pub fn columns(&self) -> &Arc<Header> {
        &self.columns
    }

    /// The columns of the records, and the file they come from.
    pub fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// For each cell of the records, the place of its column in [`Reader::columns`]; none for a cell that was missing
    /// so far.
    pub fn picked(&self) -> &[Option<usize>] {
        &self.picked
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
            return self.next_object();
        }
        let row = match self.format {
            Format::Text => tsv::next_text(&mut self.source, &mut self.line)?,
            Format::Csv => csv::next_row(&mut self.source, &mut self.line, self.separator)?,
            _ => {
                let skips = self.columns.columns().len() > 1;
                tsv::next_row(&mut self.source, &mut self.line, skips)?
            }
        };
        let Some((line, mut cells)) = row else { return Ok(None) };
        self.check_count(line, &mut cells)?;
        let mut cells: Vec<Option<String>> = cells.into_iter().map(Some).collect();
        let mut values = Vec::with_capacity(self.picked.len());
        for (slot, &place) in self.picked.iter().enumerate() {
            let Some(cell) = place.and_then(|place| cells.get_mut(place)) else {
                values.push(None);
                continue;
            };
            // A cell that is handed out twice is copied but for the last time.
            let again = self.slots(place).last() != Some(&slot);
            let text = if again { cell.clone() } else { cell.take() };
            let text = text.unwrap_or_default();
            values.push(Some(match (&self.schema, place) {
                (Some(schema), Some(place)) => {
                    let column = &schema.columns()[place];
                    column.parse(&text).map_err(|(expected, found)| {
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
                _ => Value::String(text),
            }));
        }
        Ok(Some((line, values)))
    }

    /// Where the cells of a column are handed out.
    fn slots(&self, place: Option<usize>) -> &[usize] {
        place.and_then(|place| self.slots.get(&place)).map_or(&[], Vec::as_slice)
    }

    /// Drops separators behind the last cell, and refuses a row with other cells than the header.
    fn check_count(&self, line: u64, cells: &mut Vec<String>) -> std::result::Result<(), Fault> {
        let expected = self.columns.columns().len();
        while cells.len() > expected && cells.last().is_some_and(String::is_empty) {
            cells.pop();
        }
        let found = cells.len();
        let is_enough = found >= self.named
            || self.format == Format::Csv
                && self.picked.iter().flatten().all(|&place| place < found);
        if found <= expected && is_enough {
            return Ok(());
        }
        let names = quoted_list(self.columns.columns().iter().map(String::as_str));
        let remedy = match self.format {
            _ if found == expected + 1
                && cells.first().is_some_and(|cell| cell.parse::<u64>().is_ok()) =>
            {
                "if each row begins with its number, name that column in the header"
            }
            Format::Csv => "put texts that hold a comma between double quotes",
            _ => "a text must not hold a tab; remove it, or use CSV or JSON Lines",
        };
        Err(Fault::Row(
            DataError::new(self.source.path())
                .line(line)
                .expected(format!("{expected} columns ({names})"))
                .found(found.to_string())
                .remedy(remedy)
                .into(),
        ))
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

#[cfg(test)]
mod tests;
