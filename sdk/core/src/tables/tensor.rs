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

/// An input of an operation, in its own type and noted for the profiler.
///
/// # Safety
/// `tensor` is a live handle that outlives `'a`.
#[inline(always)]
unsafe fn input<'a>(tensor: *const et_tensor) -> Result<&'a Tensor> {
    // SAFETY: the caller's contract is the same.
    let tensor = unsafe { stored(tensor) }?;
    tensor.widen()?;
    Ok(tensor)
}

/// An input of an operation that reads elements as they are kept, noted for the profiler.
///
/// # Safety
/// `tensor` is a live handle that outlives `'a`.
#[inline(always)]
unsafe fn stored<'a>(tensor: *const et_tensor) -> Result<&'a Tensor> {
    // SAFETY: the caller's contract is the same.
    let tensor = unsafe { borrow::<Tensor>(tensor) }?;
    profile::input(tensor);
    Ok(tensor)
}

/// An opcode, whose name the profiler gets.
#[inline(always)]
fn named(op: i32, name: fn(i32) -> Result<&'static str>) -> i32 {
    if profile::is_on() {
        profile::rename(op, name);
    }
    op
}

/// Defines a slot that makes one tensor. In the body, arguments marked `tensor` are `&Tensor`.
macro_rules! slot {
    ($name:ident ($($tensor:ident),*) ($($argument:ident: $type:ty),*) $body:expr) => {
        unsafe extern "C" fn $name(
            $($tensor: *const et_tensor,)*
            $($argument: $type,)*
            result: *mut *mut et_tensor,
        ) -> *mut et_error {
            // SAFETY: the boundary's contract: live handles, arrays as long as the slot says, a writable out pointer.
            guard(|| unsafe {
                let _span = profile::op(stringify!($name));
                $(let $tensor = input($tensor)?;)*
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

slot!(full()(dtype: i32, shape: *const usize, rank: usize, value: f64)
    create::full(dtype_from_code(dtype)?, slice_from(shape, rank)?, value));
slot!(arange()(dtype: i32, start: f64, step: f64, len: usize)
    create::arange(dtype_from_code(dtype)?, start, step, len));
slot!(affine(x)(scale: f64, shift: f64) una::affine(x, scale, shift));
slot!(power(x)(exponent: f64) una::power(x, exponent));
slot!(clamp(x)(low: f64, high: f64) una::clamp(x, low, high));
slot!(matmul(a, b)() mm::matmul(a, b));
slot!(select(condition, a, b)() bin::select(condition, a, b));
slot!(reshape()(x: *const et_tensor, shape: *const usize, rank: usize)
    shp::reshape(stored(x)?, slice_from(shape, rank)?));
slot!(permute()(x: *const et_tensor, axes: *const i64, axes_len: usize)
    shp::permute(stored(x)?, slice_from(axes, axes_len)?));
slot!(narrow()(x: *const et_tensor, axis: i64, start: usize, len: usize)
    shp::narrow(stored(x)?, axis, start, len));
slot!(broadcast_to(x)(shape: *const usize, rank: usize)
    shp::broadcast_to(x, slice_from(shape, rank)?));
slot!(contiguous()(x: *const et_tensor) shp::contiguous(stored(x)?));
slot!(concat()(list: *const *const et_tensor, len: usize, axis: i64) {
    let list = tensors(list, len)?;
    list.iter().try_for_each(|tensor| tensor.widen())?;
    shp::concat(&list, axis)
});
slot!(cast()(x: *const et_tensor, dtype: i32) shp::cast(stored(x)?, dtype_from_code(dtype)?));
slot!(reduce()(op: i32, x: *const et_tensor, axes: *const i64, axes_len: usize, keep_axes: i32)
    red::reduce(named(op, red::name), input(x)?, slice_from(axes, axes_len)?, keep_axes != 0));
slot!(unary()(op: i32, x: *const et_tensor) una::unary(named(op, una::name), stored(x)?));
slot!(binary()(op: i32, a: *const et_tensor, b: *const et_tensor)
    bin::binary(named(op, bin::name), stored(a)?, stored(b)?));
slot!(compare()(op: i32, a: *const et_tensor, b: *const et_tensor)
    bin::compare(op, input(a)?, input(b)?));
slot!(index_select()(x: *const et_tensor, axis: i64, places: *const et_tensor)
    index::index_select(input(x)?, axis, input(places)?));
slot!(gather()(x: *const et_tensor, axis: i64, places: *const et_tensor)
    index::gather(input(x)?, axis, input(places)?));
slot!(index_add()(
    x: *const et_tensor, axis: i64, places: *const et_tensor, source: *const et_tensor)
    index::index_add(
        input(x)?, axis, input(places)?, input(source)?));
