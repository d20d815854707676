//! What a training run is asked for, what it says of each step, and what it comes to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value};

use crate::data::dataset::DataOptions;
use crate::model::network::Start;
use crate::options::config::TrainConfig;
use crate::report::progress::ProgressMode;

/// What to train, on what, and where the result goes.
pub struct TrainJob {
    /// Name of the app.
    pub app: String,
    /// Directory of the encoder; empty for none: the model is then the one that the options under `encoder` describe,
    /// from scratch.
    pub encoder: PathBuf,
    /// How its weights start.
    pub start: Start,
    /// Training data.
    pub train: PathBuf,
    /// Validation data.
    pub valid: Option<PathBuf>,
    /// Directory of the bundle.
    pub output: PathBuf,
    /// How to read the training data.
    pub train_data: DataOptions,
    /// How to read the validation data.
    pub valid_data: DataOptions,
    /// Options.
    pub config: TrainConfig,
    /// Go on from the last checkpoint in the output directory, if there is one.
    pub resume: bool,
    /// How to show progress.
    pub progress: ProgressMode,
    /// Called after every step.
    pub on_step: Option<OnStep>,
    /// Set from elsewhere to cancel.
    pub cancel: Arc<AtomicBool>,
}

/// A callback after every step; answering false ends the run as a cancellation.
pub type OnStep = Box<dyn FnMut(&StepInfo) -> bool + Send>;

/// One step, for a callback.
#[derive(Debug, Clone, PartialEq)]
pub struct StepInfo {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Loss of the step.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainResult {
    /// Figures of the kept parameters on the validation data, empty without.
    pub metrics: Map<String, Value>,
    /// Step of the kept parameters.
    pub best_step: u64,
    /// Steps done.
    pub steps: u64,
    /// Mean loss over all steps.
    pub mean_loss: f64,
    /// Rows that were left out.
    pub skipped_rows: u64,
    /// Wall-clock seconds of the loop.
    pub seconds: f64,
    /// The part of `seconds` that went into steps: without evaluations and checkpoints.
    pub step_seconds: f64,
    /// Tokens trained on by this process.
    pub tokens: u64,
}
