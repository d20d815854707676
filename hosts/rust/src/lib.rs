//! easytransfer-hosts
