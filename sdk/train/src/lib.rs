//! Data files, batches, options, weight files and runs of training. Tensors are touched only through the safe types of
//! `easytransfer-plugin`.
//!
//! | folder | is | knows |
//! |---|---|---|
//! | [`error`], [`nearest`] | failures that name the culprit; the nearest known name | |
//! | [`files`] | formats of files, and how a file gets to disk | |
//! | [`options`] | options as data, their schemas, schedules | |
//! | [`report`] | what is shown: terminal, HTML, TensorBoard, JSON Lines | `files` |
//! | [`data`] | from a data file to batches | `options`, `report` |
//! | [`model`] | a model with a head, its weights and its bundle | `files`, `options` |
//! | [`run`] | the loop, its steps, checkpoints, evaluation | all of them |
//!
//! Features, all of them on by default, leave out what a program does not use: `train` (runs and what they write),
//! `progress` (bars on a terminal), `pickle` (weights of PyTorch's own format) and `gzip` (packed data).
//!
//! `cargo xtask check` fails when a folder uses one that this table does not allow it.
#![forbid(unsafe_code)]

pub mod data;
pub mod error;
pub mod files;
pub mod model;
pub mod options;
pub mod report;
pub mod run;

#[cfg(all(test, feature = "pickle"))]
mod fuzz_tests;

pub use easytransfer_text as nearest;
pub use error::{Error, Result};
