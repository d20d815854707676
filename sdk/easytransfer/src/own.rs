//! Components of the program itself: a loss, a strategy, a metric, an optimizer, a model or an app that a closure makes,
//! with whatever the closure has captured.

use easytransfer_loader::ComponentKind;
use easytransfer_plugin::{
    self as plugin, App, ComponentRef, Loss, Metric, Model, Optimizer, Params, Scope, Strategy,
};
use easytransfer_train::Result;
use serde_json::Value;

use crate::Runtime;

/// Each of these registers a component of the program under a name, by which it is known as those of plugins are: in
/// [`crate::TrainConfig`], in bundles, to [`Runtime::loss`] and its siblings. `make` is called for each instance, with
/// the options as the component's schema has completed them; what it captures is shared with the program. The trait's
/// `NAME` and `new` are not used. A panic in the closure or in the component is an error in whoever asked.
///
/// ```no_run
/// use easytransfer::plugin::{Call, Loss, Map, NoOptions, Result, Tensor};
/// use easytransfer::{Runtime, RuntimeOptions};
/// use std::sync::Arc;
///
/// struct Priced(Arc<Vec<f32>>);
///
/// impl Loss for Priced {
///     const NAME: &'static std::ffi::CStr = c"priced";
///     type Options = NoOptions;
///     fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
///         let prices = Tensor::from_slice(&self.0, &[self.0.len()])?;
///         let chosen = prices.index_select(0, &batch.get("labels")?)?;
///         outputs.get("logits")?.sqr()?.mean(&[1], false)?.mul(&chosen)
///     }
/// }
///
/// let runtime = Runtime::new(RuntimeOptions::default())?;
/// let prices = Arc::new(vec![1.0, 5.0]);
/// runtime.register_loss("priced", move |_options| Ok(Priced(prices.clone())))?;
/// # Ok::<(), easytransfer::Error>(())
/// ```
///
/// Errors: a name that is empty or has spaces, or that another component of the kind has, be it the program's or one of
/// a plugin that was found. A plugin that offers such a name is refused when it is loaded later.
impl Runtime {
    /// Registers a loss.
    pub fn register_loss<T: Loss>(
        &self,
        name: &str,
        make: impl Fn(&Value) -> plugin::Result<T> + Send + Sync + 'static,
    ) -> Result<()> {
        self.register_own(ComponentKind::Loss, ComponentRef::own_loss(name, make))
    }

    /// Registers a metric.
    pub fn register_metric<T: Metric>(
        &self,
        name: &str,
        make: impl Fn(&Value) -> plugin::Result<T> + Send + Sync + 'static,
    ) -> Result<()> {
        self.register_own(ComponentKind::Metric, ComponentRef::own_metric(name, make))
    }

    /// Registers a strategy.
    pub fn register_strategy<T: Strategy>(
        &self,
        name: &str,
        make: impl Fn(&Value) -> plugin::Result<T> + Send + Sync + 'static,
    ) -> Result<()> {
        self.register_own(ComponentKind::Strategy, ComponentRef::own_strategy(name, make))
    }

    /// Registers an optimizer; the closure also gets the sealed set that the instance is for.
    pub fn register_optimizer<T: Optimizer>(
        &self,
        name: &str,
        make: impl Fn(&Value, &Params) -> plugin::Result<T> + Send + Sync + 'static,
    ) -> Result<()> {
        self.register_own(ComponentKind::Optimizer, ComponentRef::own_optimizer(name, make))
    }

    /// Registers a model, under the `model_type` of its configuration; the closure gets that configuration and the
    /// scope in which it declares the parameters.
    pub fn register_model<T: Model>(
        &self,
        name: &str,
        make: impl Fn(&Value, &Scope) -> plugin::Result<T> + Send + Sync + 'static,
    ) -> Result<()> {
        self.register_own(ComponentKind::Model, ComponentRef::own_model(name, make))
    }

    /// Registers an app; for a bundle the closure also gets what [`App::state`] answered.
    pub fn register_app<T: App>(
        &self,
        name: &str,
        make: impl Fn(&Value, Option<&Value>) -> plugin::Result<T> + Send + Sync + 'static,
    ) -> Result<()> {
        self.register_own(ComponentKind::App, ComponentRef::own_app(name, make))
    }
}
