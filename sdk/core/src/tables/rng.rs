//! `et.rng/1`: counted random numbers.

use easytransfer_abi::{et_error, et_host_rng, et_rng, et_rng_state, et_tensor};

use crate::handle::{borrow, guard, guard_value, out, release, slice_from};
use crate::rng::{Rng, Spread};

/// The table.
pub static TABLE: et_host_rng = et_host_rng {
    struct_size: size_of::<et_host_rng>(),
    create: Some(create),
    release: Some(release_rng),
    state: Some(state),
    set_state: Some(set_state),
    bits: Some(bits),
    uniform: Some(uniform),
    normal: Some(normal),
};

unsafe extern "C" fn create(seed: u64, stream: u64, result: *mut *mut et_rng) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Rng::new(seed, stream)) })
}

unsafe extern "C" fn release_rng(rng: *mut et_rng) {
    // SAFETY: the boundary's contract: an owned generator or NULL.
    unsafe { release::<Rng>(rng) }
}

unsafe extern "C" fn state(rng: *const et_rng) -> et_rng_state {
    guard_value(et_rng_state { seed: 0, stream: 0, offset: 0 }, || {
        // SAFETY: the boundary's contract: a live generator.
        Ok(unsafe { borrow::<Rng>(rng) }?.state())
    })
}

unsafe extern "C" fn set_state(rng: *mut et_rng, state: et_rng_state) {
    guard_value((), || {
        // SAFETY: the boundary's contract: a live generator.
        unsafe { borrow::<Rng>(rng) }?.set_state(state);
        Ok(())
    })
}

unsafe extern "C" fn bits(rng: *mut et_rng) -> u64 {
    // SAFETY: the boundary's contract: a live generator.
    guard_value(0, || Ok(unsafe { borrow::<Rng>(rng) }?.bits()))
}

unsafe extern "C" fn uniform(
    rng: *mut et_rng,
    dtype: i32,
    shape: *const usize,
    rank: usize,
    low: f64,
    high: f64,
    result: *mut *mut et_tensor,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live generator, `rank` extents and a writable out pointer.
        unsafe {
            let shape = slice_from(shape, rank)?;
            out(result, borrow::<Rng>(rng)?.tensor(dtype, shape, Spread::Uniform { low, high })?)
        }
    })
}

unsafe extern "C" fn normal(
    rng: *mut et_rng,
    dtype: i32,
    shape: *const usize,
    rank: usize,
    mean: f64,
    deviation: f64,
    result: *mut *mut et_tensor,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: a live generator, `rank` extents and a writable out pointer.
        unsafe {
            let spread = Spread::Normal { mean, deviation };
            out(result, borrow::<Rng>(rng)?.tensor(dtype, slice_from(shape, rank)?, spread)?)
        }
    })
}
