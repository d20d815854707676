//! Where components come from. The trainer never names a concrete model, loss or optimizer, nor an engine; it asks
//! this.

use crate::error::{Error, Result};
use easytransfer_plugin as plugin;
use easytransfer_plugin::ComponentRef;

/// Finds components by kind ("et.loss/1") and name ("cross-entropy").
pub trait Components: Send + Sync {
    /// The component of that kind and name. Errors name the nearest one and the plugins that were searched.
    fn find(&self, kind: &str, name: &str) -> Result<ComponentRef>;

    /// What the engine computes in: a run that is resumed must go on in the same.
    fn precision(&self) -> &'static str;
}

impl From<plugin::Error> for Error {
    fn from(error: plugin::Error) -> Error {
        use plugin::abi::{
            ET_ERR_BAD_INPUT, ET_ERR_CANCELLED, ET_ERR_INVALID_ARGUMENT, ET_ERR_NOT_FOUND,
        };
        match error.code() {
            ET_ERR_CANCELLED => Error::Cancelled,
            ET_ERR_BAD_INPUT | ET_ERR_INVALID_ARGUMENT | ET_ERR_NOT_FOUND => {
                Error::user(error.message())
            }
            _ => Error::other(error.message()),
        }
    }
}

impl From<Error> for plugin::Error {
    fn from(error: Error) -> plugin::Error {
        let code = match &error {
            Error::Cancelled => plugin::abi::ET_ERR_CANCELLED,
            error if error.is_user_error() => plugin::abi::ET_ERR_BAD_INPUT,
            _ => plugin::abi::ET_ERR_UNKNOWN,
        };
        plugin::Error::new(code, error.to_string())
    }
}
