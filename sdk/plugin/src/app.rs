//! Apps: from records to features, a head, and predictions.

use crate::component::{
    Call, ComponentRef, Instance, Loaded, create, invoke, invoke_text, parse, put_text, take_turn,
};
use crate::net::{with_context, with_net};
use crate::own::{Given, by_closure};
use crate::text::{borrow, view};
use crate::{
    Context, ContextHost, Error, Map, ModelInfo, Net, NetHost, Result, Row, Rows, Scope, Tokenizer,
    Vocabulary,
};
use easytransfer_abi as abi;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map as Json, Value};
use std::ffi::{CStr, c_void};
use std::sync::Mutex;

/// A record: values by role ("text", "text_pair", "label", ...).
pub type Record = Json<String, Value>;

/// The text of a role, where the record has one; numbers are texts too. Errors: a value of another kind.
pub fn text_of(record: &Record, role: &str) -> Result<Option<String>> {
    match record.get(role) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => Err(Error::record(role, "a string", other.to_string())),
    }
}

/// A column that records need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Role, which is also the option that names the column.
    pub role: String,
    /// Names that are taken without being asked for, first match wins.
    pub names: Vec<String>,
    /// Records cannot be used without it (targets: while training and evaluating).
    pub required: bool,
    /// A target: may be missing when predicting.
    #[serde(default)]
    pub target: bool,
}

/// A component by name with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Name in the registry.
    pub name: String,
    /// Options.
    #[serde(default)]
    pub options: Json<String, Value>,
}

impl Choice {
    /// A component with default options.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), options: Json::new() }
    }
}

/// What the host must know about an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppInfo {
    /// Loss to train with; none for apps that are not trained.
    pub loss: Option<Choice>,
    /// Metrics to evaluate with.
    pub metrics: Vec<Choice>,
    /// Name of the figure that decides which checkpoint is best.
    pub best: String,
    /// "max" or "min": whether more or less of it is better. Where it is empty the metric says so.
    pub best_is: String,
    /// `ET_WANT_` bits that the head needs from the model.
    pub want: u32,
    /// Names of the classes, in the order of the logits.
    pub labels: Vec<String>,
    /// Entries for config.json, so that other tools read the saved model.
    pub config: Json<String, Value>,
    /// The task of the model whose head this is, one of [`ModelInfo::tasks`], so that a saved model is read back by
    /// the class that other tools have for it; empty for a head of the app's own.
    pub task: String,
    /// Whether parameters of the head start from the checkpoint's values where it has them, as those of pretraining
    /// do; otherwise they are new.
    pub pretrained_head: bool,
    /// Whether features differ from epoch to epoch (dynamic masking), so that none may be kept.
    pub fresh: bool,
    /// Whether [`App::finish`] is wanted for every record, and not only for those of several rows.
    pub finish: bool,
    /// Networks that [`App::forward`] runs besides the encoder.
    pub modules: Vec<Module>,
    /// Most tokens that the features of a record have, special ones included, as known after [`App::build`]; 0 when
    /// there is no such number. With it a run of batches limited by rows needs no pass over the data to count its
    /// steps.
    pub longest: usize,
    /// The words that the app has learned, from which the host makes a tokenizer where the model's directory has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Vocabulary>,
}

/// A network of an app besides the encoder: of the encoder's kind, with parameters of its own under its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Module {
    /// Name for [`crate::Net::run`], and the first part of the names of its parameters.
    pub name: String,
}

