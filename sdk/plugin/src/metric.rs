//! Metrics: figures over a whole data set.

use crate::component::{
    ComponentRef, Instance, Loaded, create, invoke, invoke_text, parse, put_text,
};
use crate::own::{Given, by_closure};
use crate::text::{borrow, view};
use crate::{Error, Map, Record, Result, Stream};
use easytransfer_abi as abi;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map as Json, Value};
use std::ffi::{CStr, c_void};

/// What the host must know about a metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricInfo {
    /// What it counts.
    pub of: Counts,
    /// Names of its figures of which less is better; of the others, more is.
    pub lower_is_better: Vec<String>,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counts {
    /// Outputs of the network beside batches.
    #[default]
    Outputs,
    /// Predictions beside records.
    Answers,
}

/// A metric.
pub trait Metric: Send + Sized + 'static {
    /// Name users write, for instance `c"accuracy"`.
    const NAME: &'static CStr;
    /// JSON Schema of the options.
    const SCHEMA: &'static CStr = crate::NO_OPTIONS;
    /// The options.
    type Options: DeserializeOwned;

    /// Makes an instance with nothing counted. As written, an error: for those that a program makes by a closure.
    fn new(options: Self::Options) -> Result<Self> {
        let _ = options;
        Err(by_closure(Self::NAME))
    }

    /// Counts one batch. As written, a metric of answers.
    #[allow(unused_variables, reason = "a metric of answers does nothing with its arguments")]
    fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "this metric counts answers, not outputs"))
    }

    /// Counts predictions beside their records; called instead of [`Metric::update`] where [`Metric::info`] asks for
    /// answers.
    #[allow(unused_variables, reason = "a metric of outputs does nothing with its arguments")]
    fn answers(&mut self, answers: &[Record], records: &[Record]) -> Result<()> {
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "this metric counts outputs, not answers"))
    }

    /// What the host must know.
    fn info(&self) -> MetricInfo {
        MetricInfo::default()
    }

    /// Writes what was counted, for a sum over several machines or parts of a file.
    #[allow(unused_variables, reason = "a metric whose parts cannot be added writes nothing")]
    fn save(&self, stream: &mut Stream) -> Result<()> {
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "this metric cannot be added up"))
    }

    /// Adds what another instance has written by [`Metric::save`].
    #[allow(unused_variables, reason = "as for save")]
    fn merge(&mut self, stream: &mut Stream) -> Result<()> {
        Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, "this metric cannot be added up"))
    }

    /// The figures so far: numbers, or nested arrays for a confusion matrix.
    fn compute(&self) -> Result<Json<String, Value>>;
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
        answers: Some(Self::answers),
        state_save: Some(Self::state_save),
        state_merge: Some(Self::state_merge),
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
        // SAFETY: the host passes its instance, one call at a time, and a valid out.
        unsafe {
            Instance::<T>::with_mut(instance, |metric| {
                put_text(out, &serde_json::to_string(&metric.info())?)
            })
        }
    }

    unsafe extern "C" fn answers(
        instance: *mut c_void,
        answers: abi::et_str,
        records: abi::et_str,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and borrowed texts.
        unsafe {
            Instance::<T>::with_mut(instance, |metric| {
                let answers: Vec<Record> = serde_json::from_str(view(answers)?)?;
                metric.answers(&answers, &serde_json::from_str::<Vec<Record>>(view(records)?)?)
            })
        }
    }

    unsafe extern "C" fn state_save(
        instance: *mut c_void,
        stream: *mut abi::et_stream,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live stream.
        unsafe {
            Instance::<T>::with_mut(instance, |metric| metric.save(&mut *Stream::lend_mut(stream)?))
        }
    }

    unsafe extern "C" fn state_merge(
        instance: *mut c_void,
        stream: *mut abi::et_stream,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance, one call at a time, and a live stream.
        unsafe {
            Instance::<T>::with_mut(instance, |metric| {
                metric.merge(&mut *Stream::lend_mut(stream)?)
            })
        }
    }
}

/// A metric from a registry, as the host uses it.
pub struct LoadedMetric {
    loaded: Loaded<abi::et_plugin_metric>,
    info: MetricInfo,
}

impl LoadedMetric {
    /// Makes an instance with options as JSON.
    pub fn create(component: &ComponentRef, options: &str) -> Result<Self> {
        let loaded = create!(
            component,
            "et.metric/1",
            et_plugin_metric(borrow(options)),
            Given { options, ..Given::default() }
        );
        let info = if crate::host::slot!(loaded.table, et_plugin_metric.describe).is_some() {
            loaded.read("describe", &invoke_text!(loaded, et_plugin_metric.describe())?)?
        } else {
            MetricInfo::default()
        };
        Ok(Self { loaded, info })
    }

    /// Kind, name and plugin, as messages have them.
    pub fn who(&self) -> &str {
        &self.loaded.what
    }

    /// What the metric says of itself.
    pub fn info(&self) -> &MetricInfo {
        &self.info
    }

    /// Counts one batch.
    pub fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
        invoke!(self.loaded, et_plugin_metric.update(outputs.as_raw(), batch.as_raw()))
    }

    /// Counts predictions beside their records.
    pub fn answers(&mut self, answers: &[Record], records: &[Record]) -> Result<()> {
        let (answers, records) = (serde_json::to_string(answers)?, serde_json::to_string(records)?);
        invoke!(self.loaded, et_plugin_metric.answers(borrow(&answers), borrow(&records)))
    }

    /// The figures so far.
    pub fn compute(&self) -> Result<Json<String, Value>> {
        self.loaded.read("compute", &invoke_text!(self.loaded, et_plugin_metric.compute())?)
    }

    /// Writes what was counted.
    pub fn save(&mut self, stream: &mut Stream) -> Result<()> {
        invoke!(self.loaded, et_plugin_metric.state_save(stream.as_raw()))
    }

    /// Adds what another instance has written.
    pub fn merge(&mut self, stream: &mut Stream) -> Result<()> {
        invoke!(self.loaded, et_plugin_metric.state_merge(stream.as_raw()))
    }
}
