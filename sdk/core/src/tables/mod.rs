//! The engine as C tables, one file per interface. Functions here convert handles and errors and do nothing else.

pub mod autograd;
pub mod config;
pub mod data;
pub mod log;
pub mod nn;
pub mod param;
pub mod profile;
pub mod rng;
pub mod step;
pub mod stream;
pub mod tensor;
pub mod tokenizer;