/// An app. Methods with `&self` may run while other threads make features.
pub trait App: Send + Sync + Sized + 'static {
    /// Name users write, for instance `c"text-classify"`.
    const NAME: &'static CStr;
    /// JSON Schema of the options.
    const SCHEMA: &'static CStr = crate::NO_OPTIONS;
    /// The options.
    type Options: DeserializeOwned;

    /// Makes an instance; `state` is what [`App::state`] of a trained instance returned. As written, an error: for
    /// those that a program makes by a closure.
    fn new(options: Self::Options, state: Option<Value>) -> Result<Self> {
        let _ = (options, state);
        Err(by_closure(Self::NAME))
    }

    /// Columns that records need.
    fn columns(&self) -> Vec<Column>;

    /// Sees every training record before training. Refuses what [`App::features`] would refuse: bad rows should be
    /// known before the first step, and features are made when a row's turn comes.
    /// [`Error::record`](crate::Error::record) makes the refusal.
    fn observe(&mut self, record: &Record) -> Result<()>;

    /// All records were seen.
    fn observed(&mut self) -> Result<()>;

    /// What a bundle must keep.
    fn state(&self) -> Result<Value>;

    /// What the host must know.
    fn info(&self) -> AppInfo;

    /// Turns a record into features: adds one row or more. Targets that are absent are left out.
    fn features(
        &self,
        context: &mut Context<'_>,
        tokenizer: &Tokenizer,
        record: &Record,
        rows: &mut Rows,
    ) -> Result<()>;

    /// Declares the parameters of the head in `scope`, the root of the set.
    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()>;

    /// Computes what the loss and [`App::decode`] read. As written it runs the encoder once and then [`App::head`];
    /// apps that want more of the net (two towers, a tied head) have one of their own.
    fn forward(
        &self,
        call: &Call<'_>,
        net: &mut Net<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> Result<()> {
        net.run("", call, batch, outputs)?;
        self.head(call, batch, outputs)
    }

    /// Adds the head's outputs to the encoder's.
    #[allow(unused_variables, reason = "an app without a head does nothing with its arguments")]
    fn head(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        Ok(())
    }

    /// One part per row of the batch. The only part of a record is its prediction.
    fn decode(&self, batch: &Map, outputs: &Map) -> Result<Vec<Record>>;

    /// The prediction of a record from the parts of its rows; asked for records of several rows, and for all where
    /// [`AppInfo::finish`] says so.
    fn finish(&self, record: &Record, parts: Vec<Record>) -> Result<Record> {
        let _ = record;
        let count = parts.len();
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next()) {
            (Some(part), None) => Ok(part),
            _ => Err(Error::new(
                abi::ET_ERR_UNIMPLEMENTED,
                format!("finish: this app joins no rows, found a record with {count}"),
            )),
        }
    }
}

/// The C table of an app.
#[doc(hidden)]
pub struct AppTable<T>(std::marker::PhantomData<T>);

