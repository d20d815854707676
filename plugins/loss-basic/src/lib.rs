//! loss-basic
