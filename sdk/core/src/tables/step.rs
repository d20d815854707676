//! `et.step/1`: what keeps a card busy during a training step.

use easytransfer_abi::{et_error, et_host_step, et_map, et_params, et_tensor};

use crate::data::Map;
use crate::handle::{borrow, guard, out};
use crate::params::Params;

/// The table.
pub static TABLE: et_host_step = et_host_step {
    struct_size: size_of::<et_host_step>(),
    defers: Some(defers),
    prefetch: Some(prefetch),
    clip_grads: Some(clip_grads),
};

unsafe extern "C" fn defers() -> i32 {
    #[cfg(feature = "cuda")]
    return i32::from(crate::cuda::device::active().is_some());
    #[cfg(not(feature = "cuda"))]
    0
}

unsafe extern "C" fn prefetch(batch: *const et_map) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live map.
        let batch = unsafe { borrow::<Map>(batch) }?;
        #[cfg(feature = "cuda")]
        crate::cuda::ahead::prefetch(batch)?;
        #[cfg(not(feature = "cuda"))]
        let _ = batch;
        Ok(())
    })
}

unsafe extern "C" fn clip_grads(
    params: *mut et_params,
    limit: f64,
    result: *mut *mut et_tensor,
) -> *mut et_error {
    let _span = crate::profile::work("clip_grads");
    // SAFETY: the boundary's contract: a live set and a writable out pointer.
    guard(|| unsafe { out(result, borrow::<Params>(params)?.clip_grads(limit)?) })
}
