//! Errors: made by the engine, so that the same ones come from plugins and from here.

use easytransfer_facade as facade;
use easytransfer_text::panic_text;
use facade::plugin::Error;
use facade::plugin::abi::{ET_ERR_PANIC, ET_ERR_UNKNOWN, et_error, et_host, et_str};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

/// The engine's table; there before any runtime is.
pub(crate) fn host() -> &'static et_host {
    // SAFETY: the engine's table lives until the process ends.
    unsafe { &*facade::host() }
}

fn make(code: i32, message: &str) -> *mut et_error {
    let message = et_str { ptr: message.as_ptr().cast(), len: message.len() };
    // SAFETY: the message is borrowed for the call and copied by the engine.
    host().error_new.map_or(null_mut(), |new| unsafe { new(code, message) })
}

/// Runs the body of a function: errors and panics become errors of the boundary.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Error>) -> *mut et_error {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => null_mut(),
        Ok(Err(error)) => make(error.code(), error.message()),
        Err(payload) => make(ET_ERR_PANIC, &format!("panic: {}", panic_text(&*payload))),
    }
}

/// Runs the body of a function that cannot fail; after a panic the answer is the default.
pub(crate) fn answer<T>(default: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(default)
}

/// The object behind a handle.
///
/// # Safety
/// `handle` is NULL or live, and nothing else uses it mutably for `'a`.
pub(crate) unsafe fn shared<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Error> {
    // SAFETY: promised by the caller.
    unsafe { handle.as_ref() }.ok_or_else(|| null_handle(what))
}

/// The object behind a handle, to be changed.
///
/// # Safety
/// `handle` is NULL or live, and nothing else uses it for `'a`.
pub(crate) unsafe fn exclusive<'a, T>(handle: *mut T, what: &str) -> Result<&'a mut T, Error> {
    // SAFETY: promised by the caller.
    unsafe { handle.as_mut() }.ok_or_else(|| null_handle(what))
}

fn null_handle(what: &str) -> Error {
    Error::invalid(format!("{what}: expected a live handle, found NULL"))
}

/// Refuses an out pointer that nothing can be written to, before any work is done.
pub(crate) fn check_out<T>(out: *mut T, what: &str) -> Result<(), Error> {
    if out.is_null() {
        return Err(Error::invalid(format!("{what}: expected a place for the result, found NULL")));
    }
    Ok(())
}

/// Hands an object over; the caller owns it now.
///
/// # Safety
/// `out` is valid for a write.
pub(crate) unsafe fn give<T>(out: *mut *mut T, value: T) {
    // SAFETY: promised by the caller.
    unsafe { *out = Box::into_raw(Box::new(value)) };
}

/// Takes an object back.
///
/// # Safety
/// `handle` is NULL or came from [`give`], and is not used again.
pub(crate) unsafe fn take_back<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: promised by the caller.
        answer((), || drop(unsafe { Box::from_raw(handle) }));
    }
}

/// Code of an error, one of the ET_ERR_ constants; 0 for NULL. Also for errors of the tables. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_error_code(error: *const et_error) -> i32 {
    // SAFETY: the caller passes NULL or a live error.
    host().error_code.map_or(ET_ERR_UNKNOWN, |code| unsafe { code(error) })
}

/// Message of an error, valid until the error is released; empty for NULL. Not NUL-terminated. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_error_message(error: *const et_error) -> et_str {
    let empty = et_str { ptr: c"".as_ptr(), len: 0 };
    // SAFETY: the caller passes NULL or a live error.
    host().error_message.map_or(empty, |message| unsafe { message(error) })
}

/// Gives an error back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_error_release(error: *mut et_error) {
    if let Some(release) = host().error_release {
        // SAFETY: the caller passes NULL or a live error that it owns.
        unsafe { release(error) };
    }
}
