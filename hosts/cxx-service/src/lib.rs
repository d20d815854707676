//! easytransfer-cxx-service
