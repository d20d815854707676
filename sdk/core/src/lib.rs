//! easytransfer-core

pub mod error;
pub mod handle;
pub mod kernels;
pub mod log;
