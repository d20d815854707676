//! The threads that kernels run on.

use crate::error::{Result, fail};

/// Makes the calling thread one of the workers, `threads` in all (as many as the machine has for `None`). Without
/// this, the thread that computes hands every kernel to the workers and sleeps until they are done, a thousand times
/// a step.
///
/// It concerns the whole process, so only the program that owns it should decide on it, before anything was computed.
/// The thread must be the one that computes; what others compute runs on the remaining workers, so with one thread
/// nothing changes.
///
/// # Errors
/// `FAILED_PRECONDITION` when the workers run already.
pub fn include_this_thread(threads: Option<usize>) -> Result<()> {
    let threads = match threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    if threads > 1 {
        builder = builder.use_current_thread();
    }
    match builder.build_global() {
        Ok(()) => Ok(()),
        Err(error) => fail!(ET_ERR_FAILED_PRECONDITION, "the workers cannot be set up: {error}"),
    }
}
