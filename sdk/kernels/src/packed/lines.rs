//! Where packed weights lie: one after the other in regions for which the system is asked for large pages.
//!
//! A text reads every weight once. On pages of 4 KiB that is some ten thousand translations of addresses for a small
//! encoder, more than the processor remembers from one text to the next; on pages of 2 MiB it is twenty.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Groups of 16 outputs, aligned to a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Line(pub(super) [u32; 16]);

/// A large page.
const PAGE: usize = 2 << 20;
/// Bytes of a region, unless one weight needs more. Weights that are packed anew leave theirs one by one, and a
/// region stays as long as one of its weights, so it is not much larger than a weight.
const REGION: usize = 4 * PAGE;

/// Memory of whole large pages.
struct Region {
    start: NonNull<Line>,
    layout: Layout,
}

// SAFETY: a region is memory and nothing else; who uses which part of it is up to `WeightLines`.
unsafe impl Send for Region {}
// SAFETY: the same.
unsafe impl Sync for Region {}

impl Region {
    fn new(bytes: usize) -> Self {
        let bytes = bytes.max(REGION).next_multiple_of(PAGE);
        let Ok(layout) = Layout::from_size_align(bytes, PAGE) else {
            panic!("a packed weight of {bytes} bytes is larger than the address space");
        };
        // SAFETY: the size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        #[cfg(target_os = "linux")]
        // SAFETY: the memory is ours and whole pages. It is advice: where the system does not follow it, nothing
        // changes but the time.
        unsafe {
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        }
        Self { start: start.cast(), layout }
    }

    fn len(&self) -> usize {
        self.layout.size() / size_of::<Line>()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no part is in use.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// The region with room, and how many of its lines were given away.
struct Last(Mutex<(Weak<Region>, usize)>);

static LAST: Last = Last::new();

impl Last {
    const fn new() -> Self {
        Self(Mutex::new((Weak::new(), 0)))
    }

    fn zeros(&self, len: usize) -> WeightLines {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let with_room = last.0.upgrade().filter(|region| region.len() - last.1 >= len);
        let (region, first) = match with_room {
            Some(region) => (region, last.1),
            None => (Arc::new(Region::new(len * size_of::<Line>())), 0),
        };
        *last = (Arc::downgrade(&region), first + len);
        drop(last);
        // SAFETY: the region has these lines and has given them to nobody else.
        unsafe { region.start.add(first).write_bytes(0, len) };
        WeightLines { region, first, len }
    }
}

/// Some lines of a region, which nobody else uses.
pub(super) struct WeightLines {
    region: Arc<Region>,
    first: usize,
    len: usize,
}

impl WeightLines {
    /// `len` lines of zeros.
    pub fn zeros(len: usize) -> Self {
        LAST.zeros(len)
    }
}

impl Deref for WeightLines {
    type Target = [Line];
    fn deref(&self) -> &[Line] {
        // SAFETY: the lines are ours, were written when they were taken, and live as long as the region.
        unsafe { std::slice::from_raw_parts(self.region.start.as_ptr().add(self.first), self.len) }
    }
}

impl DerefMut for WeightLines {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above; nobody else has them.
        unsafe {
            std::slice::from_raw_parts_mut(self.region.start.as_ptr().add(self.first), self.len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_regions_do_not_overlap_and_regions_go_with_the_last_part() {
        let last = Last::new();
        let mut kept: Vec<WeightLines> = Vec::new();
        for round in 0..60u32 {
            let mut lines = last.zeros(1 + (round as usize * 7919) % 40_000);
            assert!(lines.iter().all(|line| line.0 == [0; 16]));
            lines.fill(Line([round; 16]));
            kept.push(lines);
            if round % 3 == 2 {
                kept.remove(round as usize / 3);
            }
            for lines in &kept {
                assert!(lines.iter().all(|line| line.0 == lines[0].0));
            }
        }
        let large = last.zeros(REGION / size_of::<Line>() + 1);
        assert_eq!(large.region.layout.size(), REGION + PAGE);
        kept.push(large);
        let regions: Vec<_> = kept.iter().map(|lines| Arc::downgrade(&lines.region)).collect();
        drop(kept);
        assert!(regions.iter().all(|region| region.upgrade().is_none()));
        assert!(last.zeros(0).is_empty());
    }
}
