//! A running fit, from both sides: what a strategy asks ([`Session`]) and what a trainer answers ([`SessionHost`]).

mod host;

use crate::component::guard;
use crate::host::{call, interface, missing, slot};
use crate::text::borrow;
use crate::{Buffer, Error, LentMut, Map, Params, Result, Scope, Stream, Tensor};
use easytransfer_abi as abi;
use serde::{Deserialize, Serialize};
use serde_json::{Map as Json, Value, json};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

pub(crate) use host::with_session;
pub use host::{Save, SessionHost, host_table};

/// Name of the model under training.
pub const MODEL: &str = "model";

/// An optimizer that a strategy opened; an index into the session's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptimizer(usize);

/// A network of a strategy's own, see [`Session::module`]. As it is by default it is a bare set of parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModuleSpec<'a> {
    /// Name of a model in the registry, [`MODEL`] for that of the model under training, or empty for none.
    pub model: &'a str,
    /// The model's configuration; with [`MODEL`] the entries that differ.
    pub config: Json<String, Value>,
    /// Whether the run's app builds its head in it, too.
    pub head: bool,
    /// Whether it starts with the values of the model under training.
    pub copy: bool,
}

/// A source of data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceInfo {
    /// Its name.
    pub name: String,
    /// Number of records.
    pub records: u64,
    /// Batches of an epoch.
    pub batches: u64,
    /// The task that it was given.
    pub task: String,
    /// The domain that it was given.
    pub domain: String,
    /// The weight that it was given, 1 by default.
    pub weight: f64,
    /// The texts of columns of categories, in the order of their numbers, by role.
    pub categories: Json<String, Value>,
}

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
    pub fn params(&mut self, model: &str) -> Result<LentMut<'_, Params>> {
        let mut out = null_mut();
        call!(self.table, et_host_session.params(self.raw, borrow(model), &mut out))?;
        // SAFETY: the set lives as long as the session.
        unsafe { Params::lend_mut(out) }
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
        let params = self.params(model)?.as_raw();
        self.open_optimizer(name, options, params)
    }

    /// [`Session::optimizer`] over a part of a set ([`Params::part`]).
    pub fn optimizer_over(
        &mut self,
        name: &str,
        options: &Value,
        params: &Params,
    ) -> Result<SessionOptimizer> {
        self.open_optimizer(name, options, params.as_raw())
    }

    fn open_optimizer(
        &mut self,
        name: &str,
        options: &Value,
        params: *mut abi::et_params,
    ) -> Result<SessionOptimizer> {
        let options = options.to_string();
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.optimizer(self.raw, borrow(name), borrow(&options), params, &mut out)
        )?;
        Ok(SessionOptimizer(out as usize))
    }

    /// One step of the run's own optimizer over the model under training; only in `fit`.
    pub fn own_optimizer_step(&mut self, lr: f64) -> Result<()> {
        call!(self.table, et_host_session.optimizer_step(self.raw, null_mut(), lr))
    }

    /// One step with the gradients present, which are clipped first as the run is, and forgotten then.
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

    /// A network of the strategy's own; only in `on_setup`. Answers with the outermost scope of its parameters, in
    /// which more may be declared until `on_setup` ends.
    pub fn module(&mut self, name: &str, spec: &ModuleSpec<'_>) -> Result<Scope> {
        let config = Value::Object(spec.config.clone()).to_string();
        let mut flags = 0;
        for (is_set, flag) in [(spec.head, abi::ET_MODULE_HEAD), (spec.copy, abi::ET_MODULE_COPY)] {
            flags |= if is_set { flag } else { 0 };
        }
        let (name, model, config) = (borrow(name), borrow(spec.model), borrow(&config));
        let mut out = null_mut();
        call!(self.table, et_host_session.module(self.raw, name, model, config, flags, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Scope::from_raw(out) }
    }

    /// Makes a module with a model and a head the result of the run.
    pub fn keep(&mut self, module: &str) -> Result<()> {
        call!(self.table, et_host_session.keep(self.raw, borrow(module)))
    }

    /// The sources in the order of their numbers, which batches have under "source"; only after setup.
    pub fn sources(&mut self) -> Result<Vec<SourceInfo>> {
        let mut out = null_mut();
        call!(self.table, et_host_session.sources(self.raw, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        let buffer = unsafe { Buffer::from_raw(out) }?;
        Ok(serde_json::from_str(buffer.as_str()?)?)
    }

    /// The next batch of one of these sources, drawn with these weights, or with those that the sources were given.
    pub fn draw_batch(&mut self, sources: &[&str], weights: Option<&[f64]>) -> Result<Map> {
        if weights.is_some_and(|weights| weights.len() != sources.len()) {
            return Err(Error::invalid("draw_batch: expected one weight for each source"));
        }
        let names: Vec<abi::et_str> = sources.iter().map(|name| borrow(name)).collect();
        let weights = weights.map_or(null(), <[f64]>::as_ptr);
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.draw_batch(self.raw, names.as_ptr(), weights, names.len(), &mut out)
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Map::from_raw(out) }
    }

    /// A batch of records of a source by their numbers.
    pub fn records(&mut self, source: &str, numbers: &[u64]) -> Result<Map> {
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.records(
                self.raw,
                borrow(source),
                numbers.as_ptr(),
                numbers.len(),
                &mut out
            )
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Map::from_raw(out) }
    }

    /// One record of a source.
    pub fn record(&mut self, source: &str, number: u64) -> Result<crate::Record> {
        let mut out = null_mut();
        call!(self.table, et_host_session.record(self.raw, borrow(source), number, &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        let buffer = unsafe { Buffer::from_raw(out) }?;
        Ok(serde_json::from_str(buffer.as_str()?)?)
    }

    /// The loss of each row by itself, [B].
    pub fn loss_rows(&mut self, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let mut out = null_mut();
        call!(
            self.table,
            et_host_session.loss_rows(self.raw, outputs.as_raw(), batch.as_raw(), &mut out)
        )?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }

    /// Says how many steps the run has; only in `on_setup`, for strategies that drive the fit.
    pub fn set_total_steps(&mut self, steps: u64) -> Result<()> {
        call!(self.table, et_host_session.set_total_steps(self.raw, steps))
    }

    /// The learning rate of the present step by the run's schedule.
    pub fn lr(&self) -> f64 {
        ask_session!(self, lr(self.raw) or 0.0)
    }

    /// The trainer's own step over the next batches of a source, which is not counted before [`Session::commit`]; only
    /// in `fit`.
    pub fn step_once(&mut self, source: &str) -> Result<()> {
        call!(self.table, et_host_session.step_once(self.raw, borrow(source)))
    }

    /// Gradients of a scalar, added to those that are there.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        call!(self.table, et_host_session.backward(self.raw, loss.as_raw()))
    }

    /// Ends a step with its figures, of which "loss" is the step's loss; only in `fit`. `save` writes what
    /// [`crate::Strategy::load`] reads, when a checkpoint is due. Answers whether the run goes on.
    pub fn commit<F: FnMut(&mut Stream) -> Result<()>>(
        &mut self,
        figures: &[(&str, f64)],
        mut save: F,
    ) -> Result<bool> {
        unsafe extern "C" fn write<F: FnMut(&mut Stream) -> Result<()>>(
            context: *mut c_void,
            stream: *mut abi::et_stream,
        ) -> *mut abi::et_error {
            // SAFETY: the context is the closure below, which nobody else uses meanwhile; the stream lives for the
            // call.
            guard(|| unsafe { (*context.cast::<F>())(&mut *Stream::lend_mut(stream)?) })
        }
        let figures: Json<String, Value> =
            figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let figures = Value::Object(figures).to_string();
        let saver = abi::et_saver {
            struct_size: size_of::<abi::et_saver>(),
            context: (&raw mut save).cast(),
            save: Some(write::<F>),
        };
        let mut out = 0;
        call!(self.table, et_host_session.commit(self.raw, borrow(&figures), &saver, &mut out))?;
        Ok(out != 0)
    }

    /// Whether the user asked to stop.
    pub fn is_cancelled(&self) -> bool {
        ask_session!(self, is_cancelled(self.raw) or 0) != 0
    }
}
