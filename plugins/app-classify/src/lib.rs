//! app-classify
