//! Reading where a file is expected: a pipe in its place must not make the reader wait for ever, nor an endless device
//! fill the memory.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens a regular file for reading. Links are followed. Errors: as the system says, and `InvalidInput`
/// (`IsADirectory` for a folder) when something else than a regular file is there; opening that waits for nobody.
pub fn open_regular(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe without a writer opens at once in this way; on regular files it means nothing.
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    let about = file.metadata()?;
    if about.is_file() {
        return Ok(file);
    }
    let (kind, found) = match about.is_dir() {
        true => (ErrorKind::IsADirectory, "a directory"),
        false => (ErrorKind::InvalidInput, "a device, pipe or socket"),
    };
    Err(Error::new(kind, format!("expected a regular file, found {found}")))
}

/// The bytes of a regular file that is at most `most` bytes long. Errors: as [`open_regular`], and `InvalidInput` for
/// a longer one.
pub fn read_regular(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let len = file.metadata()?.len();
    let mut bytes = Vec::new();
    if len <= most {
        bytes.reserve_exact(usize::try_from(len).unwrap_or(0));
        // It may have grown since; one byte more than allowed is enough to know.
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if len > most || bytes.len() as u64 > most {
        let found = len.max(bytes.len() as u64);
        let text = format!("expected a file of at most {most} bytes, found {found}");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_allowed_length_are_read() {
        let path =
            std::env::temp_dir().join(format!("easytransfer-regular-{}", std::process::id()));
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        let error = read_regular(&path, 4).unwrap_err();
        assert!(error.to_string().contains("at most 4 bytes, found 5"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_regular(&path, 5).unwrap_err().kind(), ErrorKind::NotFound);
        let folder = read_regular(&std::env::temp_dir(), 5).unwrap_err();
        assert_eq!(folder.kind(), ErrorKind::IsADirectory);
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_refused_without_waiting() {
        let path = std::env::temp_dir().join(format!("easytransfer-fifo-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        for path in [Path::new("/dev/zero"), Path::new("/dev/null"), &path] {
            let error = read_regular(path, 5).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
