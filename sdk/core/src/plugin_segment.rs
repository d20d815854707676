//! Segments of a model that a plugin runs; see [`crate::checkpoint`].

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr;

use easytransfer_abi::{et_error, et_rng, et_segment, et_tensor};

use crate::error::{Result, fail};
use crate::handle::{Handles, into_raw, release, take_error};
use crate::rng::Rng;
use crate::tensor::Tensor;

type Run = unsafe extern "C" fn(
    *mut c_void,
    *const *const et_tensor,
    usize,
    *mut et_rng,
    *mut *mut et_tensor,
    usize,
) -> *mut et_error;

/// A plugin's segment; releases its state when it goes.
pub struct PluginSegment {
    state: *mut c_void,
    run: Run,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
    outputs_len: usize,
}

// SAFETY: the pointer is only handed back to the plugin, whose contract ([callback-thread]) is to be called on
// whichever thread runs forward or backward.
unsafe impl Send for PluginSegment {}

/// A generator that a plugin has for the time of a call.
struct LentRng(*mut et_rng);

impl Drop for LentRng {
    fn drop(&mut self) {
        // SAFETY: NULL or a reference that we own.
        unsafe { release::<Rng>(self.0) };
    }
}

impl PluginSegment {
    /// Takes over a segment's state. Errors: `INVALID_ARGUMENT` when the structure lacks something; then the state is
    /// released if the structure says how.
    ///
    /// # Safety
    /// `segment` is NULL or points to a structure whose first `struct_size` bytes are initialised; its functions
    /// fulfil their contract, and make `outputs_len` tensors.
    pub unsafe fn read(segment: *const et_segment, outputs_len: usize) -> Result<Self> {
        let needed = offset_of!(et_segment, release) + size_of::<usize>();
        // SAFETY: every structure begins with its size.
        if segment.is_null() || unsafe { (&raw const (*segment).struct_size).read() } < needed {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "checkpoint: expected a segment with a struct_size of at least {needed}"
            );
        }
        // SAFETY: the structure is filled as far as its size says.
        let et_segment { state, run, release, .. } = unsafe { segment.read() };
        let Some(run) = run else {
            if let Some(release) = release {
                // SAFETY: the state belongs to us; this is its only release.
                unsafe { release(state) };
            }
            fail!(ET_ERR_INVALID_ARGUMENT, "checkpoint: the segment's run is NULL");
        };
        Ok(Self { state, run, release, outputs_len })
    }

    /// Calls the plugin with a generator that stands where `rng` does, and moves `rng` on to where that one stands
    /// afterwards. Errors: the plugin's; `INVALID_ARGUMENT` when an output is missing; `FAILED_PRECONDITION` when the
    /// plugin used `rng` itself, whose numbers a second run would not get.
    pub fn run(&self, inputs: &[&Tensor], rng: Option<&Rng>) -> Result<Vec<Tensor>> {
        let inputs = Handles::of(inputs.iter().map(|&input| Some(input.clone())));
        let lent_inputs = inputs.lent();
        let before = rng.map(Rng::state);
        let lent_rng = LentRng(before.map_or(ptr::null_mut(), |state| into_raw(Rng::at(state))));
        let mut outputs = Handles::room(self.outputs_len);
        // SAFETY: the arrays have the lengths that are given, and outlive the call, as do the handles.
        let error = unsafe {
            (self.run)(
                self.state,
                lent_inputs.as_ptr(),
                lent_inputs.len(),
                lent_rng.0,
                outputs.as_mut_ptr(),
                self.outputs_len,
            )
        };
        // SAFETY: plugins return errors made by this engine.
        unsafe { take_error(error) }.map_err(|error| error.context("checkpoint: the segment"))?;
        if let (Some(rng), Some(before)) = (rng, before) {
            if rng.state().offset != before.offset {
                fail!(
                    ET_ERR_FAILED_PRECONDITION,
                    "checkpoint: the segment took random numbers from the caller's generator; it must use the one that it is given"
                );
            }
            // SAFETY: the plugin was lent the handle, which is alive until the end of this function.
            rng.set_state(unsafe { crate::handle::borrow::<Rng>(lent_rng.0) }?.state());
        }
        // SAFETY: the plugin wrote owned references.
        unsafe { outputs.tensors() }
            .enumerate()
            .map(|(index, output)| match output? {
                Some(output) => Ok(output),
                None => fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "checkpoint: the segment made no output {index}, expected {} outputs",
                    self.outputs_len
                ),
            })
            .collect()
    }
}

impl Drop for PluginSegment {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the state belongs to us; this is its only release.
            unsafe { release(self.state) };
        }
    }
}
