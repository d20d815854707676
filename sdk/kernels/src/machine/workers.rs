//! The threads that kernels run on: a pool of the engine's own, so that what a program does on rayon's global pool and
//! what the engine does never wait for each other.
//!
//! A thread of rayon's that waits for a pool does other work of its own pool meanwhile. For a thread of the program's
//! that would be the program's work, which may want a lock that this very thread holds. So a thread of another pool
//! sleeps until the engine's is done ([`hand_over`]); threads that belong to no pool sleep by themselves.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

static POOL: OnceLock<ThreadPool> = OnceLock::new();

thread_local! {
    /// True on the threads of an engine's pool.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// The pool is there already, with so many threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyStarted(pub usize);

/// A pool whose threads count as the engine's: what runs in it stays in it.
fn builder(threads: usize) -> ThreadPoolBuilder {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("engine-{index}"))
        .start_handler(|_| IS_WORKER.set(true))
}

/// A pool of `threads` threads; of fewer where the system refuses so many.
///
/// # Panics
/// If the system refuses a single thread.
fn pool_of(threads: usize) -> ThreadPool {
    let mut threads = threads;
    loop {
        match builder(threads).build() {
            Ok(pool) => return pool,
            Err(error) if threads <= 1 => panic!("the engine's threads cannot be started: {error}"),
            Err(_) => threads /= 2,
        }
    }
}

/// Number of threads where nobody says it: `RAYON_NUM_THREADS`, else one per processor.
pub fn usual() -> usize {
    let named = std::env::var("RAYON_NUM_THREADS").ok().and_then(|number| number.parse().ok());
    let usual = || std::thread::available_parallelism().map_or(1, usize::from);
    named.filter(|&number| number > 0).unwrap_or_else(usual)
}

fn pool() -> &'static ThreadPool {
    POOL.get_or_init(|| pool_of(usual()))
}

/// Starts the pool with so many threads.
///
/// # Errors
/// It runs already.
pub fn start(threads: usize) -> Result<(), AlreadyStarted> {
    let mut is_new = false;
    let pool = POOL.get_or_init(|| {
        is_new = true;
        pool_of(threads.max(1))
    });
    if is_new { Ok(()) } else { Err(AlreadyStarted(pool.current_num_threads())) }
}

/// Starts the pool with the calling thread as one of its threads, so many in all; for `None` as many as usual. One
/// thread alone is not included: it would have nobody to hand work to.
///
/// # Errors
/// It runs already.
pub fn start_with_this_thread(threads: Option<usize>) -> Result<(), AlreadyStarted> {
    let threads = threads.unwrap_or_else(usual);
    if threads <= 1 || POOL.get().is_some() || rayon::current_thread_index().is_some() {
        return start(threads);
    }
    let pool = builder(threads).use_current_thread().build();
    let pool = pool.unwrap_or_else(|_| pool_of(threads));
    // Its spawned threads have the mark from the start handler.
    let is_included = pool.current_thread_index().is_some();
    let threads = pool.current_num_threads();
    POOL.set(pool).map_err(|_| AlreadyStarted(threads))?;
    IS_WORKER.set(is_included);
    Ok(())
}

/// Number of threads that a kernel of this thread can use.
pub fn count() -> usize {
    if IS_WORKER.get() { rayon::current_num_threads() } else { pool().current_num_threads() }
}

/// Runs `f` on a thread of the pool, on this one if it is one of them. The calling thread sleeps until then.
///
/// # Panics
/// If `f` does.
pub(crate) fn enter<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if IS_WORKER.get() {
        f()
    } else if rayon::current_thread_index().is_none() {
        pool().install(f)
    } else {
        hand_over(pool(), f)
    }
}

