//! easytransfer