impl<T: App> AppTable<T> {
    #[doc(hidden)]
    pub const TABLE: &'static abi::et_plugin_app = &abi::et_plugin_app {
        struct_size: size_of::<abi::et_plugin_app>(),
        name: T::NAME.as_ptr(),
        schema: T::SCHEMA.as_ptr(),
        create: Some(Self::create),
        columns: Some(Self::columns),
        observe: Some(Self::observe),
        observed: Some(Self::observed),
        state: Some(Self::state),
        describe: Some(Self::describe),
        features: Some(Self::features),
        build: Some(Self::build),
        forward: Some(Self::forward),
        decode: Some(Self::decode),
        release: Some(Instance::<T>::release),
        finish: Some(Self::finish),
    };

    unsafe extern "C" fn create(
        options: abi::et_str,
        state: abi::et_str,
        out: *mut *mut c_void,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes valid text and a valid out.
        unsafe {
            Instance::create(out, || {
                let state = view(state)?;
                let state =
                    if state.is_empty() { None } else { Some(serde_json::from_str(state)?) };
                T::new(parse(T::NAME, options)?, state)
            })
        }
    }

    unsafe extern "C" fn columns(
        instance: *mut c_void,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: the host passes its instance and a valid out (so for all below).
        unsafe {
            Instance::<T>::with_ref(instance, |app| {
                put_text(out, &serde_json::to_string(&app.columns())?)
            })
        }
    }

    unsafe extern "C" fn observe(instance: *mut c_void, record: abi::et_str) -> *mut abi::et_error {
        // SAFETY: no other call runs during [one-at-a-time] slots that change the instance.
        unsafe {
            Instance::<T>::with_mut(instance, |app| {
                app.observe(&serde_json::from_str(view(record)?)?)
            })
        }
    }

    unsafe extern "C" fn observed(instance: *mut c_void) -> *mut abi::et_error {
        // SAFETY: as for `observe`.
        unsafe { Instance::<T>::with_mut(instance, T::observed) }
    }

    unsafe extern "C" fn state(
        instance: *mut c_void,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: as for `columns`.
        unsafe {
            Instance::<T>::with_ref(instance, |app| {
                put_text(out, &serde_json::to_string(&app.state()?)?)
            })
        }
    }

    unsafe extern "C" fn describe(
        instance: *mut c_void,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: as for `columns`.
        unsafe {
            Instance::<T>::with_ref(instance, |app| {
                put_text(out, &serde_json::to_string(&app.info())?)
            })
        }
    }

    unsafe extern "C" fn features(
        instance: *mut c_void,
        context: *mut abi::et_context,
        tokenizer: *const abi::et_tokenizer,
        record: abi::et_str,
        rows: *mut abi::et_rows,
    ) -> *mut abi::et_error {
        // SAFETY: as for `columns`; context, tokenizer and rows live for the call.
        unsafe {
            Instance::<T>::with_ref(instance, |app| {
                let tokenizer = Tokenizer::lend(tokenizer.cast_mut())?;
                let record = serde_json::from_str(view(record)?)?;
                let rows = &mut *Rows::lend_mut(rows)?;
                app.features(&mut Context::new(context)?, &tokenizer, &record, rows)
            })
        }
    }

    unsafe extern "C" fn build(
        instance: *mut c_void,
        scope: *const abi::et_scope,
        model: abi::et_str,
    ) -> *mut abi::et_error {
        // SAFETY: as for `observe`; the scope lives for the call.
        unsafe {
            Instance::<T>::with_mut(instance, |app| {
                app.build(&*Scope::lend(scope.cast_mut())?, &serde_json::from_str(view(model)?)?)
            })
        }
    }

    unsafe extern "C" fn forward(
        instance: *mut c_void,
        call: *const abi::et_call,
        net: *mut abi::et_net,
        batch: *const abi::et_map,
        outputs: *mut abi::et_map,
    ) -> *mut abi::et_error {
        // SAFETY: as for `columns`; the net and the maps live for the call.
        unsafe {
            Instance::<T>::with_ref(instance, |app| {
                Call::enter(call, |call| {
                    let batch = Map::lend(batch.cast_mut())?;
                    app.forward(call, &mut Net::new(net)?, &batch, &mut *Map::lend_mut(outputs)?)
                })
            })
        }
    }

    unsafe extern "C" fn decode(
        instance: *mut c_void,
        batch: *const abi::et_map,
        outputs: *const abi::et_map,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: as for `columns`; the maps live for the call.
        unsafe {
            Instance::<T>::with_ref(instance, |app| {
                let predictions =
                    app.decode(&*Map::lend(batch.cast_mut())?, &*Map::lend(outputs.cast_mut())?)?;
                put_text(out, &serde_json::to_string(&predictions)?)
            })
        }
    }

    unsafe extern "C" fn finish(
        instance: *mut c_void,
        record: abi::et_str,
        parts: abi::et_str,
        out: *mut *mut abi::et_buffer,
    ) -> *mut abi::et_error {
        // SAFETY: as for `columns`; the texts live for the call.
        unsafe {
            Instance::<T>::with_ref(instance, |app| {
                let record = serde_json::from_str(view(record)?)?;
                let answer = app.finish(&record, serde_json::from_str(view(parts)?)?)?;
                put_text(out, &serde_json::to_string(&answer)?)
            })
        }
    }
}

/// An app from a registry, as the host uses it. Threads that share it make features at the same time, and take turns
/// in everything else.
pub struct LoadedApp {
    loaded: Loaded<abi::et_plugin_app>,
    /// Held while a slot is called that is not [any-thread].
    turn: Mutex<()>,
}

// SAFETY: whoever calls a slot with `&self` holds `turn`, but for `features`, which is [any-thread].
unsafe impl Sync for LoadedApp {}

impl LoadedApp {
    /// Kind, name and plugin, as messages have them.
    pub fn who(&self) -> &str {
        &self.loaded.what
    }

    /// Makes an instance with options as JSON, and the state of a trained instance or an empty text.
    pub fn create(component: &ComponentRef, options: &str, state: &str) -> Result<Self> {
        let loaded = create!(
            component,
            "et.app/1",
            et_plugin_app(borrow(options), borrow(state)),
            Given { options, state, ..Given::default() }
        );
        Ok(Self { loaded, turn: Mutex::new(()) })
    }

    /// Columns that records need.
    pub fn columns(&self) -> Result<Vec<Column>> {
        let _turn = take_turn(&self.turn);
        self.loaded.read("columns", &invoke_text!(self.loaded, et_plugin_app.columns())?)
    }

