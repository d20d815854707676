//! Checksums of a bundle's files: what tells weights of one run under the labels of another, a file that was copied in
//! part, or one that was changed since. They guard against accidents, not against somebody who means harm and can
//! write checksums, too.
//!
//! The sum is CRC-32 (ISO 3309, as zip and gzip have it), because every program must look at all weights before its
//! first answer: on several threads that takes a few milliseconds for a hundred megabytes, where SHA-256 takes a
//! hundred.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crc32fast::Hasher;
use easytransfer_loader::read_regular;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bytes for which a thread of its own pays.
const PART: usize = 4 << 20;
/// Most threads.
const THREADS: usize = 8;

/// Length and checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// Bytes of the file.
    pub size: u64,
    /// Eight hexadecimal digits.
    pub crc32: String,
}

impl Checksum {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Checksum {
        let threads =
            std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS));
        let part = bytes.len().div_ceil(threads).max(PART);
        let sum = |part: &[u8]| {
            let mut hasher = Hasher::new();
            hasher.update(part);
            hasher
        };
        let mut whole = Hasher::new();
        std::thread::scope(|scope| {
            let mut parts = bytes.chunks(part);
            let first = parts.next().unwrap_or_default();
            // A thread that the system refuses, or that panics, leaves its part to this one.
            let others: Vec<_> = parts
                .map(|part| {
                    (part, std::thread::Builder::new().spawn_scoped(scope, move || sum(part)))
                })
                .collect();
            whole = sum(first);
            for (part, thread) in others {
                let found = thread.ok().and_then(|thread| thread.join().ok());
                whole.combine(&found.unwrap_or_else(|| sum(part)));
            }
        });
        Checksum { size: bytes.len() as u64, crc32: format!("{:08x}", whole.finalize()) }
    }
}

/// Checksums by the names of files in one directory.
pub type Checksums = BTreeMap<String, Checksum>;

/// Those of all files in a directory.
pub fn of_files_in(directory: &Path) -> Result<Checksums> {
    let io = |error| Error::io("read", directory, error);
    let mut sums = Checksums::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        let bytes =
            read_regular(&path, u64::MAX).map_err(|error| Error::io("read", &path, error))?;
        sums.insert(entry.file_name().to_string_lossy().into_owned(), Checksum::of(&bytes));
    }
    Ok(sums)
}

/// Files that change what a bundle answers when they are there.
const DECISIVE: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "model.safetensors"];

/// Checks the files of a directory against what was `written`; `known` are those that were read already. Errors name
/// the file, and `manifest`, which holds the checksums.
pub fn check(
    directory: &Path,
    manifest: &str,
    written: &Checksums,
    known: &Checksums,
) -> Result<()> {
    let refuse = |name: &str, found: String| {
        Err(Error::user(format!(
            "`{}`: {found}: it is not of the run that wrote this bundle, or was changed since; copy the whole bundle again, or train it \
             anew (whoever changed it on purpose removes its entry under `files` in {manifest})",
            directory.join(name).display()
        )))
    };
    for (name, written) in written {
        if Path::new(name).file_name().is_none_or(|last| last != name.as_str()) {
            return Err(Error::Config {
                origin: directory.join(manifest).display().to_string(),
                message: format!(
                    "files: expected the name of a file in this directory, found `{name}`"
                ),
            });
        }
        let found = match known.get(name) {
            Some(known) => known.clone(),
            None => {
                let path = directory.join(name);
                // One byte more than it should have is enough to tell.
                let bytes = read_regular(&path, written.size.saturating_add(1));
                Checksum::of(&bytes.map_err(|error| Error::io("read", &path, error))?)
            }
        };
        if found.size != written.size {
            let sizes = format!("expected {} bytes, found {}", written.size, found.size);
            return refuse(name, sizes);
        }
        if found != *written {
            let sums = format!("expected the checksum {}, found {}", written.crc32, found.crc32);
            return refuse(name, sums);
        }
    }
    let added = DECISIVE.iter().find(|name| {
        !written.is_empty() && !written.contains_key(**name) && directory.join(name).exists()
    });
    match added {
        Some(name) => refuse(name, "expected no such file, found one".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic::tests::Scratch;

    #[test]
    fn sum_is_that_of_the_standard_however_many_threads_work() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(Checksum::of(b"123456789").crc32, "cbf43926");
        assert_eq!(Checksum::of(b"").crc32, "00000000");
        let long: Vec<u8> = (0..3 * PART + 7).map(|i| ((i * 31) >> 3) as u8).collect();
        let mut whole = Hasher::new();
        whole.update(&long);
        assert_eq!(Checksum::of(&long).crc32, format!("{:08x}", whole.finalize()));
    }

    #[test]
    fn changed_missing_added_and_foreign_files_are_named() {
        let scratch = Scratch::new("sums");
        let directory = scratch.path();
        fs::write(directory.join("config.json"), "{}").unwrap();
        fs::write(directory.join("model.safetensors"), "weights").unwrap();
        let written = of_files_in(directory).unwrap();
        let check = || check(directory, "m.json", &written, &Checksums::new());
        check().unwrap();
        for (name, content, needle) in [
            ("config.json", "[]", "checksum"),
            ("config.json", "{ }", "expected 2 bytes, found 3"),
            ("model.safetensors", "weighty", "checksum"),
            ("tokenizer.json", "{}", "expected no such file"),
        ] {
            let old = fs::read(directory.join(name));
            fs::write(directory.join(name), content).unwrap();
            let error = check().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(needle), "{error}");
            match old {
                Ok(old) => fs::write(directory.join(name), old).unwrap(),
                Err(_) => fs::remove_file(directory.join(name)).unwrap(),
            }
        }
        check().unwrap();
        fs::remove_file(directory.join("config.json")).unwrap();
        assert!(check().unwrap_err().is_user_error());
        let sum = written["config.json"].clone();
        for name in ["../config.json", "/etc/passwd", "", ".."] {
            let foreign = Checksums::from([(name.to_owned(), sum.clone())]);
            let error = super::check(directory, "m.json", &foreign, &Checksums::new()).unwrap_err();
            assert!(error.to_string().contains("the name of a file"), "{error}");
        }
    }
}
