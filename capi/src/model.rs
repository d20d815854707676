//! A model by itself.

use crate::error::{answer, check_out, guard};
use crate::handle::{Guarded, Object, check_engine, find, give, peek, take_back};
use crate::runtime::et_runtime;
use crate::text::required;
use easytransfer_facade as facade;
use facade::Map;
use facade::plugin::abi::{et_error, et_map, et_params};
use std::ffi::c_char;
use std::ptr::null_mut;

/// A model with its parameters.
pub struct et_model {
    pub(crate) model: Guarded<facade::Model>,
}

impl Object for et_model {
    const NAME: &'static str = "a model";
}

/// Makes a model with random parameters that depend on `seed` and their names alone. `config` is the content of a
/// config.json. `*out` is for `et_model_release`. Errors: BAD_INPUT for an unknown name or a wrong configuration.
/// [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_model_new(
    runtime: *const et_runtime,
    name: *const c_char,
    config: *const c_char,
    seed: u64,
    out: *mut *mut et_model,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_model_new")?;
        let runtime = find(runtime, "runtime")?;
        // SAFETY: the caller passes texts, and `out` is not NULL.
        unsafe {
            let (name, config) = (required(name, "name")?, required(config, "config")?);
            let model = Guarded::new(runtime.runtime.model(name, config, seed)?);
            give(out, et_model { model });
        }
        Ok(())
    })
}

/// Loads weights from a Hugging Face directory. Errors: BAD_INPUT naming file and tensor; every parameter must be
/// there. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_model_load_weights(
    model: *mut et_model,
    directory: *const c_char,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller passes text.
        let (model, directory) =
            (find(model, "model")?, unsafe { required(directory, "directory")? });
        model.model.turn().load_weights(directory.as_ref())?;
        Ok(())
    })
}

/// Writes config.json and model.safetensors into a directory, which is made where there is none; other files in it stay.
/// `et_model_load_weights` and transformers read them. Both files are written aside and take the places of older ones
/// at once. Errors: BAD_INPUT for a file or a trained bundle in its place; the directory is then as it was.
/// [one-at-a-time] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_model_save(
    model: *mut et_model,
    directory: *const c_char,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller passes text.
        let (model, directory) =
            (find(model, "model")?, unsafe { required(directory, "directory")? });
        model.model.turn().save(directory.as_ref())?;
        Ok(())
    })
}

/// The parameters, borrowed: valid while the model lives, not to be released. For et.param/1: list, freeze, read
/// gradients, declare a head. NULL for what is no live model. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_model_params(model: *mut et_model) -> *mut et_params {
    let params = |model: &et_model| Some(model.model.turn().params().as_raw());
    answer(null_mut(), || peek(model, params).unwrap_or(null_mut()))
}

/// Runs the model on a batch (made by et.data/1, `batch_from_rows`), with dropout when `training` is not 0. `want` is
/// a set of ET_WANT_ bits. `*out` holds the outputs, for `map_release` of et.data/1. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_model_forward(
    model: *mut et_model,
    batch: *const et_map,
    training: i32,
    want: u32,
    out: *mut *mut et_map,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_model_forward")?;
        let model = find(model, "model")?;
        check_engine(batch, "batch")?;
        // SAFETY: the caller passes a map, which the engine checks; `out` is not NULL.
        unsafe {
            let batch = Map::lend(batch.cast_mut())?;
            *out = model.model.turn().forward(&batch, training != 0, want)?.into_raw();
        }
        Ok(())
    })
}

/// Gives a model back. Tensors that came from it stay valid. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_model_release(model: *mut et_model) {
    answer((), || take_back(model));
}
