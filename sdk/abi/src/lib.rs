//! The boundary of EasyTransfer as C tables.
//!
//! This crate *is* the contract: `include/easytransfer_plugin.h` is generated from it, plugins in any language
//! are written against it, and nothing else crosses between a host and a plugin.
//!
//! Conventions, for every table:
//! - The first field is `struct_size`: the number of bytes that the writer filled. A reader uses a slot only if the
//!   slot lies inside `struct_size` **and** is not NULL. Larger than known is fine; equality is never tested.
//! - Tables only grow at the end. A slot never changes meaning, ownership or thread tag; a breaking change is a new
//!   interface id (`et.tensor/2`) beside the old one.
//! - Arguments are **borrowed** for the call. An out pointer receives **one owned reference**, which the caller gives
//!   back
//!   with the matching `_release`. `_release` accepts NULL. On error every out is left untouched.
//! - Fallible functions return `et_error*`, NULL for success. Errors are made by the host, so they outlive any plugin.
//! - Text is UTF-8 as `et_str` (pointer and length, not NUL-terminated); names and ids are NUL-terminated `char*`.
//! - No panic and no exception crosses: each side catches its own and returns an error with `ET_ERR_PANIC`.
//! - Thread tags: `[any-thread]` may be called from any thread at any time; `[one-at-a-time]` from any thread, but
//!   calls on
//!   the same object never overlap; `[callback-thread]` is called on the thread that made the outer call.
//!
//! What it deliberately does not do: no behaviour lives here, and no Rust type with a hidden layout appears here.
#![no_std]
#![allow(non_camel_case_types, reason = "the names are the C names")]
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the text is that of the C headers, where [n] is a shape"
)]

mod codes;
mod cuda;
mod data;
mod engine;
mod group;
mod host;
mod library;
mod net;
mod plugin;
mod profile;
mod session;
mod step;

pub use codes::*;
pub use cuda::*;
pub use data::*;
pub use engine::*;
pub use group::*;
pub use host::*;
pub use library::*;
pub use net::*;
pub use plugin::*;
pub use profile::*;
pub use session::*;
pub use step::*;
