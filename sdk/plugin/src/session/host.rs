//! What a trainer answers a strategy, and the table by which the questions come.

use super::{ModuleSpec, SourceInfo};
use crate::component::{guard, put_text};
use crate::host::slot;
use crate::text::view;
use crate::{Error, Map, Params, Result, Scope, Stream, Tensor};
use easytransfer_abi as abi;
use serde_json::{Map as Json, Value};
use std::ffi::c_void;

/// What a trainer answers a strategy; each method is the slot of the same name.
pub trait SessionHost {
    /// See [`crate::Session::params`].
    fn params(&mut self, model: &str) -> Result<&mut Params>;
    /// See [`crate::Session::load_model`].
    fn load_model(&mut self, name: &str, path: &str) -> Result<()>;
    /// See [`crate::Session::describe`].
    fn describe(&mut self, model: &str) -> Result<Value>;
    /// See [`crate::Session::forward`].
    fn forward(&mut self, model: &str, batch: &Map, training: bool, want: u32) -> Result<Map>;
    /// See [`crate::Session::loss`].
    fn loss(&mut self, outputs: &Map, batch: &Map) -> Result<Tensor>;
    /// See [`crate::Session::add_loss`].
    fn add_loss(&mut self, name: &str, loss: Tensor, weight: f64) -> Result<()>;
    /// See [`crate::Session::set_loss_weight`].
    fn set_loss_weight(&mut self, weight: f64) -> Result<()>;
    /// See [`crate::Session::want`].
    fn want(&mut self, want: u32) -> Result<()>;
    /// See [`crate::Session::next_batch`].
    fn next_batch(&mut self, source: &str) -> Result<Map>;
    /// See [`crate::Session::open_source`].
    fn open_source(&mut self, name: &str, path: &str, options: &str) -> Result<()>;
    /// See [`crate::Session::optimizer`]; answers with an index, `params` is one of the session's sets.
    fn optimizer(&mut self, name: &str, options: &str, params: &Params) -> Result<usize>;
    /// See [`crate::Session::optimizer_step`]; none is the run's own.
    fn optimizer_step(&mut self, optimizer: Option<usize>, lr: f64) -> Result<()>;
    /// See [`crate::Session::evaluate`].
    fn evaluate(&mut self, model: &str, source: &str, rows: u64) -> Result<Json<String, Value>>;
    /// See [`crate::Session::log_scalar`].
    fn log_scalar(&mut self, name: &str, value: f64) -> Result<()>;
    /// See [`crate::Session::step`].
    fn step(&self) -> u64;
    /// See [`crate::Session::total_steps`].
    fn total_steps(&self) -> u64;
    /// See [`crate::Session::is_cancelled`].
    fn is_cancelled(&self) -> bool;
    /// See [`crate::Session::module`].
    fn module(&mut self, name: &str, spec: &ModuleSpec<'_>) -> Result<Scope> {
        let _ = spec;
        Err(not_offered("module", name))
    }
    /// See [`crate::Session::keep`].
    fn keep(&mut self, module: &str) -> Result<()> {
        Err(not_offered("keep", module))
    }
    /// See [`crate::Session::sources`].
    fn sources(&mut self) -> Result<Vec<SourceInfo>> {
        Ok(Vec::new())
    }
    /// See [`crate::Session::draw_batch`].
    fn draw_batch(&mut self, sources: &[&str], weights: Option<&[f64]>) -> Result<Map> {
        let _ = weights;
        Err(not_offered("draw_batch", &format!("{sources:?}")))
    }
    /// See [`crate::Session::records`].
    fn records(&mut self, source: &str, numbers: &[u64]) -> Result<Map> {
        let _ = numbers;
        Err(not_offered("records", source))
    }
    /// See [`crate::Session::record`]; JSON.
    fn record(&mut self, source: &str, number: u64) -> Result<String> {
        let _ = number;
        Err(not_offered("record", source))
    }
    /// See [`crate::Session::loss_rows`].
    fn loss_rows(&mut self, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let _ = (outputs, batch);
        Err(not_offered("loss_rows", "the loss"))
    }
    /// See [`crate::Session::set_total_steps`].
    fn set_total_steps(&mut self, steps: u64) -> Result<()> {
        Err(not_offered("set_total_steps", &steps.to_string()))
    }
    /// See [`crate::Session::lr`].
    fn lr(&mut self) -> f64 {
        0.0
    }
    /// See [`crate::Session::step_once`].
    fn step_once(&mut self, source: &str) -> Result<()> {
        Err(not_offered("step_once", source))
    }
    /// See [`crate::Session::backward`].
    fn backward(&mut self, loss: &Tensor) -> Result<()> {
        loss.backward()
    }
    /// See [`crate::Session::commit`].
    fn commit(&mut self, figures: &Json<String, Value>, save: Save<'_>) -> Result<bool> {
        let _ = (figures, save);
        Err(not_offered("commit", "a step"))
    }
}

