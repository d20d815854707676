//! The arithmetic of the CPU: pure functions over slices, without tensors, without a tape and without candle.
//!
//! | module | is |
//! |---|---|
//! | [`gemm`], [`linear`], [`packed`] | products: of any matrices, of linear layers, with weights packed for prediction |
//! | [`attention`] | attention over runs of tokens, forward and backward, in tiles |
//! | [`norm`], [`softmax`], [`activation`], [`elementwise`] | what works row by row or element by element |
//! | [`embedding`], [`padding`], [`runs`] | tables of words, and runs of tokens beside padded batches |
//! | [`conv1d`], [`recurrent`], [`crf`] | convolution, LSTM and GRU, conditional random fields |
//! | [`cross_entropy`] | losses |
//! | [`optim`] | steps of optimizers over an arena |
//! | [`philox`] | counted random numbers, and dropout that stores no mask |
//! | [`machine`] | instruction sets, vectors, scratch memory, the team of threads |
//! | [`error`], [`tasks`] | what kernels refuse; how work is cut |
//!
//! All kernels are generic over [`Float`]: `f32` is the fast path, and `f64` is there so that tests by finite
//! differences run the same code. Work is split into blocks of constant size, and partial results are reduced in the
//! order of the blocks, so a result does not depend on the number of threads. Inputs of one block stay on the calling
//! thread.
//!
//! Every kernel checks the lengths of its slices and the range of its numbers, and refuses with a [`KernelError`]
//! that names the kernel, the argument, what was expected and what was found; it never reads or writes outside of a
//! slice.

pub mod activation;
pub mod attention;
pub mod conv1d;
pub mod crf;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod error;
pub mod gemm;
pub mod linear;
pub mod machine;
pub mod norm;
pub mod optim;
pub mod packed;
pub mod padding;
pub mod philox;
pub mod recurrent;
pub mod runs;
pub mod softmax;
pub mod tasks;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use error::check_range;
pub use error::{KernelError, Result, check_len};
pub use machine::float::Float;
pub use tasks::{BLOCK_LEN, blocks, for_each_task, map_tasks, rows_per_block};
