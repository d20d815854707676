//! The profiler of the engine.

use crate::{et_buffer, et_error, et_str};

/// `et.profile/1`: records which operation took how long. Operations of the engine record themselves while a
/// recording runs; spans add what a plugin or a host does. One recording per process.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_profile {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// 1 while a recording runs, else 0. [any-thread] since 0.1
    pub is_on: Option<unsafe extern "C" fn() -> i32>,
    /// Starts a recording that keeps at most `capacity` events (0 for the host's default); an earlier recording is
    /// forgotten. [any-thread] since 0.1
    pub start: Option<unsafe extern "C" fn(capacity: usize)>,
    /// Ends the recording; what it holds stays until the next start. [any-thread] since 0.1
    pub stop: Option<unsafe extern "C" fn()>,
    /// Opens a span on the calling thread and returns its number, 0 while no recording runs. Both texts are copied.
    /// [any-thread] since 0.1
    pub begin: Option<unsafe extern "C" fn(category: et_str, name: et_str) -> u64>,
    /// Adds a number to an open span of the calling thread; the key is copied. Ignores 0. [any-thread] since 0.1
    pub note: Option<unsafe extern "C" fn(span: u64, key: et_str, value: f64)>,
    /// Closes a span of the calling thread, and those that were opened inside it. Ignores 0. [any-thread] since 0.1
    pub end: Option<unsafe extern "C" fn(span: u64)>,
    /// The recording as a JSON array of the Trace Event Format, which chrome://tracing and Perfetto read.
    /// [any-thread] since 0.1
    pub trace: Option<unsafe extern "C" fn(out: *mut *mut et_buffer) -> *mut et_error>,
    /// The recording in sums, as a JSON object: `seconds`, `events`, `dropped`, and `ops` by falling own time with
    /// `name`, `category`, `calls`, `self_ms`, `total_ms`, `flop`, and on a card `card_ms`. [any-thread] since 0.1
    pub summary: Option<unsafe extern "C" fn(out: *mut *mut et_buffer) -> *mut et_error>,
}
