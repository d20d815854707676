//! Marks on the stream for the profiler.

use std::sync::atomic::{AtomicUsize, Ordering};

use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;

use easytransfer_core::device::Mark;

use super::device::Engine;

/// Marks of one recording at most; later spans have the host's times only.
const MOST: usize = 400_000;

static MADE: AtomicUsize = AtomicUsize::new(0);

/// Begins to count marks anew.
pub(crate) fn restart() {
    MADE.store(0, Ordering::Relaxed);
}

/// A mark behind all work so far; `None` when there are too many, or when the driver refuses.
pub(crate) fn mark(engine: &Engine) -> Option<Mark> {
    if MADE.fetch_add(1, Ordering::Relaxed) >= MOST {
        return None;
    }
    let event = engine.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).ok()?;
    Some(Box::new(event))
}

/// Milliseconds from one mark to the other; waits for the second.
pub(crate) fn between(begin: &Mark, end: &Mark) -> f64 {
    match (begin.downcast_ref::<CudaEvent>(), end.downcast_ref::<CudaEvent>()) {
        (Some(begin), Some(end)) => begin.elapsed_ms(end).map_or(0.0, f64::from),
        _ => 0.0,
    }
}
