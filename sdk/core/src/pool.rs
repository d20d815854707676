//! A bounded pool of memory that keeps close to what is in use at the same time: of f32 vectors, and of a card's
//! memory.
//!
//! Batches are runs of tokens, so every step asks for other lengths. A request takes the smallest free block that is
//! long enough and not absurdly longer; so the blocks of a long batch serve all shorter ones. When none fits, free
//! blocks that the present step has not used go back to the allocator until as many bytes are free as the new one
//! needs: the pool grows only when there are none. Blocks that nobody used for many steps go, too. A step of a shape
//! that was seen before allocates nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Vectors with fewer elements are left to the allocator, which is as quick for them.
pub const SMALLEST: usize = 1024;
/// Most bytes that the pool of vectors keeps unless [`limit_pool`] says otherwise.
const DEFAULT_LIMIT: usize = 4 << 30;
/// A free vector serves a request if it is at most so many times as long. What nobody touches of it takes no memory.
const STRETCH: usize = 16;
/// Free blocks that were not used for so many steps go back to the allocator.
const IDLE_STEPS: u64 = 64;
/// Without a backward pass (inference), so many requests count as a step.
const TAKES_PER_STEP: u64 = 4096;
/// More addresses than this are forgotten: their blocks left the engine by other ways.
const MOST_TAKEN: usize = 1 << 16;

/// Memory that a pool keeps; it goes back to its allocator when it is dropped.
pub trait Block {
    /// Its length.
    fn bytes(&self) -> usize;
    /// Where it begins.
    fn address(&self) -> usize;
}

impl Block for Vec<f32> {
    fn bytes(&self) -> usize {
        self.capacity() * size_of::<f32>()
    }
    fn address(&self) -> usize {
        self.as_ptr() as usize
    }
}

struct Free<B> {
    block: B,
    /// The step in which it was given back.
    step: u64,
}

/// Free blocks.
pub struct Pool<B> {
    /// By bytes, then by a running number, so that what is picked depends on the sequence of calls only.
    free: BTreeMap<(usize, u64), Free<B>>,
    /// Addresses of blocks that were taken. Others are not accepted: memory that candle took itself comes here too
    /// when its tensors go, and since candle never takes any from here, it would pile up.
    taken: Option<HashSet<usize>>,
    stretch: usize,
    bytes: usize,
    step: u64,
    takes: u64,
    serial: u64,
}

static POOL: Mutex<Pool<Vec<f32>>> = Mutex::new(Pool::new(STRETCH));
static LIMIT: AtomicUsize = AtomicUsize::new(DEFAULT_LIMIT);

fn lock() -> std::sync::MutexGuard<'static, Pool<Vec<f32>>> {
    // The pool is consistent between any two statements, so a panic elsewhere does not spoil it.
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The length of a new block for `len` elements or bytes: an eighth of a power of two apart, so that nearly equal
/// lengths share blocks.
pub fn rounded(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 16).max(1))
}

impl<B: Block> Pool<B> {
    /// An empty pool, in which a free block serves a request if it is at most `stretch` times as long.
    pub const fn new(stretch: usize) -> Self {
        Self { free: BTreeMap::new(), taken: None, stretch, bytes: 0, step: 0, takes: 0, serial: 0 }
    }

    /// A free block of at least `bytes`; or `None` where a new one of `fresh` bytes is to be made. And blocks to drop
    /// outside the lock, before that.
    pub fn take(&mut self, bytes: usize, fresh: usize) -> (Option<B>, Vec<B>) {
        self.takes += 1;
        let mut dropped = Vec::new();
        if self.takes.is_multiple_of(TAKES_PER_STEP) {
            dropped = self.next_step();
        }
        let fits = (bytes, 0)..(bytes.saturating_mul(self.stretch), 0);
        if let Some(key) = self.free.range(fits).next().map(|(key, _)| *key) {
            return (self.remove(key), dropped);
        }
        let mut old: Vec<(u64, (usize, u64))> = self
            .free
            .iter()
            .filter(|(_, free)| free.step < self.step)
            .map(|(key, free)| (free.step, *key))
            .collect();
        old.sort_unstable();
        let mut missing = fresh;
        for (_, key) in old {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(key.0);
            dropped.extend(self.remove(key));
        }
        (None, dropped)
    }

