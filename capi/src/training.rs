//! A loss and an optimizer by themselves, for a loop written by hand.

use crate::error::{check_out, exclusive, give, guard, shared, take_back};
use crate::model::et_model;
use crate::runtime::et_runtime;
use crate::text::{optional, required};
use easytransfer_facade as facade;
use facade::Map;
use facade::plugin::abi::{et_error, et_map, et_tensor};
use facade::plugin::{Call, LoadedLoss};
use std::ffi::c_char;

/// A loss.
pub struct et_loss {
    loss: LoadedLoss,
}

/// An optimizer for the parameters of one model.
pub struct et_optimizer {
    optimizer: facade::Optimizer,
}

/// Makes a loss by name, for instance "cross-entropy". `options` is JSON or NULL. `*out` is for `et_loss_release`. Errors: BAD_INPUT for an
/// unknown name or a wrong option. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_loss_new(
    runtime: *const et_runtime,
    name: *const c_char,
    options: *const c_char,
    out: *mut *mut et_loss,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_loss_new")?;
        // SAFETY: the caller passes a live runtime and texts, and `out` is not NULL.
        unsafe {
            let runtime = shared(runtime, "runtime")?;
            let (name, options) = (required(name, "name")?, optional(options, "options")?);
            give(out, et_loss { loss: runtime.runtime.loss(name, options)? });
        }
        Ok(())
    })
}

/// The loss of `outputs` ("logits") and `batch` ("labels") as a scalar; `*out` is for `release` of et.tensor/1. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_loss_forward(
    loss: *mut et_loss,
    outputs: *const et_map,
    batch: *const et_map,
    out: *mut *mut et_tensor,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_loss_forward")?;
        // SAFETY: the caller passes a live loss that no other call uses and live maps; `out` is not NULL.
        unsafe {
            let loss = exclusive(loss, "loss")?;
            let (outputs, batch) = (Map::lend(outputs.cast_mut())?, Map::lend(batch.cast_mut())?);
            *out = loss.loss.forward(&Call::inference(0), &outputs, &batch)?.into_raw();
        }
        Ok(())
    })
}

/// Gives a loss back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_loss_release(loss: *mut et_loss) {
    // SAFETY: the caller passes NULL or a loss that it owns.
    unsafe { take_back(loss) };
}

/// Makes an optimizer by name, for instance "adamw", for the parameters of a model, which it seals; the model must outlive it.
/// `options` is JSON or NULL. `*out` is for `et_optimizer_release`. Errors: BAD_INPUT for an unknown name or a wrong option. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_optimizer_new(
    runtime: *const et_runtime,
    name: *const c_char,
    options: *const c_char,
    model: *mut et_model,
    out: *mut *mut et_optimizer,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_optimizer_new")?;
        // SAFETY: the caller passes a live runtime, texts and a live model that no other call uses; `out` is not NULL.
        unsafe {
            let runtime = shared(runtime, "runtime")?;
            let (name, options) = (required(name, "name")?, optional(options, "options")?);
            let model = exclusive(model, "model")?;
            let optimizer = runtime.runtime.optimizer(name, options, &mut model.model)?;
            give(out, et_optimizer { optimizer });
        }
        Ok(())
    })
}

/// One step of learning rate `lr` with the gradients present, which are forgotten then. `model` is the one that the optimizer was made
/// for. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_optimizer_step(
    optimizer: *mut et_optimizer,
    model: *mut et_model,
    lr: f64,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller passes a live optimizer and its live model, which no other call uses.
        let (optimizer, model) =
            unsafe { (exclusive(optimizer, "optimizer")?, exclusive(model, "model")?) };
        optimizer.optimizer.step(&mut model.model, lr)?;
        Ok(())
    })
}

/// Gives an optimizer back, before its model. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_optimizer_release(optimizer: *mut et_optimizer) {
    // SAFETY: the caller passes NULL or an optimizer that it owns.
    unsafe { take_back(optimizer) };
}
