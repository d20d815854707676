//! What contributors and CI run, one file per command. `main` only picks the command.
//!
//! A command gets a [`Context`] and returns a [`Failure`] whose text says what was being done, what was found and what
//! to do.

use std::{
    fmt,
    path::{Path, PathBuf},
};

pub mod bench;
pub mod check;
pub mod cmake;
pub mod crates;
pub mod demo;
pub mod diff;
pub mod dist;
pub mod edges;
pub mod engine;
pub mod freeze;
pub mod header;
pub mod licences;
pub mod names;
pub mod new_plugin;
pub mod process;
pub mod programs;
pub mod shipped;
pub mod stage;
pub mod tally;
pub mod test;

/// Where the workspace is.
pub struct Context {
    /// Folder of the root `Cargo.toml`.
    pub root: PathBuf,
}

impl Context {
    /// The workspace that this command was built in.
    pub fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        Self { root: root.unwrap_or(Path::new(".")).to_path_buf() }
    }
}

/// Why a command failed; empty when everything was said already.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