    fn remove(&mut self, key: (usize, u64)) -> Option<B> {
        let Free { block, .. } = self.free.remove(&key)?;
        self.bytes -= key.0;
        Some(block)
    }

    /// Remembers that the block at `address` is out.
    pub fn note(&mut self, address: usize) {
        let taken = self.taken.get_or_insert_default();
        if taken.len() >= MOST_TAKEN {
            taken.clear();
        }
        taken.insert(address);
    }

    /// Keeps a block, or hands it back to be dropped outside the lock.
    pub fn give(&mut self, block: B, limit: usize) -> Option<B> {
        let ours = self.taken.as_mut().is_some_and(|taken| taken.remove(&block.address()));
        let bytes = block.bytes();
        if !ours || self.bytes + bytes > limit {
            return Some(block);
        }
        self.bytes += bytes;
        self.serial += 1;
        self.free.insert((bytes, self.serial), Free { block, step: self.step });
        None
    }

    /// A step ends. Returns what was idle for long, to be dropped outside the lock.
    pub fn next_step(&mut self) -> Vec<B> {
        self.step += 1;
        let oldest = self.step.saturating_sub(IDLE_STEPS);
        let idle: Vec<(usize, u64)> =
            self.free.iter().filter(|(_, free)| free.step < oldest).map(|(key, _)| *key).collect();
        idle.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// All free blocks, to be dropped outside the lock.
    pub fn trim(&mut self) -> Vec<B> {
        self.bytes = 0;
        std::mem::take(&mut self.free).into_values().map(|free| free.block).collect()
    }

    /// Bytes that are free.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// `len` elements with arbitrary values.
pub fn take_f32(len: usize) -> Vec<f32> {
    if len < SMALLEST {
        return vec![0.0; len];
    }
    let fresh = rounded(len);
    let (found, dropped) = lock().take(len * size_of::<f32>(), fresh * size_of::<f32>());
    drop(dropped);
    let mut data = found.unwrap_or_else(|| Vec::with_capacity(fresh));
    // Capacity is at least `len`, so this never allocates.
    data.resize(len, 0.0);
    lock().note(data.address());
    data
}

/// Gives a vector that [`take_f32`] made to the pool, or to the allocator when the pool is full. Other vectors go to
/// the allocator.
pub fn give_f32(data: Vec<f32>) {
    if data.capacity() >= SMALLEST {
        let refused = lock().give(data, LIMIT.load(Ordering::Relaxed));
        drop(refused);
    }
}

/// Tells the pools that a step of training ended.
pub fn end_step() {
    let idle = lock().next_step();
    drop(idle);
    if let Some(device) = crate::device::active() {
        device.end_step();
    }
}

/// Gives all free vectors to the allocator, before something that is rare and needs much memory.
pub fn trim_pool() {
    let free = lock().trim();
    drop(free);
}

/// Tells the allocator of glibc to keep freed pages for the rest of the process instead of giving them back to the
/// system, which pays where candle allocates the temporaries of fine-grained operations. It concerns the whole
/// process, so only the program that owns it should decide on it. False where the allocator cannot be told.
pub fn keep_pages() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` takes the allocator's own lock and only sets numbers.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, -1) == 1
                && libc::mallopt(libc::M_TOP_PAD, 64 << 20) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Bytes that the pool keeps right now.
pub fn pool_bytes() -> usize {
    lock().bytes()
}

/// Sets the most bytes that the pool keeps (4 GiB at first; 0 switches it off) and frees what it has.
pub fn limit_pool(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
    trim_pool();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes from a pool of the test's own.
    fn take(pool: &mut Pool<Vec<f32>>, len: usize) -> Vec<f32> {
        let found = find(pool, len).0;
        let mut data = found.unwrap_or_else(|| Vec::with_capacity(rounded(len)));
        data.resize(len, 0.0);
        pool.note(data.address());
        data
    }

    fn find(pool: &mut Pool<Vec<f32>>, len: usize) -> (Option<Vec<f32>>, Vec<Vec<f32>>) {
        pool.take(len * 4, rounded(len) * 4)
    }

    fn give(pool: &mut Pool<Vec<f32>>, data: Vec<f32>) {
        pool.give(data, usize::MAX);
    }

    #[test]
    fn rounded_lengths_are_close_and_stable() {
        for len in (1..5000).chain([1 << 20, (1 << 20) + 1, 3 << 18, 1_234_567]) {
            let capacity = rounded(len);
            assert!(capacity >= len && capacity - len <= len / 8 + 1, "{len}: {capacity}");
            assert_eq!(rounded(capacity), capacity, "{len}");
        }
    }

    #[test]
    fn a_shorter_request_is_served_by_the_smallest_vector_that_fits() {
        let mut pool = Pool::new(STRETCH);
        let (small, large) = (take(&mut pool, 10_000), take(&mut pool, 90_000));
        let (at_small, at_large) = (small.as_ptr(), large.as_ptr());
        give(&mut pool, large);
        give(&mut pool, small);
        let again = take(&mut pool, 9_000);
        assert_eq!((again.as_ptr(), again.len()), (at_small, 9_000));
        let third = take(&mut pool, 9_000);
        assert_eq!(third.as_ptr(), at_large);
        assert_eq!(pool.bytes, 0);
    }

    #[test]
    fn far_too_long_vectors_are_left_alone() {
        let mut pool = Pool::new(STRETCH);
        let large = take(&mut pool, 90_000);
        let address = large.as_ptr();
        give(&mut pool, large);
        let short = take(&mut pool, 2_000);
        assert_ne!(short.as_ptr(), address);
    }

    #[test]
    fn a_request_that_finds_nothing_drops_what_this_step_does_not_use() {
        let mut pool = Pool::new(STRETCH);
        let three: Vec<Vec<f32>> = (0..3).map(|_| take(&mut pool, 16_384)).collect();
        three.into_iter().for_each(|data| give(&mut pool, data));
        // In the same step nothing goes.
        let (found, dropped) = find(&mut pool, 20_000);
        assert!(found.is_none() && dropped.is_empty());
        pool.next_step();
        let (found, dropped) = find(&mut pool, 20_000);
        assert!(found.is_none());
        assert_eq!((dropped.len(), pool.free.len()), (2, 1));
        assert_eq!(pool.bytes, 16_384 * 4);
    }

    #[test]
    fn steps_of_a_known_shape_find_everything() {
        let mut pool = Pool::new(STRETCH);
        let lens = [3000, 12_000, 3000, 1500, 12_000, 3000];
        let step = |pool: &mut Pool<Vec<f32>>, shrink: usize| {
            let mut missed = 0;
            let mut held = Vec::new();
            for len in lens {
                let (found, _) = find(pool, len / shrink);
                missed += usize::from(found.is_none());
                let mut data = found.unwrap_or_else(|| Vec::with_capacity(rounded(len / shrink)));
                data.resize(len / shrink, 0.0);
                pool.note(data.address());
                held.push(data);
            }
            held.into_iter().for_each(|data| give(pool, data));
            pool.next_step();
            missed
        };
        assert_eq!(step(&mut pool, 1), lens.len());
        let bytes = pool.bytes;
        for shrink in [1, 2, 1, 3, 1] {
            assert_eq!(step(&mut pool, shrink), 0, "{shrink}");
        }
        assert_eq!(pool.bytes, bytes);
    }

    #[test]
    fn vectors_that_were_never_taken_do_not_pile_up() {
        let mut pool = Pool::new(STRETCH);
        assert!(pool.give(vec![0.0; 5000], usize::MAX).is_some());
        let ours = take(&mut pool, 5000);
        assert!(pool.give(ours, 100).is_some(), "the limit holds");
        assert_eq!((pool.bytes, pool.free.len()), (0, 0));
    }

    #[test]
    fn idle_vectors_go() {
        let mut pool = Pool::new(STRETCH);
        let data = take(&mut pool, 5000);
        give(&mut pool, data);
        let gone: usize = (0..=IDLE_STEPS + 1).map(|_| pool.next_step().len()).sum();
        assert_eq!((gone, pool.bytes), (1, 0));
    }
}
