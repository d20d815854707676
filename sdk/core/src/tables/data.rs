//! `et.data/1`: buffers, maps, rows and their collation.

use std::ffi::c_void;
use std::path::Path;
use std::ptr;

use easytransfer_abi::{
    et_buffer, et_error, et_host_data, et_map, et_row, et_rows, et_str, et_tensor,
};

use crate::data::{Buffer, Map};
use crate::handle::{
    borrow, guard, guard_value, out, put as put_out, release, slice_from, str_from, str_to,
};
use crate::rows::{self, Field, Row, Rows};
use crate::tensor::Tensor;

/// The table.
pub static TABLE: et_host_data = et_host_data {
    struct_size: size_of::<et_host_data>(),
    buffer_new: Some(buffer_new),
    buffer_map_file: Some(buffer_map_file),
    buffer_data: Some(buffer_data),
    buffer_size: Some(buffer_size),
    buffer_release: Some(buffer_release),
    map_new: Some(map_new),
    map_release: Some(map_release),
    map_len: Some(map_len),
    map_name: Some(map_name),
    map_get: Some(map_get),
    map_has: Some(map_has),
    map_put: Some(map_put),
    map_remove: Some(map_remove),
    row_new: Some(row_new),
    row_release: Some(row_release),
    row_put_tokens: Some(row_put_tokens),
    row_put_i64: Some(row_put_i64),
    row_put_f32: Some(row_put_f32),
    row_tokens_len: Some(row_tokens_len),
    row_merge: Some(row_merge),
    batch_from_rows: Some(batch_from_rows),
    rows_new: Some(rows_new),
    rows_release: Some(rows_release),
    rows_add: Some(rows_add),
    rows_len: Some(rows_len),
    rows_get: Some(rows_get),
};

unsafe extern "C" fn buffer_new(
    data: *const c_void,
    size: usize,
    result: *mut *mut et_buffer,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: `size` readable bytes and a writable out pointer.
        unsafe { out(result, Buffer::new(slice_from(data.cast::<u8>(), size)?.to_vec())) }
    })
}

unsafe extern "C" fn buffer_map_file(path: et_str, result: *mut *mut et_buffer) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: readable text and a writable out pointer.
        unsafe { out(result, Buffer::read_file(Path::new(str_from(path)?))?) }
    })
}

unsafe extern "C" fn buffer_data(buffer: *const et_buffer) -> *const c_void {
    guard_value(ptr::null(), || {
        // SAFETY: the boundary's contract: a live buffer.
        let bytes = unsafe { borrow::<Buffer>(buffer) }?.bytes();
        Ok(if bytes.is_empty() { ptr::null() } else { bytes.as_ptr().cast() })
    })
}

unsafe extern "C" fn buffer_size(buffer: *const et_buffer) -> usize {
    // SAFETY: the boundary's contract: a live buffer.
    guard_value(0, || Ok(unsafe { borrow::<Buffer>(buffer) }?.bytes().len()))
}

unsafe extern "C" fn buffer_release(buffer: *mut et_buffer) {
    // SAFETY: the boundary's contract: an owned buffer or NULL.
    unsafe { release::<Buffer>(buffer) }
}

unsafe extern "C" fn map_new(result: *mut *mut et_map) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Map::new()) })
}

unsafe extern "C" fn map_release(map: *mut et_map) {
    // SAFETY: the boundary's contract: an owned map or NULL.
    unsafe { release::<Map>(map) }
}

unsafe extern "C" fn map_len(map: *const et_map) -> usize {
    // SAFETY: the boundary's contract: a live map.
    guard_value(0, || Ok(unsafe { borrow::<Map>(map) }?.len()))
}

unsafe extern "C" fn map_name(map: *const et_map, index: usize) -> et_str {
    guard_value(str_to(""), || {
        // SAFETY: the boundary's contract: a live map. The map itself keeps the name until it changes.
        let name = unsafe { borrow::<Map>(map) }?.name(index);
        Ok(name.map_or(str_to(""), |name| str_to(&name)))
    })
}

unsafe extern "C" fn map_get(
    map: *const et_map,
    name: et_str,
    result: *mut *mut et_tensor,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live map, readable text and a writable out pointer.
        unsafe { out::<Tensor>(result, borrow::<Map>(map)?.get(str_from(name)?)?) }
    })
}

