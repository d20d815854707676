//! A run of training: [`trainer`] sets a [`job`] up, `epochs` is the loop and `step` a step of it; [`fit`] is its
//! state and what it answers strategies; [`checkpoint`] is what a killed run goes on from; [`evaluate`] runs a
//! network over data.

pub mod checkpoint;
mod epochs;
pub mod evaluate;
mod figures;
pub mod fit;
pub mod job;
mod step;
pub mod trainer;

pub use epochs::is_at_steps;
