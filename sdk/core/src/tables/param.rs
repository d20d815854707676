//! `et.param/1`: sets of parameters, scopes and parameters.

use std::ptr;

use easytransfer_abi::{
    et_buffer, et_error, et_host_param, et_init, et_param, et_params, et_scope, et_str, et_tensor,
};

use crate::data::Buffer;
use crate::error::{Result, fail};
use crate::handle::{
    borrow, guard, guard_value, into_raw, out, out_optional, put, release, retain, slice_from,
    str_from, str_to,
};
use crate::params::{Param, Params, Scope};
use crate::tensor::Tensor;

/// The table.
pub static TABLE: et_host_param = et_host_param {
    struct_size: size_of::<et_host_param>(),
    params_new: Some(params_new),
    params_release: Some(params_release),
    params_root: Some(params_root),
    params_len: Some(params_len),
    params_at: Some(params_at),
    params_find: Some(params_find),
    params_seal: Some(params_seal),
    params_arena_len: Some(params_arena_len),
    params_zero_grads: Some(params_zero_grads),
    params_grad_norm: Some(params_grad_norm),
    params_scale_grads: Some(params_scale_grads),
    params_snapshot: Some(params_snapshot),
    params_restore: Some(params_restore),
    scope_child: Some(scope_child),
    scope_path: Some(scope_path),
    scope_param: Some(scope_param),
    scope_release: Some(scope_release),
    retain: Some(retain_param),
    release: Some(release_param),
    name: Some(name),
    rank: Some(rank),
    shape: Some(shape),
    tensor: Some(tensor),
    grad: Some(grad),
    has_grad: Some(has_grad),
    set_grad: Some(set_grad),
    assign: Some(assign),
    assign_buffer: Some(assign_buffer),
    is_trainable: Some(is_trainable),
    set_trainable: Some(set_trainable),
    lr_scale: Some(lr_scale),
    set_lr_scale: Some(set_lr_scale),
    has_decay: Some(has_decay),
    set_decay: Some(set_decay),
    set_low_rank: Some(set_low_rank),
    merged: Some(merged),
    params_retain: Some(params_retain),
    params_part: Some(params_part),
    params_lerp: Some(params_lerp),
    params_add_grads: Some(params_add_grads),
    params_arena: Some(params_arena),
};

unsafe extern "C" fn params_new(
    seed: u64,
    dtype: i32,
    result: *mut *mut et_params,
) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Params::new(seed, dtype)?) })
}

unsafe extern "C" fn params_release(params: *mut et_params) {
    // SAFETY: the boundary's contract: an owned set or NULL.
    unsafe { release::<Params>(params) }
}

unsafe extern "C" fn params_root(params: *const et_params) -> *mut et_scope {
    // SAFETY: the boundary's contract: a live set.
    guard_value(ptr::null_mut(), || Ok(into_raw(unsafe { borrow::<Params>(params) }?.root())))
}

unsafe extern "C" fn params_len(params: *const et_params) -> usize {
    // SAFETY: the boundary's contract: a live set.
    guard_value(0, || Ok(unsafe { borrow::<Params>(params) }?.len()))
}

unsafe extern "C" fn params_at(params: *const et_params, index: usize) -> *mut et_param {
    guard_value(ptr::null_mut(), || {
        // SAFETY: the boundary's contract: a live set.
        let param = unsafe { borrow::<Params>(params) }?.at(index);
        Ok(param.map_or(ptr::null_mut(), into_raw))
    })
}

unsafe extern "C" fn params_find(
    params: *const et_params,
    name: et_str,
    result: *mut *mut et_param,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live set, readable text and a writable out pointer.
        unsafe { out(result, borrow::<Params>(params)?.find(str_from(name)?)?) }
    })
}

unsafe extern "C" fn params_seal(params: *mut et_params) -> *mut et_error {
    let _span = crate::profile::work("seal");
    // SAFETY: the boundary's contract: a live set.
    guard(|| unsafe { borrow::<Params>(params) }?.seal())
}

unsafe extern "C" fn params_arena_len(params: *const et_params) -> usize {
    // SAFETY: the boundary's contract: a live set.
    guard_value(0, || Ok(unsafe { borrow::<Params>(params) }?.arena_len()))
}

unsafe extern "C" fn params_zero_grads(params: *mut et_params) {
    let _span = crate::profile::work("zero_grads");
    guard_value((), || {
        // SAFETY: the boundary's contract: a live set.
        unsafe { borrow::<Params>(params) }?.zero_grads();
        Ok(())
    })
}

unsafe extern "C" fn params_grad_norm(params: *const et_params, result: *mut f64) -> *mut et_error {
    let _span = crate::profile::work("grad_norm");
    // SAFETY: the boundary's contract: a live set and a writable out pointer.
    guard(|| unsafe { put(result, borrow::<Params>(params)?.grad_norm()?) })
}

