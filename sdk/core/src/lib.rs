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
//! | `cuda` | the same operations on a card, with the feature `cuda` |
//!
//! This is the only crate that names candle.

/// Returns what `$run` gives if the tensor `$x` is on a card; nothing where the engine is built for the CPU.
#[cfg(feature = "cuda")]
macro_rules! on_card {
    ($x:expr, $run:expr) => {
        if $crate::cuda::holds($x) {
            return $run;
        }
    };
}
#[cfg(not(feature = "cuda"))]
macro_rules! on_card {
    ($x:expr, $run:expr) => {};
}
pub(crate) use on_card;

mod arena;
pub mod config;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod custom_op;
pub mod data;
pub mod error;
pub mod handle;
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
mod pool;
pub mod precision;
pub mod profile;
pub mod recompute;
pub mod rng;
pub mod rows;
pub mod segment;
pub mod storage;
pub mod stream;
mod sync;
pub mod tables;
pub mod tape;
pub mod tensor;
pub mod tokenizer;
mod whole;
pub mod workers;
