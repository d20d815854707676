//! Lines of a file or of standard input, decompressed, with their numbers.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::Fault;
use crate::error::{DataError, Error, Result};
use crate::nearest::nearest;

/// The longest line, so that damaged or hostile input cannot fill the memory.
const LONGEST_LINE: usize = 64 << 20;

/// A stream of lines.
pub(crate) struct Source {
    path: PathBuf,
    input: BufReader<Box<dyn Read + Send>>,
    /// A line that was looked at and not yet taken.
    stash: Option<Vec<u8>>,
    line: u64,
    compressed: bool,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub fn open(path: &Path) -> Result<Source> {
        if path.as_os_str() == "-" {
            return Source::new(path.to_path_buf(), Box::new(io::stdin()));
        }
        match std::fs::metadata(path) {
            Ok(about) if about.is_dir() => {
                return Err(DataError::new(path)
                    .expected("a file")
                    .found("a directory")
                    .remedy("name a file inside it")
                    .into());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(path).into());
            }
            Ok(_) => {}
            Err(error) => return Err(Error::io("open", path, error)),
        }
        let file = std::fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
        Source::new(path.to_path_buf(), Box::new(file))
    }

    /// Reads from `input`; messages call it `path`.
    pub fn new(path: PathBuf, input: Box<dyn Read + Send>) -> Result<Source> {
        let (start, input) = peek(input, 2).map_err(|error| Error::io("read", &path, error))?;
        let compressed = start == [0x1f, 0x8b];
        let input: Box<dyn Read + Send> =
            if compressed { Box::new(MultiGzDecoder::new(input)) } else { input };
        let (start, rest) = match peek(input, 3) {
            Ok(peeked) => peeked,
            Err(error) => return Err(read_error(&path, 1, compressed, error)),
        };
        if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
            return Err(DataError::new(path)
                .expected("text in UTF-8")
                .found("the byte order mark of UTF-16")
                .remedy("convert the file, for instance with `iconv -f UTF-16 -t UTF-8`")
                .into());
        }
        let mut input = BufReader::with_capacity(1 << 16, rest);
        if start == [0xef, 0xbb, 0xbf] {
            // The mark has been read without error just now.
            let mut mark = [0; 3];
            input.read_exact(&mut mark).map_err(|error| Error::io("read", &path, error))?;
        }
        Ok(Source { path, input, stash: None, line: 0, compressed })
    }

    /// The file's name for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the line that [`Source::next_line`] returned last, counted from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Reads a line, with its end, into `line`; false at the end of the file.
    pub fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        if let Some(stashed) = self.stash.take() {
            *line = stashed;
            self.line += 1;
            return Ok(true);
        }
        let mut limited = (&mut self.input).take(LONGEST_LINE as u64 + 1);
        let count = match limited.read_until(b'\n', line) {
            Ok(count) => count,
            Err(error) => {
                return Err(read_error(&self.path, self.line + 1, self.compressed, error));
            }
        };
        if count > LONGEST_LINE {
            return Err(self.too_long(self.line + 1).into());
        }
        if count == 0 {
            return Ok(false);
        }
        self.line += 1;
        Ok(true)
    }

    /// The next line without taking it; none at the end of the file.
    pub fn peek_line(&mut self) -> Result<Option<&[u8]>> {
        if self.stash.is_none() {
            let mut line = Vec::new();
            if !self.next_line(&mut line)? {
                return Ok(None);
            }
            self.line -= 1;
            self.stash = Some(line);
        }
        Ok(self.stash.as_deref())
    }

    /// The error for a line, or a quoted cell, that is too long.
    pub fn too_long(&self, line: u64) -> DataError {
        DataError::new(&self.path)
            .line(line)
            .expected(format!("a row of at most {} MiB", LONGEST_LINE >> 20))
            .found("a longer one")
            .remedy("is this a text file with one row per line?")
    }

    /// Whether a row that spans several lines has become too long.
    pub fn exceeds_limit(&self, len: usize) -> bool {
        len > LONGEST_LINE
    }

    /// `bytes`, which start at line `line`, as text; the message says where it is not UTF-8.
    pub fn text<'a>(&self, bytes: &'a [u8], line: u64) -> std::result::Result<&'a str, Fault> {
        std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            let found = format!("the byte 0x{:02x} at position {} of the line", bytes[at], at + 1);
            Fault::Row(
                DataError::new(&self.path)
                    .line(line)
                    .expected("text in UTF-8")
                    .found(found)
                    .remedy("convert the file to UTF-8, for instance with `iconv`")
                    .into(),
            )
        })
    }
}

/// A line without its end.
pub(crate) fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn missing(path: &Path) -> DataError {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let entries = std::fs::read_dir(directory);
    let error = DataError::new(path).expected("a file").found("nothing of this name");
    let Ok(entries) = entries else {
        return error.remedy(format!("there is no directory `{}`", directory.display()));
    };
    let others: Vec<String> = entries
        .take(1000)
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let near = nearest(&name.unwrap_or_default(), others.iter().map(String::as_str));
    error.remedy(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "check the path".to_string(),
    })
}

fn read_error(path: &Path, line: u64, compressed: bool, error: io::Error) -> Error {
    let damaged = matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    );
    if compressed && damaged {
        return DataError::new(path)
            .line(line)
            .expected("an intact gzip file")
            .found(error.to_string())
            .remedy("copy or compress the file again")
            .into();
    }
    Error::io("read", path, error)
}

/// The first bytes of `input` (fewer at its end), and an input that still yields them.
fn peek(
    mut input: Box<dyn Read + Send>,
    count: usize,
) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut start = Vec::with_capacity(count);
    (&mut input).take(count as u64).read_to_end(&mut start)?;
    let rest = Cursor::new(start.clone()).chain(input);
    Ok((start, Box::new(rest)))
}
