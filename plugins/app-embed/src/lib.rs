//! app-embed
