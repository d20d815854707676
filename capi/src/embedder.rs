//! Text vectors from an encoder.

use crate::error::{answer, check_out, exclusive, give, guard, shared, take_back};
use crate::runtime::et_runtime;
use crate::text::{many, optional, required};
use easytransfer_facade as facade;
use facade::plugin::Error;
use facade::plugin::abi::{ET_ERR_SHAPE, et_error};
use std::ffi::c_char;

/// An encoder that turns texts into vectors.
pub struct et_embedder {
    embedder: facade::Embedder,
}

/// Loads an encoder. `options` is JSON, or NULL for what the directory says: {"pooling": "mean" | "cls" | "max" |
/// "mean_sqrt_len_tokens" | "weightedmean" | "lasttoken" | "pooled", "normalize": true, "max_length": 128, "prompt": "query: ",
/// "prompt_name": "query", "precision": "f32" | "bf16" | "int8"}. `*out` is for `et_embedder_release`. Errors: BAD_INPUT naming the file or key. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_load(
    runtime: *const et_runtime,
    directory: *const c_char,
    options: *const c_char,
    out: *mut *mut et_embedder,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_embedder_load")?;
        // SAFETY: the caller passes a live runtime and texts, and `out` is not NULL.
        unsafe {
            let runtime = shared(runtime, "runtime")?;
            let options = facade::json::embed_options(optional(options, "options")?)?;
            let directory = required(directory, "directory")?;
            let embedder = runtime.runtime.embedder(directory.as_ref(), options)?;
            give(out, et_embedder { embedder });
        }
        Ok(())
    })
}

/// Number of values of a vector; 0 for NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_width(embedder: *const et_embedder) -> usize {
    // SAFETY: the caller passes NULL or a live embedder.
    answer(0, || unsafe { embedder.as_ref() }.map_or(0, |embedder| embedder.embedder.width()))
}

/// Writes the vectors of `texts_len` texts to `out`, row-major [texts_len, width]; `out_len` is the number of values that `out` has
/// room for, exactly texts_len * width. Errors: SHAPE when it is not. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_embed(
    embedder: *mut et_embedder,
    texts: *const *const c_char,
    texts_len: usize,
    out: *mut f32,
    out_len: usize,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_embedder_embed")?;
        // SAFETY: the caller passes a live embedder that no other call uses and an array of texts.
        let (embedder, texts) =
            unsafe { (exclusive(embedder, "embedder")?, many(texts, texts_len)?) };
        let width = embedder.embedder.width();
        if texts_len.checked_mul(width) != Some(out_len) {
            return Err(Error::new(
                ET_ERR_SHAPE,
                format!(
                    "et_embedder_embed: expected room for {texts_len} x {width} values, found {out_len}"
                ),
            ));
        }
        let vectors = embedder.embedder.embed(&texts)?;
        if vectors.len() != out_len {
            return Err(Error::new(
                ET_ERR_SHAPE,
                format!("et_embedder_embed: expected {out_len} values, found {}", vectors.len()),
            ));
        }
        // SAFETY: the caller gives room for `out_len` values, which do not overlap with ours.
        unsafe { std::ptr::copy_nonoverlapping(vectors.as_ptr(), out, out_len) };
        Ok(())
    })
}

/// Gives an embedder back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_embedder_release(embedder: *mut et_embedder) {
    // SAFETY: the caller passes NULL or an embedder that it owns.
    unsafe { take_back(embedder) };
}
