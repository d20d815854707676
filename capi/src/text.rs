//! Text in both directions.

use crate::error::answer;
use crate::handle::{Object, peek, take_back};
use easytransfer_facade::plugin::Error;
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

/// The texts of a caller's array.
///
/// # Safety
/// `texts` points to `len` texts as for [`required`], or is NULL and `len` is 0.
pub(crate) unsafe fn many<'a>(
    texts: *const *const c_char,
    len: usize,
) -> Result<Vec<&'a str>, Error> {
    if len > MOST_TEXTS {
        return Err(Error::invalid(format!(
            "texts_len: expected at most {MOST_TEXTS} texts, found {len}; is it a negative number?"
        )));
    }
    if texts.is_null() && len > 0 {
        return Err(Error::invalid(format!("texts: expected {len} texts, found NULL")));
    }
    // SAFETY: promised by the caller.
    (0..len).map(|index| unsafe { required(*texts.add(index), &format!("text {index}")) }).collect()
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