unsafe extern "C" fn map_has(map: *const et_map, name: et_str) -> i32 {
    // SAFETY: the boundary's contract: a live map and readable text.
    guard_value(0, || Ok(unsafe { borrow::<Map>(map)?.has(str_from(name)?) }.into()))
}

unsafe extern "C" fn map_put(
    map: *mut et_map,
    name: et_str,
    tensor: *const et_tensor,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live map, readable text and a live tensor.
        unsafe { borrow::<Map>(map)?.put(str_from(name)?, borrow::<Tensor>(tensor)?.clone()) };
        Ok(())
    })
}

unsafe extern "C" fn map_remove(map: *mut et_map, name: et_str) {
    guard_value((), || {
        // SAFETY: the boundary's contract: a live map and readable text.
        unsafe { borrow::<Map>(map)?.remove(str_from(name)?) };
        Ok(())
    })
}

unsafe extern "C" fn row_new(result: *mut *mut et_row) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Row::new()) })
}

unsafe extern "C" fn row_release(row: *mut et_row) {
    // SAFETY: the boundary's contract: an owned row or NULL.
    unsafe { release::<Row>(row) }
}

/// Copies values into a new field of a row.
///
/// # Safety
/// A live row, readable text and `len` readable values.
unsafe fn put<V: Copy>(
    row: *mut et_row,
    name: et_str,
    values: *const V,
    len: usize,
    field: fn(Vec<V>) -> Field,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller's contract is the same.
        unsafe {
            borrow::<Row>(row)?.put(str_from(name)?, field(slice_from(values, len)?.to_vec()))
        }
    })
}

unsafe extern "C" fn row_put_tokens(
    row: *mut et_row,
    name: et_str,
    values: *const i64,
    len: usize,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `put`.
    unsafe { put(row, name, values, len, Field::Tokens) }
}

unsafe extern "C" fn row_put_i64(
    row: *mut et_row,
    name: et_str,
    values: *const i64,
    len: usize,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `put`.
    unsafe { put(row, name, values, len, Field::I64) }
}

unsafe extern "C" fn row_put_f32(
    row: *mut et_row,
    name: et_str,
    values: *const f32,
    len: usize,
) -> *mut et_error {
    // SAFETY: the boundary's contract is that of `put`.
    unsafe { put(row, name, values, len, Field::F32) }
}

unsafe extern "C" fn row_tokens_len(row: *const et_row) -> usize {
    // SAFETY: the boundary's contract: a live row.
    guard_value(0, || Ok(unsafe { borrow::<Row>(row) }?.tokens_len()))
}

unsafe extern "C" fn row_merge(
    row: *mut et_row,
    prefix: et_str,
    source: *const et_row,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: live rows and readable text.
        unsafe { borrow::<Row>(row)?.merge(str_from(prefix)?, borrow::<Row>(source)?) }
    })
}

unsafe extern "C" fn batch_from_rows(
    rows: *const *const et_row,
    rows_len: usize,
    result: *mut *mut et_map,
) -> *mut et_error {
    let _span = crate::profile::work("collate");
    guard(|| {
        // SAFETY: the boundary's contract: `rows_len` live rows and a writable out pointer.
        unsafe {
            let borrowed = slice_from(rows, rows_len)?.iter().enumerate().map(|(index, row)| {
                borrow::<Row>(*row).map_err(|error| error.context(format!("row {index}")))
            });
            out(result, rows::collate(&borrowed.collect::<crate::error::Result<Vec<_>>>()?)?)
        }
    })
}

unsafe extern "C" fn rows_new(result: *mut *mut et_rows) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Rows::new()) })
}

unsafe extern "C" fn rows_release(rows: *mut et_rows) {
    // SAFETY: the boundary's contract: an owned list or NULL.
    unsafe { release::<Rows>(rows) }
}

unsafe extern "C" fn rows_add(rows: *mut et_rows, result: *mut *mut et_row) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live list and a writable out pointer.
        unsafe {
            let rows = borrow::<Rows>(rows)?;
            put_out(result, rows.add())
        }
    })
}

unsafe extern "C" fn rows_len(rows: *const et_rows) -> usize {
    // SAFETY: the boundary's contract: a live list.
    guard_value(0, || Ok(unsafe { borrow::<Rows>(rows) }?.len()))
}

unsafe extern "C" fn rows_get(
    rows: *const et_rows,
    index: usize,
    result: *mut *mut et_row,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live list and a writable out pointer.
        unsafe { put_out(result, borrow::<Rows>(rows)?.get(index)?) }
    })
}
