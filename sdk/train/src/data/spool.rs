//! Texts that are written once and then read by their number: in memory as long as they are few, in a file when they
//! are many. Only the place of each text always stays in memory.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// Bytes of a text's number and length before it.
const HEAD: usize = 12;

/// Takes texts.
pub struct SpoolWriter {
    directory: PathBuf,
    limit: usize,
    len: u64,
    places: Vec<u64>,
    memory: Vec<u8>,
    file: Option<(BufWriter<File>, SpoolPath)>,
}

/// Texts by their number, counted from 0.
pub struct Spool {
    places: Vec<u64>,
    memory: Vec<u8>,
    file: Option<(Mutex<File>, SpoolPath)>,
}

/// Where the file is; where the system allows it, its name is gone as soon as it is open, so that nothing of a killed
/// run remains.
struct SpoolPath {
    path: PathBuf,
    is_named: bool,
}

impl Drop for SpoolPath {
    fn drop(&mut self) {
        if self.is_named {
            // Nothing can be done about a file that cannot be removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SpoolWriter {
    /// Keeps at most `limit` bytes in memory, and more in a file in `directory`, or where that does not exist yet, in
    /// the next one above it.
    pub fn new(directory: &Path, limit: usize) -> SpoolWriter {
        SpoolWriter {
            directory: directory.to_path_buf(),
            limit,
            len: 0,
            places: Vec::new(),
            memory: Vec::new(),
            file: None,
        }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a text with a number that comes back with it (the line of a file). Errors: the system refuses to write; 4
    /// GiB in one text.
    pub fn push(&mut self, number: u64, text: &str) -> Result<()> {
        let size = u32::try_from(text.len())
            .map_err(|_| Error::user(format!("line {number}: a record of more than 4 GiB")))?;
        if self.file.is_none() && self.memory.len() + HEAD + text.len() > self.limit {
            self.file = Some(create(&self.directory)?);
            let kept = std::mem::take(&mut self.memory);
            self.write(&kept)?;
        }
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&number.to_le_bytes());
        head[8..].copy_from_slice(&size.to_le_bytes());
        self.write(&head)?;
        self.write(text.as_bytes())?;
        self.places.push(self.len);
        self.len += (HEAD + text.len()) as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some((file, at)) => {
                file.write_all(bytes).map_err(|error| Error::io("write", &at.path, error))
            }
            None => {
                self.memory.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// All texts were added. Errors: the system refuses to write.
    pub fn finish(self) -> Result<Spool> {
        let file = match self.file {
            Some((file, at)) => {
                let file = file
                    .into_inner()
                    .map_err(|error| Error::io("write", &at.path, error.into_error()))?;
                Some((Mutex::new(file), at))
            }
            None => None,
        };
        Ok(Spool { places: self.places, memory: self.memory, file })
    }
}

fn create(directory: &Path) -> Result<(BufWriter<File>, SpoolPath)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let directory = directory.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("."));
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".easytransfer-{}-{count}.rows", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(|error| Error::io("create", &path, error))?;
    let is_named = std::fs::remove_file(&path).is_err();
    Ok((BufWriter::with_capacity(1 << 20, file), SpoolPath { path, is_named }))
}

impl Spool {
    /// Number of texts.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the texts are in a file.
    pub fn is_in_file(&self) -> bool {
        self.file.is_some()
    }

    /// A text and the number it came with. Errors: no such text; the system refuses to read.
    pub fn get(&self, index: usize) -> Result<(u64, String)> {
        let place = *self.places.get(index).ok_or_else(|| {
            Error::other(format!("text {index} of {} does not exist", self.places.len()))
        })?;
        let mut head = [0; HEAD];
        let (number, text) = match &self.file {
            Some((file, at)) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let mut read = || {
                    file.seek(SeekFrom::Start(place))?;
                    file.read_exact(&mut head)?;
                    let (number, size) = parse(&head);
                    let mut text = vec![0; size];
                    file.read_exact(&mut text)?;
                    Ok((number, text))
                };
                read().map_err(|error| Error::io("read", &at.path, error))?
            }
            None => {
                let begin = place as usize;
                head.copy_from_slice(&self.memory[begin..begin + HEAD]);
                let (number, size) = parse(&head);
                (number, self.memory[begin + HEAD..begin + HEAD + size].to_vec())
            }
        };
        let text = String::from_utf8(text)
            .map_err(|_| Error::other(format!("text {index} was changed after it was written")))?;
        Ok((number, text))
    }

    /// Leaves out texts; those behind them move up. `left_out` is sorted.
    pub fn remove(&mut self, left_out: &[usize]) {
        let mut index = 0;
        self.places.retain(|_| {
            index += 1;
            left_out.binary_search(&(index - 1)).is_err()
        });
    }
}

fn parse(head: &[u8; HEAD]) -> (u64, usize) {
    let mut number = [0; 8];
    number.copy_from_slice(&head[..8]);
    let mut size = [0; 4];
    size.copy_from_slice(&head[8..]);
    (u64::from_le_bytes(number), u32::from_le_bytes(size) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(directory: &Path, limit: usize) -> Spool {
        let mut writer = SpoolWriter::new(directory, limit);
        for number in 0..100 {
            writer.push(1000 + number, &"é".repeat(number as usize)).unwrap();
        }
        assert_eq!(writer.len(), 100);
        writer.finish().unwrap()
    }

    #[test]
    fn texts_come_back_from_memory_and_from_a_file() {
        let directory =
            std::env::temp_dir().join(format!("easytransfer-spool-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for (limit, in_file) in [(usize::MAX, false), (5000, true), (0, true)] {
            // The folder does not exist, so the file goes into the one above.
            let mut spool = filled(&directory.join("not/there"), limit);
            assert_eq!(spool.is_in_file(), in_file);
            for index in (0..100).rev() {
                let (number, text) = spool.get(index).unwrap();
                assert_eq!((number, text), (1000 + index as u64, "é".repeat(index)));
            }
            spool.remove(&[0, 50, 99]);
            assert_eq!(spool.len(), 97);
            assert_eq!(spool.get(0).unwrap().0, 1001);
            assert_eq!(spool.get(49).unwrap().0, 1051);
            assert!(spool.get(97).is_err());
            drop(spool);
            assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        }
        std::fs::remove_dir(&directory).unwrap();
    }
}