    /// Sees a training record before training.
    pub fn observe(&mut self, record: &Record) -> Result<()> {
        self.observe_json(&serde_json::to_string(record)?)
    }

    /// Sees a training record, as JSON text, before training.
    pub fn observe_json(&mut self, record: &str) -> Result<()> {
        invoke!(self.loaded, et_plugin_app.observe(borrow(record)))
    }

    /// All records were seen.
    pub fn observed(&mut self) -> Result<()> {
        invoke!(self.loaded, et_plugin_app.observed())
    }

    /// What a bundle must keep.
    pub fn state(&self) -> Result<Value> {
        let _turn = take_turn(&self.turn);
        self.loaded.read("state", &invoke_text!(self.loaded, et_plugin_app.state())?)
    }

    /// What the host must know.
    pub fn info(&self) -> Result<AppInfo> {
        let _turn = take_turn(&self.turn);
        self.loaded.read("describe", &invoke_text!(self.loaded, et_plugin_app.describe())?)
    }

    /// Turns a record into rows of features.
    pub fn features(
        &self,
        context: &mut dyn ContextHost,
        tokenizer: &Tokenizer,
        record: &Record,
    ) -> Result<Vec<Row>> {
        self.features_json(context, tokenizer, &serde_json::to_string(record)?)
    }

    /// Turns a record, as JSON text, into rows of features, each with the numbers of the record ("record") and of its
    /// source ("source"). Errors: also an app that adds no row, or has used one of the two names.
    pub fn features_json(
        &self,
        context: &mut dyn ContextHost,
        tokenizer: &Tokenizer,
        record: &str,
    ) -> Result<Vec<Row>> {
        let rows = Rows::new()?;
        let place = [("record", context.record() as i64), ("source", context.source() as i64)];
        with_context(context, |context| {
            invoke!(
                self.loaded,
                et_plugin_app.features(context, tokenizer.as_raw(), borrow(record), rows.as_raw())
            )
        })?;
        if rows.is_empty() {
            return Err(Error::new(
                abi::ET_ERR_FAILED_PRECONDITION,
                format!("{}: features: expected at least one row, found none", self.loaded.what),
            ));
        }
        let mut rows = rows.to_vec()?;
        for row in &mut rows {
            for (name, value) in place {
                row.put_i64(name, &[value]).map_err(|error| {
                    let message = format!("features: the field {name:?} is the host's to fill");
                    error.context(message).context(&self.loaded.what)
                })?;
            }
        }
        Ok(rows)
    }

    /// Declares the parameters of the head.
    pub fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        let model = serde_json::to_string(model)?;
        invoke!(self.loaded, et_plugin_app.build(scope.as_raw(), borrow(&model)))
    }

    /// Computes what the loss and the predictions need, with `net` to run the encoder and the modules.
    pub fn forward(
        &self,
        call: &Call<'_>,
        net: &mut dyn NetHost,
        batch: &Map,
        outputs: &mut Map,
    ) -> Result<()> {
        let call = call.raw();
        let _turn = take_turn(&self.turn);
        with_net(net, |net| {
            invoke!(
                self.loaded,
                et_plugin_app.forward(&call, net, batch.as_raw(), outputs.as_raw())
            )
        })
    }

    /// Parts as JSON text: an array with one object per row.
    pub fn decode_json(&self, batch: &Map, outputs: &Map) -> Result<String> {
        let _turn = take_turn(&self.turn);
        invoke_text!(self.loaded, et_plugin_app.decode(batch.as_raw(), outputs.as_raw()))
    }

    /// One part per row of the batch.
    pub fn decode(&self, batch: &Map, outputs: &Map) -> Result<Vec<Record>> {
        self.loaded.read("decode", &self.decode_json(batch, outputs)?)
    }

    /// The prediction of a record from the parts of its rows.
    pub fn finish(&self, record: &Record, parts: Vec<Record>) -> Result<Record> {
        let (record, parts) = (serde_json::to_string(record)?, serde_json::to_string(&parts)?);
        let _turn = take_turn(&self.turn);
        let text =
            invoke_text!(self.loaded, et_plugin_app.finish(borrow(&record), borrow(&parts)))?;
        self.loaded.read("finish", &text)
    }
}
