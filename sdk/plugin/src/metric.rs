//! Metrics: figures over a whole data set.

use crate::component::{
    ComponentRef, Instance, Loaded, create, invoke, invoke_text, parse, put_text,
};
use crate::host::slot;
use crate::text::borrow;
use crate::{Map, Result};
use easytransfer_abi as abi;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map as Json, Value};
use std::ffi::{CStr, c_void};

/// What the host must know of a metric's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricInfo {
    /// Names of the figures of which less is better; more is better of the others.
    pub lower_is_better: Vec<String>,
}

/// A metric.
pub trait Metric: Send + Sized + 'static {
    /// Name users write, for instance `c"accuracy"`.
    const NAME: &'static CStr;
    /// JSON Schema of the options.
    const SCHEMA: &'static CStr = crate::NO_OPTIONS;
    /// The options.
    type Options: DeserializeOwned;

    /// Makes an instance with nothing counted.
    fn new(options: Self::Options) -> Result<Self>;

    /// Counts one batch.
    fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()>;

    /// The figures so far: numbers, or nested arrays for a confusion matrix.
    fn compute(&self) -> Result<Json<String, Value>>;

    /// What the host must know of them; by default more is better of every one.
    fn info(&self) -> MetricInfo {
        MetricInfo::default()
    }
}

/// The C table of a metric.
#[doc(hidden)]
pub struct MetricTable<T>(std::marker::PhantomData<T>);

impl<T: Metric> MetricTable<T> {
    #[doc(hidden)]
    pub const TABLE: &'static abi::et_plugin_metric = &abi::et_plugin_metric {
        struct_size: size_of::<abi::et_plugin_metric>(),
        name: T::NAME.as_ptr(),
        schema: T::SCHEMA.as_ptr(),
        create: Some(Self::create),
        update: Some(Self::update),
        compute: Some(Self::compute),
        release: Some(Instance::<T>::release),
        describe: Some(Self::describe),
    };

    unsafe extern "C" fn create(options: abi::et_str, out: *mut *mut c_void) -> *mut abi::et_error {
        // SAFETY: the host passes valid text and a valid out.
        unsafe { Instance::create(out, || T::new(parse(T::NAME, options)?)) }
    }

    unsafe extern "C" fn update(
        instance: *mut c_void,
        outputs: *const abi::et_map,
        batch: *const abi::et_map,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and live maps.
        unsafe {
            Instance::<T>::with_mut(instance, |metric| {
                metric.update(&*Map::lend(outputs.cast_mut())?, &*Map::lend(batch.cast_mut())?)
            })
        }
    }

    unsafe extern "C" fn compute(
        instance: *mut c_void,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a valid out.
        unsafe {
            Instance::<T>::with_mut(instance, |metric| {
                put_text(out, &serde_json::to_string(&metric.compute()?)?)
            })
        }
    }

    unsafe extern "C" fn describe(
        instance: *mut c_void,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: as for `compute`.
        unsafe {
            Instance::<T>::with_mut(instance, |metric| {
                put_text(out, &serde_json::to_string(&metric.info())?)
            })
        }
    }
}

/// A metric from a registry, as the host uses it.
pub struct LoadedMetric(Loaded<abi::et_plugin_metric>);

impl LoadedMetric {
    /// Makes an instance with options as JSON.
    pub fn create(component: &ComponentRef, options: &str) -> Result<Self> {
        Ok(Self(create!(component, "et.metric/1", et_plugin_metric(borrow(options)))))
    }

    /// Counts one batch.
    pub fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
        invoke!(self.0, et_plugin_metric.update(outputs.as_raw(), batch.as_raw()))
    }

    /// The figures so far.
    pub fn compute(&self) -> Result<Json<String, Value>> {
        Ok(serde_json::from_str(&invoke_text!(self.0, et_plugin_metric.compute())?)?)
    }

    /// What the host must know of them; of a plugin without the slot, the default.
    pub fn info(&self) -> Result<MetricInfo> {
        if slot!(self.0.table, et_plugin_metric.describe).is_none() {
            return Ok(MetricInfo::default());
        }
        Ok(serde_json::from_str(&invoke_text!(self.0, et_plugin_metric.describe())?)?)
    }
}
