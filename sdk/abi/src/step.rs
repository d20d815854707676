//! What a training loop asks of the engine so that a card never waits for the host.

use crate::{et_error, et_map, et_params, et_tensor};

/// `et.step/1`: steps without waiting. An engine for the CPU has it too and does everything at once.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_step {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// 1 if operations return before they are computed, so that reading a number waits for all work before it; 0 if
    /// every number is there at once. [any-thread] since 0.1
    pub defers: Option<unsafe extern "C" fn() -> i32>,
    /// Begins to bring the tensors of a batch to where operations will read them; returns before that is done. The
    /// batch must not be changed by another thread meanwhile. Does nothing where they are there already. Errors:
    /// OUT_OF_MEMORY, DEVICE. [any-thread] since 0.1
    pub prefetch: Option<unsafe extern "C" fn(batch: *const et_map) -> *mut et_error>,
    /// Multiplies all gradients by limit / (norm + 1e-6) if their Euclidean norm is above `limit` (Pascanu et al.
    /// 2013). The out is the norm before that, a scalar F64, which is not waited for. Errors: INVALID_ARGUMENT for a
    /// limit that is not positive. [one-at-a-time] since 0.1
    pub clip_grads: Option<
        unsafe extern "C" fn(
            params: *mut et_params,
            limit: f64,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}
