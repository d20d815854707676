//! What a run, or work on a file, tells its caller while it goes on, and what the caller answers.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Something that happened. As JSON an object with its kind under "event": {"event": "step", "step": 1, ..}. New kinds
/// and fields may come.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// Everything is set up, and the first step (of this process) is next.
    Start {
        /// Steps done, by the run that is resumed.
        step: u64,
        /// Steps of the whole run.
        total_steps: u64,
        /// Epochs of the whole run.
        epochs: u64,
        /// Records of the training data.
        rows: u64,
    },
    /// A step was made.
    Step(StepInfo),
    /// The validation data was evaluated.
    Evaluation {
        /// Steps done.
        step: u64,
        /// Figures by name.
        metrics: Map<String, Value>,
        /// Whether these are the best so far, so that the parameters are kept.
        is_best: bool,
    },
    /// An epoch ended.
    Epoch {
        /// Epochs done.
        epoch: u64,
        /// Epochs of the whole run.
        epochs: u64,
        /// Steps done.
        step: u64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Where it is.
        path: PathBuf,
    },
    /// Something that the caller may not expect; the log has it too.
    Warning {
        /// What it is.
        message: String,
    },
    /// Records of a file, or in memory, were worked on.
    Rows {
        /// How many so far.
        done: u64,
        /// How many there are, where that is known.
        total: Option<u64>,
    },
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// What a caller answers to an event. A callback may answer with a `bool` (whether to go on) or with nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    #[default]
    Continue,
    /// End it as a cancellation: a run after its present step, with a checkpoint; work on a file with nothing left of
    /// the output.
    Stop,
}

impl From<()> for Control {
    fn from((): ()) -> Control {
        Control::Continue
    }
}

impl From<bool> for Control {
    fn from(go_on: bool) -> Control {
        if go_on { Control::Continue } else { Control::Stop }
    }
}

/// A callback for events, called on the thread that does the work.
pub type OnEvent = Box<dyn FnMut(&Event) -> Control + Send>;

/// Who watches work on a file.
pub struct Watch<'a> {
    on_event: Option<&'a mut dyn FnMut(&Event) -> Control>,
    done: u64,
    total: Option<u64>,
}

impl<'a> Watch<'a> {
    /// `on_event` is told of the progress.
    pub fn new(on_event: &'a mut dyn FnMut(&Event) -> Control) -> Watch<'a> {
        Watch { on_event: Some(on_event), done: 0, total: None }
    }

    /// Nobody watches.
    pub fn nobody() -> Watch<'a> {
        Watch { on_event: None, done: 0, total: None }
    }

    /// The number of rows there are, where it is known.
    pub fn set_total(&mut self, total: Option<u64>) {
        self.total = total;
    }

    /// So many more rows were worked on. Errors: `Cancelled`.
    pub fn rows(&mut self, more: u64) -> Result<()> {
        self.done += more;
        let event = Event::Rows { done: self.done, total: self.total };
        match self.on_event.as_mut().map(|on_event| on_event(&event)) {
            Some(Control::Stop) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}