/// Writes the state of a strategy that drives the fit.
pub type Save<'a> = &'a mut dyn FnMut(&mut Stream) -> Result<()>;

fn not_offered(slot: &str, of: &str) -> Error {
    Error::new(abi::ET_ERR_UNIMPLEMENTED, format!("{slot}: {of}: this host does not offer it"))
}

/// Runs `f` with the trainer's session as strategies get it.
pub(crate) fn with_session<T>(
    mut host: &mut dyn SessionHost,
    f: impl FnOnce(*mut abi::et_session) -> T,
) -> T {
    f((&raw mut host).cast())
}

/// The host behind a session pointer.
unsafe fn host_of<'a>(raw: *const abi::et_session) -> &'a mut (dyn SessionHost + 'a) {
    // SAFETY: sessions are made by `with_session` alone, and live for the hook.
    unsafe { &mut **raw.cast_mut().cast::<&'a mut (dyn SessionHost + 'a)>() }
}

/// The C table that a host with a trainer offers as `et.session/1`.
pub fn host_table() -> *const c_void {
    static TABLE: abi::et_host_session = abi::et_host_session {
        struct_size: size_of::<abi::et_host_session>(),
        params: Some(thunks::params),
        load_model: Some(thunks::load_model),
        describe: Some(thunks::describe),
        forward: Some(thunks::forward),
        loss: Some(thunks::loss),
        add_loss: Some(thunks::add_loss),
        set_loss_weight: Some(thunks::set_loss_weight),
        want: Some(thunks::want),
        next_batch: Some(thunks::next_batch),
        open_source: Some(thunks::open_source),
        optimizer: Some(thunks::optimizer),
        optimizer_step: Some(thunks::optimizer_step),
        evaluate: Some(thunks::evaluate),
        log_scalar: Some(thunks::log_scalar),
        step: Some(thunks::step),
        total_steps: Some(thunks::total_steps),
        is_cancelled: Some(thunks::is_cancelled),
        module: Some(thunks::module),
        keep: Some(thunks::keep),
        sources: Some(thunks::sources),
        draw_batch: Some(thunks::draw_batch),
        records: Some(thunks::records),
        record: Some(thunks::record),
        loss_rows: Some(thunks::loss_rows),
        set_total_steps: Some(thunks::set_total_steps),
        lr: Some(thunks::lr),
        step_once: Some(thunks::step_once),
        backward: Some(thunks::backward),
        commit: Some(thunks::commit),
    };
    (&raw const TABLE).cast()
}

mod thunks {
    use super::*;
    use easytransfer_abi::{
        et_buffer, et_error, et_map, et_params, et_saver, et_scope, et_session,
        et_session_optimizer, et_str, et_tensor,
    };

    /// Defines a slot: the body runs with `host` and may write outs; panics and errors become errors of the boundary.
    macro_rules! slots {
        ($($name:ident($host:ident $(, $arg:ident: $ty:ty)*) $body:block)*) => {$(
            pub(super) unsafe extern "C" fn $name(session: *mut et_session $(, $arg: $ty)*) -> *mut et_error {
                guard(|| {
                    // SAFETY: strategies pass the session of their hook, borrowed arguments and valid outs.
                    unsafe {
                        let $host = host_of(session);
                        $body
                    }
                    Ok(())
                })
            }
        )*};
    }

