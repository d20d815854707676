//! Finds, checks, opens and registers plugins, and opens engines ([`engine`]). The only crate that opens shared
//! libraries.
//!
//! The way of a plugin into the program:
//! 1. [`SearchPath`] says where manifests are looked for, [`Registry::discover`] reads them. No library is opened.
//! 2. [`Registry::load`] checks the manifest against the host, applies the [`Policy`], checks the file, opens it,
//!    reads the
//!    entry record, calls `init` and looks at every component. Nothing is registered until all of that has succeeded.
//! 3. [`Registry::lookup`] finds a component by kind and name; a plugin that was discovered but not loaded is loaded
//!    when one of its components is asked for.
//!
//! Libraries are never unloaded, so a pointer into a plugin stays valid until the process ends.
//!
//! **Trust.** Loading a plugin runs its code with all rights of the process. The policy decides *which* code runs; it
//! is not a sandbox. What is opened is what was hashed, and nobody else could have changed it: see `memory`, `trust`.
//!
//! **Names.** A component belongs to its plugin. Where two plugins offer one name, somebody says which is meant
//! (`plugin-id/name`, or a [`PluginChoice`]); the order of the search decides only between copies of one plugin.
//!
//! What it deliberately does not do: it knows nothing of what a component computes, and holds no instance of one.

mod component;
mod elf;
pub mod engine;
mod error;
mod fields;
mod handshake;
mod image;
mod kind;
mod manifest;
#[cfg(target_os = "linux")]
mod memory;
mod names;
mod open;
mod platform;
mod policy;
mod registry;
mod regular;
mod search;
mod trust;

pub use component::Component;
pub use error::{Facts, LoadError};
pub use kind::ComponentKind;
pub use manifest::{PluginManifest, Provided};
pub use names::PluginChoice;
pub use platform::{KNOWN_PLATFORMS, current_platform, library_file_name};
pub use policy::Policy;
pub use registry::{LoadedPlugin, PluginReport, Registry};
pub use regular::{open_regular, read_regular};
pub use search::{Listing, ManifestSource, SearchPath};
