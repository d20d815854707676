//! Errors: made by the engine, so that the same ones come from plugins and from here.

use crate::handle::check_engine;
use easytransfer_facade as facade;
use easytransfer_text::panic_text;
use facade::plugin::Error;
use facade::plugin::abi::{
    ET_ERR_BAD_HANDLE, ET_ERR_PANIC, ET_ERR_UNKNOWN, et_error, et_host, et_str,
};
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

/// Refuses an out pointer that nothing can be written to, before any work is done.
pub(crate) fn check_out<T>(out: *mut T, what: &str) -> Result<(), Error> {
    if out.is_null() {
        return Err(Error::invalid(format!("{what}: expected a place for the result, found NULL")));
    }
    Ok(())
}

/// Code of an error, one of the ET_ERR_ constants; 0 for NULL. Also for errors of the tables. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_error_code(error: *const et_error) -> i32 {
    if check_engine(error, "").is_err() {
        return ET_ERR_BAD_HANDLE;
    }
    // SAFETY: the caller passes NULL or a live error.
    host().error_code.map_or(ET_ERR_UNKNOWN, |code| unsafe { code(error) })
}

/// Message of an error, valid until the error is released; empty for NULL. Not NUL-terminated. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_error_message(error: *const et_error) -> et_str {
    let empty = et_str { ptr: c"".as_ptr(), len: 0 };
    if check_engine(error, "").is_err() {
        return empty;
    }
    // SAFETY: the caller passes NULL or a live error.
    host().error_message.map_or(empty, |message| unsafe { message(error) })
}

/// Gives an error back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_error_release(error: *mut et_error) {
    if let Some(release) = host().error_release
        && check_engine(error, "").is_ok()
    {
        // SAFETY: the caller passes NULL or a live error that it owns.
        unsafe { release(error) };
    }
}
