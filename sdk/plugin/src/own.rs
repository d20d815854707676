//! Components of the program itself, each made by a closure with what that has captured.
//!
//! The slot `create` of a table has no place for a closure. Such a component therefore keeps it beside its table, and
//! the host calls it in place of the slot; all other slots are those of the table, as for a plugin's component, so
//! errors, panics and poisoned instances are the same.

use crate::component::{ComponentRef, Instance};
use crate::{
    App, AppTable, Error, Loss, LossTable, Metric, MetricTable, Model, ModelTable, Optimizer,
    OptimizerTable, Params, Result, Scope, Strategy, StrategyTable,
};
use easytransfer_abi as abi;
use serde_json::Value;
use std::ffi::{CStr, c_void};
use std::sync::Arc;

/// What stands for the id of a plugin in components of the program itself.
pub const OWN_PLUGIN: &str = "this-program";
/// Their version, which nobody compares with another build of the program.
const OWN_VERSION: &str = "0";

/// What the slot `create` of any kind gets.
#[derive(Default)]
pub(crate) struct Given<'a> {
    pub options: &'a str,
    pub state: &'a str,
    pub scope: Option<&'a Scope>,
    pub params: Option<&'a Params>,
}

/// JSON that the host has written; an empty text is an empty object.
fn value_of(text: &str) -> Result<Value> {
    Ok(serde_json::from_str(if text.trim().is_empty() { "{}" } else { text })?)
}

type Make = dyn Fn(&Given<'_>, *mut *mut c_void) -> *mut abi::et_error + Send + Sync;

/// Makes instances in place of the slot `create`.
#[derive(Clone)]
pub(crate) struct Maker(Arc<Make>);

impl std::fmt::Debug for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maker")
    }
}

impl Maker {
    fn new<T: 'static>(
        make: impl Fn(&Given<'_>) -> Result<T> + Send + Sync + 'static,
    ) -> Option<Self> {
        // SAFETY: `make` of this type asks the same of its caller.
        let create = move |given: &Given<'_>, out: *mut *mut c_void| unsafe {
            Instance::create(out, || make(given))
        };
        Some(Self(Arc::new(create)))
    }

    /// Makes an instance for the table of the component.
    ///
    /// # Safety
    /// `out` is valid for a write.
    pub(crate) unsafe fn make(
        &self,
        given: &Given<'_>,
        out: *mut *mut c_void,
    ) -> *mut abi::et_error {
        (self.0)(given, out)
    }
}

/// The error of a component that has a closure in place of its `new`.
pub(crate) fn by_closure(name: &CStr) -> Error {
    Error::new(
        abi::ET_ERR_UNIMPLEMENTED,
        format!(
            "{}: it has no `new`: a plugin's component needs one, and only those that a program registers by a closure \
             do without",
            name.to_string_lossy()
        ),
    )
}

impl ComponentRef {
    fn own<T>(
        kind: &'static str,
        name: &str,
        schema: &CStr,
        table: &'static T,
        maker: Option<Maker>,
    ) -> Self {
        let (name, schema) = (name.to_owned(), schema.to_string_lossy().into_owned());
        let (plugin, version) = (OWN_PLUGIN.to_owned(), OWN_VERSION.to_owned());
        let table = std::ptr::from_ref(table).cast();
        // SAFETY: the caller's table is of the kind, complete and static.
        let mut own = unsafe { Self::new(kind, name, schema, plugin, version, table) };
        own.maker = maker;
        own
    }

    /// A loss of the program itself; `make` gets the options, which fit [`Loss::SCHEMA`].
    pub fn own_loss<T: Loss>(
        name: &str,
        make: impl Fn(&Value) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let maker = Maker::new(move |given| make(&value_of(given.options)?));
        Self::own("et.loss/1", name, T::SCHEMA, LossTable::<T>::TABLE, maker)
    }

    /// A metric of the program itself.
    pub fn own_metric<T: Metric>(
        name: &str,
        make: impl Fn(&Value) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let maker = Maker::new(move |given| make(&value_of(given.options)?));
        Self::own("et.metric/1", name, T::SCHEMA, MetricTable::<T>::TABLE, maker)
    }

    /// A strategy of the program itself.
    pub fn own_strategy<T: Strategy>(
        name: &str,
        make: impl Fn(&Value) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let maker = Maker::new(move |given| make(&value_of(given.options)?));
        Self::own("et.strategy/1", name, T::SCHEMA, StrategyTable::<T>::TABLE, maker)
    }

    /// An optimizer of the program itself; `make` gets the options and the sealed set.
    pub fn own_optimizer<T: Optimizer>(
        name: &str,
        make: impl Fn(&Value, &Params) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let maker = Maker::new(move |given| match given.params {
            Some(params) => make(&value_of(given.options)?, params),
            None => Err(Error::invalid("an optimizer is made for a set")),
        });
        Self::own("et.optimizer/1", name, T::SCHEMA, OptimizerTable::<T>::TABLE, maker)
    }

    /// A model of the program itself; `make` gets the content of config.json and the scope for its parameters.
    pub fn own_model<T: Model>(
        name: &str,
        make: impl Fn(&Value, &Scope) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let maker = Maker::new(move |given| match given.scope {
            Some(scope) => make(&value_of(given.options)?, scope),
            None => Err(Error::invalid("a model is made in a scope")),
        });
        Self::own("et.model/1", name, T::SCHEMA, ModelTable::<T>::TABLE, maker)
    }

    /// An app of the program itself; `make` gets the options and, for a bundle, what [`App::state`] answered.
    pub fn own_app<T: App>(
        name: &str,
        make: impl Fn(&Value, Option<&Value>) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let maker = Maker::new(move |given| {
            let state = if given.state.is_empty() { None } else { Some(value_of(given.state)?) };
            make(&value_of(given.options)?, state.as_ref())
        });
        Self::own("et.app/1", name, T::SCHEMA, AppTable::<T>::TABLE, maker)
    }
}
