//! The facade: what a Rust program writes `use easytransfer::…` for.
//!
//! A [`Runtime`] starts the engine and finds plugins. From it come an [`App`] (a trained bundle that answers texts
//! and other records), an [`Embedder`] (vectors from an encoder), [`Runtime::train`] (the whole way from a file of
//! labelled texts to a bundle), and the single parts for a loop written by hand: [`Runtime::model`],
//! [`Runtime::loss`], [`Runtime::optimizer`].
//!
//! ```no_run
//! use easytransfer::{Runtime, RuntimeOptions};
//!
//! let runtime = Runtime::new(RuntimeOptions::default())?;
//! let app = runtime.app("runs/sst2".as_ref())?;
//! for answer in app.predict(&["a gripping film", "dull and overlong"])? {
//!     println!("{answer}");
//! }
//! # Ok::<(), easytransfer::Error>(())
//! ```
//!
//! Plugins are libraries in a folder, or crates in the program: the feature `builtin` links and registers all stock
//! ones, and [`Runtime::register_plugin`] takes the `PluginRecord::get()` of any other.
//!
//! Features, all on by default but `log`, leave out what a program does not use: `train` ([`Runtime::train`]),
//! `progress` (bars on a terminal), `pickle` (weights in PyTorch's own format), `gzip` (packed data). With `log` the
//! library's messages go to the crate of that name instead of standard error.
//!
//! What it deliberately does not do: no kernels, no parsing and no training loop live here; it binds the crates that
//! have them.

mod answer;
mod app;
mod builtin;
mod embed;
mod engine;
mod inputs;
pub mod json;
mod lanes;
mod log;
#[cfg(feature = "log")]
mod log_lines;
mod own;
mod parts;
mod profile;
mod registry;
mod runtime;
mod sentence;
mod shared;

pub use answer::{Answer, Classification, TextSpan};
pub use app::{App, AppOptions, DataSource, Evaluation};
pub use embed::{EmbedOptions, Embedder};
pub use engine::{engine_host, engine_report, engine_use};
pub use log::{OnLog, on_log};
pub use parts::{Model, Optimizer};
pub use profile::{Profile, ProfileOp, ProfileSummary};
pub use runtime::{PluginInfo, Runtime, RuntimeOptions};

pub use easytransfer_core::inference::LayerPrecision;
pub use easytransfer_core::storage::keep_pages;
pub use easytransfer_loader::engine::{
    Device, Driver, EngineError, EnginePrecision, engine_places,
};
pub use easytransfer_loader::{PluginChoice, Policy};
pub use easytransfer_plugin as plugin;
pub use easytransfer_plugin::{LogLevel, Map, Record, Rng, Row, Tensor, Tokenizer, live_handles};
pub use easytransfer_train as train;
pub use easytransfer_train::data::input::Data;
pub use easytransfer_train::error::{ErrorKind, InputPlace};
pub use easytransfer_train::model::network::Start;
pub use easytransfer_train::options::config::Named;
#[cfg(feature = "train")]
pub use easytransfer_train::options::config::TrainConfig;
pub use easytransfer_train::run::events::{Control, Event, StepInfo, Watch};
#[cfg(feature = "train")]
pub use easytransfer_train::run::job::{TrainJob, TrainResult};
pub use easytransfer_train::{Error, Result};

/// The page for programs in Rust; its examples are compiled with the tests.
#[cfg(all(doctest, feature = "train"))]
#[doc = include_str!("../../../docs/from-rust.md")]
pub struct FromRust;

/// Version of the SDK.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes the calling thread one of the engine's workers, `threads` in all (as many as the machine has for `None`), so
/// that kernels need not be handed to others. For programs that compute on one thread; before anything was computed.
/// Errors: the workers run already.
pub fn include_this_thread(threads: Option<usize>) -> Result<()> {
    easytransfer_core::workers::include_this_thread(threads)
        .map_err(|error| Error::other(error.message.as_str()))
}

/// Threads that have used handles of the engine since the process began, also those that ended. It grows where a
/// plugin calls the engine from a thread of its own.
pub fn handle_threads() -> u64 {
    easytransfer_core::handle::handle_threads()
}

/// The engine's table, as plugins get it; there before any runtime is, and until the process ends.
pub fn host() -> *const plugin::abi::et_host {
    easytransfer_core::host::host()
}
