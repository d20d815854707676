//! `et.stream/1`: byte streams.

use std::ffi::c_void;
use std::slice;

use easytransfer_abi::{et_buffer, et_error, et_host_stream, et_stream};

use crate::data::Buffer;
use crate::error::fail;
use crate::handle::{borrow, guard, guard_value, out, release, slice_from};
use crate::stream::Stream;

/// The table.
pub static TABLE: et_host_stream = et_host_stream {
    struct_size: size_of::<et_host_stream>(),
    write: Some(write),
    read: Some(read),
    remaining: Some(remaining),
    memory_new: Some(memory_new),
    bytes: Some(bytes),
    release: Some(release_stream),
};

unsafe extern "C" fn write(
    stream: *mut et_stream,
    data: *const c_void,
    size: usize,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live stream and `size` readable bytes.
        unsafe { borrow::<Stream>(stream)?.write(slice_from(data.cast::<u8>(), size)?) }
    })
}

unsafe extern "C" fn read(stream: *mut et_stream, data: *mut c_void, size: usize) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live stream.
        let stream = unsafe { borrow::<Stream>(stream) }?;
        if size == 0 {
            return Ok(());
        }
        if data.is_null() || size > isize::MAX as usize {
            fail!(ET_ERR_INVALID_ARGUMENT, "expected memory for {size} bytes, found NULL");
        }
        // SAFETY: the boundary's contract: `size` writable bytes; not NULL and of a possible size, as checked.
        stream.read(unsafe { slice::from_raw_parts_mut(data.cast::<u8>(), size) })
    })
}

unsafe extern "C" fn remaining(stream: *const et_stream) -> usize {
    // SAFETY: the boundary's contract: a live stream.
    guard_value(0, || Ok(unsafe { borrow::<Stream>(stream) }?.remaining()))
}

unsafe extern "C" fn memory_new(
    data: *const c_void,
    size: usize,
    result: *mut *mut et_stream,
) -> *mut et_error {
    guard(|| {
        if data.is_null() && size != 0 {
            fail!(ET_ERR_INVALID_ARGUMENT, "expected {size} bytes to read, found NULL");
        }
        let stream = if data.is_null() {
            Stream::writer()
        } else {
            // SAFETY: the boundary's contract: `size` readable bytes.
            Stream::reader(unsafe { slice_from(data.cast::<u8>(), size) }?.to_vec())
        };
        // SAFETY: the boundary's contract: a writable out pointer.
        unsafe { out(result, stream) }
    })
}

unsafe extern "C" fn bytes(stream: *const et_stream, result: *mut *mut et_buffer) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live stream and a writable out pointer.
        unsafe { out(result, Buffer::shared(borrow::<Stream>(stream)?.bytes())) }
    })
}

unsafe extern "C" fn release_stream(stream: *mut et_stream) {
    // SAFETY: the boundary's contract: an owned stream or NULL.
    unsafe { release::<Stream>(stream) }
}
