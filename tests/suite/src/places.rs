//! Where things are.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The shared data: `ET_SHARED`, else `../shared` beside the workspace. Panics when it is not there: without it
/// nothing real is tested.
pub fn shared() -> PathBuf {
    let path = match std::env::var_os("ET_SHARED") {
        Some(path) => root().join(path),
        None => root().join("../shared"),
    };
    assert!(path.is_dir(), "{}: set ET_SHARED to the folder of shared data", path.display());
    path
}

/// The goldens.
pub fn parity() -> PathBuf {
    root().join("tests/parity")
}

/// The folder of the release build with the staged plugins: `ET_STAGED`, else `target/release`. Panics when nothing
/// is staged there.
pub fn staged() -> PathBuf {
    let path = match std::env::var_os("ET_STAGED") {
        Some(path) => root().join(path),
        None => root().join("target/release"),
    };
    assert!(
        path.join("plugins").is_dir(),
        "{}: no staged plugins; `cargo xtask test` builds and stages them",
        path.display()
    );
    path
}
