//! `et.tokenizer/1`: tokenizers and encodings.

use std::path::Path;
use std::ptr;

use easytransfer_abi::{
    et_buffer, et_encode_options, et_encoding, et_error, et_host_tokenizer, et_str, et_tokenizer,
};

use crate::data::Buffer;
use crate::error::{Result, fail};
use crate::handle::{borrow, guard, guard_value, out, release, retain, slice_from, str_from};
use crate::tokenizer::{EncodeOptions, Encoding, Tokenizer};

/// The table.
pub static TABLE: et_host_tokenizer = et_host_tokenizer {
    struct_size: size_of::<et_host_tokenizer>(),
    load: Some(load),
    retain: Some(retain_tokenizer),
    release: Some(release_tokenizer),
    vocab_len: Some(vocab_len),
    token_id: Some(token_id),
    token_text: Some(token_text),
    encode: Some(encode),
    decode: Some(decode),
    save: Some(save),
    encoding_len: Some(encoding_len),
    encoding_ids: Some(encoding_ids),
    encoding_segments: Some(encoding_segments),
    encoding_special: Some(encoding_special),
    encoding_offsets: Some(encoding_offsets),
    encoding_truncated: Some(encoding_truncated),
    encoding_release: Some(encoding_release),
    encoding_words: Some(encoding_words),
    assemble: Some(assemble),
    added_len: Some(added_len),
    from_json: Some(from_json),
};

unsafe extern "C" fn load(path: et_str, result: *mut *mut et_tokenizer) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: readable text and a writable out pointer.
        unsafe { out(result, Tokenizer::load(Path::new(str_from(path)?))?) }
    })
}

unsafe extern "C" fn from_json(json: et_str, result: *mut *mut et_tokenizer) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: readable text and a writable out pointer.
        unsafe { out(result, Tokenizer::from_json(str_from(json)?)?) }
    })
}

unsafe extern "C" fn retain_tokenizer(tokenizer: *const et_tokenizer) -> *mut et_tokenizer {
    // SAFETY: the boundary's contract: a live tokenizer or NULL.
    unsafe { retain::<Tokenizer>(tokenizer) }
}

unsafe extern "C" fn release_tokenizer(tokenizer: *mut et_tokenizer) {
    // SAFETY: the boundary's contract: an owned tokenizer or NULL.
    unsafe { release::<Tokenizer>(tokenizer) }
}

unsafe extern "C" fn vocab_len(tokenizer: *const et_tokenizer) -> usize {
    // SAFETY: the boundary's contract: a live tokenizer.
    guard_value(0, || Ok(unsafe { borrow::<Tokenizer>(tokenizer) }?.vocab_len()))
}

unsafe extern "C" fn token_id(tokenizer: *const et_tokenizer, token: et_str) -> i64 {
    guard_value(-1, || {
        // SAFETY: the boundary's contract: a live tokenizer and readable text.
        let id = unsafe { borrow::<Tokenizer>(tokenizer)?.token_id(str_from(token)?) };
        Ok(id.map_or(-1, i64::from))
    })
}

unsafe extern "C" fn token_text(
    tokenizer: *const et_tokenizer,
    id: i64,
    result: *mut *mut et_buffer,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live tokenizer and a writable out pointer.
        unsafe {
            let text = borrow::<Tokenizer>(tokenizer)?.token_text(id)?;
            out(result, Buffer::new(text.into_bytes()))
        }
    })
}

/// The options that a caller filled; NULL means the defaults, and so do fields beyond `struct_size`.
///
/// # Safety
/// NULL, or a struct of which `struct_size` bytes are filled.
unsafe fn options_from(options: *const et_encode_options) -> Result<EncodeOptions> {
    let mut read = EncodeOptions::default();
    if options.is_null() {
        return Ok(read);
    }
    // SAFETY: not NULL, and every caller-filled struct begins with its size.
    let size = unsafe { options.cast::<usize>().read() };
    let reaches = |end: usize| size >= end;
    use std::mem::offset_of;
    if reaches(offset_of!(et_encode_options, max_len) + size_of::<usize>()) {
        // SAFETY: the field lies inside what the caller filled.
        read.max_len = unsafe { (*options).max_len };
    }
    if reaches(offset_of!(et_encode_options, add_special_tokens) + size_of::<i32>()) {
        // SAFETY: the field lies inside what the caller filled.
        read.add_special_tokens = unsafe { (*options).add_special_tokens } != 0;
    }
    if reaches(offset_of!(et_encode_options, reserved) + size_of::<i32>()) {
        // SAFETY: the field lies inside what the caller filled.
        let reserved = unsafe { (*options).reserved };
        if reserved != 0 {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "encode: the field reserved must be 0, found {reserved}"
            );
        }
    }
    Ok(read)
}

