//! A loss and an optimizer by themselves, for a loop written by hand.

use crate::error::{answer, check_out, guard};
use crate::handle::{Guarded, Object, check_engine, find, give, take_back};
use crate::model::et_model;
use crate::runtime::et_runtime;
use crate::text::{optional, required};
use easytransfer_facade as facade;
use facade::Map;
use facade::plugin::abi::{et_error, et_map, et_tensor};
use facade::plugin::{Call, Error, LoadedLoss};
use std::ffi::c_char;
use std::sync::Arc;

/// A loss.
pub struct et_loss {
    loss: Guarded<LoadedLoss>,
}

impl Object for et_loss {
    const NAME: &'static str = "a loss";
}

/// An optimizer for the parameters of one model.
pub struct et_optimizer {
    optimizer: Guarded<facade::Optimizer>,
    /// The one whose parameters it changes; it stays as long as the optimizer does.
    model: Arc<et_model>,
}

impl Object for et_optimizer {
    const NAME: &'static str = "an optimizer";
}

/// Makes a loss by name, for instance "cross-entropy". `options` is JSON or NULL. `*out` is for `et_loss_release`.
/// Errors: BAD_INPUT for an unknown name or a wrong option. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_loss_new(
    runtime: *const et_runtime,
    name: *const c_char,
    options: *const c_char,
    out: *mut *mut et_loss,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_loss_new")?;
        let runtime = find(runtime, "runtime")?;
        // SAFETY: the caller passes texts, and `out` is not NULL.
        unsafe {
            let (name, options) = (required(name, "name")?, optional(options, "options")?);
            give(out, et_loss { loss: Guarded::new(runtime.runtime.loss(name, options)?) });
        }
        Ok(())
    })
}

/// The loss of `outputs` ("logits") and `batch` ("labels") as a scalar; `*out` is for `release` of et.tensor/1.
/// [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_loss_forward(
    loss: *mut et_loss,
    outputs: *const et_map,
    batch: *const et_map,
    out: *mut *mut et_tensor,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_loss_forward")?;
        let loss = find(loss, "loss")?;
        check_engine(outputs, "outputs")?;
        check_engine(batch, "batch")?;
        // SAFETY: the caller passes maps, which the engine checks; `out` is not NULL.
        unsafe {
            let (outputs, batch) = (Map::lend(outputs.cast_mut())?, Map::lend(batch.cast_mut())?);
            *out = loss.loss.turn().forward(&Call::inference(0), &outputs, &batch)?.into_raw();
        }
        Ok(())
    })
}

/// Gives a loss back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_loss_release(loss: *mut et_loss) {
    answer((), || take_back(loss));
}

/// Makes an optimizer by name, for instance "adamw", for the parameters of a model, which it seals.
/// `options` is JSON or NULL. `*out` is for `et_optimizer_release`. Errors: BAD_INPUT for an unknown name or a wrong
/// option. [one-at-a-time] since 0.1
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
        let (runtime, model) = (find(runtime, "runtime")?, find(model, "model")?);
        // SAFETY: the caller passes texts, and `out` is not NULL.
        unsafe {
            let (name, options) = (required(name, "name")?, optional(options, "options")?);
            let optimizer = runtime.runtime.optimizer(name, options, &mut model.model.turn())?;
            give(out, et_optimizer { optimizer: Guarded::new(optimizer), model });
        }
        Ok(())
    })
}

/// One step of learning rate `lr` with the gradients present, which are forgotten then. `model` is the one that the
/// optimizer was made for. Errors: INVALID_ARGUMENT for another one. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_optimizer_step(
    optimizer: *mut et_optimizer,
    model: *mut et_model,
    lr: f64,
) -> *mut et_error {
    guard(|| {
        let (optimizer, model) = (find(optimizer, "optimizer")?, find(model, "model")?);
        if !Arc::ptr_eq(&optimizer.model, &model) {
            return Err(Error::invalid(
                "model: expected the one that the optimizer was made for, found another one",
            ));
        }
        optimizer.optimizer.turn().step(&mut model.model.turn(), lr)?;
        Ok(())
    })
}

/// Gives an optimizer back, before or after its model. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_optimizer_release(optimizer: *mut et_optimizer) {
    answer((), || take_back(optimizer));
}
