//! Optimizers: a step over a sealed parameter set.

use crate::component::{ComponentRef, Instance, Loaded, create, invoke, parse};
use crate::host::slot;
use crate::own::{Given, by_closure};
use crate::text::borrow;
use crate::{Error, Params, Result, Stream};
use easytransfer_abi as abi;
use serde::de::DeserializeOwned;
use std::ffi::{CStr, c_void};
use std::ops::Range;

/// An optimizer.
pub trait Optimizer: Send + Sized + 'static {
    /// Name users write, for instance `c"adamw"`.
    const NAME: &'static CStr;
    /// JSON Schema of the options. Beside "type" and "properties" it may have "default_lr", the peak learning rate of
    /// runs that set none (5e-5 without it).
    const SCHEMA: &'static CStr = crate::NO_OPTIONS;
    /// Whether there is [`Optimizer::step_part`].
    const PARTS: bool = false;
    /// The options.
    type Options: DeserializeOwned;

    /// Makes an instance for a sealed set. As written, an error: for those that a program makes by a closure.
    fn new(options: Self::Options, params: &Params) -> Result<Self> {
        let _ = (options, params);
        Err(by_closure(Self::NAME))
    }

    /// Changes the parameters by their gradients. `lr` is this step's learning rate; `step` counts from 1.
    fn step(&mut self, params: &mut Params, lr: f64, step: u64) -> Result<()>;

    /// As [`Optimizer::step`], but changes only the elements of `part` of the arena ([`Params::arena_len`] of them),
    /// and of the state what belongs to them: machines that share the work do a part each. Errors: INVALID_ARGUMENT
    /// for bounds inside a parameter where that is not possible.
    fn step_part(
        &mut self,
        _params: &mut Params,
        _lr: f64,
        _step: u64,
        _part: Range<usize>,
    ) -> Result<()> {
        Err(Error::new(
            abi::ET_ERR_UNIMPLEMENTED,
            format!("optimizer {} makes whole steps only", Self::NAME.to_string_lossy()),
        ))
    }

    /// Writes the state.
    fn save(&self, stream: &mut Stream) -> Result<()>;

    /// Reads the state back.
    fn load(&mut self, stream: &mut Stream) -> Result<()>;
}

/// The C table of an optimizer.
#[doc(hidden)]
pub struct OptimizerTable<T>(std::marker::PhantomData<T>);

impl<T: Optimizer> OptimizerTable<T> {
    #[doc(hidden)]
    pub const TABLE: &'static abi::et_plugin_optimizer = &abi::et_plugin_optimizer {
        struct_size: size_of::<abi::et_plugin_optimizer>(),
        name: T::NAME.as_ptr(),
        schema: T::SCHEMA.as_ptr(),
        create: Some(Self::create),
        step: Some(Self::step),
        state_save: Some(Self::state_save),
        state_load: Some(Self::state_load),
        release: Some(Instance::<T>::release),
        step_part: if T::PARTS { Some(Self::step_part) } else { None },
    };

    unsafe extern "C" fn create(
        options: abi::et_str,
        params: *mut abi::et_params,
        out: *mut *mut c_void,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes valid text, a live set and a valid out.
        unsafe {
            Instance::create(out, || T::new(parse(T::NAME, options)?, &*Params::lend(params)?))
        }
    }

    unsafe extern "C" fn step(
        instance: *mut c_void,
        params: *mut abi::et_params,
        lr: f64,
        step: u64,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live set.
        unsafe {
            Instance::<T>::with_mut(instance, |optimizer| {
                optimizer.step(&mut *Params::lend_mut(params)?, lr, step)
            })
        }
    }

    unsafe extern "C" fn step_part(
        instance: *mut c_void,
        params: *mut abi::et_params,
        lr: f64,
        step: u64,
        begin: usize,
        end: usize,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live set.
        unsafe {
            Instance::<T>::with_mut(instance, |optimizer| {
                optimizer.step_part(&mut *Params::lend_mut(params)?, lr, step, begin..end)
            })
        }
    }

    unsafe extern "C" fn state_save(
        instance: *mut c_void,
        stream: *mut abi::et_stream,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live stream.
        unsafe {
            Instance::<T>::with_mut(instance, |optimizer| {
                optimizer.save(&mut *Stream::lend_mut(stream)?)
            })
        }
    }

    unsafe extern "C" fn state_load(
        instance: *mut c_void,
        stream: *mut abi::et_stream,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live stream.
        unsafe {
            Instance::<T>::with_mut(instance, |optimizer| {
                optimizer.load(&mut *Stream::lend_mut(stream)?)
            })
        }
    }
}

/// An optimizer from a registry, as the host uses it.
pub struct LoadedOptimizer {
    loaded: Loaded<abi::et_plugin_optimizer>,
    /// The set that it was made for, which must outlive it.
    params: Params,
}

impl LoadedOptimizer {
    /// Kind, name and plugin, as messages have them.
    pub fn who(&self) -> &str {
        &self.loaded.what
    }

    /// Makes an instance for a sealed set with options as JSON.
    pub fn create(component: &ComponentRef, options: &str, params: &Params) -> Result<Self> {
        let params = params.clone();
        let loaded = create!(
            component,
            "et.optimizer/1",
            et_plugin_optimizer(borrow(options), params.as_raw()),
            Given { options, params: Some(&params), ..Given::default() }
        );
        Ok(Self { loaded, params })
    }

    /// Whether it was made for this set.
    pub fn is_for(&self, params: &Params) -> bool {
        self.params.as_raw() == params.as_raw()
    }

    fn expect(&self, params: &Params) -> Result<()> {
        if self.is_for(params) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{}: expected the parameters that it was made for, found another set",
            self.loaded.what
        )))
    }

    /// One step; see [`Optimizer::step`]. Errors: INVALID_ARGUMENT for another set than the one it was made for.
    pub fn step(&mut self, params: &mut Params, lr: f64, step: u64) -> Result<()> {
        self.expect(params)?;
        invoke!(self.loaded, et_plugin_optimizer.step(params.as_raw(), lr, step))
    }

    /// Whether [`LoadedOptimizer::step_part`] is there.
    pub fn has_parts(&self) -> bool {
        slot!(self.loaded.table, et_plugin_optimizer.step_part).is_some()
    }

    /// A step of a part of the arena; see [`Optimizer::step_part`]. Errors: UNIMPLEMENTED where it makes whole steps
    /// only.
    pub fn step_part(
        &mut self,
        params: &mut Params,
        lr: f64,
        step: u64,
        part: Range<usize>,
    ) -> Result<()> {
        self.expect(params)?;
        let Range { start, end } = part;
        invoke!(self.loaded, et_plugin_optimizer.step_part(params.as_raw(), lr, step, start, end))
    }

    /// Writes the state.
    pub fn save(&mut self, stream: &mut Stream) -> Result<()> {
        invoke!(self.loaded, et_plugin_optimizer.state_save(stream.as_raw()))
    }

    /// Reads the state back.
    pub fn load(&mut self, stream: &mut Stream) -> Result<()> {
        invoke!(self.loaded, et_plugin_optimizer.state_load(stream.as_raw()))
    }
}
