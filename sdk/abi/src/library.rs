//! What a loadable engine offers: the record behind the one symbol of its library. Plugins never see it.

use crate::{et_buffer, et_error, et_host, et_str};
use core::ffi::{c_char, c_void};

/// The record that the one exported symbol of an engine library, `const et_engine_record *et_engine_entry(void)`,
/// returns. The fields up to `version` are frozen for all time: the loader reads them before anything else.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_engine_record {
    /// `ET_ENGINE_MAGIC`.
    pub magic: u64,
    /// `ET_ABI_MAJOR` the engine was built for.
    pub abi_major: u32,
    /// `ET_ABI_MINOR` the engine offers.
    pub abi_minor: u32,
    /// Bytes filled by the engine.
    pub struct_size: usize,
    /// What it computes on: "cuda" or "cpu".
    pub id: *const c_char,
    /// Version of the engine, for instance "0.1.0"; the loader wants its own.
    pub version: *const c_char,
    /// The host table of the engine, there before `open`; lives until the process ends.
    pub host: *const et_host,
    /// Starts the engine on device number `device`. `options` is JSON: {"precision": "f32" | "tf32" | "bf16" | "f16",
    /// "threads": 4, "deterministic": false}. Called once, before any tensor is made. Errors: UNIMPLEMENTED for what the device
    /// cannot do, FAILED_PRECONDITION when it is open already. [one-at-a-time] since 0.1
    pub open: Option<unsafe extern "C" fn(device: i32, options: et_str) -> *mut et_error>,
    /// Adds a table to those that `get_interface` of the engine's host finds; it lives until the process ends.
    /// [any-thread] since 0.1
    pub provide: Option<unsafe extern "C" fn(id: *const c_char, table: *const c_void)>,
    /// What the engine did so far, as JSON: {"device": "..", "launches": 0, "allocations": 0, "host_fallbacks":
    /// {"op": 0}, "waits": {"for what": 0}, "bytes_in_use": 0, "bytes_peak": 0, "held": {"parameters": 0, ..}}.
    /// [any-thread] since 0.1
    pub report: Option<unsafe extern "C" fn(out: *mut *mut et_buffer) -> *mut et_error>,
}
