//! `et.tensor/1`: fine-grained operations on tensors.

use std::ffi::c_void;

use easytransfer_abi::{et_error, et_host_tensor, et_tensor};

use crate::error::Result;
use crate::handle::{borrow, guard, guard_value, out, release, retain, slice_from};
use crate::ops::{
    binary as bin, create, index, matmul as mm, reduce as red, shape as shp, unary as una,
};
use crate::profile;
use crate::tensor::{Tensor, dtype_code, dtype_from_code};

/// The table.
pub static TABLE: et_host_tensor = et_host_tensor {
    struct_size: size_of::<et_host_tensor>(),
    retain: Some(retain_tensor),
    release: Some(release_tensor),
    dtype: Some(dtype),
    rank: Some(rank),
    shape: Some(shape),
    len: Some(len),
    is_tracked: Some(is_tracked),
    is_contiguous: Some(is_contiguous),
    from_data: Some(from_data),
    full: Some(full),
    arange: Some(arange),
    read: Some(read),
    unary: Some(unary),
    binary: Some(binary),
    compare: Some(compare),
    affine: Some(affine),
    power: Some(power),
    clamp: Some(clamp),
    reduce: Some(reduce),
    matmul: Some(matmul),
    select: Some(select),
    reshape: Some(reshape),
    permute: Some(permute),
    narrow: Some(narrow),
    broadcast_to: Some(broadcast_to),
    contiguous: Some(contiguous),
    concat: Some(concat),
    index_select: Some(index_select),
    gather: Some(gather),
    index_add: Some(index_add),
    cast: Some(cast),
};

/// The table, for those who link the engine.
pub fn table() -> &'static et_host_tensor {
    &TABLE
}

/// The tensors behind an array of handles.
///
/// # Safety
/// `tensors` points to `len` live handles that outlive `'a`.
pub(super) unsafe fn tensors<'a>(
    tensors: *const *const et_tensor,
    len: usize,
) -> Result<Vec<&'a Tensor>> {
    // SAFETY: the caller's contract is the same.
    let handles = unsafe { slice_from(tensors, len) }?;
    // SAFETY: each is a live handle by the contract.
    handles.iter().map(|&handle| unsafe { borrow::<Tensor>(handle) }).collect()
}

type T = *const et_tensor;

/// Defines a slot that makes one tensor. Arguments of the first list are tensors whose elements the operation reads
/// as they are kept, of the second tensors that it reads in their own type. `named f(op)` says what an opcode means.
macro_rules! slot {
    ($name:ident ($($all:ident: $type:ty),*) [$($stored:ident),*] [$($wide:ident),*] $(named $naming:ident :: $of:ident ($op:ident))?, $body:expr) => {
        unsafe extern "C" fn $name($($all: $type,)* result: *mut *mut et_tensor) -> *mut et_error {
            // SAFETY: the boundary's contract: live handles, arrays as long as the slot says, a writable out pointer.
            guard(|| unsafe {
                $(let $stored = borrow::<Tensor>($stored)?;)*
                $(let $wide = borrow::<Tensor>($wide)?;)*
                let span = profile::op(stringify!($name));
                if span.is_open() {
                    $(profile::rename($op, $naming::$of);)?
                    $(profile::input($stored);)*
                    $(profile::input($wide);)*
                }
                $($wide.widen()?;)*
                out(result, $body?)
            })
        }
    };
}

unsafe extern "C" fn retain_tensor(tensor: *const et_tensor) -> *mut et_tensor {
    // SAFETY: the boundary's contract: a live tensor.
    unsafe { retain::<Tensor>(tensor) }
}

unsafe extern "C" fn release_tensor(tensor: *mut et_tensor) {
    // SAFETY: the boundary's contract: an owned reference or NULL.
    unsafe { release::<Tensor>(tensor) }
}

unsafe extern "C" fn dtype(tensor: *const et_tensor) -> i32 {
    // SAFETY: the boundary's contract: a live tensor.
    guard_value(0, || dtype_code(unsafe { borrow::<Tensor>(tensor) }?.dtype()))
}

unsafe extern "C" fn rank(tensor: *const et_tensor) -> usize {
    // SAFETY: the boundary's contract: a live tensor.
    guard_value(0, || Ok(unsafe { borrow::<Tensor>(tensor) }?.dims().len()))
}

unsafe extern "C" fn shape(tensor: *const et_tensor) -> *const usize {
    guard_value(std::ptr::null(), || {
        // SAFETY: the boundary's contract: a live tensor, which keeps its extents in place.
        Ok(unsafe { borrow::<Tensor>(tensor) }?.dims().as_ptr())
    })
}

