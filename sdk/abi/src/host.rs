//! What every plugin gets first: text, errors and the way to ask for interfaces.

use core::ffi::{c_char, c_void};

/// Borrowed UTF-8 text: pointer and length in bytes, not NUL-terminated. `ptr` may be NULL when `len` is 0.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
#[derive(Clone, Copy)]
pub struct et_str {
    /// First byte.
    pub ptr: *const c_char,
    /// Length in bytes.
    pub len: usize,
}

/// An error made by the host: a code and a message. Outlives every plugin.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_error {
    _opaque: [u8; 0],
}

/// The host, as a plugin sees it. Lives until the process ends; a plugin may keep the pointer.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// `ET_ABI_MAJOR` of the host.
    pub abi_major: u32,
    /// `ET_ABI_MINOR` of the host.
    pub abi_minor: u32,
    /// The table with this id, for instance "et.tensor/1", or NULL if this host does not have it. The table lives
    /// until the process ends. [any-thread] since 0.1
    pub get_interface:
        Option<unsafe extern "C" fn(host: *const et_host, id: *const c_char) -> *const c_void>,
    /// A draft table by its versioned name, for instance "tensor.fft@0", or NULL. Drafts may vanish in any release.
    /// [any-thread] since 0.1
    pub get_experimental:
        Option<unsafe extern "C" fn(host: *const et_host, name: *const c_char) -> *const c_void>,
    /// Makes an error with one of the `ET_ERR_` codes; the message is copied. Never NULL. [any-thread] since 0.1
    pub error_new: Option<unsafe extern "C" fn(code: i32, message: et_str) -> *mut et_error>,
    /// Code of an error; 0 for NULL. [any-thread] since 0.1
    pub error_code: Option<unsafe extern "C" fn(error: *const et_error) -> i32>,
    /// Message of an error, valid until the error is released; empty for NULL. [any-thread] since 0.1
    pub error_message: Option<unsafe extern "C" fn(error: *const et_error) -> et_str>,
    /// Gives an error back. Accepts NULL. [any-thread] since 0.1
    pub error_release: Option<unsafe extern "C" fn(error: *mut et_error)>,
    /// Number of handles (tensors, parameters, maps, errors ...) that are alive; for leak tests. [any-thread] since
    /// 0.1
    pub live_handles: Option<unsafe extern "C" fn() -> i64>,
    /// As `error_new`, with details for the one who gets the error: a JSON object, which is copied. Never NULL. What
    /// details there are is said by the slot that returns the error; whoever does not know them has the message.
    /// [any-thread] since 0.1
    pub error_new_detailed:
        Option<unsafe extern "C" fn(code: i32, message: et_str, details: et_str) -> *mut et_error>,
    /// Details of an error, valid until the error is released; empty for NULL and for an error that has none.
    /// [any-thread] since 0.1
    pub error_details: Option<unsafe extern "C" fn(error: *const et_error) -> et_str>,
}

/// `et.log/1`: messages to the host's log.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_log {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Writes one message. `level` is an `ET_LOG_` constant, `target` names the writer (a plugin id). Never fails.
    /// [any-thread] since 0.1
    pub write: Option<unsafe extern "C" fn(level: i32, target: et_str, message: et_str)>,
}
