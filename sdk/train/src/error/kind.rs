//! What kind of failure an error is, for programs that react to it.

use std::io;
use std::path::PathBuf;

use easytransfer_loader::LoadError;
use easytransfer_plugin::abi::{ET_ERR_BAD_INPUT, ET_ERR_INVALID_ARGUMENT, ET_ERR_NOT_FOUND};

use crate::error::Error;

/// What kind of failure an [`Error`] is. New kinds may come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there: a file, a bundle, a component of that name.
    NotFound,
    /// A plugin failed, or the engine on its behalf.
    Plugin {
        /// One of the `ET_ERR_` codes.
        code: i32,
    },
    /// A plugin was refused.
    Load {
        /// Why, with its particulars.
        reason: LoadError,
    },
    /// The operating system refused.
    Io(io::ErrorKind),
    /// A file, a row, an option or an argument is not what was expected.
    BadInput {
        /// Where, as far as it is known.
        place: InputPlace,
    },
    /// The caller asked to stop.
    Cancelled,
    /// Anything else: the input is not the cause.
    Other,
}

/// Where bad input is. What is not known, or does not apply, is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputPlace {
    /// The file; none for what the program passed itself.
    pub path: Option<PathBuf>,
    /// The line, counted from 1.
    pub line: Option<u64>,
    /// The number of a record that the program passed, counted from 0.
    pub record: Option<u64>,
    /// The column of a file, or the role of a record's value.
    pub column: Option<String>,
    /// The option, with its dots.
    pub option: Option<String>,
    /// The tensor of a file of weights.
    pub tensor: Option<String>,
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        let bad_input = |place: InputPlace| ErrorKind::BadInput { place };
        match self {
            Error::Data(error) if error.is_missing => ErrorKind::NotFound,
            Error::Data(error) if error.is_in_memory() => bad_input(InputPlace {
                record: error.line.map(|line| line - 1),
                column: error.column.clone(),
                ..InputPlace::default()
            }),
            Error::Data(error) => bad_input(InputPlace {
                path: Some(error.path.clone()),
                line: error.line,
                column: error.column.clone(),
                ..InputPlace::default()
            }),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Error::Io { source, .. } => ErrorKind::Io(source.kind()),
            Error::Option(error) => {
                bad_input(InputPlace { option: Some(error.key.clone()), ..InputPlace::default() })
            }
            Error::Config { .. } | Error::Other { user: true, .. } => {
                bad_input(InputPlace::default())
            }
            Error::Weights(error) => bad_input(InputPlace {
                path: Some(error.path.clone()),
                tensor: error.tensor.clone(),
                ..InputPlace::default()
            }),
            Error::NotFound { .. } | Error::Load(LoadError::NoSuchComponent(_)) => {
                ErrorKind::NotFound
            }
            Error::Load(reason) => ErrorKind::Load { reason: reason.clone() },
            Error::Plugin(error) => match error.code() {
                ET_ERR_NOT_FOUND => ErrorKind::NotFound,
                ET_ERR_BAD_INPUT | ET_ERR_INVALID_ARGUMENT => bad_input(InputPlace {
                    column: error.record_fault().map(|fault| fault.role),
                    ..InputPlace::default()
                }),
                code => ErrorKind::Plugin { code },
            },
            Error::Cancelled => ErrorKind::Cancelled,
            Error::Worker { .. } | Error::Other { user: false, .. } => ErrorKind::Other,
        }
    }

    /// Whether bad input (a file, a row, an option) is the cause; programs then end with code 2.
    pub fn is_user_error(&self) -> bool {
        match self.kind() {
            ErrorKind::NotFound | ErrorKind::Load { .. } | ErrorKind::BadInput { .. } => true,
            ErrorKind::Io(kind) => matches!(
                kind,
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::AlreadyExists
            ),
            ErrorKind::Plugin { .. } | ErrorKind::Cancelled | ErrorKind::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use easytransfer_plugin as plugin;
    use plugin::abi::{ET_ERR_NOT_FOUND, ET_ERR_PANIC};

    use super::*;
    use crate::error::{DataError, IN_MEMORY, OptionError, WeightError};

    #[test]
    fn kinds_say_what_and_where() {
        let place = |error: Error| match error.kind() {
            ErrorKind::BadInput { place } => place,
            other => panic!("{other:?}"),
        };
        let data = || DataError::new("a.tsv").line(3).column("label");
        let found = place(data().into());
        assert_eq!(
            (found.path, found.line, found.column.as_deref()),
            (Some("a.tsv".into()), Some(3), Some("label"))
        );
        let memory = place(DataError { path: IN_MEMORY.into(), ..data() }.into());
        assert_eq!((memory.path, memory.line, memory.record), (None, None, Some(2)));
        assert_eq!(Error::from(data().missing()).kind(), ErrorKind::NotFound);
        let option = OptionError { key: "lr".to_owned(), ..OptionError::default() };
        assert_eq!(place(option.into()).option.as_deref(), Some("lr"));
        let weights = WeightError::new(Path::new("m"), "a", "b", "").tensor("w");
        assert_eq!(place(weights.into()).tensor.as_deref(), Some("w"));
        let refused = place(plugin::Error::record("text", "a", "b").into());
        assert_eq!(refused.column.as_deref(), Some("text"));
        let of = |code| Error::from(plugin::Error::new(code, "x")).kind();
        assert_eq!(of(ET_ERR_PANIC), ErrorKind::Plugin { code: ET_ERR_PANIC });
        assert_eq!(of(ET_ERR_NOT_FOUND), ErrorKind::NotFound);
        let io = |kind: io::ErrorKind| Error::io("open", "a", kind.into()).kind();
        assert_eq!(io(io::ErrorKind::NotFound), ErrorKind::NotFound);
        let full = io::ErrorKind::StorageFull;
        assert_eq!(io(full), ErrorKind::Io(full));
        assert_eq!(Error::Cancelled.kind(), ErrorKind::Cancelled);
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
