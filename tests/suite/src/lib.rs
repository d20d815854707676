//! What the suites share.

pub mod authors;
pub mod c_face;
pub mod command;
pub mod face;
pub mod hosts;
pub mod linked;
pub mod no_trainer;
pub mod places;
pub mod twins;
