//! A running fit, from both sides: what a strategy asks ([`Session`]) and what a trainer answers ([`SessionHost`]).

use crate::component::{guard, put_text};
use crate::host::{call, interface, missing, slot};
use crate::text::{borrow, view};
use crate::{Buffer, Error, Lent, Map, Params, Result, Tensor};
use easytransfer_abi as abi;
use serde_json::{Map as Json, Value};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// Name of the model under training.
pub const MODEL: &str = "model";

/// An optimizer that a strategy opened; an index into the session's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptimizer(usize);

/// A running fit, as a strategy sees it.
pub struct Session<'a> {
    raw: *mut abi::et_session,
    table: &'static abi::et_host_session,
    lifetime: std::marker::PhantomData<&'a mut ()>,
}

fn session_table() -> Result<&'static abi::et_host_session> {
    static TABLE: OnceLock<Option<&'static abi::et_host_session>> = OnceLock::new();
    // SAFETY: the id names the table type.
    TABLE
        .get_or_init(|| unsafe { interface(crate::host::host(), c"et.session/1") })
        .ok_or_else(|| missing("et.session/1"))
}

macro_rules! ask_session {
    ($self:ident, $slot:ident ( $($arg:expr),* ) or $default:expr) => {
        match slot!($self.table, et_host_session.$slot) {
            // SAFETY: the session lives for the hook.
            Some(f) => unsafe { f($($arg),*) },
            None => $default,
        }
    };
}

impl Session<'_> {
    /// The session of a hook.
    ///
    /// # Safety
    /// `raw` is a live session for the time of the hook.
    pub(crate) unsafe fn new(raw: *mut abi::et_session) -> Result<Self> {
        if raw.is_null() {
            return Err(Error::invalid("the session is NULL"));
        }
        Ok(Self { raw, table: session_table()?, lifetime: std::marker::PhantomData })
    }

    /// The parameter set of a model ([`MODEL`] or a loaded one).
    pub fn params(&mut self, model: &str) -> Result<Lent<'_, Params>> {
        let mut out = null_mut();
        call!(self.table, et_host_session.params(self.raw, borrow(model), &mut out))?;
        // SAFETY: the set lives as long as the session.
        unsafe { Params::lend(out) }
    }

    /// Loads a trained bundle as a frozen model; only in `on_setup`.
    pub fn load_model(&mut self, name: &str, path: &str) -> Result<()> {
        call!(self.table, et_host_session.load_model(self.raw, borrow(name), borrow(path)))
    }

    /// What a model and its app say of themselves: {"model": ModelInfo, "app": AppInfo}.
    pub fn describe(&mut self, model: &str) -> Result<Value> {
        let mut out = null_mut();
        call!(self.table, et_host_session.describe(self.raw, borrow(model), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        let buffer = unsafe { Buffer::from_raw(out) }?;
        Ok(serde_json::from_str(buffer.as_str()?)?)
    }

    /// Outputs of a model with its app's head. Loaded models record nothing on the tape.
    pub fn forward(&mut self, model: &str, batch: &Map, training: bool, want: u32) -> Result<Map> {
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.forward(
                self.raw,
                borrow(model),
                batch.as_raw(),
                i32::from(training),
                want,
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Map::from_raw(out) }
    }

    /// The configured loss of the run.
    pub fn loss(&mut self, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.loss(self.raw, outputs.as_raw(), batch.as_raw(), &mut out)
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }

    /// Adds a named scalar to this step's losses; only in `on_outputs`.
    pub fn add_loss(&mut self, name: &str, loss: &Tensor, weight: f64) -> Result<()> {
        call!(self.table, et_host_session.add_loss(self.raw, borrow(name), loss.as_raw(), weight))
    }

    /// Sets the weight of the run's own loss for this step; only in `on_outputs`.
    pub fn set_loss_weight(&mut self, weight: f64) -> Result<()> {
        call!(self.table, et_host_session.set_loss_weight(self.raw, weight))
    }

    /// Asks for more outputs in every step, `ET_WANT_` bits; only in `on_setup`.
    pub fn want(&mut self, want: u32) -> Result<()> {
        call!(self.table, et_host_session.want(self.raw, want))
    }

    /// The next batch of "train" or of a source opened by the strategy.
    pub fn next_batch(&mut self, source: &str) -> Result<Map> {
        let mut out = null_mut();
        call!(self.table, et_host_session.next_batch(self.raw, borrow(source), &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Map::from_raw(out) }
    }

    /// Opens one more file as a source; only in `on_setup`. `options` is a JSON object: "task", "domain", "weight",
    /// "columns".
    pub fn open_source(&mut self, name: &str, path: &str, options: &Value) -> Result<()> {
        let options = options.to_string();
        call!(
            self.table,
            et_host_session.open_source(self.raw, borrow(name), borrow(path), borrow(&options))
        )
    }

    /// Opens an optimizer over the parameters of a model, which are sealed by it; `options` is JSON.
    pub fn optimizer(
        &mut self,
        name: &str,
        options: &Value,
        model: &str,
    ) -> Result<SessionOptimizer> {
        let options = options.to_string();
        let params = self.params(model)?.as_raw();
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.optimizer(self.raw, borrow(name), borrow(&options), params, &mut out)
        )?;
        Ok(SessionOptimizer(out as usize))
    }

    /// One step with the gradients present, which are forgotten then.
    pub fn optimizer_step(&mut self, optimizer: SessionOptimizer, lr: f64) -> Result<()> {
        let raw = optimizer.0 as *mut abi::et_session_optimizer;
        call!(self.table, et_host_session.optimizer_step(self.raw, raw, lr))
    }

    /// Figures of a model on a source, of which the first `rows` records count, or all for 0.
    pub fn evaluate(
        &mut self,
        model: &str,
        source: &str,
        rows: u64,
    ) -> Result<Json<String, Value>> {
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.evaluate(self.raw, borrow(model), borrow(source), rows, &mut out)
        )?;
        // SAFETY: on success the out holds an owned reference.
        let buffer = unsafe { Buffer::from_raw(out) }?;
        Ok(serde_json::from_str(buffer.as_str()?)?)
    }

    /// Writes a number to the run's metrics at the present step.
    pub fn log_scalar(&mut self, name: &str, value: f64) -> Result<()> {
        call!(self.table, et_host_session.log_scalar(self.raw, borrow(name), value))
    }

    /// Optimizer steps done so far.
    pub fn step(&self) -> u64 {
        ask_session!(self, step(self.raw) or 0)
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        ask_session!(self, total_steps(self.raw) or 0)
    }

    /// Whether the user asked to stop.
    pub fn is_cancelled(&self) -> bool {
        ask_session!(self, is_cancelled(self.raw) or 0) != 0
    }
}

