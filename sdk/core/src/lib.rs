//! The engine: tensors over candle's storage, our own tape, fused operations, parameters, counted random numbers and
//! tokenizers, offered to plugins as the tables of `easytransfer-abi`.
//!
//! | part | is |
//! |---|---|
//! | [`kernels`] | pure functions over slices |
//! | [`storage`] | the memory of tensors: slices of it, its pool, mapped files |
//! | [`tensor`], [`tape`] | values, what they were computed from, and the pass backwards |
//! | [`segment`], [`recompute`] | what the backward pass computes again instead of finding it kept |
//! | [`inference`] | precision and packed weights where nothing is recorded |
//! | [`params`], [`optim`] | named parameters in an arena, and steps over it |
//! | [`data`], [`rows`], [`stream`], [`config`], [`tokenizer`], [`rng`] | what carries data across the boundary |
//! | [`profile`] | which operation took how long |
//! | [`host`], [`handle`], [`error`] | the host table, opaque pointers, failures |
//! | [`ops`], [`nn`], [`custom_op`] | fine-grained, fused and plugins' operations |
//! | [`tables`] | all of that as C tables |
//! | [`device`], [`held`] | the trait behind which a device is, such as the card of `easytransfer-cuda`; what parameters hold of its memory |
//!
//! This crate and those of devices are the only ones that name candle.

mod arena;
mod between;
pub mod config;
mod copies;
pub mod custom_op;
pub mod data;
pub mod device;
pub mod error;
pub mod handle;
pub mod held;
pub mod host;
pub mod inference;
mod init;
use easytransfer_kernels as kernels;
pub mod log;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod options;
mod param;
pub mod params;
mod plugin_segment;
pub mod pool;
pub mod precision;
pub mod profile;
pub mod recompute;
pub mod rng;
pub mod rows;
pub mod segment;
pub mod storage;
pub mod stream;
pub mod sync;
pub mod tables;
pub mod tape;
pub mod tensor;
pub mod tokenizer;
mod versions;
mod whole;
pub mod workers;
