//! Memory and count of handles. A call that makes a tensor makes a handle, so both must cost a few nanoseconds: every
//! thread keeps a short list of free blocks and a count of its own, and only the last of several references pays for
//! an atomic operation on memory that others see.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering, fence};

use crate::sync::lock;

/// Blocks of this size and smaller are recycled; a tensor's fits.
const SMALL: Layout = match Layout::from_size_align(128, 16) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
/// Free blocks that a thread keeps; 32 KiB.
const KEPT_LEN: usize = 256;

/// What stands in front of an object.
#[repr(C)]
struct Header {
    /// References of all owners; 1 in a free block too, so that taking one writes nothing here.
    references: AtomicUsize,
    /// While the block is free: the next free one. It lies before the object, whose tag therefore stays as it was
    /// left.
    next: Cell<*mut Header>,
}

#[repr(C)]
struct Block<T> {
    header: Header,
    object: T,
}

impl<T> Block<T> {
    const IS_SMALL: bool = size_of::<Self>() <= SMALL.size() && align_of::<Self>() <= SMALL.align();
}

/// True if the blocks of this type are recycled.
pub const fn is_small<T>() -> bool {
    Block::<T>::IS_SMALL
}

/// What a thread keeps. Without a destructor, so that reaching it is one addition.
struct Local {
    /// References that callers took minus those that they gave back on this thread. Only this thread writes it, so
    /// plain loads and stores do; any thread may read it.
    live: AtomicI64,
    free: Cell<*mut Header>,
    free_len: Cell<usize>,
    is_listed: Cell<bool>,
}

/// A thread's [`Local`] in the list of all.
struct Listed(*const Local);

// SAFETY: other threads read nothing but the atomic `live`, under the list's lock, and a thread leaves the list while
// its `Local` still exists.
unsafe impl Send for Listed {}

static THREADS: Mutex<Vec<Listed>> = Mutex::new(Vec::new());
/// Threads that have been in the list so far.
static ENTERED: AtomicU64 = AtomicU64::new(0);
/// The counts of threads that ended, and what is counted while a thread ends.
static ENDED: AtomicI64 = AtomicI64::new(0);

/// Takes the thread out of the list when it ends.
struct Leave;

thread_local! {
    static LOCAL: Local = const {
        Local {
            live: AtomicI64::new(0),
            free: Cell::new(ptr::null_mut()),
            free_len: Cell::new(0),
            is_listed: Cell::new(false),
        }
    };
    static LEAVE: Leave = const { Leave };
}

