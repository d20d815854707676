//! easytransfer-tests
