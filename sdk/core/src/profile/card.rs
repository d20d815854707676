//! Times of a card in a recording. A card computes behind the host, so the host's clock says when work was put on the
//! stream; two marks on the stream around a span say how long the card took, gaps in which it had nothing to do
//! included.

use super::Key;
use crate::device::{self, Mark};

/// A place on a stream; there is none on the CPU.
pub(super) fn mark() -> Option<Mark> {
    device::active()?.mark()
}

/// Milliseconds from one place to another.
pub(super) fn between(begin: &Mark, end: &Mark) -> f64 {
    device::active().map_or(0.0, |device| device.between(begin, end))
}

/// A finished span between two marks.
struct Timed<M> {
    key: Key,
    begin: M,
    end: M,
    /// The timed spans directly inside.
    inside: Vec<usize>,
}

/// The timed spans of one thread, in the order of their ends.
pub(super) struct Spans<M>(Vec<Timed<M>>);

impl<M> Default for Spans<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Milliseconds of one timed span.
pub(super) struct Times<'a> {
    pub key: &'a Key,
    /// Without what was timed inside.
    pub own: f64,
    pub whole: f64,
}

impl<M> Spans<M> {
    /// Adds a span and answers with its number.
    pub fn add(&mut self, key: Key, begin: M, end: M, inside: Vec<usize>) -> usize {
        self.0.push(Timed { key, begin, end, inside });
        self.0.len() - 1
    }

    /// The times of all spans by their numbers, with `between` giving the milliseconds from one mark to another.
    pub fn times(&self, between: impl Fn(&M, &M) -> f64) -> Vec<Times<'_>> {
        let wholes: Vec<f64> =
            self.0.iter().map(|timed| between(&timed.begin, &timed.end)).collect();
        let own = |(index, timed): (usize, &Timed<M>)| {
            let inside: f64 = timed.inside.iter().map(|&index| wholes[index]).sum();
            (wholes[index] - inside).max(0.0)
        };
        let owns: Vec<f64> = self.0.iter().enumerate().map(own).collect();
        let each = self.0.iter().zip(owns).zip(wholes);
        each.map(|((timed, own), whole)| Times { key: &timed.key, own, whole }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_is_without_what_was_timed_inside() {
        let key = |name: &'static str| Key {
            category: "forward".into(),
            name: name.into(),
            detail: Vec::new(),
        };
        let mut spans = Spans::default();
        let inner = spans.add(key("inner"), 2.0, 5.0, Vec::new());
        let middle = spans.add(key("middle"), 1.0, 7.0, vec![inner]);
        spans.add(key("outer"), 0.0, 10.0, vec![middle]);
        let times = spans.times(|a, b| b - a);
        let found: Vec<_> =
            times.iter().map(|times| (&*times.key.name, times.own, times.whole)).collect();
        assert_eq!(found, [("inner", 3.0, 3.0), ("middle", 3.0, 6.0), ("outer", 4.0, 10.0)]);
    }
}
