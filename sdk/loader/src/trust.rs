//! Who could change a file. Whoever can write a plugin's library, its manifest or the folders they lie in decides what
//! code runs in this process, so these must be in the hands of users who decide that anyway: the system's
//! administrator, the user who runs the process, and the owner of the program that is running.
//!
//! A folder that everybody may write to is refused, but for one with the sticky bit (`/tmp`): there nobody can rename
//! or remove what others own, and what somebody puts there is theirs, which the check of the owner finds. Folders are
//! looked at up to the root, because who can rename one can put another in its place. Groups are left to whoever set
//! them up.

use std::path::{Path, PathBuf};

/// What is wrong with a place.
pub(crate) struct Unsafe {
    /// The file or folder.
    pub path: PathBuf,
    pub required: &'static str,
    pub found: String,
    pub remedy: String,
}

/// Checks a file and the folders above it. What cannot be looked at is left to whoever reads it.
#[cfg(unix)]
pub(crate) fn check(file: &Path) -> Result<(), Unsafe> {
    use std::os::unix::fs::MetadataExt;
    let Ok(file) = file.canonicalize() else { return Ok(()) };
    for (depth, path) in file.ancestors().enumerate() {
        let Ok(about) = path.metadata() else { continue };
        let (mode, owner) = (about.mode(), about.uid());
        let sticky = about.is_dir() && mode & 0o1000 != 0;
        if mode & 0o002 != 0 && !sticky {
            return Err(Unsafe {
                path: path.to_path_buf(),
                required: "files and folders that not everybody may write to",
                found: format!("mode {:04o}", mode & 0o7777),
                remedy: format!("chmod o-w {}", path.display()),
            });
        }
        // The file and its folder; further up the owner can only put something in their place that is his.
        if depth < 2 && !trusted().contains(&owner) {
            return Err(Unsafe {
                path: path.to_path_buf(),
                required: "files and folders of the administrator, of the user who runs the program, or of the program's owner",
                found: format!("one of the user with the number {owner}"),
                remedy: "install a copy of your own".to_owned(),
            });
        }
    }
    Ok(())
}

/// Other systems have other means, which are not looked at.
#[cfg(not(unix))]
pub(crate) fn check(_: &Path) -> Result<(), Unsafe> {
    Ok(())
}

/// Users whose files may hold code.
#[cfg(unix)]
fn trusted() -> [u32; 3] {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: the call has neither arguments nor errors.
    let user = unsafe { libc::geteuid() };
    let program = std::env::current_exe().and_then(|path| path.metadata());
    [0, user, program.map_or(user, |about| about.uid())]
}
