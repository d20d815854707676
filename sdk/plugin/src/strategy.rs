//! Transfer strategies: hooks of the shared step, or the whole fit.

use crate::component::{
    ComponentRef, Instance, Loaded, create, invoke, invoke_tensor, invoke_text, log_panic, parse,
    put_text,
};
use crate::own::{Given, by_closure};
use crate::session::with_session;
use crate::text::{borrow, view};
use crate::{Error, Map, Result, Session, SessionHost, Stream, Tensor};
use easytransfer_abi as abi;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map as Json, Value};
use std::ffi::{CStr, c_void};

/// The hooks that a strategy uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases(pub u32);

impl Phases {
    /// [`Strategy::on_setup`]
    pub const SETUP: Self = Self(abi::ET_PHASE_SETUP);
    /// [`Strategy::on_batch`]
    pub const BATCH: Self = Self(abi::ET_PHASE_BATCH);
    /// [`Strategy::on_outputs`]
    pub const OUTPUTS: Self = Self(abi::ET_PHASE_OUTPUTS);
    /// [`Strategy::combine`]
    pub const COMBINE: Self = Self(abi::ET_PHASE_COMBINE);
    /// [`Strategy::on_gradients`]
    pub const GRADIENTS: Self = Self(abi::ET_PHASE_GRADIENTS);
    /// [`Strategy::on_epoch`]
    pub const EPOCH: Self = Self(abi::ET_PHASE_EPOCH);
    /// [`Strategy::fit`]
    pub const FIT: Self = Self(abi::ET_PHASE_FIT);

    /// Whether all hooks of `other` are in this set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Phases {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How values of a column become a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// A text, numbered in the order of its first occurrence: I64 [B]; -1 where a record has none.
    #[default]
    Category,
    /// A number: F32 [B]; NaN where a record has none.
    Number,
}

/// A column that a strategy needs of every record besides those of the app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtraColumn {
    /// Role, which is also the name of the field.
    pub role: String,
    /// Names that are taken without being asked for, first match wins.
    pub names: Vec<String>,
    /// Whether records cannot be used without it.
    pub required: bool,
    /// What the field is.
    pub kind: ColumnKind,
}

/// A transfer strategy. Only the hooks named by [`Strategy::phases`] are called.
#[allow(unused_variables, reason = "default hooks do nothing with their arguments")]
pub trait Strategy: Send + Sized + 'static {
    /// Name users write, for instance `c"finetune"`.
    const NAME: &'static CStr;
    /// JSON Schema of the options.
    const SCHEMA: &'static CStr = crate::NO_OPTIONS;
    /// The options.
    type Options: DeserializeOwned;

    /// Makes an instance. As written, an error: for those that a program makes by a closure.
    fn new(options: Self::Options) -> Result<Self> {
        Err(by_closure(Self::NAME))
    }

    /// The hooks that are used.
    fn phases(&self) -> Phases;

    /// Columns that the strategy needs besides those of the app. A role that the app has, too, is the app's.
    fn columns(&self) -> Vec<ExtraColumn> {
        Vec::new()
    }

    /// Weights are loaded and nothing is sealed: freeze, scale rates, add low-rank updates, load other models.
    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        Ok(())
    }

    /// May put "weights" [B] into the batch.
    fn on_batch(&mut self, session: &mut Session<'_>, batch: &mut Map) -> Result<()> {
        Ok(())
    }

    /// May add losses.
    fn on_outputs(&mut self, session: &mut Session<'_>, batch: &Map, outputs: &Map) -> Result<()> {
        Ok(())
    }

    /// Makes one scalar of all losses of the step, whose weights are applied already.
    fn combine(&mut self, session: &mut Session<'_>, losses: &Map) -> Result<Tensor> {
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "combine is not implemented"))
    }

    /// Gradients are complete and not yet clipped.
    fn on_gradients(&mut self, session: &mut Session<'_>) -> Result<()> {
        Ok(())
    }

    /// After epoch `epoch`, from 1.
    fn on_epoch(
        &mut self,
        session: &mut Session<'_>,
        epoch: u64,
        metrics: &Json<String, Value>,
    ) -> Result<()> {
        Ok(())
    }

    /// Drives the whole fit, from step [`Session::step`] on, until [`Session::commit`] says that it is over. Of the
    /// strategy's own hooks only `on_setup` is called then.
    fn fit(&mut self, session: &mut Session<'_>) -> Result<()> {
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "fit is not implemented"))
    }

    /// Writes the state for a checkpoint.
    fn save(&self, stream: &mut Stream) -> Result<()> {
        Ok(())
    }

    /// Reads the state back.
    fn load(&mut self, stream: &mut Stream) -> Result<()> {
        Ok(())
    }
}

