//! Errors on this side of the boundary, and their way across it.

use crate::host::{self, slot};
use crate::text::borrow;
use easytransfer_abi as abi;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error code and a message: what was being done, to what, what was expected and what was found.
///
/// It is a pointer, so that the result of an operation fits in registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Failure>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    code: i32,
    message: String,
    /// A JSON object, or empty.
    details: String,
}

/// What an app has against a record, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFault {
    /// Role of the value that is wrong: "text", "label" or another one of the app's columns.
    pub role: String,
    /// What was expected of it, for instance "a finite number".
    pub expected: String,
    /// What was found, for instance "\"NaN\"".
    pub found: String,
}

impl Error {
    /// An error with one of the `ET_ERR_` codes.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self(Box::new(Failure { code, message: message.into(), details: String::new() }))
    }

    /// The value of a record under `role` cannot be used. An app says so of a record that it refuses; the host adds
    /// file, line and the column's name.
    pub fn record(
        role: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let fault =
            RecordFault { role: role.into(), expected: expected.into(), found: found.into() };
        let message = format!("{}: expected {}, found {}", fault.role, fault.expected, fault.found);
        let mut error = Self::bad_input(message);
        error.0.details = serde_json::to_string(&fault).unwrap_or_default();
        error
    }

    /// The parts of an error that [`Error::record`] made, on whichever side of the boundary, or an app in another
    /// language.
    pub fn record_fault(&self) -> Option<RecordFault> {
        serde_json::from_str(&self.0.details).ok()
    }

    /// An option or a piece of data is malformed; the message names the place.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(abi::ET_ERR_BAD_INPUT, message)
    }

    /// An argument is out of range or contradicts another.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(abi::ET_ERR_INVALID_ARGUMENT, message)
    }

    /// The `ET_ERR_` code.
    pub fn code(&self) -> i32 {
        self.0.code
    }

    /// The message without the code.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The same error with a line of context in front: "while doing this: message".
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// Takes an error that came across the boundary.
    ///
    /// # Safety
    /// `raw` is NULL or an error owned by the caller.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(raw: *mut abi::et_error) -> Result<()> {
        // SAFETY: promised by the caller.
        if raw.is_null() { Ok(()) } else { Err(unsafe { Self::taken(raw) }) }
    }

    /// As [`Self::from_raw`], when there is an error.
    #[cold]
    #[inline(never)]
    unsafe fn taken(raw: *mut abi::et_error) -> Self {
        let host = host::host();
        // SAFETY: the host is attached, `raw` is a live error, and its message is copied before it is released.
        unsafe {
            let code = host.error_code.map_or(abi::ET_ERR_UNKNOWN, |f| f(raw));
            let message = host
                .error_message
                .map_or_else(String::new, |f| crate::text::to_string_lossy(f(raw)));
            let mut error = Self::new(code, message);
            if let Some(details) = slot!(host, et_host.error_details) {
                error.0.details = crate::text::to_string_lossy(details(raw));
            }
            if let Some(release) = host.error_release {
                release(raw);
            }
            error
        }
    }

    /// Hands the error to the other side, which owns it.
    pub(crate) fn into_raw(self) -> *mut abi::et_error {
        let Some(host) = host::try_host() else { return std::ptr::null_mut() };
        let Failure { code, message, details } = &*self.0;
        if !details.is_empty()
            && let Some(make) = slot!(host, et_host.error_new_detailed)
        {
            // SAFETY: the texts are borrowed for the call and copied by the host.
            return unsafe { make(*code, borrow(message), borrow(details)) };
        }
        match host.error_new {
            // SAFETY: as above.
            Some(make) => unsafe { make(*code, borrow(message)) },
            None => std::ptr::null_mut(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::bad_input(format!("JSON: {error}"))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(abi::ET_ERR_IO, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, RecordFault};

    #[test]
    fn record_faults_are_data_and_prose_and_survive_context() {
        // Parts that look like the prose around them.
        let error = Error::record("label", "one of [a, found b]", "\"x, found y: expected z\"");
        assert_eq!(
            error.message(),
            "label: expected one of [a, found b], found \"x, found y: expected z\""
        );
        let fault = RecordFault {
            role: "label".to_owned(),
            expected: "one of [a, found b]".to_owned(),
            found: "\"x, found y: expected z\"".to_owned(),
        };
        assert_eq!(error.record_fault(), Some(fault.clone()));
        assert_eq!(error.context("app x").record_fault(), Some(fault));
        assert_eq!(Error::bad_input("label: expected a, found b").record_fault(), None);
    }
}