impl Drop for Leave {
    fn drop(&mut self) {
        LOCAL.with(|local| {
            // What follows on this thread goes without the list.
            if local.is_listed.replace(false) {
                let mut threads = lock(&THREADS);
                threads.retain(|listed| !ptr::eq(listed.0, local));
                // Under the lock, so that nobody sees the count twice or not at all.
                ENDED.fetch_add(local.live.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            }
            local.free_len.set(0);
            let mut free = local.free.replace(ptr::null_mut());
            while !free.is_null() {
                // SAFETY: blocks in the list are free and of this layout.
                free = unsafe {
                    let next = (*free).next.get();
                    dealloc(free.cast(), SMALL);
                    next
                };
            }
        });
    }
}

/// Runs `f` with what this thread keeps, or with nothing while the thread ends.
#[inline(always)]
fn with_local<R>(f: impl FnOnce(Option<&Local>) -> R) -> R {
    LOCAL.with(|local| f(if local.is_listed.get() || enter(local) { Some(local) } else { None }))
}

/// Lists this thread; false when it is ending.
#[cold]
#[inline(never)]
fn enter(local: &Local) -> bool {
    // Registers the destructor; an error says that it has run.
    if LEAVE.try_with(|_| ()).is_err() {
        return false;
    }
    lock(&THREADS).push(Listed(local));
    ENTERED.fetch_add(1, Ordering::Relaxed);
    local.is_listed.set(true);
    true
}

/// Threads that have taken or given back references since the process began.
pub fn threads() -> u64 {
    ENTERED.load(Ordering::Relaxed)
}

/// Counts references that callers took, or gave back when negative.
#[inline(always)]
pub fn count(change: i64) {
    with_local(|local| match local {
        Some(local) => {
            local.live.store(local.live.load(Ordering::Relaxed) + change, Ordering::Relaxed);
        }
        None => {
            ENDED.fetch_add(change, Ordering::Relaxed);
        }
    });
}

/// References that callers own, over all threads. Exact for everything that happened before the call.
pub fn live() -> i64 {
    let threads = lock(&THREADS);
    // SAFETY: a thread leaves the list, under the lock, before its `Local` goes.
    let running = threads.iter().map(|listed| unsafe { &*listed.0 }.live.load(Ordering::Relaxed));
    running.sum::<i64>() + ENDED.load(Ordering::Relaxed)
}

/// Moves an object into a block with one reference.
#[inline(always)]
pub fn make<T>(object: T) -> *mut T {
    let block = with_local(|local| match local {
        Some(local) if Block::<T>::IS_SMALL && !local.free.get().is_null() => {
            let block = local.free.get();
            // SAFETY: blocks in the list are free, initialised in their headers, and this thread's alone.
            local.free.set(unsafe { (*block).next.get() });
            local.free_len.set(local.free_len.get() - 1);
            block.cast::<Block<T>>()
        }
        _ => fresh::<T>(),
    });
    // SAFETY: the block is large enough, aligned, and nobody else's; its header says one reference already.
    unsafe {
        let place = &raw mut (*block).object;
        place.write(object);
        place
    }
}

fn layout<T>() -> Layout {
    if Block::<T>::IS_SMALL { SMALL } else { Layout::new::<Block<T>>() }
}

#[cold]
#[inline(never)]
fn fresh<T>() -> *mut Block<T> {
    let layout = layout::<T>();
    // SAFETY: a block has at least a header.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    let header = Header { references: AtomicUsize::new(1), next: Cell::new(ptr::null_mut()) };
    // SAFETY: the memory is new and begins with the header.
    unsafe { block.cast::<Header>().write(header) };
    block.cast()
}

#[inline(always)]
fn block_of<T>(object: *const T) -> *mut Block<T> {
    object.cast_mut().wrapping_byte_sub(offset_of!(Block<T>, object)).cast()
}

/// One more reference.
///
/// # Safety
/// `object` came from [`make`] and is alive.
#[inline(always)]
pub unsafe fn retain<T>(object: *const T) {
    // SAFETY: the caller's contract: the block is alive.
    let before = unsafe { &(*block_of(object)).header.references }.fetch_add(1, Ordering::Relaxed);
    // As `Arc` does: an overflow would free what is in use.
    if before > isize::MAX as usize {
        std::process::abort();
    }
}

/// True if the caller's reference is the only one.
///
/// # Safety
/// `object` came from [`make`] and is alive.
#[inline(always)]
pub unsafe fn is_unique<T>(object: *const T) -> bool {
    // SAFETY: the caller's contract: the block is alive.
    unsafe { &(*block_of(object)).header.references }.load(Ordering::Acquire) == 1
}

/// One reference less; the last one drops the object in place and recycles the block. When the drop panics, the block
/// is lost.
///
/// # Safety
/// `object` came from [`make`], as this type, and is alive, and the caller gives up its reference.
#[inline(always)]
pub unsafe fn release<T>(object: *mut T) {
    let block = block_of(object);
    // Who owns the only reference needs no atomic change: nobody else can take another one.
    // SAFETY: the caller's contract: the block is alive.
    if !unsafe { is_unique(object) } {
        // SAFETY: as before.
        let references = unsafe { &(*block).header.references };
        if references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        references.store(1, Ordering::Relaxed);
    }
    // SAFETY: this was the last reference. The object may run code of its own, so nothing of this thread is borrowed
    // meanwhile.
    unsafe { ptr::drop_in_place(object) };
    with_local(|local| match local {
        Some(local) if Block::<T>::IS_SMALL && local.free_len.get() < KEPT_LEN => {
            let header = block.cast::<Header>();
            // SAFETY: the block is free and this thread's alone; its header stays initialised.
            unsafe { (*header).next.set(local.free.get()) };
            local.free.set(header);
            local.free_len.set(local.free_len.get() + 1);
        }
        // SAFETY: the block is free; it was allocated with this layout.
        _ => unsafe { dealloc(block.cast(), layout::<T>()) },
    });
}

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::handle::{Handle, into_raw, release, retain, tag};
    use std::sync::atomic::{AtomicUsize, Ordering};

    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    #[repr(C)]
    struct Abi(u8);
    /// Larger than a small block.
    struct Large([u64; 32]);
    impl Handle for Large {
        type Abi = Abi;
        const TAG: u32 = tag(b"tstL");
        const NAME: &'static str = "large thing";
    }
    impl Drop for Large {
        fn drop(&mut self) {
            assert_eq!(self.0, [7; 32]);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Sent(*mut Abi);
    // SAFETY: references may be given back on any thread.
    unsafe impl Send for Sent {}

    #[test]
    fn large_objects_are_dropped_once_on_whichever_thread_is_last() {
        for _ in 0..200 {
            let first = into_raw(Large([7; 32]));
            // SAFETY: a live handle; each thread gives back one reference.
            let owned = (0..4).map(|_| Sent(unsafe { retain::<Large>(first) }));
            let threads: Vec<_> = owned
                .map(|sent| {
                    std::thread::spawn(move || {
                        let sent = sent;
                        // SAFETY: the thread owns this reference.
                        unsafe { release::<Large>(sent.0) }
                    })
                })
                .collect();
            // SAFETY: the first reference.
            unsafe { release::<Large>(first) };
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        assert_eq!(DROPPED.load(Ordering::Relaxed), 200);
    }

    /// Gives a handle back while its thread ends, after the thread's list is gone or before, as the system pleases.
    struct Late(*mut easytransfer_abi::et_error);
    impl Drop for Late {
        fn drop(&mut self) {
            // SAFETY: owned.
            unsafe { release::<Error>(self.0) };
            let again = into_raw(Error::new(2, "made while the thread ends"));
            // SAFETY: owned.
            unsafe { release::<Error>(again) };
        }
    }

    #[test]
    fn threads_may_use_handles_while_they_end() {
        thread_local! {
            static BEFORE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
            static AFTER: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
        }
        for _ in 0..50 {
            let thread = std::thread::spawn(|| {
                BEFORE.with_borrow_mut(|_| ());
                let made: Vec<_> = (0..300).map(|i| into_raw(Error::new(i, "x"))).collect();
                BEFORE.set(Some(Late(made[0])));
                AFTER.set(Some(Late(made[1])));
                for &error in &made[2..] {
                    // SAFETY: owned; more than a thread keeps.
                    unsafe { release::<Error>(error) };
                }
            });
            thread.join().unwrap();
        }
    }
}
