//! What all kinds of components share: instances behind an opaque pointer, caught panics, and the host's handle of a
//! table.

use crate::own::Maker;
use crate::{Buffer, Cache, Error, Lent, LogLevel, Map, Result, Rng, Tensor};
use easytransfer_abi as abi;
use easytransfer_text::panic_text;
use serde::de::DeserializeOwned;
use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A component's instance. After a panic it is poisoned: its state may be half-changed, so later calls are refused.
pub(crate) struct Instance<T> {
    value: T,
    poisoned: AtomicBool,
}

/// Writes to the host's log what a slot that answers without an error cannot say. The type's path begins with the
/// plugin's crate.
pub(crate) fn log_panic<T>(slot: &str, text: &str) {
    let target = std::any::type_name::<T>();
    // A log that fails leaves nothing that could be told.
    let _ =
        catch_unwind(|| crate::log(LogLevel::Error, target, &format!("{target}, {slot}: {text}")));
}

/// Runs `f` and turns errors and panics into an error of the boundary.
pub(crate) fn guard(f: impl FnOnce() -> Result<()>) -> *mut abi::et_error {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => null_mut(),
        Ok(Err(error)) => error.into_raw(),
        Err(payload) => {
            Error::new(abi::ET_ERR_PANIC, format!("panic: {}", panic_text(&*payload))).into_raw()
        }
    }
}

impl<T> Instance<T> {
    /// Makes an instance and hands it to the host.
    ///
    /// # Safety
    /// `out` is valid for a write.
    pub(crate) unsafe fn create(
        out: *mut *mut c_void,
        make: impl FnOnce() -> Result<T>,
    ) -> *mut abi::et_error {
        guard(|| {
            let instance = Box::new(Self { value: make()?, poisoned: AtomicBool::new(false) });
            // SAFETY: promised by the caller.
            unsafe { *out = Box::into_raw(instance).cast() };
            Ok(())
        })
    }

    /// Calls `f` unless an earlier call panicked; a panic of `f` poisons the instance.
    fn enter(poisoned: &AtomicBool, f: impl FnOnce() -> Result<()>) -> *mut abi::et_error {
        if poisoned.load(Ordering::Acquire) {
            return Error::new(
                abi::ET_ERR_FAILED_PRECONDITION,
                "this component panicked before and cannot be used again; make a new one",
            )
            .into_raw();
        }
        guard(|| match catch_unwind(AssertUnwindSafe(f)) {
            Ok(result) => result,
            Err(payload) => {
                poisoned.store(true, Ordering::Release);
                std::panic::resume_unwind(payload)
            }
        })
    }

    /// Calls into an instance that no other call uses.
    ///
    /// # Safety
    /// `raw` came from `create` for the same `T`, is not released, and no other call on it is running.
    pub(crate) unsafe fn with_mut(
        raw: *mut c_void,
        f: impl FnOnce(&mut T) -> Result<()>,
    ) -> *mut abi::et_error {
        let this = raw.cast::<Self>();
        if this.is_null() {
            return Error::invalid("the instance is NULL").into_raw();
        }
        // SAFETY: promised by the caller; the two fields are borrowed apart.
        let (value, poisoned) = unsafe { (&mut (*this).value, &(*this).poisoned) };
        Self::enter(poisoned, || f(value))
    }

    /// Calls into an instance that other threads may be using too.
    ///
    /// # Safety
    /// `raw` came from `create` for the same `T`, is not released, and no `with_mut` call on it is running.
    pub(crate) unsafe fn with_ref(
        raw: *mut c_void,
        f: impl FnOnce(&T) -> Result<()>,
    ) -> *mut abi::et_error {
        // SAFETY: promised by the caller.
        match unsafe { raw.cast::<Self>().as_ref() } {
            Some(this) => Self::enter(&this.poisoned, || f(&this.value)),
            None => Error::invalid("the instance is NULL").into_raw(),
        }
    }

    /// Frees an instance. A panic while dropping goes to the host's log: the slot cannot answer with an error.
    ///
    /// # Safety
    /// `raw` is NULL or came from `create` for the same `T` and is not used again.
    pub(crate) unsafe extern "C" fn release(raw: *mut c_void) {
        if !raw.is_null() {
            let dropped = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: promised by the caller.
                drop(unsafe { Box::from_raw(raw.cast::<Self>()) });
            }));
            if let Err(payload) = dropped {
                log_panic::<T>("release", panic_text(&*payload));
            }
        }
    }
}

