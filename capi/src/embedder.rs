//! Text vectors from an encoder.

use crate::error::{answer, check_out, guard};
use crate::event::{Listener, et_on_event};
use crate::handle::{Object, find, give, peek, take_back};
use crate::runtime::et_runtime;
use crate::text::{et_text, many, many_sized, optional, required};
use easytransfer_facade as facade;
use facade::plugin::Error;
use facade::plugin::abi::{ET_ERR_SHAPE, et_error, et_str};
use std::ffi::{c_char, c_void};

/// An encoder that turns texts into vectors.
pub struct et_embedder {
    embedder: facade::Embedder,
    width: usize,
}

impl Object for et_embedder {
    const NAME: &'static str = "an embedder";
}

/// Loads an encoder. `options` is JSON, or NULL for what the directory says: {"pooling": "mean" | "cls" | "max" |
/// "mean_sqrt_len_tokens" | "weightedmean" | "lasttoken" | "pooled", "normalize": true, "max_length": 128, "prompt":
/// "query: ", "prompt_name": "query", "precision": "f32" | "bf16" | "int8"}. `*out` is for `et_embedder_release`.
/// Errors: BAD_INPUT naming the file or key. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_load(
    runtime: *const et_runtime,
    directory: *const c_char,
    options: *const c_char,
    out: *mut *mut et_embedder,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_embedder_load")?;
        let runtime = find(runtime, "runtime")?;
        // SAFETY: the caller passes texts, and `out` is not NULL.
        unsafe {
            let options = facade::json::embed_options(optional(options, "options")?)?;
            let directory = required(directory, "directory")?;
            let embedder = runtime.runtime.embedder(directory.as_ref(), options)?;
            let width = embedder.width();
            give(out, et_embedder { embedder, width });
        }
        Ok(())
    })
}

/// Number of values of a vector; 0 for NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_width(embedder: *const et_embedder) -> usize {
    answer(0, || peek(embedder, |embedder| Some(embedder.width)).unwrap_or(0))
}

/// Writes the vectors of `texts_len` texts to `out`, row-major [texts_len, width]; `out_len` is the number of values
/// that `out` has room for, exactly texts_len * width; without texts `out` may be NULL. Errors: SHAPE when it is not.
/// [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_embed(
    embedder: *const et_embedder,
    texts: *const *const c_char,
    texts_len: usize,
    out: *mut f32,
    out_len: usize,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller passes an array of texts, and room for `out_len` values.
        unsafe { embed(embedder, texts_len, out, out_len, || many(texts, texts_len)) }
    })
}

/// As `et_embedder_embed`, for texts with their lengths, which may hold NULs. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_embed_texts(
    embedder: *const et_embedder,
    texts: *const et_str,
    texts_len: usize,
    out: *mut f32,
    out_len: usize,
) -> *mut et_error {
    guard(|| {
        // SAFETY: as for `et_embedder_embed`.
        unsafe { embed(embedder, texts_len, out, out_len, || many_sized(texts, texts_len, "text")) }
    })
}

/// Writes the vectors of `len` texts.
///
/// # Safety
/// `out` is NULL, or valid for writes of `out_len` values.
unsafe fn embed<'a>(
    embedder: *const et_embedder,
    len: usize,
    out: *mut f32,
    out_len: usize,
    texts: impl FnOnce() -> Result<Vec<&'a str>, Error>,
) -> Result<(), Error> {
    let embedder = find(embedder, "embedder")?;
    let width = embedder.width;
    let wrong = |text: String| Err(Error::new(ET_ERR_SHAPE, format!("et_embedder_embed: {text}")));
    // Before the texts are looked at: an absurd number of them does not fit any room.
    if len.checked_mul(width) != Some(out_len) {
        return wrong(format!("expected room for {len} x {width} values, found {out_len}"));
    }
    if out_len > 0 {
        check_out(out, "et_embedder_embed")?;
    }
    let vectors = embedder.embedder.embed(&texts()?)?;
    if vectors.len() != out_len {
        return wrong(format!("expected {out_len} values, found {}", vectors.len()));
    }
    if out_len > 0 {
        // SAFETY: the caller gives room for `out_len` values, which do not overlap with ours.
        unsafe { std::ptr::copy_nonoverlapping(vectors.as_ptr(), out, out_len) };
    }
    Ok(())
}

/// Vectors of data, written to a file: a NumPy array of float32 [texts, width] if its name ends in .npy, otherwise JSON
/// Lines. `options` is JSON: {"data": "file" | [records], "output": "file", "columns": {"text": "sentence"}, "format":
/// "auto" | "tsv" | "csv" | "jsonl" | "text", "schema": "..", "on_bad_row": "stop" | "skip"}, of which data and output
/// are required. `on_event` is told of the rows that are done (ET_EVENT_ROWS) and may end it; it may be NULL; `user` is
/// handed to it. `*out` is a JSON object with "rows", for `et_text_release`. Errors: BAD_INPUT naming file and line,
/// record or key; CANCELLED; nothing of the output remains. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_embed_file(
    embedder: *mut et_embedder,
    options: *const c_char,
    on_event: et_on_event,
    user: *mut c_void,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_embedder_embed_file")?;
        let embedder = find(embedder, "embedder")?;
        // SAFETY: the caller passes text.
        let options = unsafe { required(options, "options")? };
        let listener = Listener::new(on_event, user);
        let mut tell = |event: &facade::Event| listener.tell(event);
        let mut watch = facade::Watch::new(&mut tell);
        let rows = facade::json::embed_file(&embedder.embedder, options, &mut watch)?;
        // SAFETY: `out` is not NULL.
        unsafe { give(out, et_text::new(&rows)) };
        Ok(())
    })
}

/// Gives an embedder back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_release(embedder: *mut et_embedder) {
    answer((), || take_back(embedder));
}
