//! Errors on this side of the boundary, and their way across it.

use crate::host;
use easytransfer_abi as abi;
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
}

impl Error {
    /// An error with one of the `ET_ERR_` codes.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self(Box::new(Failure { code, message: message.into() }))
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
            if let Some(release) = host.error_release {
                release(raw);
            }
            Self::new(code, message)
        }
    }

    /// Hands the error to the other side, which owns it.
    pub(crate) fn into_raw(self) -> *mut abi::et_error {
        match host::try_host().and_then(|host| host.error_new) {
            // SAFETY: the message is borrowed for the call and copied by the host.
            Some(make) => unsafe { make(self.0.code, crate::text::borrow(&self.0.message)) },
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