/// What a trainer answers a strategy; each method is the slot of the same name.
pub trait SessionHost {
    /// See [`Session::params`].
    fn params(&mut self, model: &str) -> Result<&mut Params>;
    /// See [`Session::load_model`].
    fn load_model(&mut self, name: &str, path: &str) -> Result<()>;
    /// See [`Session::describe`].
    fn describe(&mut self, model: &str) -> Result<Value>;
    /// See [`Session::forward`].
    fn forward(&mut self, model: &str, batch: &Map, training: bool, want: u32) -> Result<Map>;
    /// See [`Session::loss`].
    fn loss(&mut self, outputs: &Map, batch: &Map) -> Result<Tensor>;
    /// See [`Session::add_loss`].
    fn add_loss(&mut self, name: &str, loss: Tensor, weight: f64) -> Result<()>;
    /// See [`Session::set_loss_weight`].
    fn set_loss_weight(&mut self, weight: f64) -> Result<()>;
    /// See [`Session::want`].
    fn want(&mut self, want: u32) -> Result<()>;
    /// See [`Session::next_batch`].
    fn next_batch(&mut self, source: &str) -> Result<Map>;
    /// See [`Session::open_source`].
    fn open_source(&mut self, name: &str, path: &str, options: &str) -> Result<()>;
    /// See [`Session::optimizer`]; answers with an index, `params` is one of the session's sets.
    fn optimizer(&mut self, name: &str, options: &str, params: &Params) -> Result<usize>;
    /// See [`Session::optimizer_step`].
    fn optimizer_step(&mut self, optimizer: usize, lr: f64) -> Result<()>;
    /// See [`Session::evaluate`].
    fn evaluate(&mut self, model: &str, source: &str, rows: u64) -> Result<Json<String, Value>>;
    /// See [`Session::log_scalar`].
    fn log_scalar(&mut self, name: &str, value: f64) -> Result<()>;
    /// See [`Session::step`].
    fn step(&self) -> u64;
    /// See [`Session::total_steps`].
    fn total_steps(&self) -> u64;
    /// See [`Session::is_cancelled`].
    fn is_cancelled(&self) -> bool;
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
        module: None,
        keep: None,
        sources: None,
        draw_batch: None,
        records: None,
        record: None,
        loss_rows: None,
        set_total_steps: None,
        lr: None,
        step_once: None,
        backward: None,
        commit: None,
    };
    (&raw const TABLE).cast()
}

mod thunks {
    use super::*;
    use easytransfer_abi::{
        et_buffer, et_error, et_map, et_params, et_session, et_session_optimizer, et_str, et_tensor,
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
            let index = (optimizer as usize).checked_sub(1).ok_or_else(|| Error::invalid("the optimizer is NULL"))?;
            host.optimizer_step(index, lr)?;
        }
        evaluate(host, model: et_str, source: et_str, rows: u64, out: *mut *mut et_buffer) {
            put_text(out, &Value::Object(host.evaluate(view(model)?, view(source)?, rows)?).to_string())?;
        }
        log_scalar(host, name: et_str, value: f64) {
            host.log_scalar(view(name)?, value)?;
        }
    }

    pub(super) unsafe extern "C" fn step(session: *const et_session) -> u64 {
        // SAFETY: as for the other slots.
        unsafe { host_of(session) }.step()
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
