//! A model with a head: where its parts come from ([`components`], [`configuration`]), how they are put together
//! ([`network`]), how it continues runs of tokens ([`generate`]), how weights get in and out ([`weights`]), the
//! directory that keeps it ([`bundle`]), and whether its files are of one run ([`checksums`]).

pub mod bare;
pub mod bundle;
pub mod checksums;
pub mod components;
pub mod configuration;
pub mod generate;
mod memory;
pub mod network;
pub mod weights;
