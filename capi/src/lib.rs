//! easytransfer-capi