/// The C table of a strategy.
#[doc(hidden)]
pub struct StrategyTable<T>(std::marker::PhantomData<T>);

/// Defines hooks that take the instance and the session.
macro_rules! hooks {
    ($($name:ident($strategy:ident, $session:ident $(, $arg:ident: $ty:ty)*) $body:block)*) => {$(
        unsafe extern "C" fn $name(
            instance: *mut c_void,
            session: *mut abi::et_session
            $(, $arg: $ty)*
        ) -> *mut abi::et_error {
            // SAFETY: the host passes its instance, one call at a time, a session for the hook, live maps and valid
            // outs.
            unsafe {
                Instance::<T>::with_mut(instance, |$strategy| {
                    let $session = &mut Session::new(session)?;
                    $body
                })
            }
        }
    )*};
}

impl<T: Strategy> StrategyTable<T> {
    #[doc(hidden)]
    pub const TABLE: &'static abi::et_plugin_strategy = &abi::et_plugin_strategy {
        struct_size: size_of::<abi::et_plugin_strategy>(),
        name: T::NAME.as_ptr(),
        schema: T::SCHEMA.as_ptr(),
        create: Some(Self::create),
        phases: Some(Self::phases),
        on_setup: Some(Self::on_setup),
        on_batch: Some(Self::on_batch),
        on_outputs: Some(Self::on_outputs),
        combine: Some(Self::combine),
        on_gradients: Some(Self::on_gradients),
        on_epoch: Some(Self::on_epoch),
        fit: Some(Self::fit),
        state_save: Some(Self::state_save),
        state_load: Some(Self::state_load),
        release: Some(Instance::<T>::release),
        columns: Some(Self::columns),
    };

    unsafe extern "C" fn create(options: abi::et_str, out: *mut *mut c_void) -> *mut abi::et_error {
        // SAFETY: the host passes valid text and a valid out.
        unsafe { Instance::create(out, || T::new(parse(T::NAME, options)?)) }
    }

    unsafe extern "C" fn phases(instance: *mut c_void) -> u32 {
        let mut phases = 0;
        // SAFETY: the host passes its instance, one call at a time.
        let error = unsafe {
            Instance::<T>::with_mut(instance, |strategy| {
                phases = strategy.phases().0;
                Ok(())
            })
        };
        // SAFETY: the error is owned here. The host refuses a strategy that names no hook, and the log says why it
        // did not.
        if let Err(error) = unsafe { Error::from_raw(error) } {
            log_panic::<T>("phases", error.message());
        }
        phases
    }

    unsafe extern "C" fn columns(
        instance: *mut c_void,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a valid out.
        unsafe {
            Instance::<T>::with_mut(instance, |strategy| {
                put_text(out, &serde_json::to_string(&strategy.columns())?)
            })
        }
    }

    hooks! {
        on_setup(strategy, session) { strategy.on_setup(session) }
        on_batch(strategy, session, batch: *mut abi::et_map) {
            strategy.on_batch(session, &mut *Map::lend_mut(batch)?)
        }
        on_outputs(strategy, session, batch: *const abi::et_map, outputs: *const abi::et_map) {
            strategy.on_outputs(session, &*Map::lend(batch.cast_mut())?, &*Map::lend(outputs.cast_mut())?)
        }
        combine(strategy, session, losses: *const abi::et_map, out: *mut *mut abi::et_tensor) {
            *out = strategy.combine(session, &*Map::lend(losses.cast_mut())?)?.into_raw();
            Ok(())
        }
        on_gradients(strategy, session) { strategy.on_gradients(session) }
        on_epoch(strategy, session, epoch: u64, metrics: abi::et_str) {
            strategy.on_epoch(session, epoch, &serde_json::from_str(view(metrics)?)?)
        }
        fit(strategy, session) { strategy.fit(session) }
    }

    unsafe extern "C" fn state_save(
        instance: *mut c_void,
        stream: *mut abi::et_stream,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live stream.
        unsafe {
            Instance::<T>::with_mut(instance, |strategy| {
                strategy.save(&mut *Stream::lend_mut(stream)?)
            })
        }
    }

    unsafe extern "C" fn state_load(
        instance: *mut c_void,
        stream: *mut abi::et_stream,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live stream.
        unsafe {
            Instance::<T>::with_mut(instance, |strategy| {
                strategy.load(&mut *Stream::lend_mut(stream)?)
            })
        }
    }
}

