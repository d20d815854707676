//! Reading a large file whole, as fast as memory allows: several threads, large pages.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use memmap2::{Mmap, MmapMut, MmapOptions};

/// Bytes for which a thread of its own pays.
const PART: usize = 4 << 20;
/// Most threads.
const THREADS: usize = 8;

/// The bytes of a regular file, in memory of their own; none for an empty file. Errors: as the system says; something
/// else than a regular file, for whose writer nobody waits; a file that is larger than the memory, or shortened
/// meanwhile.
pub fn read(path: &Path) -> Result<Option<Mmap>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe without a writer opens at once in this way.
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "expected a regular file, found something else",
        ));
    }
    if about.len() == 0 {
        return Ok(None);
    }
    let too_large = |_| {
        let text = format!("{} bytes are more than there is memory", about.len());
        Error::new(ErrorKind::OutOfMemory, text)
    };
    let len = usize::try_from(about.len()).unwrap_or(usize::MAX);
    let mut bytes = zeros(len).map_err(too_large)?;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
    let part = bytes.len().div_ceil(threads).max(PART);
    std::thread::scope(|scope| {
        let file = &file;
        let mut parts = bytes.chunks_mut(part).enumerate();
        let first = parts.next();
        let others =
            parts.map(|(index, bytes)| scope.spawn(move || read_part(file, bytes, index * part)));
        let others: Vec<_> = others.collect();
        if let Some((_, bytes)) = first {
            read_part(file, bytes, 0)?;
        }
        others.into_iter().try_for_each(|other| {
            other.join().unwrap_or_else(|_| Err(Error::other("a thread that reads panicked")))
        })
    })?;
    bytes.make_read_only().map(Some)
}

#[cfg(unix)]
fn read_part(file: &File, bytes: &mut [u8], at: usize) -> Result<()> {
    use std::os::unix::fs::FileExt;
    file.read_exact_at(bytes, at as u64)
}

#[cfg(not(unix))]
fn read_part(file: &File, bytes: &mut [u8], at: usize) -> Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(at as u64))?;
    file.read_exact(bytes)
}

/// `len` zeros that nobody has touched yet, in large pages where the system gives them.
fn zeros(len: usize) -> Result<MmapMut> {
    let bytes = MmapOptions::new().len(len).map_anon()?;
    #[cfg(target_os = "linux")]
    // Advice: where the system does not follow it, nothing changes but the time.
    let _ = bytes.advise(memmap2::Advice::HugePage);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_read_in_their_places() {
        let path = std::env::temp_dir().join(format!("easytransfer-whole-{}", std::process::id()));
        for len in [0, 1, PART, 2 * PART + 3] {
            let content: Vec<u8> = (0..len).map(|i| ((i * 7) >> 5) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let found = read(&path).unwrap();
            assert!(found.as_deref().unwrap_or_default() == content, "{len} bytes");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_or_has_no_room_is_refused() {
        let name = |what: &str| {
            std::env::temp_dir().join(format!("easytransfer-{what}-{}", std::process::id()))
        };
        let (pipe, sparse) = (name("pipe"), name("sparse"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, Path::new("/dev/zero"), &std::env::temp_dir()] {
            assert_eq!(read(path).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        File::create(&sparse).unwrap().set_len(1 << 42).unwrap();
        assert_eq!(read(&sparse).unwrap_err().kind(), ErrorKind::OutOfMemory);
        std::fs::remove_file(&pipe).unwrap();
        std::fs::remove_file(&sparse).unwrap();
    }
}
