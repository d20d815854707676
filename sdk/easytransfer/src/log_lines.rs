//! The library's messages for the crate `log`.

use std::sync::Once;

use easytransfer_abi::{ET_LOG_DEBUG, ET_LOG_ERROR, ET_LOG_INFO, ET_LOG_WARN};
use easytransfer_core::log;

/// Sends the messages to the program's logger from the first runtime on. The target of a message is
/// `easytransfer::WRITER`, where the writer is the part of the library, or the plugin, that it comes from. What is
/// shown is the logger's matter, so all levels are handed on.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_level(ET_LOG_DEBUG);
        // Refused from inside of a sink only, and then that one stays.
        let _ = log::set_sink(Some(Box::new(|level, writer, message| {
            let level = match level {
                ET_LOG_ERROR => ::log::Level::Error,
                ET_LOG_WARN => ::log::Level::Warn,
                ET_LOG_INFO => ::log::Level::Info,
                _ => ::log::Level::Debug,
            };
            ::log::log!(target: &format!("easytransfer::{writer}"), level, "{message}");
        })));
    });
}