unsafe extern "C" fn params_scale_grads(params: *mut et_params, factor: f64) -> *mut et_error {
    let _span = crate::profile::work("scale_grads");
    // SAFETY: the boundary's contract: a live set.
    guard(|| unsafe { borrow::<Params>(params) }?.scale_grads(factor))
}

unsafe extern "C" fn params_snapshot(
    params: *const et_params,
    result: *mut *mut et_buffer,
) -> *mut et_error {
    let _span = crate::profile::work("snapshot");
    guard(|| {
        // SAFETY: the boundary's contract: a live set and a writable out pointer.
        unsafe { out(result, Buffer::new(borrow::<Params>(params)?.snapshot()?)) }
    })
}

unsafe extern "C" fn params_restore(
    params: *mut et_params,
    snapshot: *const et_buffer,
) -> *mut et_error {
    let _span = crate::profile::work("restore");
    guard(|| {
        // SAFETY: the boundary's contract: a live set and a live buffer.
        unsafe { borrow::<Params>(params)?.restore(borrow::<Buffer>(snapshot)?.bytes()) }
    })
}

unsafe extern "C" fn params_retain(params: *const et_params) -> *mut et_params {
    // SAFETY: the boundary's contract: a live set or NULL.
    unsafe { retain::<Params>(params) }
}

unsafe extern "C" fn params_part(
    params: *const et_params,
    patterns: *const et_str,
    len: usize,
    result: *mut *mut et_params,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live set, `len` readable texts and a writable out pointer.
        unsafe {
            let patterns = slice_from(patterns, len)?;
            let patterns: Vec<&str> =
                patterns.iter().map(|text| str_from(*text)).collect::<Result<_>>()?;
            out(result, borrow::<Params>(params)?.part(&patterns)?)
        }
    })
}

unsafe extern "C" fn params_lerp(
    to: *mut et_params,
    from: *const et_params,
    factor: f64,
) -> *mut et_error {
    let _span = crate::profile::work("lerp");
    // SAFETY: the boundary's contract: two live sets.
    guard(|| unsafe { borrow::<Params>(to)?.lerp(borrow::<Params>(from)?, factor) })
}

unsafe extern "C" fn params_add_grads(
    to: *mut et_params,
    from: *const et_params,
    factor: f64,
) -> *mut et_error {
    let _span = crate::profile::work("add_grads");
    // SAFETY: the boundary's contract: two live sets.
    guard(|| unsafe { borrow::<Params>(to)?.add_grads(borrow::<Params>(from)?, factor) })
}

unsafe extern "C" fn params_arena(
    params: *mut et_params,
    which: i32,
    result: *mut *mut et_tensor,
) -> *mut et_error {
    // SAFETY: the boundary's contract: a live set and a writable out pointer.
    guard(|| unsafe { out(result, borrow::<Params>(params)?.arena_view(which)?) })
}

unsafe extern "C" fn scope_child(
    scope: *const et_scope,
    name: et_str,
    result: *mut *mut et_scope,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live scope, readable text and a writable out pointer.
        unsafe { out(result, borrow::<Scope>(scope)?.child(str_from(name)?)?) }
    })
}

unsafe extern "C" fn scope_path(scope: *const et_scope) -> et_str {
    // SAFETY: the boundary's contract: a live scope.
    guard_value(str_to(""), || Ok(str_to(unsafe { borrow::<Scope>(scope) }?.path())))
}

unsafe extern "C" fn scope_param(
    scope: *const et_scope,
    name: et_str,
    shape: *const usize,
    rank: usize,
    init: *const et_init,
    result: *mut *mut et_param,
) -> *mut et_error {
    guard(|| {
        if init.is_null() || result.is_null() {
            fail!(ET_ERR_INVALID_ARGUMENT, "scope_param: the start or the out pointer is NULL");
        }
        // SAFETY: the boundary's contract: a live scope, readable text, `rank` extents, a readable start and a
        // writable out pointer.
        unsafe {
            let shape = slice_from(shape, rank)?;
            out(result, borrow::<Scope>(scope)?.param(str_from(name)?, shape, init.read())?)
        }
    })
}

unsafe extern "C" fn scope_release(scope: *mut et_scope) {
    // SAFETY: the boundary's contract: an owned scope or NULL.
    unsafe { release::<Scope>(scope) }
}

unsafe extern "C" fn retain_param(param: *const et_param) -> *mut et_param {
    // SAFETY: the boundary's contract: a live parameter or NULL.
    unsafe { retain::<Param>(param) }
}