/// Options from JSON text; empty text means no options.
///
/// # Safety
/// `text` is valid borrowed text.
pub(crate) unsafe fn parse<O: DeserializeOwned>(name: &CStr, text: abi::et_str) -> Result<O> {
    // SAFETY: promised by the caller.
    let text = unsafe { crate::text::view(text)? };
    let text = if text.trim().is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|error| {
        Error::bad_input(format!("options of {}: {error}", name.to_string_lossy()))
    })
}

/// Hands text to the other side as a buffer.
///
/// # Safety
/// `out` is valid for a write.
pub(crate) unsafe fn put_text(out: *mut *mut abi::et_buffer, text: &str) -> Result<()> {
    let buffer = Buffer::new(text.as_bytes())?;
    // SAFETY: promised by the caller.
    unsafe { *out = buffer.into_raw() };
    Ok(())
}

/// What a forward pass is for.
pub struct Call<'a> {
    /// Dropout is on.
    pub training: bool,
    /// Set of `ET_WANT_` bits.
    pub want: u32,
    rng: Option<&'a Rng>,
    cache: Option<Cache<'a>>,
}

impl<'a> Call<'a> {
    /// For predictions.
    pub fn inference(want: u32) -> Self {
        Self { training: false, want, rng: None, cache: None }
    }

    /// For the next tokens of runs whose earlier ones the model has read: `cache` is empty before the first call, and
    /// is handed to the next one as the model left it, but for runs that were reordered or dropped.
    pub fn generation(want: u32, cache: &'a mut Map) -> Result<Self> {
        // SAFETY: the map is borrowed for the life of the call.
        let cache = Cache::new(unsafe { Map::lend(cache.as_raw()) }?);
        Ok(Self { cache: Some(cache), ..Self::inference(want) })
    }

    /// For training, with the source of dropout's numbers.
    pub fn training(want: u32, rng: &'a Rng) -> Self {
        Self { training: true, want, rng: Some(rng), cache: None }
    }

    /// The same call for more outputs, and without the cache, which is for one module and its next tokens.
    pub fn also(&self, want: u32) -> Self {
        let (training, want, rng) = (self.training, self.want | want, self.rng);
        Self { training, want, rng, cache: None }
    }

    /// What the model keeps of the tokens so far, while the host generates.
    pub fn cache(&self) -> Option<&Cache<'a>> {
        self.cache.as_ref()
    }

    /// Source of random numbers, while training.
    pub fn rng(&self) -> Option<&'a Rng> {
        self.rng
    }

    /// Whether an output is wanted, one of the `ET_WANT_` bits.
    pub fn wants(&self, bit: u32) -> bool {
        self.want & bit != 0
    }

    pub(crate) fn raw(&self) -> abi::et_call {
        abi::et_call {
            struct_size: size_of::<abi::et_call>(),
            training: i32::from(self.training),
            want: self.want,
            rng: self.rng.map_or(null_mut(), Rng::as_raw),
            cache: self.cache.as_ref().map_or(null_mut(), |cache| cache.map().as_raw()),
        }
    }

    /// Runs `f` with the call that the other side made.
    ///
    /// # Safety
    /// `raw` is NULL or a valid call.
    pub(crate) unsafe fn enter(
        raw: *const abi::et_call,
        f: impl FnOnce(&Call<'_>) -> Result<()>,
    ) -> Result<()> {
        // SAFETY: promised by the caller.
        let raw = unsafe { raw.as_ref() }.ok_or_else(|| Error::invalid("the call is NULL"))?;
        let rng: Option<Lent<'_, Rng>> = if raw.rng.is_null() {
            None
        } else {
            // SAFETY: the generator lives for the call.
            Some(unsafe { Rng::lend(raw.rng)? })
        };
        // An older host's call ends before the cache.
        let has_cache =
            raw.struct_size >= std::mem::offset_of!(abi::et_call, cache) + size_of::<usize>();
        let cache = if has_cache && !raw.cache.is_null() {
            // SAFETY: the map lives for the call.
            Some(Cache::new(unsafe { Map::lend(raw.cache)? }))
        } else {
            None
        };
        f(&Call { training: raw.training != 0, want: raw.want, rng: rng.as_deref(), cache })
    }
}

/// A component that a registry found: where its table is and who brought it.
#[derive(Clone, Debug)]
pub struct ComponentRef {
    /// Private as the table is: it says of which type that one is.
    kind: &'static str,
    /// Name that users write.
    pub name: String,
    /// JSON Schema of the options.
    pub schema: String,
    /// Id of the plugin.
    pub plugin_id: String,
    /// Version of the plugin.
    pub plugin_version: String,
    table: *const c_void,
    /// What makes instances in place of the table's `create`.
    pub(crate) maker: Option<Maker>,
}

