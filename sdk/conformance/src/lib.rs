//! easytransfer-conformance
