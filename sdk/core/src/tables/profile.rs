//! `et.profile/1`: the profiler.

use easytransfer_abi::{et_buffer, et_error, et_host_profile, et_str};

use crate::data::Buffer;
use crate::handle::{guard, guard_value, out, str_from};
use crate::profile;

/// The table.
pub static TABLE: et_host_profile = et_host_profile {
    struct_size: size_of::<et_host_profile>(),
    is_on: Some(is_on),
    start: Some(start),
    stop: Some(stop),
    begin: Some(begin),
    note: Some(note),
    end: Some(end),
    trace: Some(trace),
    summary: Some(summary),
};

unsafe extern "C" fn is_on() -> i32 {
    i32::from(profile::is_on())
}

unsafe extern "C" fn start(capacity: usize) {
    guard_value((), || {
        profile::start(capacity);
        Ok(())
    });
}

unsafe extern "C" fn stop() {
    guard_value((), || {
        profile::stop();
        Ok(())
    });
}

unsafe extern "C" fn begin(category: et_str, name: et_str) -> u64 {
    if !profile::is_on() {
        return 0;
    }
    // SAFETY: the boundary's contract: readable text.
    guard_value(0, || unsafe { Ok(profile::begin_named(str_from(category)?, str_from(name)?)) })
}

unsafe extern "C" fn note(span: u64, key: et_str, value: f64) {
    if span == 0 {
        return;
    }
    guard_value((), || {
        // SAFETY: the boundary's contract: readable text.
        profile::note(span, unsafe { str_from(key) }?, value);
        Ok(())
    });
}

unsafe extern "C" fn end(span: u64) {
    guard_value((), || {
        profile::end(span);
        Ok(())
    });
}

unsafe extern "C" fn trace(result: *mut *mut et_buffer) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Buffer::new(profile::trace())) })
}

unsafe extern "C" fn summary(result: *mut *mut et_buffer) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Buffer::new(profile::summary().to_string().into_bytes())) })
}