/// Runs `f` on this thread with a scope whose tasks go to the pool; see [`rayon::in_place_scope`]. On a thread of
/// another pool all of it goes to the engine's.
///
/// # Panics
/// If `f` or a task does.
pub(crate) fn in_place_scope<'scope, R: Send>(f: impl FnOnce(&Scope<'scope>) -> R + Send) -> R {
    if IS_WORKER.get() {
        rayon::in_place_scope(f)
    } else if rayon::current_thread_index().is_none() {
        pool().in_place_scope(f)
    } else {
        hand_over(pool(), || rayon::in_place_scope(f))
    }
}

/// What a call came to, and the signal that it is there.
struct Handed<R> {
    answer: Mutex<Option<Result<R, Box<dyn Any + Send>>>>,
    is_there: Condvar,
}

impl<R> Handed<R> {
    fn lock(&self) -> MutexGuard<'_, Option<Result<R, Box<dyn Any + Send>>>> {
        // What the lock guards is whole between any two statements.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `f` on a thread of `pool` while this one sleeps and does nothing else.
fn hand_over<R: Send>(pool: &ThreadPool, f: impl FnOnce() -> R + Send) -> R {
    let handed = Arc::new(Handed { answer: Mutex::new(None), is_there: Condvar::new() });
    let there = handed.clone();
    let call: Box<dyn FnOnce() + Send> = Box::new(move || {
        // `f` is gone once it was called, so nothing borrowed is touched after the answer is there.
        let answer = catch_unwind(AssertUnwindSafe(f));
        *there.lock() = Some(answer);
        there.is_there.notify_one();
    });
    // SAFETY: `f` may borrow from the caller, who sleeps below until the call has used it up and its answer is there.
    // What is left of the call then is its share of `handed`, which holds nothing any more.
    let call: Box<dyn FnOnce() + Send + 'static> = unsafe { std::mem::transmute(call) };
    pool.spawn(call);
    let mut answer = handed.lock();
    loop {
        match answer.take() {
            Some(Ok(answer)) => return answer,
            Some(Err(panic)) => resume_unwind(panic),
            None => {}
        }
        answer = handed.is_there.wait(answer).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Runs `f` in a pool of its own of so many threads: for tests of what must not depend on them.
#[cfg(test)]
pub(crate) fn in_pool_of<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    pool_of(threads).install(f)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn threads_of_the_pool_stay_in_it() {
        let outside = std::thread::current().id();
        let threads = count();
        enter(|| {
            assert_ne!(std::thread::current().id(), outside);
            assert!(IS_WORKER.get());
            assert_eq!(count(), threads);
            let inside = std::thread::current().id();
            assert_eq!(enter(|| std::thread::current().id()), inside);
        });
        assert!(!IS_WORKER.get());
        in_pool_of(3, || assert_eq!(count(), 3));
    }

    #[test]
    fn a_thread_of_another_pool_does_nothing_of_that_pool_while_it_waits() {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let lock = Mutex::new(0);
        for _ in 0..50 {
            // A thread that took another of these tasks while it waits would wait for itself.
            pool.install(|| {
                (0..8).into_par_iter().for_each(|task| {
                    let mut sum = lock.lock().unwrap();
                    let part = AtomicUsize::new(0);
                    enter(|| {
                        (0..100).into_par_iter().for_each(|i| {
                            part.fetch_add(i, Ordering::Relaxed);
                        });
                    });
                    in_place_scope(|scope| {
                        scope.spawn(|_| {
                            part.fetch_add(task, Ordering::Relaxed);
                        });
                    });
                    *sum += part.load(Ordering::Relaxed);
                });
            });
        }
        assert_eq!(*lock.lock().unwrap(), 50 * (8 * 4950 + 28));
    }

    #[test]
    fn panics_reach_a_thread_of_another_pool() {
        let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let caught = pool.install(|| catch_unwind(|| enter(|| panic!("within"))));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"within"));
        assert_eq!(pool.install(|| enter(|| 3)), 3);
    }

    #[test]
    fn a_pool_that_runs_is_not_started_again() {
        let threads = count();
        assert_eq!(start(threads + 1), Err(AlreadyStarted(threads)));
        assert_eq!(start_with_this_thread(None), Err(AlreadyStarted(threads)));
    }
}