unsafe extern "C" fn encode(
    tokenizer: *const et_tokenizer,
    text: et_str,
    pair: *const et_str,
    options: *const et_encode_options,
    result: *mut *mut et_encoding,
) -> *mut et_error {
    let _span = crate::profile::work("encode");
    guard(|| {
        // SAFETY: the boundary's contract: a live tokenizer, readable texts, options or NULL, and a writable out
        // pointer.
        unsafe {
            let pair = if pair.is_null() { None } else { Some(str_from(pair.read())?) };
            let options = options_from(options)?;
            let tokenizer = borrow::<Tokenizer>(tokenizer)?;
            out(result, tokenizer.encode(str_from(text)?, pair, options)?)
        }
    })
}

unsafe extern "C" fn decode(
    tokenizer: *const et_tokenizer,
    ids: *const i64,
    len: usize,
    skip_special_tokens: i32,
    result: *mut *mut et_buffer,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live tokenizer, `len` ids and a writable out pointer.
        unsafe {
            let tokenizer = borrow::<Tokenizer>(tokenizer)?;
            let text = tokenizer.decode(slice_from(ids, len)?, skip_special_tokens != 0)?;
            out(result, Buffer::new(text.into_bytes()))
        }
    })
}

unsafe extern "C" fn save(tokenizer: *const et_tokenizer, directory: et_str) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live tokenizer and readable text.
        unsafe { borrow::<Tokenizer>(tokenizer)?.save(Path::new(str_from(directory)?)) }
    })
}

unsafe extern "C" fn encoding_len(encoding: *const et_encoding) -> usize {
    // SAFETY: the boundary's contract: a live encoding.
    guard_value(0, || Ok(unsafe { borrow::<Encoding>(encoding) }?.ids.len()))
}

unsafe extern "C" fn encoding_ids(encoding: *const et_encoding) -> *const i64 {
    // SAFETY: the boundary's contract: a live encoding.
    guard_value(ptr::null(), || Ok(unsafe { borrow::<Encoding>(encoding) }?.ids.as_ptr()))
}

unsafe extern "C" fn encoding_segments(encoding: *const et_encoding) -> *const i64 {
    // SAFETY: the boundary's contract: a live encoding.
    guard_value(ptr::null(), || Ok(unsafe { borrow::<Encoding>(encoding) }?.segments.as_ptr()))
}

unsafe extern "C" fn encoding_special(encoding: *const et_encoding) -> *const i64 {
    // SAFETY: the boundary's contract: a live encoding.
    guard_value(ptr::null(), || Ok(unsafe { borrow::<Encoding>(encoding) }?.special.as_ptr()))
}

unsafe extern "C" fn encoding_offsets(encoding: *const et_encoding) -> *const i64 {
    // SAFETY: the boundary's contract: a live encoding.
    guard_value(ptr::null(), || Ok(unsafe { borrow::<Encoding>(encoding) }?.offsets.as_ptr()))
}

unsafe extern "C" fn encoding_truncated(encoding: *const et_encoding) -> i32 {
    // SAFETY: the boundary's contract: a live encoding.
    guard_value(0, || Ok(unsafe { borrow::<Encoding>(encoding) }?.truncated.into()))
}

unsafe extern "C" fn encoding_release(encoding: *mut et_encoding) {
    // SAFETY: the boundary's contract: an owned encoding or NULL.
    unsafe { release::<Encoding>(encoding) }
}

unsafe extern "C" fn encoding_words(encoding: *const et_encoding) -> *const i64 {
    // SAFETY: the boundary's contract: a live encoding.
    guard_value(ptr::null(), || Ok(unsafe { borrow::<Encoding>(encoding) }?.words.as_ptr()))
}

unsafe extern "C" fn assemble(
    tokenizer: *const et_tokenizer,
    first: *const i64,
    first_len: usize,
    second: *const i64,
    second_len: usize,
    result: *mut *mut et_encoding,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live tokenizer, lists of those lengths or NULL, and a writable out
        // pointer.
        unsafe {
            let second =
                if second.is_null() { None } else { Some(slice_from(second, second_len)?) };
            let tokenizer = borrow::<Tokenizer>(tokenizer)?;
            out(result, tokenizer.assemble(slice_from(first, first_len)?, second)?)
        }
    })
}

unsafe extern "C" fn added_len(tokenizer: *const et_tokenizer, pair: i32) -> usize {
    // SAFETY: the boundary's contract: a live tokenizer.
    guard_value(0, || Ok(unsafe { borrow::<Tokenizer>(tokenizer) }?.added_len(pair != 0)))
}
