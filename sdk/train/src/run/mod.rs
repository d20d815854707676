//! A run of training: [`trainer`] sets a [`job`] up and tells of [`events`], `epochs` is the loop and `step` a step of it, `drive` hands the
//! loop to a strategy; [`fit`] is its state, and `session` what it answers strategies, with their [`modules`] and
//! [`sources`]; [`checkpoint`] is what a killed run goes on from; [`evaluate`] runs a network over data.

#[cfg(feature = "train")]
mod blame;
#[cfg(feature = "train")]
pub mod checkpoint;
#[cfg(feature = "train")]
mod drive;
#[cfg(feature = "train")]
mod epochs;
pub mod evaluate;
pub mod events;
#[cfg(feature = "train")]
mod figures;
#[cfg(feature = "train")]
pub mod fit;
#[cfg(feature = "train")]
pub mod job;
#[cfg(feature = "train")]
pub mod modules;
#[cfg(feature = "train")]
mod session;
#[cfg(feature = "train")]
pub mod sources;
#[cfg(feature = "train")]
mod step;
#[cfg(feature = "train")]
pub mod trainer;

#[cfg(feature = "train")]
pub use epochs::is_at_steps;
