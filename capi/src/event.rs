//! What runs and work on files tell their caller.

use crate::text::c_string;
use easytransfer_facade as facade;
use facade::plugin::abi::et_str;
use facade::{Control, Event};
use std::ffi::{CString, c_void};

/// Everything is set up, and the first step is next.
pub const ET_EVENT_START: i32 = 1;
/// A step was made.
pub const ET_EVENT_STEP: i32 = 2;
/// The validation data was evaluated; the figures are in the JSON text, under "metrics".
pub const ET_EVENT_EVALUATION: i32 = 3;
/// An epoch ended.
pub const ET_EVENT_EPOCH: i32 = 4;
/// A checkpoint was written; its path is in the JSON text.
pub const ET_EVENT_CHECKPOINT: i32 = 5;
/// Something that the caller may not expect: "message" in the JSON text. The log has it too.
pub const ET_EVENT_WARNING: i32 = 6;
/// Records were predicted, evaluated or turned into vectors.
pub const ET_EVENT_ROWS: i32 = 7;

/// Something that happened. Borrowed for the call of `et_on_event`. Later versions append members. since 0.2
#[repr(C)]
pub struct et_event {
    /// Bytes of this structure.
    pub struct_size: usize,
    /// One of the ET_EVENT_ constants; there may be more in later versions.
    pub kind: i32,
    /// Steps done; 0 for events of work on files.
    pub step: u64,
    /// Steps of the whole run, 0 where that is not said.
    pub total_steps: u64,
    /// Loss: of a step, or of an evaluation; NaN for all other events.
    pub loss: f64,
    /// Learning rate of a step; NaN for all other events.
    pub lr: f64,
    /// Rows done (ET_EVENT_ROWS), or epochs done (ET_EVENT_EPOCH).
    pub done: u64,
    /// Rows or epochs in all; 0 where that is not known.
    pub total: u64,
    /// All of it as the JSON text of an object, NUL-terminated: {"event": "step", "step": 1, "total_steps": 30, "loss":
    /// 0.7, "lr": 5e-5}, {"event": "evaluation", "step": 10, "metrics": {"accuracy": 0.9, ..}, "is_best": true},
    /// {"event": "checkpoint", "step": 10, "path": ".."} and so on.
    pub json: et_str,
}

/// Called for each event, on the thread that made the call. Returns 0 to end the work, which is then reported as
/// CANCELLED; everything else goes on. It must neither throw nor `longjmp` out. [callback-thread] since 0.2
pub type et_on_event =
    Option<unsafe extern "C" fn(user: *mut c_void, event: *const et_event) -> i32>;

/// A caller's function and the pointer that it is handed.
pub(crate) struct Listener {
    on_event: et_on_event,
    user: *mut c_void,
}

// SAFETY: the pointer is only handed back to the caller's function, on the thread that made the call.
unsafe impl Send for Listener {}

impl Listener {
    pub(crate) fn new(on_event: et_on_event, user: *mut c_void) -> Listener {
        Listener { on_event, user }
    }

    /// Whether there is a function.
    pub(crate) fn is_there(&self) -> bool {
        self.on_event.is_some()
    }

    /// Tells the caller.
    pub(crate) fn tell(&self, event: &Event) -> Control {
        let Some(on_event) = self.on_event else { return Control::Continue };
        let json = c_string(&facade::json::event(event));
        let event = raw(event, &json);
        // SAFETY: the caller's function takes the caller's pointer; the event lives for the call.
        Control::from(unsafe { on_event(self.user, &event) } != 0)
    }
}

fn raw(event: &Event, json: &CString) -> et_event {
    let mut raw = et_event {
        struct_size: size_of::<et_event>(),
        kind: 0,
        step: 0,
        total_steps: 0,
        loss: f64::NAN,
        lr: f64::NAN,
        done: 0,
        total: 0,
        json: et_str { ptr: json.as_ptr(), len: json.count_bytes() },
    };
    match event {
        Event::Start { step, total_steps, .. } => {
            (raw.kind, raw.step, raw.total_steps) = (ET_EVENT_START, *step, *total_steps);
        }
        Event::Step(info) => {
            (raw.kind, raw.step, raw.total_steps) = (ET_EVENT_STEP, info.step, info.total_steps);
            (raw.loss, raw.lr) = (info.loss, info.lr);
        }
        Event::Evaluation { step, metrics, .. } => {
            (raw.kind, raw.step) = (ET_EVENT_EVALUATION, *step);
            raw.loss = metrics.get("loss").and_then(|loss| loss.as_f64()).unwrap_or(f64::NAN);
        }
        Event::Epoch { epoch, epochs, step } => {
            (raw.kind, raw.step, raw.done, raw.total) = (ET_EVENT_EPOCH, *step, *epoch, *epochs);
        }
        Event::Checkpoint { step, .. } => (raw.kind, raw.step) = (ET_EVENT_CHECKPOINT, *step),
        Event::Warning { .. } => raw.kind = ET_EVENT_WARNING,
        Event::Rows { done, total } => {
            (raw.kind, raw.done, raw.total) = (ET_EVENT_ROWS, *done, total.unwrap_or(0));
        }
        // New ones have their JSON text.
        _ => {}
    }
    raw
}
