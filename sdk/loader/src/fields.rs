//! Reading tables that a plugin wrote: a field counts only if it lies inside the writer's `struct_size`.

use std::ffi::c_char;

/// Longest name, id or version that is believed, in bytes.
pub(crate) const NAME_LIMIT: usize = 256;
/// Longest schema that is believed, in bytes.
pub(crate) const SCHEMA_LIMIT: usize = 1 << 20;

/// A table with a `struct_size` as its first field.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    base: *const u8,
    size: usize,
}

impl Fields {
    /// Looks at a table.
    ///
    /// # Safety
    /// `base` points to a table whose first field is a `usize` that tells how many bytes are readable, for all time.
    pub unsafe fn new(base: *const u8) -> Fields {
        // SAFETY: the caller vouches for the first field. Unaligned, because nothing about the address is known.
        let size = unsafe { base.cast::<usize>().read_unaligned() };
        // SAFETY: the caller vouches for as many bytes as the field says.
        unsafe { Fields::with_size(base, size) }
    }

    /// Looks at a table whose size is not in its first field.
    ///
    /// # Safety
    /// `size` bytes from `base` are readable for all time.
    pub unsafe fn with_size(base: *const u8, size: usize) -> Fields {
        Fields { base, size }
    }

    /// Bytes that the writer filled.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The pointer-sized field at `offset`, or None if the writer did not fill it.
    pub fn word(&self, offset: usize) -> Option<usize> {
        self.covers(offset, size_of::<usize>()).then(|| {
            // SAFETY: inside `struct_size`, which the writer vouches for.
            unsafe { self.base.add(offset).cast::<usize>().read_unaligned() }
        })
    }

    /// The 32-bit field at `offset`, or None if the writer did not fill it.
    pub fn number(&self, offset: usize) -> Option<u32> {
        self.covers(offset, size_of::<u32>()).then(|| {
            // SAFETY: inside `struct_size`, which the writer vouches for.
            unsafe { self.base.add(offset).cast::<u32>().read_unaligned() }
        })
    }

    fn covers(&self, offset: usize, len: usize) -> bool {
        offset + len <= self.size
    }
}

/// A NUL-terminated UTF-8 text of at most `limit` bytes, or what is wrong with it.
///
/// # Safety
/// `text` is NULL or points to a NUL-terminated text, or to at least `limit` + 1 readable bytes.
pub(crate) unsafe fn text(text: *const c_char, limit: usize) -> Result<String, String> {
    if text.is_null() {
        return Err("NULL".to_owned());
    }
    let mut bytes = Vec::new();
    loop {
        // SAFETY: no NUL was met before this byte and the limit is not passed.
        let byte = unsafe { text.cast::<u8>().add(bytes.len()).read() };
        if byte == 0 {
            break;
        }
        if bytes.len() == limit {
            return Err(format!("a text of more than {limit} bytes without an end"));
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("bytes that are not UTF-8: {:?}", error.to_string()))
}

/// A text as [`text`] reads it that is neither empty nor holds spaces or control characters.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn name(pointer: *const c_char) -> Result<String, String> {
    // SAFETY: the caller's promise.
    let name = unsafe { text(pointer, NAME_LIMIT) }?;
    if name.is_empty() {
        return Err("an empty text".to_owned());
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("{name:?}"));
    }
    Ok(name)
}
