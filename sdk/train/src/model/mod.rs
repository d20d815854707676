//! A model with a head: where its parts come from ([`components`]), how they are put together ([`network`]), how weights get in
//! and out ([`weights`]), and the directory that keeps it ([`bundle`]).

pub mod bundle;
pub mod components;
mod memory;
pub mod network;
pub mod weights;
