//! easytransfer-train
