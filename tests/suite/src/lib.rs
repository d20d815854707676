//! What the suites share.

pub mod face;
pub mod linked;
pub mod places;
