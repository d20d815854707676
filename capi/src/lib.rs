//! `libeasytransfer`: the facade as C functions. `include/easytransfer.h` is generated from these files.
//!
//! Every function is thin: it checks its pointers, calls the facade and hands the result over. What they share:
//!
//! - Text goes in as NUL-terminated UTF-8. Text that comes out is NUL-terminated too and belongs to the object that
//!   it came from; an
//!   [`et_text`] belongs to the caller.
//! - Functions that can fail return an error for `et_error_release`, or NULL. On error every out is left untouched.
//! - Panics are caught and become `ET_ERR_PANIC`.
//! - Release functions accept NULL. What came from a runtime may be released after it.
//! - A handle is looked up in a list before it is used ([`handle`]), so one that was released, or is of another kind,
//!   is an error.
//!
//! What it deliberately does not do: no logic, and no way to the engine beside the tables that plugins get
//! (`et_runtime_host`).
#![allow(non_camel_case_types, reason = "the names are the C names")]
#![allow(
    clippy::missing_safety_doc,
    reason = "what C callers must keep to is said once, in the header's first comment, and in each function's text"
)]

mod app;
mod embedder;
mod error;
mod event;
mod fit;
mod handle;
mod log;
mod model;
mod runtime;
mod text;
mod training;

pub use app::*;
pub use embedder::*;
pub use error::{et_error_code, et_error_message, et_error_release};
pub use event::*;
pub use fit::et_fit;
pub use log::{et_log_callback, et_log_to};
pub use model::*;
pub use runtime::*;
pub use text::*;
pub use training::*;
