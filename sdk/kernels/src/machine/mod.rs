//! What the kernels compute with: floats, vectors of them, instruction sets, memory for the moment, and threads.

pub mod float;
pub(crate) mod lanes;
pub mod scratch;
pub mod simd;
pub mod team;
pub mod workers;
