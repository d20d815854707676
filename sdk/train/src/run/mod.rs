//! A run of training: [`trainer`] sets a [`job`] up and tells of [`events`], `epochs` is the loop and `step` a step of it, `drive` hands the
//! loop to a strategy; [`fit`] is its state, and `session` what it answers strategies, with their [`modules`] and
//! [`sources`]; [`checkpoint`] is what a killed run goes on from; [`evaluate`] runs a network over data.

mod blame;
pub mod checkpoint;
mod drive;
mod epochs;
pub mod evaluate;
pub mod events;
mod figures;
pub mod fit;
pub mod job;
pub mod modules;
mod session;
pub mod sources;
mod step;
pub mod trainer;

pub use epochs::is_at_steps;
