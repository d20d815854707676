//! Where messages of the engine, the trainer and the plugins go.

use easytransfer_core::log::{Sink, set_sink};
use easytransfer_plugin::LogLevel;

use crate::Result;

/// Gets messages: level, writer and text.
pub type OnLog = dyn Fn(LogLevel, &str, &str) + Send + Sync;

/// Sends messages to `callback` from now on, with their level, the name of the writer ("engine", "train", the id of a
/// plugin) and the text; `None` restores the default, one line each to standard error. For the whole process, whatever
/// engine computes.
///
/// It is called on the thread that has something to say, so on several at once, and in the middle of its work: it
/// should be quick, and must not wait for another thread that may log. What it logs itself goes to standard error.
/// When this returns, the callback of before is not called any more. Errors: from inside a callback.
pub fn on_log(callback: Option<Box<OnLog>>) -> Result<()> {
    let sink = callback.map(|callback| -> Sink {
        Box::new(move |level, target, message| callback(level_of(level), target, message))
    });
    set_sink(sink)
        .map_err(|error| easytransfer_plugin::Error::new(error.code, error.message.clone()).into())
}

fn level_of(level: i32) -> LogLevel {
    [LogLevel::Error, LogLevel::Warn, LogLevel::Info]
        .into_iter()
        .find(|known| *known as i32 == level)
        .unwrap_or(LogLevel::Debug)
}