unsafe extern "C" fn len(tensor: *const et_tensor) -> usize {
    // SAFETY: the boundary's contract: a live tensor.
    guard_value(0, || Ok(unsafe { borrow::<Tensor>(tensor) }?.elem_count()))
}

unsafe extern "C" fn is_tracked(tensor: *const et_tensor) -> i32 {
    // SAFETY: the boundary's contract: a live tensor.
    guard_value(0, || Ok(i32::from(unsafe { borrow::<Tensor>(tensor) }?.is_tracked())))
}

unsafe extern "C" fn is_contiguous(tensor: *const et_tensor) -> i32 {
    // SAFETY: the boundary's contract: a live tensor.
    guard_value(0, || Ok(i32::from(unsafe { borrow::<Tensor>(tensor) }?.stored().is_contiguous())))
}

unsafe extern "C" fn from_data(
    dtype: i32,
    shape: *const usize,
    rank: usize,
    data: *const c_void,
    size: usize,
    result: *mut *mut et_tensor,
) -> *mut et_error {
    // SAFETY: the boundary's contract: `rank` extents, `size` bytes, a writable out pointer.
    guard(|| unsafe {
        let (shape, bytes) = (slice_from(shape, rank)?, slice_from(data.cast::<u8>(), size)?);
        out(result, create::from_data(dtype_from_code(dtype)?, shape, bytes)?)
    })
}

unsafe extern "C" fn read(
    tensor: *const et_tensor,
    data: *mut c_void,
    size: usize,
) -> *mut et_error {
    // SAFETY: the boundary's contract: a live tensor and `size` bytes that may be written and that nobody else uses.
    guard(|| unsafe {
        let bytes = if size == 0 {
            &mut []
        } else if data.is_null() {
            crate::error::fail!(ET_ERR_INVALID_ARGUMENT, "read: the memory is NULL")
        } else {
            std::slice::from_raw_parts_mut(data.cast::<u8>(), size)
        };
        let tensor = borrow::<Tensor>(tensor)?;
        tensor.widen()?;
        create::read(tensor, bytes)
    })
}

slot!(full(dtype: i32, shape: *const usize, rank: usize, value: f64) [] [],
    create::full(dtype_from_code(dtype)?, slice_from(shape, rank)?, value));
slot!(arange(dtype: i32, start: f64, step: f64, len: usize) [] [],
    create::arange(dtype_from_code(dtype)?, start, step, len));
slot!(affine(x: T, scale: f64, shift: f64) [] [x], una::affine(x, scale, shift));
slot!(power(x: T, exponent: f64) [] [x], una::power(x, exponent));
slot!(clamp(x: T, low: f64, high: f64) [] [x], una::clamp(x, low, high));
slot!(matmul(a: T, b: T) [] [a, b], mm::matmul(a, b));
slot!(select(condition: T, a: T, b: T) [] [condition, a, b], bin::select(condition, a, b));
slot!(reshape(x: T, shape: *const usize, rank: usize) [x] [],
    shp::reshape(x, slice_from(shape, rank)?));
slot!(permute(x: T, axes: *const i64, axes_len: usize) [x] [],
    shp::permute(x, slice_from(axes, axes_len)?));
slot!(narrow(x: T, axis: i64, start: usize, len: usize) [x] [], shp::narrow(x, axis, start, len));
slot!(broadcast_to(x: T, shape: *const usize, rank: usize) [] [x],
    shp::broadcast_to(x, slice_from(shape, rank)?));
slot!(contiguous(x: T) [x] [], shp::contiguous(x));
slot!(concat(list: *const T, len: usize, axis: i64) [] [], {
    let list = tensors(list, len)?;
    list.iter().try_for_each(|tensor| tensor.widen())?;
    shp::concat(&list, axis)
});
slot!(cast(x: T, dtype: i32) [x] [], shp::cast(x, dtype_from_code(dtype)?));
slot!(reduce(op: i32, x: T, axes: *const i64, axes_len: usize, keep_axes: i32) [] [x]
    named red::name(op), red::reduce(op, x, slice_from(axes, axes_len)?, keep_axes != 0));
slot!(unary(op: i32, x: T) [x] [] named una::name(op), una::unary(op, x));
slot!(binary(op: i32, a: T, b: T) [a, b] [] named bin::name(op), bin::binary(op, a, b));
slot!(compare(op: i32, a: T, b: T) [] [a, b], bin::compare(op, a, b));
slot!(index_select(x: T, axis: i64, places: T) [] [x, places], index::index_select(x, axis, places));
slot!(gather(x: T, axis: i64, places: T) [] [x, places], index::gather(x, axis, places));
slot!(index_add(x: T, axis: i64, places: T, source: T) [] [x, places, source],
    index::index_add(x, axis, places, source));
