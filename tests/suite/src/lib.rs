//! What the suites share.

pub mod linked;
pub mod places;
