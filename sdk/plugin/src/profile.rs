//! Profiling: spans of one's own in the host's recording, and the recording itself.
//!
//! Operations record themselves. A span says what they were for:
//!
//! ```
//! use easytransfer_plugin::profile;
//!
//! let _span = profile::span("train", "evaluate");
//! ```

use crate::host::{ask, call, tables, try_host};
use crate::text::borrow;
use crate::{Buffer, Error, Result};
use easytransfer_abi as abi;
use std::marker::PhantomData;
use std::ptr::null_mut;

fn table() -> Option<&'static abi::et_host_profile> {
    try_host().and_then(|_| tables().profile)
}

fn required() -> Result<&'static abi::et_host_profile> {
    table().ok_or_else(|| {
        Error::new(
            abi::ET_ERR_UNIMPLEMENTED,
            "this host has no interface et.profile/1; a newer host is needed",
        )
    })
}

/// Whether a recording runs.
pub fn is_on() -> bool {
    table().is_some_and(|table| ask!(table, et_host_profile.is_on() or 0) != 0)
}

/// Time from its making to its drop, written to the recording if one runs; costs next to nothing otherwise.
#[must_use = "a span measures until it is dropped"]
pub struct Span {
    number: u64,
    /// A span is closed on the thread that opened it.
    _thread: PhantomData<*const ()>,
}

/// Opens a span on this thread.
pub fn span(category: &str, name: &str) -> Span {
    let number = table()
        .map_or(0, |table| ask!(table, et_host_profile.begin(borrow(category), borrow(name)) or 0));
    Span { number, _thread: PhantomData }
}

impl Span {
    /// Adds a number to the span.
    pub fn note(&self, key: &str, value: f64) {
        if self.number != 0
            && let Some(table) = table()
        {
            ask!(table, et_host_profile.note(self.number, borrow(key), value) or ());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.number != 0
            && let Some(table) = table()
        {
            ask!(table, et_host_profile.end(self.number) or ());
        }
    }
}

/// Starts a recording that keeps at most `capacity` events (0 for the host's default); an earlier one is forgotten.
/// Errors: `UNIMPLEMENTED` when the host has no profiler.
pub fn start(capacity: usize) -> Result<()> {
    ask!(required()?, et_host_profile.start(capacity) or ());
    Ok(())
}

/// Ends the recording; what it holds stays until the next start.
pub fn stop() {
    if let Some(table) = table() {
        ask!(table, et_host_profile.stop() or ());
    }
}

/// The recording as a JSON array of the Trace Event Format. Errors: `UNIMPLEMENTED`.
pub fn trace() -> Result<Buffer> {
    let mut out = null_mut();
    call!(required()?, et_host_profile.trace(&mut out))?;
    // SAFETY: on success the out holds an owned reference.
    unsafe { Buffer::from_raw(out) }
}

/// The recording in sums, as JSON text; see `et_host_profile.summary`. Errors: `UNIMPLEMENTED`.
pub fn summary() -> Result<String> {
    let mut out = null_mut();
    call!(required()?, et_host_profile.summary(&mut out))?;
    // SAFETY: on success the out holds an owned reference.
    Ok(unsafe { Buffer::from_raw(out) }?.as_str()?.to_owned())
}
