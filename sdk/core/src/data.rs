//! Buffers, and named tensors in insertion order. Rows and their collation are in `rows`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use easytransfer_abi::{ET_ERR_NOT_FOUND, et_buffer, et_map};

use crate::error::{Error, Result};
use crate::handle::{Handle, tag};
use crate::sync::lock;
use crate::tensor::Tensor;
use crate::whole;

/// Bytes that never change. Clones share them.
#[derive(Clone)]
pub struct Buffer(Arc<Bytes>);

enum Bytes {
    Owned(Arc<Vec<u8>>),
    /// Memory of its own that a file was read into.
    Read(memmap2::Mmap),
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

    /// Reads a regular file whole. It is not mapped: whoever shortens a mapped file ends every process that looks at
    /// it, and whoever writes to it changes their answers. Errors: `NOT_FOUND`, `IO`.
    pub fn read_file(path: &Path) -> Result<Self> {
        match whole::read(path).map_err(|error| Error::io("read", path, &error))? {
            Some(bytes) => Ok(Self(Arc::new(Bytes::Read(bytes)))),
            None => Ok(Self::new(Vec::new())),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &*self.0 {
            Bytes::Owned(bytes) => bytes,
            Bytes::Read(bytes) => bytes,
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
