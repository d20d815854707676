//! [`paste!`] of the crate `pastey`, for crates that still name `paste`.
pub use pastey::paste;
