//! Data files, batches, schedules, options, weight files and everything that a training run writes. Tensors are touched only
//! through the safe types of `easytransfer-plugin`.
//!
//! A run goes through [`records`] and [`columns`] (rows and what their columns mean), [`options`] (what was asked for),
//! [`record_store`] and [`features`] (data that need not fit into memory), [`batching`], [`batches`] and [`prefetch`] (which rows when),
//! [`schedule`] (learning rates), then [`events`], [`jsonl_log`],
//! [`progress`] and [`report`] (what is shown), and [`atomic`], [`safetensors`], [`npy`] and [`output`] (what remains).
//! [`torch_pickle`] reads weights that PyTorch saved. Every failure is an [`Error`] that names the culprit.
//!
//! [`trainer`] sets a [`job`] up, `run` is the loop and `step` a step of it; [`fit`] is its state and what it answers strategies; [`network`] is a model with a head, and [`bundle`] the
//! directory it is kept in; [`evaluate`] runs a network over a data set.
#![forbid(unsafe_code)]

pub mod atomic;
pub mod batches;
pub mod batching;
pub mod bundle;
pub mod checkpoint;
pub mod columns;
pub mod components;
pub mod config;
pub mod counted;
pub mod dataset;
pub mod dtype;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod features;
mod figures;
pub mod fit;
pub mod job;
pub mod jsonl_log;
pub mod nearest;
pub mod network;
pub mod npy;
pub mod options;
pub mod output;
mod pickle;
pub mod prefetch;
pub mod progress;
pub mod record_store;
pub mod records;
pub mod report;
mod run;
pub mod run_log;
pub mod safetensors;
pub mod schedule;
pub mod spool;
mod step;
pub mod torch_pickle;
pub mod trainer;
pub mod weights;
pub mod windows;
mod zip;

#[cfg(test)]
mod fuzz_tests;

pub use error::{Error, Result};
