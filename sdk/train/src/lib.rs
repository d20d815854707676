//! easytransfer-train
#![forbid(unsafe_code)]

pub mod atomic;
pub mod batching;
pub mod columns;
pub mod counted;
pub mod dtype;
pub mod error;
pub mod events;
pub mod jsonl_log;
pub mod nearest;
pub mod options;
mod pickle;
pub mod prefetch;
pub mod progress;
pub mod records;
pub mod safetensors;
pub mod schedule;
pub mod torch_pickle;
mod zip;

pub use error::{Error, Result};