    slots! {
        params(host, model: et_str, out: *mut *mut et_params) {
            *out = host.params(view(model)?)?.as_raw();
        }
        load_model(host, name: et_str, path: et_str) {
            host.load_model(view(name)?, view(path)?)?;
        }
        describe(host, model: et_str, out: *mut *mut et_buffer) {
            put_text(out, &host.describe(view(model)?)?.to_string())?;
        }
        forward(host, model: et_str, batch: *const et_map, training: i32, want: u32, out: *mut *mut et_map) {
            let batch = Map::lend(batch.cast_mut())?;
            *out = host.forward(view(model)?, &batch, training != 0, want)?.into_raw();
        }
        loss(host, outputs: *const et_map, batch: *const et_map, out: *mut *mut et_tensor) {
            let outputs = Map::lend(outputs.cast_mut())?;
            let batch = Map::lend(batch.cast_mut())?;
            *out = host.loss(&outputs, &batch)?.into_raw();
        }
        add_loss(host, name: et_str, loss: *const et_tensor, weight: f64) {
            let loss = Tensor::clone(&*Tensor::lend(loss.cast_mut())?);
            host.add_loss(view(name)?, loss, weight)?;
        }
        set_loss_weight(host, weight: f64) {
            host.set_loss_weight(weight)?;
        }
        want(host, want: u32) {
            host.want(want)?;
        }
        next_batch(host, source: et_str, out: *mut *mut et_map) {
            *out = host.next_batch(view(source)?)?.into_raw();
        }
        open_source(host, name: et_str, path: et_str, options: et_str) {
            host.open_source(view(name)?, view(path)?, view(options)?)?;
        }
        optimizer(host, name: et_str, options: et_str, params: *mut et_params, out: *mut *mut et_session_optimizer) {
            let params = Params::lend(params)?;
            // The handle is the index plus one, so that it is never NULL.
            *out = (host.optimizer(view(name)?, view(options)?, &params)? + 1) as *mut et_session_optimizer;
        }
        optimizer_step(host, optimizer: *mut et_session_optimizer, lr: f64) {
            host.optimizer_step((optimizer as usize).checked_sub(1), lr)?;
        }
        evaluate(host, model: et_str, source: et_str, rows: u64, out: *mut *mut et_buffer) {
            put_text(out, &Value::Object(host.evaluate(view(model)?, view(source)?, rows)?).to_string())?;
        }
        log_scalar(host, name: et_str, value: f64) {
            host.log_scalar(view(name)?, value)?;
        }
        module(host, name: et_str, model: et_str, config: et_str, flags: u32, out: *mut *mut et_scope) {
            let known = abi::ET_MODULE_HEAD | abi::ET_MODULE_COPY;
            if flags & !known != 0 {
                return Err(Error::invalid(format!("module: flags {flags:#x}: expected bits of {known:#x}")));
            }
            let config = view(config)?;
            let config = if config.trim().is_empty() { "{}" } else { config };
            let config = serde_json::from_str(config)
                .map_err(|error| Error::bad_input(format!("module: config: expected a JSON object: {error}")))?;
            let head = flags & abi::ET_MODULE_HEAD != 0;
            let copy = flags & abi::ET_MODULE_COPY != 0;
            let spec = ModuleSpec { model: view(model)?, config, head, copy };
            *out = host.module(view(name)?, &spec)?.into_raw();
        }
        keep(host, module: et_str) {
            host.keep(view(module)?)?;
        }
        sources(host, out: *mut *mut et_buffer) {
            put_text(out, &serde_json::to_string(&host.sources()?)?)?;
        }
        draw_batch(host, sources: *const et_str, weights: *const f64, len: usize, out: *mut *mut et_map) {
            if len == 0 || sources.is_null() {
                return Err(Error::invalid("draw_batch: expected at least one source"));
            }
            let names = std::slice::from_raw_parts(sources, len);
            let names = names.iter().map(|name| view(*name)).collect::<Result<Vec<&str>>>()?;
            let weights = (!weights.is_null()).then(|| std::slice::from_raw_parts(weights, len));
            *out = host.draw_batch(&names, weights)?.into_raw();
        }
        records(host, source: et_str, numbers: *const u64, len: usize, out: *mut *mut et_map) {
            if len == 0 || numbers.is_null() {
                return Err(Error::invalid("records: expected at least one number"));
            }
            let numbers = std::slice::from_raw_parts(numbers, len);
            *out = host.records(view(source)?, numbers)?.into_raw();
        }
        record(host, source: et_str, number: u64, out: *mut *mut et_buffer) {
            put_text(out, &host.record(view(source)?, number)?)?;
        }
        loss_rows(host, outputs: *const et_map, batch: *const et_map, out: *mut *mut et_tensor) {
            let outputs = Map::lend(outputs.cast_mut())?;
            let batch = Map::lend(batch.cast_mut())?;
            *out = host.loss_rows(&outputs, &batch)?.into_raw();
        }
        set_total_steps(host, steps: u64) {
            host.set_total_steps(steps)?;
        }
        step_once(host, source: et_str) {
            host.step_once(view(source)?)?;
        }
        backward(host, loss: *const et_tensor) {
            host.backward(&*Tensor::lend(loss.cast_mut())?)?;
        }
        commit(host, figures: et_str, saver: *const et_saver, out: *mut i32) {
            let figures = serde_json::from_str(view(figures)?).map_err(|error| {
                Error::bad_input(format!("commit: figures: expected a JSON object of numbers: {error}"))
            })?;
            let saver = saver.as_ref();
            let mut save = |stream: &mut Stream| {
                let Some(saver) = saver else { return Ok(()) };
                match slot!(saver, et_saver.save) {
                    // The owned error, if any, is the strategy's.
                    Some(save) => Error::from_raw(save(saver.context, stream.as_raw())),
                    None => Ok(()),
                }
            };
            *out = i32::from(host.commit(&figures, &mut save)?);
        }
    }

    pub(super) unsafe extern "C" fn step(session: *const et_session) -> u64 {
        // SAFETY: as for the other slots.
        unsafe { host_of(session) }.step()
    }

    pub(super) unsafe extern "C" fn lr(session: *mut et_session) -> f64 {
        // SAFETY: as for the other slots.
        unsafe { host_of(session) }.lr()
    }

    pub(super) unsafe extern "C" fn total_steps(session: *const et_session) -> u64 {
        // SAFETY: as for the other slots.
        unsafe { host_of(session) }.total_steps()
    }

    pub(super) unsafe extern "C" fn is_cancelled(session: *const et_session) -> i32 {
        // SAFETY: as for the other slots.
        i32::from(unsafe { host_of(session) }.is_cancelled())
    }
}
