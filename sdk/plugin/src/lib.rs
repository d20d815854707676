//! Writing plugins for EasyTransfer in safe Rust.
//!
//! A plugin implements one of the traits [`Model`], [`Loss`], [`Optimizer`], [`Strategy`], [`App`], [`Metric`] or
//! [`Op`] over the host's [`Tensor`]s, and names it in [`export!`]. It is compiled as a `cdylib`, needs nothing of
//! the engine at build time, and may `forbid(unsafe_code)`. The same tables are callable from the other side:
//! [`LoadedLoss`] and its siblings are what a host program holds when a registry gave it a component.
//!
//! ```ignore
//! use easytransfer_plugin::{Call, Loss, Map, NoOptions, Result, Tensor};
//!
//! struct MeanSquaredError;
//!
//! impl Loss for MeanSquaredError {
//!     const NAME: &'static std::ffi::CStr = c"mse";
//!     type Options = NoOptions;
//!     fn new(_: NoOptions) -> Result<Self> {
//!         Ok(Self)
//!     }
//!     fn forward(&mut self, _: &Call, outputs: &Map, batch: &Map) -> Result<Tensor> {
//!         outputs.get("logits")?.sub(&batch.get("labels")?)?.sqr()?.mean(&[], false)
//!     }
//! }
//!
//! easytransfer_plugin::export! { id: "loss-mine", losses: [MeanSquaredError] }
//! ```
//!
//! What it deliberately does not do: it never links the engine; every operation goes through the host's C tables.

mod app;
mod cache;
mod component;
mod config;
pub mod cuda;
mod data;
mod error;
#[doc(hidden)]
pub mod export;
mod head;
mod host;
mod layers;
mod lent;
mod loss;
mod metric;
mod model;
mod net;
pub mod nn;
mod op;
mod optimizer;
mod own;
mod param;
pub mod profile;
mod recompute;
mod service;
mod session;
mod slots;
pub mod step;
mod strategy;
mod tensor;
mod text;
mod vocabulary;

#[doc(hidden)]
pub use easytransfer_abi as abi;

pub use app::{App, AppInfo, AppTable, Choice, Column, LoadedApp, Module, Record, text_of};
pub use cache::{Cache, KeptRows};
pub use component::{Call, ComponentRef};
pub use config::{KnownKeys, ModelConfig};
pub use cuda::Cuda;
pub use data::{Buffer, Map, Row, Rows};
pub use error::{Error, RecordFault, Result};
pub use export::LinkedPlugin;
pub use head::{HeadLayer, HeadPool, TaskHead};
pub use host::{attach, live_handles, raw_host};
pub use layers::{Embedding, LayerNorm, Linear, LinearConfig, RmsNorm};
pub use lent::{Lent, LentMut};
pub use loss::{LoadedLoss, Loss, LossTable, mean_of_rows, weight_of_labels, weight_of_rows};
pub use metric::{Counts, LoadedMetric, Metric, MetricInfo, MetricTable};
pub use model::{LoadedModel, Model, ModelInfo, ModelTable, Task};
pub use net::{
    Asked, Context, ContextHost, Net, NetHost, context_host_table, features_rng, net_host_table,
};
pub use nn::{Activation, Pool};
#[doc(hidden)]
pub use op::stateless;
pub use op::{
    InputView, LoadedOp, Op, OpRegistry, OpTable, OutputSpec, OutputView, RegistryTable, apply,
    find_op,
};
pub use optimizer::{LoadedOptimizer, Optimizer, OptimizerTable};
pub use own::OWN_PLUGIN;
pub use param::{Init, Param, Params, Scope, out_of_range};
pub use recompute::{Recompute, RecomputeScope, recomputed};
pub use service::{Encoding, LogLevel, Rng, RngState, Stream, Tokenizer, log};
pub use session::{
    MODEL, ModuleSpec, Save, Session, SessionHost, SessionOptimizer, SourceInfo, host_table,
};
pub use strategy::{ColumnKind, ExtraColumn, LoadedStrategy, Phases, Strategy, StrategyTable};
pub use tensor::{DType, Element, Tensor, is_recording, no_grad};
pub use vocabulary::{Vocabulary, VocabularyOptions, WordCounts};

/// Schema of components without options.
pub const NO_OPTIONS: &std::ffi::CStr =
    c"{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}";

/// Options of components without options.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// Version of this SDK.
pub fn plugin_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