/// A strategy from a registry, as the host uses it.
pub struct LoadedStrategy {
    loaded: Loaded<abi::et_plugin_strategy>,
    phases: Phases,
    name: String,
}

impl LoadedStrategy {
    /// Kind, name and plugin, as messages have them.
    pub fn who(&self) -> &str {
        &self.loaded.what
    }

    /// Makes an instance with options as JSON.
    pub fn create(component: &ComponentRef, options: &str) -> Result<Self> {
        let loaded = create!(
            component,
            "et.strategy/1",
            et_plugin_strategy(borrow(options)),
            Given { options, ..Given::default() }
        );
        let phases = match crate::host::slot!(loaded.table, et_plugin_strategy.phases) {
            // SAFETY: the instance belongs to this table.
            Some(f) => Phases(unsafe { f(loaded.instance) }),
            None => return Err(loaded.missing("phases")),
        };
        if phases == Phases::default() {
            return Err(Error::new(
                abi::ET_ERR_FAILED_PRECONDITION,
                format!(
                    "{}: phases: expected at least one hook, found none; where it panicked, the log says so",
                    loaded.what
                ),
            ));
        }
        Ok(Self { loaded, phases, name: component.name.clone() })
    }

    /// Name in the registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hooks that the strategy uses.
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// See [`Strategy::columns`]. Errors: what the plugin says, text that is no list of columns.
    pub fn columns(&self) -> Result<Vec<ExtraColumn>> {
        if crate::host::slot!(self.loaded.table, et_plugin_strategy.columns).is_none() {
            return Ok(Vec::new());
        }
        self.loaded.read("columns", &invoke_text!(self.loaded, et_plugin_strategy.columns())?)
    }

    /// See [`Strategy::on_setup`].
    pub fn on_setup(&mut self, host: &mut dyn SessionHost) -> Result<()> {
        with_session(host, |session| invoke!(self.loaded, et_plugin_strategy.on_setup(session)))
    }

    /// See [`Strategy::on_batch`].
    pub fn on_batch(&mut self, host: &mut dyn SessionHost, batch: &mut Map) -> Result<()> {
        with_session(host, |session| {
            invoke!(self.loaded, et_plugin_strategy.on_batch(session, batch.as_raw()))
        })
    }

    /// See [`Strategy::on_outputs`].
    pub fn on_outputs(
        &mut self,
        host: &mut dyn SessionHost,
        batch: &Map,
        outputs: &Map,
    ) -> Result<()> {
        with_session(host, |session| {
            invoke!(
                self.loaded,
                et_plugin_strategy.on_outputs(session, batch.as_raw(), outputs.as_raw())
            )
        })
    }

    /// See [`Strategy::combine`].
    pub fn combine(&mut self, host: &mut dyn SessionHost, losses: &Map) -> Result<Tensor> {
        let loss = with_session(host, |session| {
            invoke_tensor!(self.loaded, et_plugin_strategy.combine(session, losses.as_raw()))
        });
        self.loaded.scalar("combine", loss?)
    }

    /// See [`Strategy::on_gradients`].
    pub fn on_gradients(&mut self, host: &mut dyn SessionHost) -> Result<()> {
        with_session(host, |session| invoke!(self.loaded, et_plugin_strategy.on_gradients(session)))
    }

    /// See [`Strategy::on_epoch`].
    pub fn on_epoch(
        &mut self,
        host: &mut dyn SessionHost,
        epoch: u64,
        metrics: &Json<String, Value>,
    ) -> Result<()> {
        let metrics = serde_json::to_string(metrics)?;
        with_session(host, |session| {
            invoke!(self.loaded, et_plugin_strategy.on_epoch(session, epoch, borrow(&metrics)))
        })
    }

    /// See [`Strategy::fit`].
    pub fn fit(&mut self, host: &mut dyn SessionHost) -> Result<()> {
        with_session(host, |session| invoke!(self.loaded, et_plugin_strategy.fit(session)))
    }

    /// Writes the state; a strategy without any writes nothing.
    pub fn save(&mut self, stream: &mut Stream) -> Result<()> {
        if crate::host::slot!(self.loaded.table, et_plugin_strategy.state_save).is_none() {
            return Ok(());
        }
        invoke!(self.loaded, et_plugin_strategy.state_save(stream.as_raw()))
    }

    /// Reads the state back.
    pub fn load(&mut self, stream: &mut Stream) -> Result<()> {
        if crate::host::slot!(self.loaded.table, et_plugin_strategy.state_load).is_none() {
            return Ok(());
        }
        invoke!(self.loaded, et_plugin_strategy.state_load(stream.as_raw()))
    }
}
