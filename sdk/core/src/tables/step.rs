//! `et.step/1`: what keeps a card busy during a training step.

use easytransfer_abi::{et_error, et_host_step, et_map, et_params, et_tensor};

use crate::data::Map;
use crate::device;
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
    i32::from(device::active().is_some())
}

unsafe extern "C" fn prefetch(batch: *const et_map) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live map.
        let batch = unsafe { borrow::<Map>(batch) }?;
        device::active().map_or(Ok(()), |device| device.prefetch(batch))
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
