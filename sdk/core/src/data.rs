//! Buffers, and named tensors in insertion order. Rows and their collation are in `rows`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use easytransfer_abi::{ET_ERR_NOT_FOUND, et_buffer, et_map};

use crate::error::{Error, Result, fail};
use crate::handle::{Handle, tag};
use crate::sync::lock;
use crate::tensor::Tensor;

/// Bytes that never change: owned, or a mapped file. Clones share them.
#[derive(Clone)]
pub struct Buffer(Arc<Bytes>);

enum Bytes {
    Owned(Arc<Vec<u8>>),
    Mapped(memmap2::Mmap),
}

impl Handle for Buffer {
    type Abi = et_buffer;
    const TAG: u32 = tag(b"ETbf");
    const NAME: &'static str = "buffer";
}

impl Buffer {
    /// A buffer that owns `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::shared(Arc::new(bytes))
    }

    /// A buffer of bytes that others hold, too.
    pub(crate) fn shared(bytes: Arc<Vec<u8>>) -> Self {
        Self(Arc::new(Bytes::Owned(bytes)))
    }

    /// Maps a file for reading; its pages are shared with the page cache. The file must not be shortened while the buffer
    /// lives. Errors: `NOT_FOUND`, `IO`.
    pub fn map_file(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, &e))?;
        let size = file.metadata().map_err(|e| Error::io("read the size of", path, &e))?;
        if !size.is_file() {
            fail!(ET_ERR_IO, "cannot map {}: it is not a file", path.display());
        }
        if size.len() == 0 {
            return Ok(Self::new(Vec::new()));
        }
        // SAFETY: the mapping is read-only. That nobody shortens or rewrites the file meanwhile cannot be enforced; files of
        // trained models are replaced by renaming, which leaves a mapped one as it is.
        let map = unsafe { memmap2::Mmap::map(&file) };
        Ok(Self(Arc::new(Bytes::Mapped(map.map_err(|e| Error::io("map", path, &e))?))))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &*self.0 {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }

    /// Something that keeps the bytes alive and in place.
    pub(crate) fn owner(&self) -> Arc<dyn std::any::Any + Send + Sync> {
        self.0.clone()
    }
}

/// Named tensors in insertion order.
#[derive(Default)]
pub struct Map(Mutex<Vec<(Arc<str>, Tensor)>>);

impl Handle for Map {
    type Abi = et_map;
    const TAG: u32 = tag(b"ETmp");
    const NAME: &'static str = "map";
}

impl Map {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of entry `index`.
    pub fn name(&self, index: usize) -> Option<Arc<str>> {
        lock(&self.0).get(index).map(|(name, _)| name.clone())
    }

    /// The tensor of that name. Errors: `NOT_FOUND`, naming the entries that exist.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let entries = lock(&self.0);
        if let Some((_, tensor)) = entries.iter().find(|(found, _)| **found == *name) {
            return Ok(tensor.clone());
        }
        let mut known: Vec<&str> = entries.iter().take(30).map(|(name, _)| &**name).collect();
        if entries.len() > known.len() {
            known.push("...");
        }
        let known = if known.is_empty() { "nothing".into() } else { known.join(", ") };
        Err(Error::new(ET_ERR_NOT_FOUND, format!("there is no entry {name:?}; present: {known}")))
    }

    /// True if there is an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        lock(&self.0).iter().any(|(found, _)| **found == *name)
    }

    /// Adds an entry, or replaces the one of that name in its place.
    pub fn put(&self, name: &str, tensor: Tensor) {
        let mut entries = lock(&self.0);
        // The old tensor is dropped after the lock: its memory may take a while to go.
        let _old = match entries.iter_mut().find(|(found, _)| **found == *name) {
            Some((_, slot)) => Some(std::mem::replace(slot, tensor)),
            None => {
                entries.push((name.into(), tensor));
                None
            }
        };
        drop(entries);
    }

    /// Removes an entry if it is there.
    pub fn remove(&self, name: &str) {
        let mut entries = lock(&self.0);
        let at = entries.iter().position(|(found, _)| **found == *name);
        let _old = at.map(|at| entries.remove(at));
        drop(entries);
    }

    /// All entries.
    pub fn entries(&self) -> Vec<(Arc<str>, Tensor)> {
        lock(&self.0).clone()
    }
}
