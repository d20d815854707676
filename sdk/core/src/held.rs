//! Bytes of a device's memory that belong to parameters, for a device to say who holds its memory.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::lock;

static VALUES: AtomicUsize = AtomicUsize::new(0);
static STATES: AtomicUsize = AtomicUsize::new(0);
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Values in arenas; gradients have as many.
    pub values: usize,
    /// States of optimizers.
    pub states: usize,
    /// Copies of values in fewer bits.
    pub copies: usize,
}

/// What the arenas of this process hold on the device now.
pub fn bytes() -> Bytes {
    Bytes {
        values: VALUES.load(Ordering::Relaxed),
        states: STATES.load(Ordering::Relaxed),
        copies: COPIES.load(Ordering::Relaxed),
    }
}

/// The part of one arena, counted while this lives.
pub(crate) struct Share {
    /// Bytes of the values, and as many of the gradients.
    bytes: usize,
    /// Bytes of each optimizer's state, by the element where it begins.
    states: Mutex<HashMap<usize, usize>>,
}

impl Share {
    pub fn new(bytes: usize) -> Self {
        VALUES.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, states: Mutex::default() }
    }

    /// Says how many bytes the optimizer keeps whose part of this arena begins at element `start`.
    pub fn states(&self, start: usize, bytes: usize) {
        let before = lock(&self.states).insert(start, bytes).unwrap_or(0);
        // Wraps where it shrinks, as the sum does.
        STATES.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        STATES.fetch_sub(lock(&self.states).values().sum(), Ordering::Relaxed);
        VALUES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A copy of parameters in fewer bits, counted while this lives.
pub(crate) struct CopyShare(usize);

impl CopyShare {
    pub fn new(bytes: usize) -> Self {
        COPIES.fetch_add(bytes, Ordering::Relaxed);
        Self(bytes)
    }
}

impl Drop for CopyShare {
    fn drop(&mut self) {
        COPIES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_while_they_live() {
        let share = Share::new(10);
        share.states(0, 30);
        share.states(0, 15);
        share.states(16, 5);
        let copy = CopyShare::new(5);
        assert_eq!(bytes(), Bytes { values: 10, states: 20, copies: 5 });
        drop((share, copy));
        assert_eq!(bytes(), Bytes::default());
    }
}
