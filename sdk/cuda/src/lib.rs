//! A CUDA device behind the trait [`Device`](easytransfer_core::device::Device): the engine's operations with the
//! arithmetic of f32 tensors on a card. Without the feature `cuda` this library is empty, so that the workspace
//! builds without a CUDA toolkit.
//!
//! | part | is |
//! |---|---|
//! | `device` | the one device, its counters and its report |
//! | `operations` | what the engine calls: the trait, method by method |
//! | `interface` | `et.cuda/1`, for plugins with kernels of their own |
//! | `memory` | new tensors on the card, copies to and from it, addresses |
//! | `staging`, `ahead` | copies to the card that nobody waits for |
//! | `reuse`, `held` | memory that is kept for the next tensor; who holds it |
//! | `launch`, `ptx` | the kernels of `kernels/*.cu` and of plugins, and their arguments |
//! | `mixed` | mixed precision: what is kept in 16 bits |
//! | `lt`, `linear` | matrix products by cuBLASLt, and linear layers |
//! | `timing` | marks for the profiler |
//! | the rest | one file per family of operations |
//!
//! Where tensors live follows from their type: f32, bf16, f16 and the u8 of comparisons on the card; i64 and u32,
//! which are small and which the engine checks, and f64, the reference, in host memory. All work goes to one stream,
//! so the order of calls is the order of work, and memory is freed in that order too; nothing waits except a copy
//! back to the host, and the report counts those.

#![cfg(feature = "cuda")]

mod activation;
mod adafactor;
mod ahead;
mod attention;
mod clip;
mod conv;
mod crf;
mod device;
mod embedding;
mod held;
mod interface;
mod launch;
mod linear;
mod loss;
mod lt;
mod memory;
mod mixed;
mod norm;
mod operations;
mod optim;
mod padding;
mod pool;
mod ptx;
mod recurrent;
mod reuse;
mod softmax;
mod staging;
mod timing;

pub use device::{Options, Precision, open};
