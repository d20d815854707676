//! easytransfer-faults
