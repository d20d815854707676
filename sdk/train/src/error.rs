//! What can go wrong in this crate, as data. Every variant says what was being done and to what, what was expected and
//! what was found; [`Error::kind`] is for programs that react to it, and [`Error::is_user_error`] tells bad input (a
//! program ends with code 2) from everything else.
//!
//! An error says itself once: `{}` leaves out what [`source`](std::error::Error::source) says, `{:#}` prints the whole
//! chain on one line.

mod kind;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use easytransfer_loader::LoadError;
use easytransfer_plugin as plugin;
pub use easytransfer_text::excerpt;
pub use kind::{ErrorKind, InputPlace};

/// The path that stands for records in memory.
pub const IN_MEMORY: &str = "<memory>";

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A data file, or one row of it, is not what was expected.
    Data(Box<DataError>),
    /// An operating system call failed.
    Io {
        /// What was being done, as a verb: `read`, `create`, `rename`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An option is unknown, missing or has a wrong value.
    Option(Box<OptionError>),
    /// A configuration file cannot be read as TOML or JSON, or contradicts itself.
    Config {
        /// The file, or `--set`.
        origin: String,
        /// What is wrong with it, with the line where it is known.
        message: String,
    },
    /// A weight file is damaged, or holds something that cannot be used.
    Weights(Box<WeightError>),
    /// A worker thread panicked; the text is the panic's message.
    Worker {
        /// The item that was being worked on, counted from 0.
        item: usize,
        /// The panic's message.
        message: String,
    },
    /// What was asked for is not there.
    NotFound {
        /// What, where, and what to do.
        message: String,
    },
    /// A plugin was refused, or none offers what was asked for.
    Load(LoadError),
    /// A plugin failed, or the engine; what it said.
    Plugin(plugin::Error),
    /// The caller asked to stop.
    Cancelled,
    /// Anything else.
    Other {
        /// What happened.
        message: String,
        /// Whether bad input is the cause.
        user: bool,
    },
}

/// A fault of a data file: where it is, what was expected and found there, and what to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataError {
    /// The file; `-` is standard input, [`IN_MEMORY`] what the program passed.
    pub path: PathBuf,
    /// The line, or the number of the record in memory, counted from 1; none when the fault concerns all of it.
    pub line: Option<u64>,
    /// The column's name, where one is concerned.
    pub column: Option<String>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do; may be empty.
    pub remedy: String,
    /// Whether the file itself is not there.
    pub is_missing: bool,
}

impl DataError {
    /// A fault of the file at `path`; the other parts are added with the methods below.
    pub fn new(path: impl Into<PathBuf>) -> DataError {
        DataError { path: path.into(), ..DataError::default() }
    }

    /// Whether it is about records in memory.
    pub fn is_in_memory(&self) -> bool {
        self.path.as_os_str() == IN_MEMORY
    }

    /// Says that the file is not there.
    pub fn missing(mut self) -> DataError {
        self.is_missing = true;
        self
    }

    /// Sets the line, counted from 1.
    pub fn line(mut self, line: u64) -> DataError {
        self.line = Some(line);
        self
    }

    /// Sets the column.
    pub fn column(mut self, column: impl Into<String>) -> DataError {
        self.column = Some(column.into());
        self
    }

    /// Sets what was expected.
    pub fn expected(mut self, expected: impl Into<String>) -> DataError {
        self.expected = expected.into();
        self
    }

    /// Sets what was found.
    pub fn found(mut self, found: impl Into<String>) -> DataError {
        self.found = found.into();
        self
    }

    /// Sets what to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> DataError {
        self.remedy = remedy.into();
        self
    }
}

impl From<DataError> for Error {
    fn from(error: DataError) -> Error {
        Error::Data(Box::new(error))
    }
}

/// A fault of one option.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OptionError {
    /// The file that sets it, or what the program says; may be empty.
    pub origin: String,
    /// The option with its dots: `optimizer.lr`.
    pub key: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// The known name that is nearest to an unknown one.
    pub nearest: Option<String>,
}

impl From<OptionError> for Error {
    fn from(error: OptionError) -> Error {
        Error::Option(Box::new(error))
    }
}

/// A fault of a file of weights or vectors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WeightError {
    /// The file.
    pub path: PathBuf,
    /// The tensor, where one is concerned.
    pub tensor: Option<String>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do; may be empty.
    pub remedy: String,
}

