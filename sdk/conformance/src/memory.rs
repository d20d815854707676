//! Whether calls that are made again and again need more and more memory.

use std::time::{Duration, Instant};

use crate::checks::Checks;
use crate::process::memory_in_use;
use crate::report::{Outcome, failed};

/// Calls of a round, and most rounds.
const CALLS: usize = 40;
const ROUNDS: usize = 50;
/// Fewest rounds, and the time after which there are no more.
const FEWEST: usize = 12;
const LIMIT: Duration = Duration::from_secs(1);
/// Rounds that need no more memory than those before, after which nothing is said to grow.
const QUIET: usize = 3;

/// Checks that a call leaves no memory behind. Runs only where nothing else uses the process's memory.
pub fn check(checks: &mut Checks<'_>, slot: &str, check: &str, call: impl FnMut() -> Outcome) {
    if checks.is_alone() {
        checks.check_living(slot, check, || growth(call));
    }
}

fn growth(mut call: impl FnMut() -> Outcome) -> Outcome {
    let mut calls = |count: usize| -> Outcome<usize> {
        (0..count).try_for_each(|_| call())?;
        Ok(memory_in_use())
    };
    // What the engine and the allocator keep for the next call is there after some.
    let first = calls(CALLS)?;
    let (mut before, mut quiet, mut rounds) = (first, 0, 0);
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        let after = calls(CALLS)?;
        // The smallest block of the allocator for every call.
        quiet += usize::from(after < before + CALLS * 16);
        before = after;
        // Slow calls are not repeated without end.
        rounds += 1;
        if quiet == QUIET {
            return Ok(());
        }
        if rounds >= FEWEST && begin.elapsed() > LIMIT {
            break;
        }
    }
    let bytes = before.saturating_sub(first) / (rounds * CALLS);
    failed(format!("about {bytes} bytes more with every call"))
}
