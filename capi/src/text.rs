//! Text in both directions.

use crate::error::answer;
use crate::handle::{Object, peek, take_back};
use easytransfer_facade::plugin::Error;
use easytransfer_facade::plugin::abi::et_str;
use std::ffi::{CStr, CString, c_char};
use std::ptr::null;

/// A text that belongs to the caller.
pub struct et_text {
    text: CString,
}

impl Object for et_text {
    const NAME: &'static str = "a text";
}

impl et_text {
    pub(crate) fn new(text: &str) -> et_text {
        et_text { text: c_string(text) }
    }
}

/// Text for C. A NUL inside, which JSON and labels do not have, is written as the replacement character.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text)
        .unwrap_or_else(|_| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default())
}

/// Text of a caller; `what` names the argument.
///
/// # Safety
/// `text` is NULL or NUL-terminated and lives for `'a`.
pub(crate) unsafe fn required<'a>(text: *const c_char, what: &str) -> Result<&'a str, Error> {
    if text.is_null() {
        return Err(Error::invalid(format!("{what}: expected text, found NULL")));
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|error| {
        Error::bad_input(format!(
            "{what}: expected UTF-8, found another byte at offset {}",
            error.valid_up_to()
        ))
    })
}

/// Text of a caller; NULL means "".
///
/// # Safety
/// As for [`required`].
pub(crate) unsafe fn optional<'a>(text: *const c_char, what: &str) -> Result<&'a str, Error> {
    if text.is_null() {
        return Ok("");
    }
    // SAFETY: promised by the caller.
    unsafe { required(text, what) }
}

/// Most texts of one call. A count that was negative once is far above it.
const MOST_TEXTS: usize = 1 << 31;

/// Checks an array of texts (or whatever `what` is) and their number.
fn check_count<T>(all: *const T, len: usize, what: &str) -> Result<(), Error> {
    if len > MOST_TEXTS {
        return Err(Error::invalid(format!(
            "{what}s_len: expected at most {MOST_TEXTS} {what}s, found {len}; is it a negative number?"
        )));
    }
    if all.is_null() && len > 0 {
        return Err(Error::invalid(format!("{what}s: expected {len} {what}s, found NULL")));
    }
    Ok(())
}

/// The texts of a caller's array.
///
/// # Safety
/// `texts` points to `len` texts as for [`required`], or is NULL and `len` is 0.
pub(crate) unsafe fn many<'a>(
    texts: *const *const c_char,
    len: usize,
) -> Result<Vec<&'a str>, Error> {
    check_count(texts, len, "text")?;
    // SAFETY: promised by the caller.
    (0..len).map(|index| unsafe { required(*texts.add(index), &format!("text {index}")) }).collect()
}

/// Text of a caller with its length, which may hold NULs; `what` names the argument.
///
/// # Safety
/// `text.ptr` points to `text.len` bytes that live for `'a`, or `text.len` is 0.
pub(crate) unsafe fn sized<'a>(text: et_str, what: impl Fn() -> String) -> Result<&'a str, Error> {
    if text.len == 0 {
        return Ok("");
    }
    if text.ptr.is_null() || isize::try_from(text.len).is_err() {
        let found = if text.ptr.is_null() { "NULL" } else { "a length that no memory has" };
        return Err(Error::invalid(format!(
            "{}: expected {} bytes, found {found}",
            what(),
            text.len
        )));
    }
    // SAFETY: promised by the caller.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast(), text.len) };
    std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        Error::bad_input(format!(
            "{}: expected UTF-8, found another byte at offset {offset}",
            what()
        ))
    })
}

/// The texts of a caller's array, each with its length.
///
/// # Safety
/// `texts` points to `len` texts as for [`sized`], or is NULL and `len` is 0.
pub(crate) unsafe fn many_sized<'a>(
    texts: *const et_str,
    len: usize,
    what: &str,
) -> Result<Vec<&'a str>, Error> {
    check_count(texts, len, what)?;
    // SAFETY: promised by the caller.
    let one = |index| unsafe { sized(*texts.add(index), || format!("{what} {index}")) };
    (0..len).map(one).collect()
}

/// The characters of a text, NUL-terminated, valid until the text is released; NULL for NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_text_data(text: *const et_text) -> *const c_char {
    answer(null(), || peek(text, |text| Some(text.text.as_ptr())).unwrap_or(null()))
}

/// Length in bytes without the NUL; 0 for NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_text_len(text: *const et_text) -> usize {
    answer(0, || peek(text, |text| Some(text.text.count_bytes())).unwrap_or(0))
}

/// Gives a text back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_text_release(text: *mut et_text) {
    answer((), || take_back(text));
}
