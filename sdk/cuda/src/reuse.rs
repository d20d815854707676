//! The card's memory, kept for the next tensor: a call of the driver for every tensor costs the host more than the
//! launch of its kernel does, and short batches wait for the host.
//!
//! All work goes to one stream, so memory that a tensor gives up may be another's at once: what still uses it comes
//! before what will. `ET_CARD_POOL=0` in the environment gives every tensor memory of its own, for tools that look
//! for accesses outside of it.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use candle_core::cuda::CudaStorageSlice;
use candle_core::{CpuStorage, CudaStorage, Storage, StorageRef, Tensor as Raw};
use cudarc::driver::{CudaSlice, DeviceRepr, DriverError};

use super::device::{Engine, active};
use easytransfer_core::pool::{Block, Pool, rounded};
use easytransfer_core::storage::is_unique;
use easytransfer_core::sync::lock;

/// A free block serves a request if it is at most so many times as long.
const STRETCH: usize = 4;
/// Lengths of blocks are multiples of this, the driver's own granularity.
const GRAIN: usize = 512;

static POOL: Mutex<Pool<Memory>> = Mutex::new(Pool::new(STRETCH));
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Memory of the card that nobody uses. Freed in the order of the stream when it is dropped.
struct Memory {
    address: u64,
    bytes: usize,
}

impl Block for Memory {
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn address(&self) -> usize {
        self.address as usize
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(engine) = active() {
            // SAFETY: the memory came from this stream's allocator, and this was its only owner.
            drop(unsafe { engine.stream.upgrade_device_ptr::<u8>(self.address, self.bytes) });
        }
    }
}

fn is_on() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::env::var_os("ET_CARD_POOL").is_none_or(|value| value != "0"))
}

/// Memory for at least `len` elements with arbitrary values.
pub(super) fn take<T: DeviceRepr>(
    engine: &Engine,
    len: usize,
) -> Result<CudaSlice<T>, DriverError> {
    // An allocation of nothing is an error of the driver.
    let bytes = len.max(1).saturating_mul(size_of::<T>());
    let fresh = if is_on() { rounded(bytes).next_multiple_of(GRAIN) } else { bytes };
    let (found, dropped) = lock(&POOL).take(bytes.next_multiple_of(GRAIN), fresh);
    drop(dropped);
    let memory = match found {
        Some(memory) => memory,
        None => {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            // SAFETY: bytes have no invalid values, and who takes memory writes it before anything reads it.
            let slice = unsafe { engine.stream.alloc::<u8>(fresh) }?;
            Memory { bytes: slice.len(), address: slice.leak() }
        }
    };
    if is_on() {
        lock(&POOL).note(memory.address());
    }
    let memory = ManuallyDrop::new(memory);
    // SAFETY: the memory came from this stream's allocator, and the slice is now its only owner.
    Ok(unsafe { engine.stream.upgrade_device_ptr(memory.address, memory.bytes / size_of::<T>()) })
}

/// The memory of a slice.
fn memory<T>(slice: CudaSlice<T>) -> Memory {
    Memory { bytes: slice.len() * size_of::<T>(), address: slice.leak() }
}

/// Drops a tensor on the card and keeps its memory if nobody else uses it.
pub(crate) fn recycle(tensor: Raw) {
    if !is_unique(&tensor) {
        return;
    }
    let cell = {
        let (guard, _) = tensor.storage_and_layout();
        StorageRef::rwlock(&guard)
    };
    let nothing = Storage::Cpu(CpuStorage::U8(Vec::new()));
    let storage = std::mem::replace(&mut *cell.write(), nothing);
    let Storage::Cuda(CudaStorage { slice, .. }) = storage else { return };
    let memory = match slice {
        CudaStorageSlice::U8(slice) => memory(slice),
        CudaStorageSlice::U32(slice) => memory(slice),
        CudaStorageSlice::I64(slice) => memory(slice),
        CudaStorageSlice::BF16(slice) => memory(slice),
        CudaStorageSlice::F16(slice) => memory(slice),
        CudaStorageSlice::F32(slice) => memory(slice),
        CudaStorageSlice::F64(slice) => memory(slice),
        // Types that the engine makes no tensors of.
        _ => return,
    };
    let refused = lock(&POOL).give(memory, usize::MAX);
    drop(refused);
}

/// A step of training ended.
pub(crate) fn end_step() {
    let idle = lock(&POOL).next_step();
    drop(idle);
}

/// Gives all that is kept back to the driver.
pub(super) fn trim() {
    let free = lock(&POOL).trim();
    drop(free);
}

/// Bytes that are kept.
pub(super) fn bytes() -> usize {
    lock(&POOL).bytes()
}

/// How often the driver was asked for memory.
pub(super) fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}
