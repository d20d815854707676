//! easytransfer-plugin
