//! Losses: a scalar from outputs and targets.

use crate::component::{Call, ComponentRef, Instance, Loaded, create, invoke_tensor, parse};
use crate::text::borrow;
use crate::{Map, Result, Tensor};
use easytransfer_abi as abi;
use serde::de::DeserializeOwned;
use std::ffi::{CStr, c_void};

/// A loss. `outputs` usually holds "logits"; `batch` holds "labels" and, when rows are weighted, "weights" [B].
pub trait Loss: Send + Sized + 'static {
    /// Name users write, for instance `c"cross-entropy"`.
    const NAME: &'static CStr;
    /// JSON Schema of the options.
    const SCHEMA: &'static CStr = crate::NO_OPTIONS;
    /// The options.
    type Options: DeserializeOwned;

    /// Makes an instance.
    fn new(options: Self::Options) -> Result<Self>;

    /// The loss as a scalar tensor.
    fn forward(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor>;
}

/// The C table of a loss.
#[doc(hidden)]
pub struct LossTable<T>(std::marker::PhantomData<T>);

impl<T: Loss> LossTable<T> {
    #[doc(hidden)]
    pub const TABLE: &'static abi::et_plugin_loss = &abi::et_plugin_loss {
        struct_size: size_of::<abi::et_plugin_loss>(),
        name: T::NAME.as_ptr(),
        schema: T::SCHEMA.as_ptr(),
        create: Some(Self::create),
        forward: Some(Self::forward),
        release: Some(Instance::<T>::release),
    };

    unsafe extern "C" fn create(options: abi::et_str, out: *mut *mut c_void) -> *mut abi::et_error {
        // SAFETY: the host passes valid text and a valid out.
        unsafe { Instance::create(out, || T::new(parse(T::NAME, options)?)) }
    }

    unsafe extern "C" fn forward(
        instance: *mut c_void,
        call: *const abi::et_call,
        outputs: *const abi::et_map,
        batch: *const abi::et_map,
        out: *mut *mut abi::et_tensor,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, live maps and a valid out.
        unsafe {
            Instance::<T>::with_mut(instance, |loss| {
                Call::enter(call, |call| {
                    let outputs = Map::lend(outputs.cast_mut())?;
                    let batch = Map::lend(batch.cast_mut())?;
                    *out = loss.forward(call, &outputs, &batch)?.into_raw();
                    Ok(())
                })
            })
        }
    }
}

/// A loss from a registry, as the host uses it.
pub struct LoadedLoss(Loaded<abi::et_plugin_loss>);

impl LoadedLoss {
    /// Makes an instance with options as JSON.
    pub fn create(component: &ComponentRef, options: &str) -> Result<Self> {
        Ok(Self(create!(component, "et.loss/1", et_plugin_loss(borrow(options)))))
    }

    /// The loss as a scalar tensor.
    pub fn forward(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let call = call.raw();
        invoke_tensor!(self.0, et_plugin_loss.forward(&call, outputs.as_raw(), batch.as_raw()))
    }
}