impl WeightError {
    /// A fault of the file at `path`.
    pub fn new(
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> WeightError {
        WeightError {
            path: path.to_path_buf(),
            tensor: None,
            expected: expected.into(),
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// Sets the tensor's name.
    pub fn tensor(mut self, name: impl Into<String>) -> WeightError {
        self.tensor = Some(name.into());
        self
    }
}

impl From<WeightError> for Error {
    fn from(error: WeightError) -> Error {
        Error::Weights(Box::new(error))
    }
}

impl Error {
    /// An error of the operating system while `doing` something to `path`.
    pub fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::Io { doing, path: path.into(), source }
    }

    /// The same with the line of a data file where it showed, if it is about a data file.
    pub(crate) fn at_line(self, line: u64) -> Error {
        match self {
            Error::Data(error) => error.line(line).into(),
            other => other,
        }
    }

    /// An error caused by bad input that no other variant describes.
    pub fn user(message: impl Into<String>) -> Error {
        Error::Other { message: message.into(), user: true }
    }

    /// An error that is not the user's fault and that no other variant describes.
    pub fn other(message: impl Into<String>) -> Error {
        Error::Other { message: message.into(), user: false }
    }

    /// What was asked for is not there.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::NotFound { message: message.into() }
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Error {
        Error::Load(error)
    }
}

impl From<plugin::Error> for Error {
    fn from(error: plugin::Error) -> Error {
        match error.code() {
            plugin::abi::ET_ERR_CANCELLED => Error::Cancelled,
            _ => Error::Plugin(error),
        }
    }
}

impl From<Error> for plugin::Error {
    fn from(error: Error) -> plugin::Error {
        use plugin::abi::{ET_ERR_BAD_INPUT, ET_ERR_CANCELLED, ET_ERR_IO, ET_ERR_UNKNOWN};
        let code = match (&error, error.kind()) {
            (_, ErrorKind::Cancelled) => ET_ERR_CANCELLED,
            _ if error.is_user_error() => ET_ERR_BAD_INPUT,
            (_, ErrorKind::Plugin { code }) => code,
            (_, ErrorKind::Io(_)) => ET_ERR_IO,
            _ => ET_ERR_UNKNOWN,
        };
        match error {
            // With its details.
            Error::Plugin(error) if error.code() == code => error,
            error => plugin::Error::new(code, format!("{error:#}")),
        }
    }
}

/// What messages call a place of data: a file, `-`, or records in memory.
pub(crate) fn place_name(path: &Path) -> String {
    match path.as_os_str().to_str() {
        Some("-") => "standard input".to_owned(),
        Some(IN_MEMORY) => "the records in memory".to_owned(),
        _ => format!("`{}`", path.display()),
    }
}

fn write_remedy(f: &mut fmt::Formatter<'_>, remedy: &str) -> fmt::Result {
    if remedy.is_empty() { Ok(()) } else { write!(f, "; {remedy}") }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Data(error) => error.fmt(f),
            Error::Option(error) => error.fmt(f),
            Error::Weights(error) => error.fmt(f),
            Error::Io { doing, path, source } => {
                write!(f, "{doing} `{}`", path.display())?;
                if f.alternate() { write!(f, ": {source}") } else { Ok(()) }
            }
            Error::NotFound { message } => f.write_str(message),
            Error::Load(error) => error.fmt(f),
            Error::Plugin(error) => error.fmt(f),
            Error::Config { origin, message } => write!(f, "`{origin}`: {message}"),
            Error::Worker { item, message } => {
                write!(f, "a worker thread failed at item {item}: {message}")
            }
            Error::Cancelled => f.write_str("cancelled"),
            Error::Other { message, .. } => f.write_str(message),
        }
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) if self.is_in_memory() => write!(f, "record {}", line - 1)?,
            Some(line) => write!(f, "{}, line {line}", place_name(&self.path))?,
            None => f.write_str(&place_name(&self.path))?,
        }
        if let Some(column) = &self.column {
            write!(f, ", column `{column}`")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)?;
        write_remedy(f, &self.remedy)
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "`{}`: ", self.origin)?;
        }
        write!(f, "option `{}`: expected {}, found {}", self.key, self.expected, self.found)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for WeightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())?;
        if let Some(tensor) = &self.tensor {
            write!(f, ", tensor `{tensor}`")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)?;
        write_remedy(f, &self.remedy)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Plugin(error) => error.source(),
            Error::Load(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_error_names_file_line_and_column() {
        let error: Error = DataError::new("a.tsv")
            .line(3)
            .column("label")
            .expected("a number")
            .found("`x`")
            .remedy("correct the row")
            .into();
        assert_eq!(
            error.to_string(),
            "`a.tsv`, line 3, column `label`: expected a number, found `x`; correct the row"
        );
        assert!(error.is_user_error());
    }

    #[test]
    fn an_error_is_printed_once() {
        let error = Error::io("open", "a", io::ErrorKind::NotFound.into());
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.to_string(), "open `a`");
        assert_eq!(format!("{error:#}"), format!("open `a`: {cause}"));
        let plugin = Error::from(plugin::Error::invalid("x: expected 1"));
        assert_eq!(format!("{plugin} {plugin:#}"), "x: expected 1 x: expected 1");
        assert!(std::error::Error::source(&plugin).is_none());
    }

    #[test]
    fn records_in_memory_are_counted_from_0() {
        let error: Error =
            DataError::new(IN_MEMORY).line(1).column("label").expected("a").found("b").into();
        assert_eq!(error.to_string(), "record 0, column `label`: expected a, found b");
        let error: Error = DataError::new(IN_MEMORY).expected("a").found("b").into();
        assert_eq!(error.to_string(), "the records in memory: expected a, found b");
    }
}
