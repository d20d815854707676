//! Messages for people: one line each to standard error, or to a sink that the host program sets.

use std::io::Write;
use std::sync::RwLock;
use std::sync::atomic::{AtomicI32, Ordering};

use easytransfer_abi::{ET_LOG_DEBUG, ET_LOG_ERROR, ET_LOG_INFO, ET_LOG_WARN};

/// Receives `level` (an `ET_LOG_` constant), the writer's name and the message.
pub type Sink = Box<dyn Fn(i32, &str, &str) + Send + Sync>;

static LEVEL: AtomicI32 = AtomicI32::new(ET_LOG_INFO);
static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// Messages above this level (an `ET_LOG_` constant; `ET_LOG_INFO` at first) are dropped.
pub fn set_level(level: i32) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Sends messages to `sink` instead of standard error; `None` restores standard error.
pub fn set_sink(sink: Option<Sink>) {
    *SINK.write().unwrap_or_else(std::sync::PoisonError::into_inner) = sink;
}

/// Writes one message. Unknown levels count as `ET_LOG_DEBUG`. Never fails; a message that cannot be written is lost.
pub fn write(level: i32, target: &str, message: &str) {
    let level = if (ET_LOG_ERROR..=ET_LOG_DEBUG).contains(&level) { level } else { ET_LOG_DEBUG };
    if level > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let sink = SINK.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    match sink.as_ref() {
        Some(sink) => sink(level, target, message),
        None => {
            let line = format!("{} {target}: {message}\n", level_name(level));
            // A closed standard error is no reason to fail: the message is lost.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
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
                copy.lock().unwrap().push((level, message.to_string()));
            }
        })));
        write(ET_LOG_WARN, "log-test", "a");
        write(ET_LOG_DEBUG, "log-test", "b");
        set_level(ET_LOG_DEBUG);
        write(99, "log-test", "c");
        set_level(ET_LOG_INFO);
        set_sink(None);
        let expected = vec![(ET_LOG_WARN, "a".to_string()), (ET_LOG_DEBUG, "c".to_string())];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
