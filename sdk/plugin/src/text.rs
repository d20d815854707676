//! Text across the boundary.

use crate::{Error, Result};
use easytransfer_abi::et_str;

/// The text as the boundary wants it, borrowed.
pub(crate) fn borrow(text: &str) -> et_str {
    et_str { ptr: text.as_ptr().cast(), len: text.len() }
}

/// The text that the other side lent.
///
/// # Safety
/// `text` points to `len` readable bytes, or `len` is 0.
pub(crate) unsafe fn view<'a>(text: et_str) -> Result<&'a str> {
    if text.len == 0 {
        return Ok("");
    }
    // SAFETY: promised by the caller.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) };
    std::str::from_utf8(bytes)
        .map_err(|error| Error::bad_input(format!("text is not UTF-8: {error}")))
}

/// A copy of the text that the other side lent, with bad bytes replaced.
///
/// # Safety
/// `text` points to `len` readable bytes, or `len` is 0.
pub(crate) unsafe fn to_string_lossy(text: et_str) -> String {
    if text.len == 0 {
        return String::new();
    }
    // SAFETY: promised by the caller.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) };
    String::from_utf8_lossy(bytes).into_owned()
}
