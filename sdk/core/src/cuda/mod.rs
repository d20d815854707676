//! The CUDA engine: the same tables, with the arithmetic of f32 tensors on a card.
//!
//! | part | is |
//! |---|---|
//! | [`device`] | the one device, its counters and its report |
//! | [`memory`] | new tensors on it, copies to and from it, addresses |
//! | [`staging`], [`ahead`] | copies to the card that nobody waits for |
//! | [`reuse`], [`held`] | memory that is kept for the next tensor; who holds it |
//! | [`launch`], [`ptx`] | the kernels of `kernels/*.cu` and of plugins, and their arguments |
//! | [`mixed`], [`copies`] | mixed precision: what is kept in 16 bits, and the weights that products read |
//! | the rest | one file per family of operations |
//!
//! Where tensors live follows from their type: f32, bf16, f16 and the u8 of comparisons on the card; i64 and u32, which are
//! small and which the engine checks, and f64, the reference, in host memory ([`memory::is_home`]). All work goes to one stream, so the order of calls is the order of
//! work, and memory is freed in that order too; nothing waits except a copy back to the host, and [`device::report`] counts those.
//!
//! Operations without a kernel here run on the CPU between two copies; [`device::report`] counts them.

pub(crate) mod activation;
mod adafactor;
pub(crate) mod ahead;
pub(crate) mod attention;
pub(crate) mod clip;
pub(crate) mod conv;
pub(crate) mod copies;
pub(crate) mod crf;
pub mod device;
pub(crate) mod embedding;
pub(crate) mod held;
mod launch;
pub(crate) mod linear;
pub(crate) mod loss;
mod lt;
pub(crate) mod memory;
mod mixed;
pub(crate) mod norm;
pub(crate) mod optim;
pub(crate) mod padding;
pub(crate) mod pool;
pub(crate) mod ptx;
pub(crate) mod recurrent;
pub(crate) mod reuse;
pub(crate) mod softmax;
mod staging;
pub(crate) mod timing;

pub use device::{Options, Precision, open};

/// True if `x` is one that the kernels here take: f32 on the card, however it is kept. While a device is open that is every f32 tensor.
pub(crate) fn holds(x: &crate::tensor::Tensor) -> bool {
    x.dtype() == candle_core::DType::F32 && !x.stored().device().is_cpu()
}
