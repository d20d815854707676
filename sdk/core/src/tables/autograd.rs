//! `et.autograd/1`: the tape.

use std::ffi::c_void;

use easytransfer_abi::{et_error, et_host_autograd, et_plugin_op, et_rng, et_segment, et_tensor};

use super::tensor::tensors;
use crate::custom_op;
use crate::error::fail;
use crate::handle::{borrow, borrow_optional, guard, guard_value, into_raw, out, out_optional};
use crate::plugin_segment::PluginSegment;
use crate::profile;
use crate::recompute::{self, Recompute};
use crate::rng::Rng;
use crate::segment::SegmentFn;
use crate::tape;
use crate::tensor::Tensor;

/// The table.
pub static TABLE: et_host_autograd = et_host_autograd {
    struct_size: size_of::<et_host_autograd>(),
    detach: Some(detach),
    leaf: Some(leaf),
    leaf_grad: Some(leaf_grad),
    backward: Some(backward),
    pause: Some(pause),
    resume: Some(resume),
    is_recording: Some(is_recording),
    apply_op: Some(apply_op),
    checkpoint: Some(checkpoint),
    set_recompute: Some(set_recompute),
};

/// The table, for those who link the engine.
pub fn table() -> &'static et_host_autograd {
    &TABLE
}

unsafe extern "C" fn detach(x: *const et_tensor, result: *mut *mut et_tensor) -> *mut et_error {
    // SAFETY: the boundary's contract: a live tensor and a writable out pointer.
    guard(|| unsafe { out(result, borrow::<Tensor>(x)?.detach()) })
}

unsafe extern "C" fn leaf(x: *const et_tensor, result: *mut *mut et_tensor) -> *mut et_error {
    // SAFETY: the boundary's contract: a live tensor and a writable out pointer.
    guard(|| unsafe {
        let x = borrow::<Tensor>(x)?;
        crate::ops::check_float("leaf", x.dtype())?;
        out(result, x.leaf())
    })
}

unsafe extern "C" fn leaf_grad(
    leaf: *const et_tensor,
    result: *mut *mut et_tensor,
) -> *mut et_error {
    // SAFETY: the boundary's contract: a live tensor and a writable out pointer.
    guard(|| unsafe { out_optional(result, borrow::<Tensor>(leaf)?.leaf_grad()?) })
}

unsafe extern "C" fn backward(loss: *const et_tensor, seed: *const et_tensor) -> *mut et_error {
    let _span = profile::work("backward");
    // SAFETY: the boundary's contract: live tensors, the second may be NULL.
    guard(|| unsafe { tape::backward(borrow::<Tensor>(loss)?, borrow_optional::<Tensor>(seed)?) })
}

unsafe extern "C" fn pause() {
    guard_value((), || {
        tape::pause();
        Ok(())
    });
}

unsafe extern "C" fn resume() {
    guard_value((), || {
        tape::resume();
        Ok(())
    });
}

unsafe extern "C" fn is_recording() -> i32 {
    guard_value(0, || Ok(i32::from(tape::is_recording())))
}

unsafe extern "C" fn apply_op(
    op: *const et_plugin_op,
    state: *mut c_void,
    inputs: *const *const et_tensor,
    inputs_len: usize,
    outputs: *mut *mut et_tensor,
) -> *mut et_error {
    let _span = profile::op("apply_op");
    guard(|| {
        // SAFETY: the boundary's contract: a live operation and `inputs_len` live tensors.
        let results = unsafe { custom_op::apply(op, state, &tensors(inputs, inputs_len)?) }?;
        if outputs.is_null() && !results.is_empty() {
            fail!(ET_ERR_INVALID_ARGUMENT, "apply_op: the array for the outputs is NULL");
        }
        for (index, result) in results.into_iter().enumerate() {
            // SAFETY: the boundary's contract: room for as many outputs as the operation has.
            unsafe { outputs.add(index).write(into_raw(result)) };
        }
        Ok(())
    })
}

unsafe extern "C" fn set_recompute(level: i32) -> *mut et_error {
    guard(|| {
        recompute::set_recompute(Recompute::from_code(level)?);
        Ok(())
    })
}

unsafe extern "C" fn checkpoint(
    segment: *const et_segment,
    inputs: *const *const et_tensor,
    inputs_len: usize,
    rng: *mut et_rng,
    outputs: *mut *mut et_tensor,
    outputs_len: usize,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a filled structure or NULL, whose state belongs to us from now on.
        let segment = unsafe { PluginSegment::read(segment, outputs_len) }?;
        // SAFETY: the boundary's contract: `inputs_len` live tensors, a live generator or NULL.
        let (inputs, rng) = unsafe { (tensors(inputs, inputs_len)?, borrow_optional::<Rng>(rng)?) };
        if outputs.is_null() && outputs_len > 0 {
            fail!(ET_ERR_INVALID_ARGUMENT, "checkpoint: the array for the outputs is NULL");
        }
        let run: SegmentFn = Box::new(move |inputs, rng| segment.run(inputs, rng));
        let results = crate::segment::run_segment(&inputs, rng, run)?;
        for (index, result) in results.into_iter().enumerate() {
            // SAFETY: the boundary's contract: room for `outputs_len` outputs, and the segment makes as many.
            unsafe { outputs.add(index).write(into_raw(result)) };
        }
        Ok(())
    })
}
