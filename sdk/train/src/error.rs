//! What can go wrong in this crate, as data. Every variant says what was being done and to what, what was expected and
//! what was found; [`Error::is_user_error`] tells bad input (a program ends with code 2) from everything else.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use easytransfer_text::excerpt;

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
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// The line, counted from 1; none when the fault concerns the file as a whole.
    pub line: Option<u64>,
    /// The column's name, where one is concerned.
    pub column: Option<String>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do; may be empty.
    pub remedy: String,
}

impl DataError {
    /// A fault of the file at `path`; the other parts are added with the methods below.
    pub fn new(path: impl Into<PathBuf>) -> DataError {
        DataError { path: path.into(), ..DataError::default() }
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
    /// The file that sets it, or `--set`, or the name of the program's flag; may be empty.
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

    /// Whether bad input (a file, a row, an option) is the cause; programs then end with code 2.
    pub fn is_user_error(&self) -> bool {
        match self {
            Error::Data(_) | Error::Option(_) | Error::Config { .. } | Error::Weights(_) => true,
            Error::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::AlreadyExists
            ),
            Error::Other { user, .. } => *user,
            Error::Worker { .. } | Error::Cancelled => false,
        }
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
                write!(f, "{doing} `{}`: {source}", path.display())
            }
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
        if self.path.as_os_str() == "-" {
            f.write_str("standard input")?;
        } else {
            write!(f, "`{}`", self.path.display())?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
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
    fn io_error_kind_decides_whose_fault_it_is() {
        let missing = Error::io("open", "a", io::ErrorKind::NotFound.into());
        let full = Error::io("write", "a", io::ErrorKind::StorageFull.into());
        assert!(missing.is_user_error());
        assert!(!full.is_user_error());
        assert!(!Error::Cancelled.is_user_error());
    }
}
