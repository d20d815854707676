//! Whether the parameters that a backward pass reads are still those of the pass forward.
//!
//! The tape keeps no copies of parameters: an operation saves the memory in which a value lies, and an optimizer step
//! writes there. A node therefore remembers the version of each parameter that it got, and the backward pass refuses
//! to go on where another one is found, as PyTorch does with what it saves.

use std::cell::RefCell;
use std::sync::Arc;

use crate::error::{Result, fail};
use crate::inference::Packs;
use crate::tensor::Tensor;

/// A parameter and the version of its values when an operation got them.
struct Seen {
    packs: Arc<Packs>,
    version: u64,
}

impl Seen {
    fn new(packs: &Arc<Packs>) -> Self {
        Self { packs: packs.clone(), version: packs.version() }
    }
}

/// What an operation got of parameters. Most have two at the most, which need no memory of their own.
#[derive(Default)]
pub struct Versions {
    first: [Option<Seen>; 2],
    more: Vec<Seen>,
}

impl Versions {
    /// Those of an operation's inputs.
    pub fn of(inputs: &[&Tensor]) -> Self {
        let mut seen = inputs.iter().filter_map(|input| input.source()).map(Seen::new);
        Self { first: [seen.next(), seen.next()], more: seen.collect() }
    }

    /// Errors: `FAILED_PRECONDITION` naming a parameter that has changed.
    pub fn check(&self) -> Result<()> {
        for seen in self.first.iter().flatten().chain(&self.more) {
            if seen.packs.version() != seen.version {
                fail!(
                    ET_ERR_FAILED_PRECONDITION,
                    "parameter {:?} has changed since the pass forward (an optimizer step, or something else that \
                     wrote to it), so its gradient would be wrong: run forward again, or backward before the change; \
                     gradients that this pass has added already are to be forgotten (zero_grads)",
                    seen.packs.name()
                );
            }
        }
        Ok(())
    }
}

thread_local! {
    /// What the first run of a segment has got so far, while one is under way on this thread.
    static OF_SEGMENT: RefCell<Option<Vec<Seen>>> = const { RefCell::new(None) };
}

/// Notes what a segment got, if one is under way that keeps nothing itself.
pub fn note(packs: &Arc<Packs>) {
    OF_SEGMENT.with_borrow_mut(|seen| {
        if let Some(seen) = seen
            && !seen.iter().any(|known| Arc::ptr_eq(&known.packs, packs))
        {
            seen.push(Seen::new(packs));
        }
    });
}

/// Notes what an operation of a segment got.
pub fn note_inputs(inputs: &[&Tensor]) {
    inputs.iter().filter_map(|input| input.source()).for_each(note);
}

/// Runs `f`, the first run of a segment, and tells what it got of parameters.
pub fn collect<R>(f: impl FnOnce() -> R) -> (R, Versions) {
    /// Puts back what was there before, also when a panic passes.
    struct Before(Option<Vec<Seen>>);
    impl Drop for Before {
        fn drop(&mut self) {
            OF_SEGMENT.set(self.0.take());
        }
    }
    let before = Before(OF_SEGMENT.replace(Some(Vec::new())));
    let result = f();
    let more = OF_SEGMENT.take().unwrap_or_default();
    drop(before);
    (result, Versions { more, ..Versions::default() })
}
