//! One writer at a time for a directory. The lock is the system's own on the directory itself, so it leaves no file
//! behind and goes with the process, however that ends.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::pending;

/// The right to write into a directory. Dropped, it also removes the directory if it was made for it and is still
/// empty.
#[derive(Debug)]
pub struct FolderLock {
    // Closed, and with that unlocked, after `drop`.
    _folder: File,
    made: Vec<PathBuf>,
}

impl FolderLock {
    /// Makes the directory if it is not there, with those above it, and locks it. Errors: another process, or another
    /// run of this one, has the lock; something else has the name; the system refuses.
    pub fn take(folder: &Path) -> Result<FolderLock> {
        loop {
            let made = make(folder)?;
            let mut lock = FolderLock {
                _folder: File::open(folder).map_err(|error| Error::io("open", folder, error))?,
                made,
            };
            match lock._folder.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    // The other one needs the directory, even if it was made here.
                    pending::keep_folders(&std::mem::take(&mut lock.made));
                    return Err(Error::user(format!(
                        "`{}`: another run is writing into this directory; wait until it is done, or name another one",
                        folder.display()
                    )));
                }
                Err(TryLockError::Error(error)) => {
                    // Some network file systems have no locks. A run there is no worse than without any, but its user
                    // is told.
                    easytransfer_plugin::log(
                        easytransfer_plugin::LogLevel::Warn,
                        "train",
                        &format!(
                            "`{}`: it cannot be locked against a second writer: {error}",
                            folder.display()
                        ),
                    );
                }
            }
            if is_at(&lock._folder, folder) {
                return Ok(lock);
            }
            // Whoever had made it removed it between our opening and locking it.
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        pending::remove_folders(&self.made);
    }
}

/// Makes a directory and what is missing above it; answers with those that were not there, the outermost first.
fn make(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::io(
            "create",
            folder,
            std::io::Error::new(
                ErrorKind::AlreadyExists,
                "a file of this name exists; name a directory",
            ),
        ));
    }
    let missing =
        folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let mut made = Vec::new();
    for above in missing.map(Path::to_path_buf).collect::<Vec<_>>().into_iter().rev() {
        match pending::make_folder(&above) {
            Ok(()) => made.push(above),
            // Somebody else was quicker, or it is a link to nowhere, which opening it then says.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                pending::remove_folders(&made);
                return Err(Error::io("create", above, error));
            }
        }
    }
    Ok(made)
}

/// Whether the open directory is the one that the name leads to.
#[cfg(unix)]
fn is_at(open: &File, name: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (open.metadata(), fs::metadata(name)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_open: &File, name: &Path) -> bool {
    name.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic::tests::Scratch;

    #[test]
    fn second_writer_is_refused_until_the_first_is_done() {
        let scratch = Scratch::new("lock");
        let folder = scratch.path().join("a/b");
        let first = FolderLock::take(&folder).unwrap();
        let error = FolderLock::take(&folder).unwrap_err();
        assert!(error.is_user_error() && error.to_string().contains("another run"), "{error}");
        assert!(folder.is_dir(), "the second one took the directory away");
        drop(first);
        assert!(!scratch.path().join("a").exists(), "an empty directory was left");
        let again = FolderLock::take(&folder).unwrap();
        fs::write(folder.join("file"), "x").unwrap();
        drop(again);
        assert!(folder.join("file").exists());
    }

    #[test]
    fn file_in_the_place_of_the_directory_is_refused() {
        let scratch = Scratch::new("lock-file");
        let file = scratch.path().join("f");
        fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = FolderLock::take(&path).unwrap_err();
            assert!(error.is_user_error(), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }
}
