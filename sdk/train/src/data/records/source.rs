//! Lines of a file or of standard input, decompressed, with their numbers.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

#[cfg(feature = "gzip")]
use flate2::read::MultiGzDecoder;

use super::Fault;
use crate::error::{DataError, Error, Result};
use crate::nearest::nearest;

/// The longest line, so that damaged or hostile input cannot fill the memory.
const LONGEST_LINE: usize = 64 << 20;

/// How much of the first line is looked at to tell what the file is.
const HEAD: usize = 1 << 16;

/// A stream of lines.
pub(crate) struct Source {
    path: PathBuf,
    input: BufReader<Box<dyn Read + Send>>,
    /// What was read to look at it; what follows `taken` was not yet taken.
    head: Vec<u8>,
    taken: usize,
    line: u64,
    compressed: bool,
}

impl Source {
    /// Opens a file, or standard input for `-`. Errors: what is no regular file and no open stream (see
    /// [`is_open_stream`]).
    pub fn open(path: &Path) -> Result<Source> {
        if path.as_os_str() == "-" {
            return Source::new(path.to_path_buf(), Box::new(io::stdin()));
        }
        match std::fs::metadata(path) {
            Ok(about) => refuse_no_file(path, about.file_type())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(path).into());
            }
            Err(error) => return Err(Error::io("open", path, error)),
        }
        let file = std::fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
        Source::new(path.to_path_buf(), Box::new(file))
    }

    /// Reads from `input`; messages call it `path`.
    pub fn new(path: PathBuf, input: Box<dyn Read + Send>) -> Result<Source> {
        let (start, input) = peek(input, 8).map_err(|error| Error::io("read", &path, error))?;
        let compressed = start.starts_with(&[0x1f, 0x8b]);
        #[cfg(feature = "gzip")]
        let input: Box<dyn Read + Send> =
            if compressed { Box::new(MultiGzDecoder::new(input)) } else { input };
        #[cfg(not(feature = "gzip"))]
        if compressed {
            return Err(DataError::new(path)
                .expected("text in UTF-8")
                .found("a gzip file")
                .remedy("unpack it, or build with the feature `gzip`")
                .into());
        }
        let (start, rest) = match peek(input, 8) {
            Ok(peeked) => peeked,
            Err(error) => return Err(read_error(&path, 1, compressed, error)),
        };
        if let Some((found, remedy)) = no_text(&start) {
            return Err(DataError::new(path)
                .expected("text in UTF-8")
                .found(found)
                .remedy(remedy)
                .into());
        }
        let mut input = BufReader::with_capacity(1 << 16, rest);
        if start.starts_with(&[0xef, 0xbb, 0xbf]) {
            // The mark has been read without error just now.
            let mut mark = [0; 3];
            input.read_exact(&mut mark).map_err(|error| Error::io("read", &path, error))?;
        }
        Ok(Source { path, input, head: Vec::new(), taken: 0, line: 0, compressed })
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
        let ahead = &self.head[self.taken..];
        let count = ahead.iter().position(|&byte| byte == b'\n').map_or(ahead.len(), |at| at + 1);
        line.extend_from_slice(&ahead[..count]);
        self.taken += count;
        if line.last() != Some(&b'\n') {
            let mut limited = (&mut self.input).take((LONGEST_LINE - line.len()) as u64 + 1);
            if let Err(error) = limited.read_until(b'\n', line) {
                return Err(read_error(&self.path, self.line + 1, self.compressed, error));
            }
        }
        if line.len() > LONGEST_LINE {
            return Err(self.too_long(self.line + 1).into());
        }
        if line.is_empty() {
            return Ok(false);
        }
        self.line += 1;
        Ok(true)
    }

    /// What the file begins with, without taking it: up to the end of the first line that is not blank, but at most
    /// 64 KiB; nothing in an empty file. To be called before anything is taken.
    pub fn peek_start(&mut self) -> Result<&[u8]> {
        let end = |head: &[u8]| {
            let first = head.iter().position(|byte| !byte.is_ascii_whitespace())?;
            head[first..].iter().position(|&byte| byte == b'\n').map(|at| first + at + 1)
        };
        while self.head.len() < HEAD && end(&self.head).is_none() {
            let read = match self.input.fill_buf() {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(&self.path, 1, self.compressed, error)),
            };
            if read.is_empty() {
                break;
            }
            self.head.extend_from_slice(read);
            let count = read.len();
            self.input.consume(count);
        }
        Ok(&self.head[..end(&self.head).unwrap_or(self.head.len())])
    }

    /// The next bytes, some of which [`Source::take`] takes; none at the end of the file. For what does not go by
    /// lines.
    pub fn next_bytes(&mut self) -> Result<&[u8]> {
        if self.taken < self.head.len() {
            return Ok(&self.head[self.taken..]);
        }
        loop {
            match self.input.fill_buf() {
                // Asked again because the borrow of the answer would outlive this loop.
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(read_error(&self.path, self.line + 1, self.compressed, error));
                }
            }
        }
        Ok(self.input.buffer())
    }

    /// Takes the first `count` of [`Source::next_bytes`].
    pub fn take(&mut self, count: usize) {
        let ends = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        if self.taken < self.head.len() {
            self.line += ends(&self.head[self.taken..self.taken + count]);
            self.taken += count;
        } else {
            self.line += ends(&self.input.buffer()[..count]);
            self.input.consume(count);
        }
    }

    /// The error for a line, or a quoted cell, that is too long.
    pub fn too_long(&self, line: u64) -> DataError {
        DataError::new(&self.path)
            .line(line)
            .expected(format!("a row of at most {} MiB", LONGEST_LINE >> 20))
            .found("a longer one")
            .remedy("is this a text file with one row per line?")
    }

    /// The error for a row with more cells than any file has columns.
    pub fn too_many_cells(&self, line: u64) -> Fault {
        Fault::Fatal(
            DataError::new(&self.path)
                .line(line)
                .expected(format!("a row of at most {} cells", super::MOST_COLUMNS))
                .found("more")
                .remedy("is this a text file with one row per line?")
                .into(),
        )
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

/// Errors: `path` is a directory, a device, a socket, or a pipe with a name, which might never say anything.
fn refuse_no_file(path: &Path, kind: std::fs::FileType) -> Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    let (found, remedy) = if kind.is_dir() {
        ("a directory", "name a file inside it".to_string())
    } else if is_pipe(kind) && is_open_stream(path) {
        return Ok(());
    } else if is_pipe(kind) {
        let remedy = format!("read it as standard input: `- < {}`", path.display());
        ("a pipe with a name", remedy)
    } else {
        ("a device or a socket", "give a regular file, or `-` for standard input".to_string())
    };
    Err(DataError::new(path).expected("a file").found(found).remedy(remedy).into())
}

