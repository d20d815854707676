//! Whether calls that are made again and again need more and more memory.

use crate::checks::Checks;
use crate::process::memory_in_use;
use crate::report::{Outcome, failed};

const CALLS: usize = 60;

/// Checks that a call leaves no memory behind. Runs only where nothing else uses the process's memory.
pub fn check(checks: &mut Checks<'_>, slot: &str, check: &str, call: impl FnMut() -> Outcome) {
    if checks.is_alone() {
        checks.check(slot, check, || growth(call));
    }
}

fn growth(mut call: impl FnMut() -> Outcome) -> Outcome {
    let mut calls = |count: usize| -> Outcome<usize> {
        (0..count).try_for_each(|_| call())?;
        Ok(memory_in_use())
    };
    // What the engine keeps for the next call is there after some.
    calls(CALLS)?;
    let mut least = usize::MAX;
    let mut before = calls(1)?;
    for _ in 0..3 {
        let after = calls(CALLS)?;
        least = least.min(after.saturating_sub(before));
        before = after;
    }
    // The smallest block of the allocator for every call.
    if least < CALLS * 16 {
        return Ok(());
    }
    failed(format!("about {} bytes more with every call", least / CALLS))
}
