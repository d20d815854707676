//! What the fault tests need: a host that offers errors and one interface, and a way to build small plugins in C and
//! C++.
//!
//! What it deliberately does not do: there is no engine behind the host, so nothing here computes.

mod host;
mod workshop;

pub use host::{error_text, host, live_errors};
pub use workshop::{ManifestText, Workshop};
