//! Clipping of gradients by their norm, without asking the card for it.

use candle_core::{DType, Tensor as Raw};

use super::launch::{Launch, Module::Clip};
use super::memory::{empty, floats, table};
use super::optim::{squares, tasks};
use easytransfer_core::device::Ranges;
use easytransfer_core::error::Result;
use easytransfer_core::storage::tensor_from_vec;

/// The norm, a scalar F64, of the parts (start, len) of an f32 arena times `pending`, a factor that the memory does
/// not have yet. If it is above `limit` the parts are multiplied by limit / (norm + 1e-6), which the card decides.
pub(crate) fn clip(grads: &Raw, pending: f64, limit: f64, parts: Ranges<'_>) -> Result<Raw> {
    let (tasks, _) = tasks(parts.iter().copied());
    if tasks.is_empty() {
        return tensor_from_vec(vec![0f64], ());
    }
    let list = table(&tasks)?;
    let sum = squares(grads, &list, tasks.len())?;
    let (norm, factor) = (empty(DType::F64, ())?, floats(1)?);
    let launch = Launch::new(Clip, "et_clip_factor").block(1, 1).value(pending).value(limit);
    // SAFETY: sum, norm and factor are one number each.
    unsafe { launch.tensor(&sum).tensor(&norm).tensor(&factor).run() }?;
    let launch = Launch::new(Clip, "et_clip_apply").grid(tasks.len(), 1);
    // SAFETY: the tasks lie within the arena.
    unsafe { launch.tensor(&list).tensor(&factor).tensor(grads).run() }?;
    Ok(norm.into_inner())
}
