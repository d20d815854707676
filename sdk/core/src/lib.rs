//! easytransfer-core
