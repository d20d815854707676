//! The engine: tensors over candle's storage, our own tape, fused operations, parameters, counted random numbers and
//! tokenizers, offered to plugins as the tables of `easytransfer-abi`.
//!
//! | part | is |
//! |---|---|
//! | [`kernels`] | pure functions over slices |
//! | [`storage`] | the memory of tensors: slices of it, its pool, mapped files |
//! | [`tensor`], [`tape`] | values, what they were computed from, and the pass backwards |
//! | [`inference`] | precision and packed weights where nothing is recorded |
//! | [`params`], [`optim`] | named parameters in an arena, and steps over it |
//! | [`data`], [`rows`], [`stream`], [`config`], [`tokenizer`], [`rng`] | what carries data across the boundary |
//! | [`profile`] | which operation took how long |
//! | [`host`], [`handle`], [`error`] | the host table, opaque pointers, failures |
//! | [`ops`], [`nn`], [`custom_op`] | fine-grained, fused and plugins' operations |
//! | [`tables`] | all of that as C tables |
//!
//! This is the only crate that names candle.

mod arena;
pub mod config;
pub mod custom_op;
pub mod data;
pub mod error;
pub mod handle;
pub mod host;
pub mod inference;
mod init;
pub mod kernels;
pub mod log;
pub mod nn;
pub mod ops;
pub mod optim;
mod param;
pub mod params;
mod pool;
pub mod profile;
pub mod recompute;
pub mod rng;
pub mod rows;
pub mod storage;
pub mod stream;
mod sync;
pub mod tables;
pub mod tape;
pub mod tensor;
pub mod tokenizer;
pub mod workers;
