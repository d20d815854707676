//! easytransfer-cli
