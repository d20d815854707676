//! The arrays of the next batches, brought to the card while it computes the present one.
//!
//! Integers of a batch (ids, positions, starts, labels) live in host memory, because the engine checks them there;
//! operations bring them to the card. [`prefetch`] does that earlier, on a stream of its own, and [`find`] gives what
//! it brought: the stream of the computation waits for the copy by an event, not the host.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Tensor as Raw};
use cudarc::driver::CudaEvent;

use super::device::{Engine, engine, failed};
use super::memory::{address, empty};
use super::staging::Staging;
use easytransfer_core::data::Map;
use easytransfer_core::error::Result;
use easytransfer_core::storage::{self, Element, Value};
use easytransfer_core::sync::lock;

/// Arrays that are kept at most: those of some tens of batches.
const MOST: usize = 256;

/// An array in host memory and its copy.
struct Entry {
    /// Keeps the host's memory in its place, so that its address stands for its content: values never change.
    host: Raw,
    card: Value,
    first: usize,
    len: usize,
    dtype: DType,
    /// The end of the copy, until the computation's stream waits for it.
    copied: Option<Arc<CudaEvent>>,
}

/// What was brought ahead.
pub(super) struct Ahead {
    staging: Mutex<Staging>,
    entries: Mutex<Vec<Entry>>,
}

impl Ahead {
    pub fn new(engine: &Arc<cudarc::driver::CudaContext>) -> Result<Self> {
        let stream =
            engine.new_stream().map_err(|error| failed("make a stream for copies", error))?;
        Ok(Self { staging: Mutex::new(Staging::new(stream)), entries: Mutex::default() })
    }
}

/// Lets the computation's stream wait for a copy.
fn join(engine: &Engine, entry: &mut Entry) -> Result<()> {
    match entry.copied.take() {
        Some(copied) => {
            engine.stream.wait(&copied).map_err(|error| failed("wait for a batch", error))
        }
        None => Ok(()),
    }
}

/// Begins to copy the arrays of a batch. Errors: no memory on the card.
pub(crate) fn prefetch(batch: &Map) -> Result<()> {
    let engine = engine()?;
    let mut fresh = Vec::new();
    for (_, tensor) in batch.entries() {
        let host = tensor.value();
        let wanted = matches!(host.dtype(), DType::I64) && host.device().is_cpu();
        if wanted && host.is_contiguous() && host.elem_count() > 0 {
            let (first, len) =
                storage::with_i64(host, |data| (data.as_ptr() as usize, data.len()))?;
            let card = empty(DType::I64, host.shape())?;
            fresh.push(Entry {
                host: host.clone(),
                card,
                first,
                len,
                dtype: DType::I64,
                copied: None,
            });
        }
    }
    if fresh.is_empty() {
        return Ok(());
    }
    let error = |error| failed("copy a batch ahead", error);
    {
        let mut staging = lock(&engine.ahead.staging);
        // The memory is the new tensors' from here on in the order of the computation's stream.
        let made = engine.stream.record_event(None).map_err(error)?;
        staging.stream.wait(&made).map_err(error)?;
        for entry in &fresh {
            let to = address(&entry.card)?;
            let data = storage::read::<i64>(&entry.host)?;
            // SAFETY: an i64 is eight bytes without padding.
            let bytes = unsafe {
                std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(&*data))
            };
            // SAFETY: the tensor has as many elements, and is not given up before `join`.
            unsafe { staging.copy(bytes, to) }?;
        }
        let copied = Arc::new(staging.stream.record_event(None).map_err(error)?);
        fresh.iter_mut().for_each(|entry| entry.copied = Some(copied.clone()));
    }
    let mut entries = lock(&engine.ahead.entries);
    entries.extend(fresh);
    tidy(engine, &mut entries)
}

/// Gives up the arrays of batches that are gone, and the oldest of too many.
fn tidy(engine: &Engine, entries: &mut Vec<Entry>) -> Result<()> {
    let extra = entries.len().saturating_sub(MOST);
    let mut kept = Vec::with_capacity(entries.len());
    for (index, mut entry) in std::mem::take(entries).into_iter().enumerate() {
        if index < extra || storage::is_unique(&entry.host) {
            // Its memory is freed in the order of the computation's stream, which must come after the copy.
            join(engine, &mut entry)?;
        } else {
            kept.push(entry);
        }
    }
    *entries = kept;
    Ok(())
}

/// The copy of exactly these elements, if it was made ahead.
pub(super) fn find<T: Element>(engine: &Engine, data: &[T]) -> Result<Option<Value>> {
    let mut entries = lock(&engine.ahead.entries);
    let first = data.as_ptr() as usize;
    let found = entries
        .iter_mut()
        .find(|entry| entry.first == first && entry.len == data.len() && entry.dtype == T::DTYPE);
    match found {
        Some(entry) => {
            join(engine, entry)?;
            Ok(Some(entry.card.clone()))
        }
        None => Ok(None),
    }
}
