//! What this process has begun to write: temporaries, and folders that were made for an output. A program that is
//! interrupted calls [`abandon`], and nothing of them remains.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Pending {
    /// Files and directories under temporary names.
    temporaries: BTreeSet<PathBuf>,
    /// Directories that were made for what is not there yet.
    folders: BTreeSet<PathBuf>,
}

static PENDING: Mutex<Pending> =
    Mutex::new(Pending { temporaries: BTreeSet::new(), folders: BTreeSet::new() });

fn pending() -> MutexGuard<'static, Pending> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that `path` is about to be written under a temporary name.
pub(super) fn add(path: &Path) {
    pending().temporaries.insert(path.to_path_buf());
}

/// Says that `path` is gone or has its name.
pub(super) fn remove(path: &Path) {
    pending().temporaries.remove(path);
}

/// Whether this process is writing `path`.
pub(super) fn contains(path: &Path) -> bool {
    pending().temporaries.contains(path)
}

/// Makes a directory for an output: an interruption comes before that or finds it in the list.
#[cfg(feature = "train")]
pub(super) fn make_folder(path: &Path) -> std::io::Result<()> {
    let mut pending = pending();
    fs::create_dir(path)?;
    pending.folders.insert(path.to_path_buf());
    Ok(())
}

/// Removes those of `folders`, from the last one on, that are empty; they are no longer pending.
#[cfg(feature = "train")]
pub(super) fn remove_folders(folders: &[PathBuf]) {
    let mut pending = pending();
    for folder in folders.iter().rev() {
        pending.folders.remove(folder);
        // One with something in it stays.
        let _ = fs::remove_dir(folder);
    }
}

/// Leaves `folders` to somebody else.
#[cfg(feature = "train")]
pub(super) fn keep_folders(folders: &[PathBuf]) {
    let mut pending = pending();
    for folder in folders {
        pending.folders.remove(folder);
    }
}

/// Gives temporaries their names: an interruption comes before `renames` or after it, not in the middle.
pub(super) fn undisturbed<T>(renames: impl FnOnce() -> T) -> T {
    let _pending = pending();
    renames()
}

/// Removes everything that this process has begun to write and not finished, and lets nothing be begun or finished
/// from then on: to be called when the process is about to end, from any thread (not from a signal handler: it waits
/// for renames that are under way).
pub fn abandon() {
    let pending = pending();
    for path in &pending.temporaries {
        // What cannot be removed now is removed by the next writer of that name.
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    for folder in pending.folders.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
    // Whoever wants to begin or finish something waits until the process has ended.
    std::mem::forget(pending);
}
