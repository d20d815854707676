//! The smallest host: it makes errors, and has the interface `et.log/1`.

use easytransfer_abi::{ET_ABI_MAJOR, ET_ABI_MINOR, et_error, et_host, et_host_log, et_str};
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicI64, Ordering};

/// What this host's `et_error` really is.
struct FakeError {
    code: i32,
    message: String,
}

static LIVE: AtomicI64 = AtomicI64::new(0);

static HOST: et_host = et_host {
    struct_size: size_of::<et_host>(),
    abi_major: ET_ABI_MAJOR,
    abi_minor: ET_ABI_MINOR,
    get_interface: Some(get_interface),
    get_experimental: Some(get_experimental),
    error_new: Some(error_new),
    error_code: Some(error_code),
    error_message: Some(error_message),
    error_release: Some(error_release),
    live_handles: Some(live_errors_slot),
    error_new_detailed: None,
    error_details: None,
};

static LOG: et_host_log =
    et_host_log { struct_size: size_of::<et_host_log>(), write: Some(log_write) };

/// The host's table.
pub fn host() -> *const et_host {
    &HOST
}

/// Errors that were made and not given back, over the whole process.
pub fn live_errors() -> i64 {
    LIVE.load(Ordering::SeqCst)
}

/// Code and message of an error, which is given back; None for NULL.
///
/// # Safety
/// `error` is NULL or one owned error of this host.
pub unsafe fn error_text(error: *mut et_error) -> Option<(i32, String)> {
    if error.is_null() {
        return None;
    }
    // SAFETY: only `error_new` makes errors of this host.
    let error = unsafe { Box::from_raw(error.cast::<FakeError>()) };
    LIVE.fetch_sub(1, Ordering::SeqCst);
    Some((error.code, error.message))
}

unsafe extern "C" fn get_interface(_host: *const et_host, id: *const c_char) -> *const c_void {
    // SAFETY: the contract says a NUL-terminated id.
    let id = unsafe { CStr::from_ptr(id) };
    if id == c"et.log/1" { (&raw const LOG).cast() } else { std::ptr::null() }
}

unsafe extern "C" fn get_experimental(_host: *const et_host, _: *const c_char) -> *const c_void {
    std::ptr::null()
}

unsafe extern "C" fn error_new(code: i32, message: et_str) -> *mut et_error {
    let message = if message.len == 0 {
        String::new()
    } else {
        // SAFETY: the contract says `len` readable bytes.
        let bytes = unsafe { std::slice::from_raw_parts(message.ptr.cast::<u8>(), message.len) };
        String::from_utf8_lossy(bytes).into_owned()
    };
    LIVE.fetch_add(1, Ordering::SeqCst);
    Box::into_raw(Box::new(FakeError { code, message })).cast()
}

unsafe extern "C" fn error_code(error: *const et_error) -> i32 {
    // SAFETY: NULL or an error of this host.
    unsafe { error.cast::<FakeError>().as_ref() }.map_or(0, |error| error.code)
}

unsafe extern "C" fn error_message(error: *const et_error) -> et_str {
    // SAFETY: NULL or an error of this host.
    match unsafe { error.cast::<FakeError>().as_ref() } {
        None => et_str { ptr: std::ptr::null(), len: 0 },
        Some(error) => et_str { ptr: error.message.as_ptr().cast(), len: error.message.len() },
    }
}

unsafe extern "C" fn error_release(error: *mut et_error) {
    // SAFETY: NULL or one owned error of this host.
    drop(unsafe { error_text(error) });
}

unsafe extern "C" fn live_errors_slot() -> i64 {
    live_errors()
}

unsafe extern "C" fn log_write(_level: i32, _target: et_str, _message: et_str) {}
