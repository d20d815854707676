//! Losses: a scalar from outputs and targets.

use crate::component::{
    Call, ComponentRef, Instance, Loaded, create, invoke, invoke_tensor, parse,
};
use crate::own::{Given, by_closure};
use crate::text::borrow;
use crate::{DType, Error, Map, Result, Tensor};
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

    /// Makes an instance. As written, an error: for those that a program makes by a closure.
    fn new(options: Self::Options) -> Result<Self> {
        let _ = options;
        Err(by_closure(Self::NAME))
    }

    /// The loss as a scalar tensor. As written: the mean of [`Loss::rows`] by [`mean_of_rows`]; a loss has one of the
    /// two at least.
    fn forward(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        mean_of_rows(&self.rows(call, outputs, batch)?, batch)
    }

    /// The loss of each row by itself, [B]; [`Loss::forward`] is their mean, weighted by "weights" where the batch
    /// has them. As written, rows have none.
    #[allow(
        unused_variables,
        reason = "a loss without one per row does nothing with its arguments"
    )]
    fn rows(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "this loss has no loss per row"))
    }

    /// What [`Loss::forward`] is a mean over: rows, tokens, or the sum of their weights. Means over several batches
    /// weigh each by this. As written: the sum of "weights", else the number of rows.
    fn weight(&mut self, batch: &Map) -> Result<f64> {
        weight_of_rows(batch)
    }
}

/// The mean of losses [B], weighted by a batch's "weights" where it has them.
pub fn mean_of_rows(rows: &Tensor, batch: &Map) -> Result<Tensor> {
    match batch.find("weights")? {
        Some(weights) => {
            let weights = weights.cast(rows.dtype())?;
            rows.mul(&weights)?.sum(&[], false)?.div(&weights.sum(&[], false)?)
        }
        None => rows.mean(&[], false),
    }
}

/// The sum of `weights`, or the number, of the `labels` that are not `ignored`.
pub fn weight_of_labels(labels: &Tensor, weights: Option<&Tensor>, ignored: i64) -> Result<f64> {
    let labels = labels.to_vec::<i64>()?;
    let weights = match weights {
        Some(weights) => weights.cast(DType::F64)?.to_vec::<f64>()?,
        None => vec![1.0; labels.len()],
    };
    Ok(labels.iter().zip(weights).filter(|(label, _)| **label != ignored).map(|(_, w)| w).sum())
}

/// The sum of a batch's "weights", or its number of rows.
pub fn weight_of_rows(batch: &Map) -> Result<f64> {
    match batch.find("weights")? {
        Some(weights) => Ok(weights.cast(DType::F64)?.to_vec::<f64>()?.iter().sum()),
        None => {
            // Rows that no host has collated know their number by their labels.
            let rows = if batch.has("record") { "record" } else { "labels" };
            Ok(batch.get(rows)?.extent(0)? as f64)
        }
    }
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
        rows: Some(Self::rows),
        weight: Some(Self::weight),
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
        // SAFETY: the contract of the slot is that of `value`.
        unsafe { Self::value(instance, call, outputs, batch, out, T::forward) }
    }

    unsafe extern "C" fn rows(
        instance: *mut c_void,
        call: *const abi::et_call,
        outputs: *const abi::et_map,
        batch: *const abi::et_map,
        out: *mut *mut abi::et_tensor,
    ) -> *mut abi::et_error {
        // SAFETY: the contract of the slot is that of `value`.
        unsafe { Self::value(instance, call, outputs, batch, out, T::rows) }
    }

    /// # Safety
    /// The host passes its instance, one call at a time, live maps and a valid out.
    unsafe fn value(
        instance: *mut c_void,
        call: *const abi::et_call,
        outputs: *const abi::et_map,
        batch: *const abi::et_map,
        out: *mut *mut abi::et_tensor,
        of: fn(&mut T, &Call<'_>, &Map, &Map) -> Result<Tensor>,
    ) -> *mut abi::et_error {
        // SAFETY: promised by the caller.
        unsafe {
            Instance::<T>::with_mut(instance, |loss| {
                Call::enter(call, |call| {
                    let outputs = Map::lend(outputs.cast_mut())?;
                    let batch = Map::lend(batch.cast_mut())?;
                    *out = of(loss, call, &outputs, &batch)?.into_raw();
                    Ok(())
                })
            })
        }
    }

    unsafe extern "C" fn weight(
        instance: *mut c_void,
        batch: *const abi::et_map,
        out: *mut f64,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, a live map and a valid out.
        unsafe {
            Instance::<T>::with_mut(instance, |loss| {
                *out = loss.weight(&*Map::lend(batch.cast_mut())?)?;
                Ok(())
            })
        }
    }
}

/// A loss from a registry, as the host uses it.
pub struct LoadedLoss(Loaded<abi::et_plugin_loss>);

impl LoadedLoss {
    /// Kind, name and plugin, as messages have them.
    pub fn who(&self) -> &str {
        &self.0.what
    }

    /// Makes an instance with options as JSON.
    pub fn create(component: &ComponentRef, options: &str) -> Result<Self> {
        Ok(Self(create!(
            component,
            "et.loss/1",
            et_plugin_loss(borrow(options)),
            Given { options, ..Given::default() }
        )))
    }

    /// The loss as a scalar tensor.
    pub fn forward(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let call = call.raw();
        let value =
            invoke_tensor!(self.0, et_plugin_loss.forward(&call, outputs.as_raw(), batch.as_raw()));
        self.0.scalar("forward", value?)
    }

    /// The loss of each row, [B]. Errors: `UNIMPLEMENTED` where rows have none.
    pub fn rows(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let call = call.raw();
        invoke_tensor!(self.0, et_plugin_loss.rows(&call, outputs.as_raw(), batch.as_raw()))
    }

    /// What the loss of this batch is a mean over.
    pub fn weight(&mut self, batch: &Map) -> Result<f64> {
        if crate::host::slot!(self.0.table, et_plugin_loss.weight).is_none() {
            return weight_of_rows(batch);
        }
        let mut weight = 0.0;
        invoke!(self.0, et_plugin_loss.weight(batch.as_raw(), &mut weight))?;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::new(
                abi::ET_ERR_FAILED_PRECONDITION,
                format!("{}: weight: expected a number from 0, found {weight}", self.0.what),
            ));
        }
        Ok(weight)
    }
}
