//! `et.config/1`: reading JSON by dotted keys.

use easytransfer_abi::{et_config, et_error, et_host_config, et_str};

use crate::config::Config;
use crate::error::Result;
use crate::handle::{borrow, guard, guard_value, out, put, release, str_from, str_to};

/// The table.
pub static TABLE: et_host_config = et_host_config {
    struct_size: size_of::<et_host_config>(),
    parse: Some(parse),
    release: Some(release_config),
    has: Some(has),
    f64_at: Some(f64_at),
    i64_at: Some(i64_at),
    bool_at: Some(bool_at),
    str_at: Some(str_at),
    len_at: Some(len_at),
};

unsafe extern "C" fn parse(json: et_str, result: *mut *mut et_config) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: readable text and a writable out pointer.
        unsafe { out(result, Config::parse(str_from(json)?)?) }
    })
}

unsafe extern "C" fn release_config(config: *mut et_config) {
    // SAFETY: the boundary's contract: an owned document or NULL.
    unsafe { release::<Config>(config) }
}

unsafe extern "C" fn has(config: *const et_config, key: et_str) -> i32 {
    // SAFETY: the boundary's contract: a live document and readable text.
    guard_value(0, || Ok(unsafe { borrow::<Config>(config)?.has(str_from(key)?) }.into()))
}

/// Writes what `get` finds at `key`.
///
/// # Safety
/// A live document, readable text and a writable out pointer.
unsafe fn at<'a, V>(
    config: *const et_config,
    key: et_str,
    result: *mut V,
    get: impl FnOnce(&'a Config, &str) -> Result<V>,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller's contract is the same.
        unsafe { put(result, get(borrow::<Config>(config)?, str_from(key)?)?) }
    })
}

unsafe extern "C" fn f64_at(
    config: *const et_config,
    key: et_str,
    result: *mut f64,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `at`.
    unsafe { at(config, key, result, Config::f64_at) }
}

unsafe extern "C" fn i64_at(
    config: *const et_config,
    key: et_str,
    result: *mut i64,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `at`.
    unsafe { at(config, key, result, Config::i64_at) }
}

unsafe extern "C" fn bool_at(
    config: *const et_config,
    key: et_str,
    result: *mut i32,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `at`.
    unsafe { at(config, key, result, |config, key| config.bool_at(key).map(i32::from)) }
}

unsafe extern "C" fn str_at(
    config: *const et_config,
    key: et_str,
    result: *mut et_str,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `at`.
    unsafe { at(config, key, result, |config, key| config.str_at(key).map(str_to)) }
}

unsafe extern "C" fn len_at(
    config: *const et_config,
    key: et_str,
    result: *mut usize,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `at`.
    unsafe { at(config, key, result, Config::len_at) }
}
