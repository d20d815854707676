//! easytransfer-loader