/// Whether a path names a stream that the program was started with: `/dev/stdin`, or what a shell puts for
/// `<(command)`.
fn is_open_stream(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder))
}

#[cfg(unix)]
fn is_pipe(kind: std::fs::FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
fn is_pipe(_: std::fs::FileType) -> bool {
    false
}

/// What a file that begins with `start` is instead of text in UTF-8, and what to do about it.
fn no_text(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let rewrite = "write it as CSV or JSON Lines first";
    let unpack = "unpack it first, or compress with gzip, which is read as it is";
    let known: [(&[u8], &str, &str); 9] = [
        (
            &[0xff, 0xfe],
            "the byte order mark of UTF-16",
            "convert the file, for instance with `iconv -f UTF-16 -t UTF-8`",
        ),
        (
            &[0xfe, 0xff],
            "the byte order mark of UTF-16",
            "convert the file, for instance with `iconv -f UTF-16 -t UTF-8`",
        ),
        (b"PAR1\x15", "a Parquet file", rewrite),
        (b"ARROW1", "an Arrow file", rewrite),
        (b"PK\x03\x04", "a ZIP archive or a spreadsheet", rewrite),
        (&[0x28, 0xb5, 0x2f, 0xfd], "a Zstandard file", unpack),
        (b"BZh91AY&", "a bzip2 file", unpack),
        (&[0xfd, b'7', b'z', b'X'], "an xz file", unpack),
        (&[0xd0, 0xcf, 0x11, 0xe0], "an Office file", rewrite),
    ];
    if let Some((_, found, remedy)) = known.iter().find(|(mark, _, _)| start.starts_with(mark)) {
        return Some((found, remedy));
    }
    start.contains(&0).then_some((
        "a zero byte at the start",
        "if this is UTF-16, convert it with `iconv -f UTF-16LE -t UTF-8`; a file that is not text cannot be read",
    ))
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
    let error = DataError::new(path).expected("a file").found("nothing of this name").missing();
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
