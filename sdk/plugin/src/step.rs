//! What a training loop asks of the engine so that a card never waits for the host. A host without `et.step/1`
//! computes everything at once.

use crate::host::{ask, call, slot, tables, try_host};
use crate::{Map, Params, Result, Tensor};
use easytransfer_abi as abi;
use std::ptr::null_mut;

fn table() -> Option<&'static abi::et_host_step> {
    try_host().and_then(|_| tables().step)
}

/// Whether operations return before they are computed, so that reading a number waits for everything before it.
pub fn defers() -> bool {
    table().is_some_and(|table| ask!(table, et_host_step.defers() or 0) != 0)
}

/// Begins to bring a batch to where operations will read it, and returns before that is done. Errors: no memory there.
pub fn prefetch(batch: &Map) -> Result<()> {
    match table() {
        Some(table) if slot!(table, et_host_step.prefetch).is_some() => {
            call!(table, et_host_step.prefetch(batch.as_raw()))
        }
        _ => Ok(()),
    }
}

/// Multiplies all gradients by limit / (norm + 1e-6) if their Euclidean norm is above `limit`. The norm before that,
/// a scalar F64, is not waited for. Errors: a limit that is not positive.
pub fn clip_grads(params: &mut Params, limit: f64) -> Result<Tensor> {
    let table = table().filter(|table| slot!(table, et_host_step.clip_grads).is_some());
    let Some(table) = table else {
        let norm = params.grad_norm()?;
        if norm > limit {
            params.scale_grads(limit / (norm + 1e-6))?;
        }
        return Tensor::from_slice(&[norm], &[]);
    };
    let mut out = null_mut();
    call!(table, et_host_step.clip_grads(params.as_raw(), limit, &mut out))?;
    // SAFETY: on success the out holds an owned reference.
    unsafe { Tensor::from_raw(out) }
}
