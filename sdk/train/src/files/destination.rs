//! What the name of an output leads to: a regular file, which is replaced as a whole, or something that is written to
//! as it is.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Links that are followed.
const LINKS: usize = 40;

/// What is at the end of a name.
pub enum Destination {
    /// A regular file or nothing yet: the path behind all links, and what the file is like that is there.
    File(PathBuf, Option<Metadata>),
    /// A device, a pipe or a file that the process has open (`/dev/stdout`), opened for writing.
    Stream(File),
}

/// Finds out what `name` leads to. A pipe is opened, which waits for its reader. Errors: a directory, a file that may
/// not be written to, a missing folder.
pub fn find(name: &Path) -> Result<Destination> {
    if name.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::new(ErrorKind::InvalidInput, "the name of a directory; name a file"));
    }
    let mut path = name.to_path_buf();
    for _ in 0..LINKS {
        let Some(last) = path.file_name() else {
            let text = "expected a path that ends in the name of a file";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        let folder = fs::canonicalize(parent(&path)).map_err(|error| {
            let text = format!("its folder `{}`: {error}", parent(&path).display());
            Error::new(error.kind(), text)
        })?;
        if is_list_of_open_files(&folder) {
            return open_again(&folder, last.to_str()).map(Destination::Stream);
        }
        let here = folder.join(last);
        let about = match fs::symlink_metadata(&here) {
            Ok(about) if about.is_symlink() => {
                path = folder.join(fs::read_link(&here)?);
                continue;
            }
            Ok(about) => about,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Destination::File(here, None));
            }
            Err(error) => return Err(error),
        };
        if about.is_dir() {
            let text = "a directory of this name exists; name a file";
            return Err(Error::new(ErrorKind::IsADirectory, text));
        }
        // Also for a file that is replaced: one that may not be written to is not to be lost.
        let open = OpenOptions::new().write(true).open(&here)?;
        return Ok(match about.is_file() {
            true => Destination::File(here, Some(about)),
            false => Destination::Stream(open),
        });
    }
    Err(Error::new(ErrorKind::InvalidInput, "links that lead in a circle"))
}

/// Whether the folder is where Linux lists the open files of a process; `/dev/fd` leads there.
fn is_list_of_open_files(folder: &Path) -> bool {
    folder.starts_with("/proc") && folder.ends_with("fd")
}

/// An open file once more. Standard output and error share their position with the original; others are appended to,
/// since opening them by name would begin at their start.
fn open_again(folder: &Path, number: Option<&str>) -> Result<File> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        let own = format!("/proc/{}/", std::process::id());
        match number {
            Some("1") if folder.starts_with(&own) => {
                return std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
            }
            Some("2") if folder.starts_with(&own) => {
                return std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
            }
            _ => {}
        }
    }
    OpenOptions::new().append(true).open(folder.join(number.unwrap_or_default()))
}

/// The folder that a path is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether two names lead to one regular file.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    let (Ok(first), Ok(second)) = (fs::metadata(a), fs::metadata(b)) else { return false };
    if !first.is_file() || !second.is_file() {
        return false;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (first.dev(), first.ino()) == (second.dev(), second.ino())
    }
    #[cfg(not(unix))]
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}