// SAFETY: tables are immutable and live until the process ends.
unsafe impl Send for ComponentRef {}
// SAFETY: as above.
unsafe impl Sync for ComponentRef {}

impl ComponentRef {
    /// Describes a component.
    ///
    /// # Safety
    /// `table` is a table of the kind, checked by a registry (required slots are there), and lives until the process
    /// ends.
    pub unsafe fn new(
        kind: &'static str,
        name: String,
        schema: String,
        plugin_id: String,
        plugin_version: String,
        table: *const c_void,
    ) -> Self {
        Self { kind, name, schema, plugin_id, plugin_version, table, maker: None }
    }

    /// Whether both are the same component of the same plugin.
    pub fn is_same(&self, other: &ComponentRef) -> bool {
        std::ptr::eq(self.table, other.table)
    }

    /// Kind, for instance "et.loss/1".
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Calls `release` with NULL, which every component with instances must accept. Errors: a kind without instances,
    /// no `release`.
    pub fn release_null(&self) -> Result<()> {
        macro_rules! release {
            ($($kind:literal => $ty:ident),*) => {
                match self.kind {
                    $($kind => $crate::host::slot!(self.table::<abi::$ty>($kind)?, $ty.release),)*
                    _ => None,
                }
            };
        }
        let release = release! {
            "et.model/1" => et_plugin_model, "et.loss/1" => et_plugin_loss, "et.optimizer/1" => et_plugin_optimizer,
            "et.strategy/1" => et_plugin_strategy, "et.app/1" => et_plugin_app, "et.metric/1" => et_plugin_metric
        };
        let release = release.ok_or_else(|| {
            Error::new(
                abi::ET_ERR_UNIMPLEMENTED,
                format!("{}: the plugin has no release", self.who()),
            )
        })?;
        // SAFETY: the contract of the slot admits NULL.
        unsafe { release(null_mut()) };
        Ok(())
    }

    /// Kind, name and plugin, as messages have them: "loss focal (plugin my-losses 0.1.0)".
    pub fn who(&self) -> String {
        let kind = self.kind.trim_start_matches("et.").trim_end_matches("/1");
        format!("{kind} {} (plugin {} {})", self.name, self.plugin_id, self.plugin_version)
    }

    /// The table as its type.
    pub(crate) fn table<T>(&self, kind: &str) -> Result<&'static T> {
        if self.kind != kind {
            return Err(Error::invalid(format!(
                "{}: expected a component of kind {kind}, found {}",
                self.name, self.kind
            )));
        }
        // SAFETY: `new` promised a table of the kind.
        unsafe { self.table.cast::<T>().as_ref() }
            .ok_or_else(|| Error::invalid(format!("{}: the table is NULL", self.name)))
    }
}

/// The host's side of an instance: calls go through the table, errors say whose they are.
pub(crate) struct Loaded<T: 'static> {
    pub table: &'static T,
    pub instance: *mut c_void,
    pub release: Option<unsafe extern "C" fn(*mut c_void)>,
    pub what: String,
}

// SAFETY: instances are `Send` by contract ([one-at-a-time] slots may be called from any thread).
unsafe impl<T> Send for Loaded<T> {}

