//! Training and evaluation data: from a file to batches.
//!
//! What there is comes from a file or from memory ([`input`]). Its rows ([`records`]) get meaning from their columns ([`columns`]) and are read part by part ([`dataset`])
//! or wait in a [`store`], which may be larger than memory ([`spool`]). [`features`] are made by the app;
//! [`batching`] decides which rows stand together, [`collation`] puts them into a batch, [`batches`] makes them ahead
//! of the step ([`prefetch`]). Columns of strategies become fields by [`extra`]. [`windows`] does the same for
//! prediction, where the order of the file counts.

#[cfg(feature = "train")]
pub mod batches;
pub mod batching;
pub mod collation;
pub mod columns;
pub mod counted;
pub mod dataset;
#[cfg(feature = "train")]
pub mod extra;
#[cfg(feature = "train")]
pub mod features;
pub mod input;
#[cfg(feature = "train")]
pub mod prefetch;
pub mod records;
#[cfg(feature = "train")]
pub mod spool;
#[cfg(feature = "train")]
pub mod store;
pub mod windows;
