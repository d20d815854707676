//! Messages for people: one line each to standard error, or to a sink that the host program sets.

use std::cell::Cell;
use std::io::Write;
use std::sync::RwLock;
use std::sync::atomic::{AtomicI32, Ordering};

use easytransfer_abi::{
    ET_ERR_FAILED_PRECONDITION, ET_LOG_DEBUG, ET_LOG_ERROR, ET_LOG_INFO, ET_LOG_WARN, et_host_log,
    et_str,
};

use crate::error::{Error, Result};

/// Receives `level` (an `ET_LOG_` constant), the writer's name and the message.
pub type Sink = Box<dyn Fn(i32, &str, &str) + Send + Sync>;

static LEVEL: AtomicI32 = AtomicI32::new(ET_LOG_INFO);
static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// Messages above this level (an `ET_LOG_` constant; `ET_LOG_INFO` at first) are dropped.
pub fn set_level(level: i32) {
    LEVEL.store(level, Ordering::Relaxed);
}

thread_local! {
    /// Whether this thread is in a sink.
    static IN_SINK: Cell<bool> = const { Cell::new(false) };
}

/// Sends messages to `sink` instead of standard error; `None` restores standard error. When this returns, nobody is in
/// the sink of before any more. Errors: FAILED_PRECONDITION from inside a sink, which would wait for itself.
pub fn set_sink(sink: Option<Sink>) -> Result<()> {
    if IN_SINK.get() {
        return Err(Error::new(
            ET_ERR_FAILED_PRECONDITION,
            "log: a sink cannot be replaced from inside of itself",
        ));
    }
    let old = std::mem::replace(
        &mut *SINK.write().unwrap_or_else(std::sync::PoisonError::into_inner),
        sink,
    );
    // Outside of the lock: what a sink holds may say something when it goes.
    drop(old);
    Ok(())
}

/// Sends messages to the log of another host: that of the program, where this engine is a library.
pub(crate) fn forward(table: &'static et_host_log) -> Result<()> {
    let text = |text: &str| et_str { ptr: text.as_ptr().cast(), len: text.len() };
    set_sink(Some(Box::new(move |level, target, message| {
        if let Some(write) = table.write {
            // SAFETY: both texts are readable for the call.
            unsafe { write(level, text(target), text(message)) };
        }
    })))
}

/// Writes one message. Unknown levels count as `ET_LOG_DEBUG`. Never fails; a message that cannot be written is lost.
pub fn write(level: i32, target: &str, message: &str) {
    let level = if (ET_LOG_ERROR..=ET_LOG_DEBUG).contains(&level) { level } else { ET_LOG_DEBUG };
    if level > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    // What a sink says itself does not come back to it.
    let nested = IN_SINK.get();
    let sink = (!nested).then(|| SINK.read().unwrap_or_else(std::sync::PoisonError::into_inner));
    match sink.as_ref().and_then(|sink| sink.as_ref()) {
        Some(sink) => {
            let _inside = Inside::enter();
            sink(level, target, message);
        }
        None => {
            let line = format!("{} {target}: {message}\n", level_name(level));
            // A closed standard error is no reason to fail: the message is lost.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

/// This thread is in a sink for as long as this lives.
struct Inside;

impl Inside {
    fn enter() -> Inside {
        IN_SINK.set(true);
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        IN_SINK.set(false);
    }
}

/// Writes an error of the engine itself.
pub fn error(message: &str) {
    write(ET_LOG_ERROR, "engine", message);
}

/// Writes a warning of the engine itself.
pub fn warn(message: &str) {
    write(ET_LOG_WARN, "engine", message);
}

/// Name of a level as it is printed.
fn level_name(level: i32) -> &'static str {
    match level {
        ET_LOG_ERROR => "error",
        ET_LOG_WARN => "warning",
        ET_LOG_INFO => "info",
        _ => "debug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn sink_gets_messages_up_to_the_level() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let copy = seen.clone();
        set_sink(Some(Box::new(move |level, target, message| {
            if target == "log-test" {
                // Neither waits for itself.
                write(level, target, "from inside");
                assert!(set_sink(None).is_err());
                copy.lock().unwrap().push((level, message.to_string()));
            }
        })))
        .unwrap();
        write(ET_LOG_WARN, "log-test", "a");
        write(ET_LOG_DEBUG, "log-test", "b");
        set_level(ET_LOG_DEBUG);
        write(99, "log-test", "c");
        set_level(ET_LOG_INFO);
        set_sink(None).unwrap();
        let expected = vec![(ET_LOG_WARN, "a".to_string()), (ET_LOG_DEBUG, "c".to_string())];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
