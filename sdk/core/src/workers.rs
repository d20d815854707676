//! The threads that kernels run on: a pool of the engine's own, which starts when it is first needed.

use crate::error::{Result, fail};
use crate::kernels::machine::workers::{self, AlreadyStarted};

/// Most threads of the pool.
pub const MOST_THREADS: usize = 1024;

/// Sets the number of threads, before anything was computed; with that many running already it does nothing.
///
/// # Errors
/// `INVALID_ARGUMENT` for a number out of 1 to [`MOST_THREADS`], `FAILED_PRECONDITION` when another number of them
/// runs already.
pub fn choose(threads: usize) -> Result<()> {
    if !(1..=MOST_THREADS).contains(&threads) {
        fail!(ET_ERR_INVALID_ARGUMENT, "expected 1 to {MOST_THREADS}, found {threads}");
    }
    match workers::start(threads) {
        Err(AlreadyStarted(running)) if running != threads => fail!(
            ET_ERR_FAILED_PRECONDITION,
            "this process computes with {running} threads already, found {threads}"
        ),
        _ => Ok(()),
    }
}

/// Number of threads where nobody says it: `RAYON_NUM_THREADS`, else one per processor.
pub fn usual() -> usize {
    workers::usual()
}

/// Number of threads that a kernel can use.
pub fn count() -> usize {
    workers::count()
}

/// Makes the calling thread one of the workers, `threads` in all (for `None` as many as `RAYON_NUM_THREADS` says, else
/// as the machine has). Without this, the thread that computes hands every kernel to the workers and sleeps until they
/// are done, a thousand times a step.
///
/// It concerns the whole process, so only the program that owns it should decide on it, before anything was computed.
/// The thread must be the one that computes; what others compute runs on the remaining workers, so with one thread
/// nothing changes.
///
/// # Errors
/// `FAILED_PRECONDITION` when the workers run already.
pub fn include_this_thread(threads: Option<usize>) -> Result<()> {
    match workers::start_with_this_thread(threads) {
        Ok(()) => Ok(()),
        Err(AlreadyStarted(running)) => fail!(
            ET_ERR_FAILED_PRECONDITION,
            "the workers cannot be set up: {running} of them run already"
        ),
    }
}
