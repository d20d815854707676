//! Marks on the stream for the profiler.

use std::sync::atomic::{AtomicUsize, Ordering};

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;

use super::device::active;

/// Marks of one recording at most; later spans have the host's times only.
const MOST: usize = 400_000;

static MADE: AtomicUsize = AtomicUsize::new(0);

/// A place on the stream.
pub(crate) struct Mark(CudaEvent);

/// Begins to count marks anew.
pub(crate) fn restart() {
    MADE.store(0, Ordering::Relaxed);
}

/// A mark behind all work so far; `None` without a card, when there are too many, or when the driver refuses.
pub(crate) fn mark() -> Option<Mark> {
    let engine = active()?;
    if MADE.fetch_add(1, Ordering::Relaxed) >= MOST {
        return None;
    }
    engine.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).ok().map(Mark)
}

/// Milliseconds from one mark to the other; waits for the second.
pub(crate) fn between(begin: &Mark, end: &Mark) -> f64 {
    begin.0.elapsed_ms(&end.0).map_or(0.0, f64::from)
}
