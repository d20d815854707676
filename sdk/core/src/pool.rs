//! A bounded pool of f32 vectors, in size classes a quarter of a power of two apart.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Vectors with fewer elements are left to the allocator, which is as quick for them.
pub const SMALLEST: usize = 1024;
/// Most bytes that the pool keeps unless [`limit_pool`] says otherwise.
const DEFAULT_LIMIT: usize = 4 << 30;
/// Classes up to 2^40 elements.
const CLASSES: usize = 4 * 41;

#[derive(Default)]
struct Class {
    free: Vec<Vec<f32>>,
    /// Vectors that were taken and have not come back. Only so many are accepted: candle's own vectors come here too when their
    /// tensors go, and since candle never takes any, they would pile up.
    taken: usize,
}

struct Pool {
    classes: Vec<Class>,
    bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { classes: Vec::new(), bytes: 0 });
static LIMIT: AtomicUsize = AtomicUsize::new(DEFAULT_LIMIT);

fn lock() -> std::sync::MutexGuard<'static, Pool> {
    // The pool is consistent between any two statements, so a panic elsewhere does not spoil it.
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Elements of class `class`.
fn class_len(class: usize) -> usize {
    let base = 1usize << (class / 4);
    base + base / 4 * (class % 4)
}

/// The largest class of at most `len` elements; `len` at least 4.
fn class_below(len: usize) -> usize {
    let log = len.ilog2() as usize;
    let quarter = (len - (1 << log)) / ((1 << log) / 4);
    4 * log + quarter
}

/// The smallest class of at least `len` elements; `len` at least 4.
fn class_above(len: usize) -> usize {
    let below = class_below(len);
    if class_len(below) == len { below } else { below + 1 }
}

/// `len` elements with arbitrary values.
pub fn take_f32(len: usize) -> Vec<f32> {
    if len < SMALLEST {
        return vec![0.0; len];
    }
    let class = class_above(len);
    let found = {
        let mut pool = lock();
        if pool.classes.is_empty() {
            pool.classes.resize_with(CLASSES, Class::default);
        }
        let found = pool.classes.get_mut(class).and_then(|class| {
            class.taken += 1;
            class.free.pop()
        });
        if let Some(data) = &found {
            pool.bytes -= data.capacity() * size_of::<f32>();
        }
        found
    };
    let mut data = found.unwrap_or_else(|| vec![0.0; class_len(class)]);
    // Capacity is at least the class's, so this never allocates.
    data.resize(len, 0.0);
    data
}

/// Gives a vector to the pool, or to the allocator when the pool is full.
pub fn give_f32(data: Vec<f32>) {
    let bytes = data.capacity() * size_of::<f32>();
    if data.capacity() < SMALLEST {
        return;
    }
    let class = class_below(data.capacity());
    let mut pool = lock();
    let room = pool.bytes + bytes <= LIMIT.load(Ordering::Relaxed);
    let Some(class) = pool.classes.get_mut(class).filter(|class| class.taken > 0) else { return };
    class.taken -= 1;
    if room {
        class.free.push(data);
        pool.bytes += bytes;
    }
}

/// Tells the allocator of glibc to keep freed pages for the rest of the process instead of giving them back to the system, which
/// pays where candle allocates the temporaries of fine-grained operations. It concerns the whole process, so only the program
/// that owns it should decide on it. False where the allocator cannot be told.
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
    lock().bytes
}

/// Sets the most bytes that the pool keeps (4 GiB at first; 0 switches it off) and frees what it has.
pub fn limit_pool(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
    let mut pool = lock();
    pool.classes.iter_mut().for_each(|class| class.free.clear());
    pool.bytes = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_bracket_every_length() {
        for len in (4..5000).chain([1 << 20, (1 << 20) + 1, 3 << 18, 1_234_567]) {
            let (below, above) = (class_below(len), class_above(len));
            assert!(class_len(below) <= len && len <= class_len(above), "{len}");
            assert!(class_len(below + 1) > len && above <= below + 1, "{len}");
        }
    }

    #[test]
    fn a_given_vector_serves_the_next_request_of_its_class() {
        // A class that no other test of this process uses.
        let len = 7_000_001;
        let first = take_f32(len);
        let address = first.as_ptr();
        give_f32(first);
        let second = take_f32(len - 5);
        assert_eq!(second.as_ptr(), address);
        assert_eq!(second.len(), len - 5);
    }

    #[test]
    fn vectors_that_were_never_taken_do_not_pile_up() {
        // A class that no other test of this process uses.
        let len = class_len(class_below(11_000_000));
        let before = lock().bytes;
        give_f32(Vec::with_capacity(len));
        let class = class_below(len);
        assert!(lock().classes.get(class).is_none_or(|class| class.free.is_empty()), "{before}");
    }
}
