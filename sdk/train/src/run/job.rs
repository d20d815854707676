//! What a training run is asked for, and what it comes to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::data::dataset::DataOptions;
use crate::data::input::Data;
use crate::error::{Error, OptionError, Result};
use crate::model::network::Start;
use crate::options::config::TrainConfig;
use crate::report::progress::ProgressMode;
use crate::run::events::{Control, Event, OnEvent};

/// What to train, on what, and where the result goes. [`TrainJob::new`] has the defaults; what else there is to say is
/// a field, and the usual ones have a method too.
pub struct TrainJob {
    /// Name of the app.
    pub app: String,
    /// Directory of the encoder; empty for none: the model is then the one that the options under `encoder` describe,
    /// from scratch.
    pub encoder: PathBuf,
    /// How its weights start.
    pub start: Start,
    /// Training data.
    pub train: Data,
    /// Validation data.
    pub valid: Option<Data>,
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
    /// How to show progress on standard error.
    pub progress: ProgressMode,
    /// Told of everything that happens. On a card it is told of losses after every step, which waits for them.
    pub on_event: Option<OnEvent>,
    /// Set from elsewhere to cancel.
    pub cancel: Arc<AtomicBool>,
}

impl TrainJob {
    /// A text classifier ("text-classify") from the encoder's weights, with the default options; silent, without
    /// validation data. `encoder` may be empty where the options describe a model. `train` is a file or records.
    pub fn new(
        encoder: impl Into<PathBuf>,
        train: impl Into<Data>,
        output: impl Into<PathBuf>,
    ) -> TrainJob {
        TrainJob {
            app: "text-classify".to_owned(),
            encoder: encoder.into(),
            start: Start::Encoder,
            train: train.into(),
            valid: None,
            output: output.into(),
            train_data: DataOptions::labelled(),
            valid_data: DataOptions { split: Some("valid"), ..DataOptions::labelled() },
            config: TrainConfig::default(),
            resume: false,
            progress: ProgressMode::Silent,
            on_event: None,
            cancel: Arc::default(),
        }
    }

    /// Trains another app.
    #[must_use]
    pub fn with_app(mut self, name: impl Into<String>) -> TrainJob {
        self.app = name.into();
        self
    }

    /// Starts the weights in another way.
    #[must_use]
    pub fn with_start(mut self, start: Start) -> TrainJob {
        self.start = start;
        self
    }

    /// Keeps the parameters that do best on this data, a file or records.
    #[must_use]
    pub fn with_valid(mut self, data: impl Into<Data>) -> TrainJob {
        self.valid = Some(data.into());
        self
    }

    /// Sets the options.
    #[must_use]
    pub fn with_config(mut self, config: TrainConfig) -> TrainJob {
        self.config = config;
        self
    }

    /// Names the column of a role ("text", "label") in training and validation data.
    #[must_use]
    pub fn with_column(mut self, role: &str, column: &str) -> TrainJob {
        for data in [&mut self.train_data, &mut self.valid_data] {
            data.named.insert(role.to_owned(), column.to_owned());
        }
        self
    }

    /// Goes on from the checkpoint in the output directory, if there is one.
    #[must_use]
    pub fn with_resume(mut self) -> TrainJob {
        self.resume = true;
        self
    }

    /// Tells `on_event` of everything that happens: steps, evaluations, epochs, checkpoints, warnings. It is called on
    /// the thread of the run; [`Control::Stop`], or false, ends the run after the present step with a checkpoint.
    #[must_use]
    pub fn on_event<C: Into<Control>>(
        mut self,
        mut on_event: impl FnMut(&Event) -> C + Send + 'static,
    ) -> TrainJob {
        self.on_event = Some(Box::new(move |event| on_event(event).into()));
        self
    }

    /// Checks every option, however it was set. Errors name the key, what was found and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.config.validate("")?;
        self.train_data.validate("")?;
        self.valid_data.validate("")?;
        let fault = |key: &str, expected: &str| {
            let (key, expected, found) = (key.to_owned(), expected.to_owned(), "``".to_owned());
            Err(Error::from(OptionError { key, expected, found, ..OptionError::default() }))
        };
        if self.app.is_empty() {
            return fault("app", "the name of an app");
        }
        if self.output.as_os_str().is_empty() {
            return fault("output", "the directory of the bundle");
        }
        for (key, data) in [("train", Some(&self.train)), ("valid", self.valid.as_ref())] {
            if data.is_some_and(|data| data.path().as_os_str().is_empty()) {
                return fault(key, "a file or records");
            }
        }
        if self.start == Start::Bundle {
            return Err(Error::user(
                "start: expected a run's start, found that of a bundle, which is for loading one",
            ));
        }
        Ok(())
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