unsafe extern "C" fn release_param(param: *mut et_param) {
    // SAFETY: the boundary's contract: an owned parameter or NULL.
    unsafe { release::<Param>(param) }
}

unsafe extern "C" fn name(param: *const et_param) -> et_str {
    // SAFETY: the boundary's contract: a live parameter.
    guard_value(str_to(""), || Ok(str_to(unsafe { borrow::<Param>(param) }?.name())))
}

unsafe extern "C" fn rank(param: *const et_param) -> usize {
    // SAFETY: the boundary's contract: a live parameter.
    guard_value(0, || Ok(unsafe { borrow::<Param>(param) }?.shape().len()))
}

unsafe extern "C" fn shape(param: *const et_param) -> *const usize {
    // SAFETY: the boundary's contract: a live parameter.
    guard_value(ptr::null(), || Ok(unsafe { borrow::<Param>(param) }?.shape().as_ptr()))
}

unsafe extern "C" fn tensor(param: *const et_param, result: *mut *mut et_tensor) -> *mut et_error {
    // SAFETY: the boundary's contract: a live parameter and a writable out pointer.
    guard(|| unsafe { out(result, borrow::<Param>(param)?.tensor()?) })
}

unsafe extern "C" fn grad(param: *const et_param, result: *mut *mut et_tensor) -> *mut et_error {
    // SAFETY: the boundary's contract: a live parameter and a writable out pointer.
    guard(|| unsafe { out_optional(result, borrow::<Param>(param)?.grad()?) })
}

unsafe extern "C" fn has_grad(param: *const et_param) -> i32 {
    // SAFETY: the boundary's contract: a live parameter.
    guard_value(0, || Ok(unsafe { borrow::<Param>(param) }?.has_grad().into()))
}

unsafe extern "C" fn set_grad(param: *mut et_param, grad: *const et_tensor) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live parameter and a live tensor.
        unsafe { borrow::<Param>(param)?.set_grad(borrow::<Tensor>(grad)?) }
    })
}

unsafe extern "C" fn assign(param: *mut et_param, value: *const et_tensor) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live parameter and a live tensor.
        unsafe { borrow::<Param>(param)?.assign(borrow::<Tensor>(value)?) }
    })
}

unsafe extern "C" fn assign_buffer(
    param: *mut et_param,
    dtype: i32,
    buffer: *const et_buffer,
    offset: usize,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live parameter and a live buffer.
        unsafe { borrow::<Param>(param)?.assign_buffer(dtype, borrow::<Buffer>(buffer)?, offset) }
    })
}

unsafe extern "C" fn is_trainable(param: *const et_param) -> i32 {
    // SAFETY: the boundary's contract: a live parameter.
    guard_value(0, || Ok(unsafe { borrow::<Param>(param) }?.is_trainable().into()))
}

unsafe extern "C" fn set_trainable(param: *mut et_param, trainable: i32) -> *mut et_error {
    // SAFETY: the boundary's contract: a live parameter.
    guard(|| unsafe { borrow::<Param>(param) }?.set_trainable(trainable != 0))
}

unsafe extern "C" fn lr_scale(param: *const et_param) -> f64 {
    // SAFETY: the boundary's contract: a live parameter.
    guard_value(0.0, || Ok(unsafe { borrow::<Param>(param) }?.lr_scale()))
}

unsafe extern "C" fn set_lr_scale(param: *mut et_param, scale: f64) -> *mut et_error {
    // SAFETY: the boundary's contract: a live parameter.
    guard(|| unsafe { borrow::<Param>(param) }?.set_lr_scale(scale))
}

unsafe extern "C" fn has_decay(param: *const et_param) -> i32 {
    // SAFETY: the boundary's contract: a live parameter.
    guard_value(0, || Ok(unsafe { borrow::<Param>(param) }?.has_decay().into()))
}

unsafe extern "C" fn set_decay(param: *mut et_param, decay: i32) {
    guard_value((), || {
        // SAFETY: the boundary's contract: a live parameter.
        unsafe { borrow::<Param>(param) }?.set_decay(decay != 0);
        Ok(())
    })
}

unsafe extern "C" fn set_low_rank(
    param: *mut et_param,
    a: *const et_param,
    b: *const et_param,
    scale: f64,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: three live parameters.
        unsafe {
            borrow::<Param>(param)?.set_low_rank(borrow::<Param>(a)?, borrow::<Param>(b)?, scale)
        }
    })
}

unsafe extern "C" fn merged(param: *const et_param, result: *mut *mut et_tensor) -> *mut et_error {
    // SAFETY: the boundary's contract: a live parameter and a writable out pointer.
    guard(|| unsafe { out(result, borrow::<Param>(param)?.merged()?) })
}
