//! Opening the very bytes that were checked: they are put into a file in memory, sealed against writing, and the
//! dynamic linker opens that. So nothing that happens to the file on disk meanwhile can run, constructors included.
//!
//! The price: a library from memory finds nothing beside itself (`$ORIGIN` is no folder), and debuggers know it by
//! its memory file, which bears its name. So only a library whose hash is pinned is opened in this way; where nobody
//! says which bytes are right, a file that took the checked one's place is as good or bad as that.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::path::{Path, PathBuf};

/// A path under which the bytes can be opened until the process ends. The descriptor behind it stays open: a second
/// library under the same path would be taken for the first one.
pub(crate) fn sealed(file: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // The system takes names of at most 249 bytes.
    let name = CString::new(name.chars().take(60).collect::<String>()).unwrap_or_default();
    let mut memory = create(&name)?;
    memory.write_all(bytes)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: a descriptor of our own; the call takes one number.
    if unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
        return Err(Error::last_os_error());
    }
    Ok(PathBuf::from(format!("/proc/self/fd/{}", memory.into_raw_fd())))
}

fn create(name: &CString) -> Result<File> {
    // Systems before 6.3 do not know the flag that says that the file may hold code, and need none.
    const EXECUTABLE: libc::c_uint = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    for flags in [flags | EXECUTABLE, flags] {
        // SAFETY: a NUL-terminated name and flags.
        let descriptor = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        if descriptor >= 0 {
            // SAFETY: a new descriptor that nobody else has.
            return Ok(unsafe { File::from_raw_fd(descriptor) });
        }
    }
    Err(Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_there_and_cannot_be_changed() {
        let path = sealed(Path::new("/somewhere/libx.so"), b"abc").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        let written = std::fs::OpenOptions::new().write(true).open(&path);
        assert!(written.and_then(|mut file| file.write_all(b"x")).is_err());
        let shortened = std::fs::OpenOptions::new().write(true).truncate(true).open(&path);
        assert!(shortened.is_err());
        assert!(std::fs::read_link(&path).unwrap().to_string_lossy().contains("libx.so"));
    }
}