impl<T> Loaded<T> {
    pub(crate) fn new(
        component: &ComponentRef,
        table: &'static T,
        release: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> Self {
        Self { table, instance: null_mut(), release, what: component.who() }
    }

    /// Takes the result of a slot; errors name component and slot.
    ///
    /// # Safety
    /// `raw` is NULL or an owned error.
    pub(crate) unsafe fn check(&self, slot: &str, raw: *mut abi::et_error) -> Result<()> {
        // SAFETY: promised by the caller.
        unsafe { Error::from_raw(raw) }.map_err(|error| {
            // Some say it themselves.
            let says = error.message().strip_prefix(slot).is_some_and(|rest| rest.starts_with(':'));
            if says { error.context(&self.what) } else { error.context(slot).context(&self.what) }
        })
    }

    /// Reads the JSON that a slot answered with. Errors: it is none, or not what the slot promises.
    pub(crate) fn read<V: DeserializeOwned>(&self, slot: &str, text: &str) -> Result<V> {
        serde_json::from_str(text).map_err(|error| {
            Error::new(
                abi::ET_ERR_FAILED_PRECONDITION,
                format!(
                    "{}: {slot}: the answer is not the JSON that it promises: {error}: {}",
                    self.what,
                    easytransfer_text::excerpt(text)
                ),
            )
        })
    }

    /// A scalar that a slot answered with. Errors: it has another shape.
    pub(crate) fn scalar(&self, slot: &str, value: Tensor) -> Result<Tensor> {
        if value.len() == 1 {
            return Ok(value);
        }
        Err(Error::new(
            abi::ET_ERR_SHAPE,
            format!("{}: {slot}: expected a scalar, found shape {:?}", self.what, value.shape()),
        ))
    }

    pub(crate) fn missing(&self, slot: &str) -> Error {
        Error::new(abi::ET_ERR_UNIMPLEMENTED, format!("{}: the plugin has no {slot}", self.what))
    }
}

impl<T> Drop for Loaded<T> {
    fn drop(&mut self) {
        if let Some(release) = self.release
            && !self.instance.is_null()
        {
            // SAFETY: the instance came from this table's `create` and is not used again.
            unsafe { release(self.instance) };
        }
    }
}

/// Waits until no other thread is in a slot of the instance that `turn` belongs to. A panic in the host's part of an
/// earlier call left nothing half-changed: the lock guards no data.
pub(crate) fn take_turn(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls a slot of a loaded component: `invoke!(self.loaded, et_plugin_loss.forward(args...))?`.
macro_rules! invoke {
    ($loaded:expr, $ty:ident . $slot:ident ( $($arg:expr),* $(,)? )) => {{
        let loaded = &$loaded;
        match $crate::host::slot!(loaded.table, $ty.$slot) {
            // SAFETY: the instance belongs to this table, handles are live while their wrappers are, outs are local.
            Some(f) => unsafe { loaded.check(stringify!($slot), f(loaded.instance, $($arg),*)) },
            None => Err(loaded.missing(stringify!($slot))),
        }
    }};
}
pub(crate) use invoke;

/// Calls a slot that answers with text in a buffer.
macro_rules! invoke_text {
    ($loaded:expr, $ty:ident . $slot:ident ( $($arg:expr),* $(,)? )) => {{
        let mut out = ::std::ptr::null_mut();
        $crate::component::invoke!($loaded, $ty.$slot($($arg,)* &mut out)).and_then(|()| {
            // SAFETY: on success the out holds an owned reference.
            let buffer = unsafe { $crate::Buffer::from_raw(out) };
            let text = buffer.and_then(|buffer| Ok(buffer.as_str()?.to_owned()));
            text.map_err(|error| error.context(stringify!($slot)).context(&$loaded.what))
        })
    }};
}
pub(crate) use invoke_text;

/// Calls a slot that answers with a tensor.
macro_rules! invoke_tensor {
    ($loaded:expr, $ty:ident . $slot:ident ( $($arg:expr),* $(,)? )) => {{
        let mut out = ::std::ptr::null_mut();
        $crate::component::invoke!($loaded, $ty.$slot($($arg,)* &mut out)).and_then(|()| {
            // SAFETY: on success the out holds an owned reference.
            let tensor = unsafe { $crate::Tensor::from_raw(out) };
            tensor.map_err(|error| error.context(stringify!($slot)).context(&$loaded.what))
        })
    }};
}
pub(crate) use invoke_tensor;

/// Makes a loaded component by its `create` slot, or by the program's closure with the same arguments.
macro_rules! create {
    ($component:expr, $kind:literal, $ty:ident ( $($arg:expr),* $(,)? ), $given:expr $(,)?) => {{
        let component: &$crate::ComponentRef = $component;
        let table: &'static ::easytransfer_abi::$ty = component.table($kind)?;
        let release = $crate::host::slot!(table, $ty.release);
        let mut loaded = $crate::component::Loaded::new(component, table, release);
        let mut instance = ::std::ptr::null_mut();
        let error = match (&component.maker, $crate::host::slot!(table, $ty.create)) {
            // SAFETY: the out is local.
            (Some(maker), _) => unsafe { maker.make(&$given, &mut instance) },
            // SAFETY: arguments are borrowed for the call, the out is local.
            (None, Some(f)) => unsafe { f($($arg,)* &mut instance) },
            (None, None) => return Err(loaded.missing("create")),
        };
        // SAFETY: the error, if any, is owned here.
        unsafe { loaded.check("create", error) }?;
        loaded.instance = instance;
        loaded
    }};
}
pub(crate) use create;
