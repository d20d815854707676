//! Asking for the next head's rows while this one's are multiplied.
//!
//! A head's rows are short pieces, far apart, of matrices that are larger than the caches: the processor foresees
//! none of them, and waiting for them costs up to a third of the time. So every product asks for some after each of
//! its tiles.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Float;
use crate::gemm::{small_raw, tile_rows};
use crate::runs::RowsView;

/// Most matrices of which rows are wanted.
const PARTS: usize = 5;
/// Bytes that the memory hands over at a time.
const LINE: usize = 64;

/// Rows of one matrix.
#[derive(Clone, Copy)]
struct Part {
    first: *const u8,
    /// Bytes from one row to the next.
    stride: usize,
    rows: usize,
    /// Bytes of one row.
    len: usize,
}

/// What to ask for, some rows at every step.
pub(super) struct Ahead<'a> {
    parts: [Part; PARTS],
    count: usize,
    steps: usize,
    /// Part and row to go on with.
    at: (usize, usize),
    /// Rows of a step.
    pace: usize,
    marker: PhantomData<&'a [u8]>,
}

impl<'a> Ahead<'a> {
    /// Of which `steps` calls of [`Ahead::step`] ask for everything that is wanted later.
    pub(super) fn new(steps: usize) -> Self {
        let none = Part { first: std::ptr::null(), stride: 0, rows: 0, len: 0 };
        Self {
            parts: [none; PARTS],
            count: 0,
            steps: steps.max(1),
            at: (0, 0),
            pace: 0,
            marker: PhantomData,
        }
    }

    /// Also asks for a block of `x`.
    ///
    /// # Panics
    /// If it does not lie within `x`, or for a sixth one.
    pub(super) fn want<F: Float>(
        &mut self,
        x: &RowsView<'a, F>,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        if rows.is_empty() || cols.is_empty() {
            return;
        }
        self.parts[self.count] = Part {
            first: x.block(rows.clone(), cols.clone()).cast(),
            stride: x.stride() * size_of::<F>(),
            rows: rows.len(),
            len: cols.len() * size_of::<F>(),
        };
        self.count += 1;
        let total: usize = self.parts.iter().map(|part| part.rows).sum();
        self.pace = total.div_ceil(self.steps);
    }

    /// Asks for the next rows.
    #[inline]
    pub(super) fn step(&mut self) {
        let mut left = self.pace;
        while left > 0 && self.at.0 < self.count {
            let part = self.parts[self.at.0];
            let end = part.rows.min(self.at.1 + left);
            for row in self.at.1..end {
                let start = part.first.wrapping_add(row * part.stride);
                for byte in (0..part.len + LINE - 1).step_by(LINE) {
                    ask(start.wrapping_add(byte.min(part.len - 1)));
                }
            }
            left -= end - self.at.1;
            self.at = if end == part.rows { (self.at.0 + 1, 0) } else { (self.at.0, end) };
        }
    }
}

/// Asks for the line of one byte.
#[inline(always)]
fn ask(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a request reads nothing and cannot fail, whatever the address; every processor of the target has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Steps that a product with `rows` rows makes.
pub(super) fn steps_of<F: Float>(rows: usize) -> usize {
    rows.div_ceil(tile_rows::<F>())
}

/// [`small_raw`], with a step after every tile of rows.
///
/// # Safety
/// As [`small_raw`].
#[allow(clippy::too_many_arguments, reason = "three matrices with their strides")]
pub(super) unsafe fn product<F: Float>(
    [m, n, k]: [usize; 3],
    alpha: F,
    a: *const F,
    a_strides: [usize; 2],
    b: *const F,
    b_strides: [usize; 2],
    beta: F,
    c: *mut F,
    c_row: usize,
    ahead: &mut Ahead<'_>,
) {
    let tiles = steps_of::<F>(m);
    let mut row = 0;
    for tile in 0..tiles {
        let rows = (m - row).div_ceil(tiles - tile);
        let (a, c) = (a.wrapping_add(row * a_strides[0]), c.wrapping_add(row * c_row));
        // SAFETY: the caller's promise, for some of the rows.
        unsafe { small_raw([rows, n, k], alpha, a, a_strides, b, b_strides, beta, c, c_row) };
        ahead.step();
        row += rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_are_asked_for_within_the_steps() {
        let data = vec![0f32; 40 * 64];
        let x = RowsView::new(&data, 64);
        for steps in [0, 1, 3, 7, 100] {
            let mut ahead = Ahead::new(steps);
            ahead.step();
            assert_eq!(ahead.at, (0, 0));
            ahead.want(&x, 0..40, 3..35);
            ahead.want(&x, 5..5, 3..35);
            ahead.want(&x, 7..20, 0..64);
            (0..steps.max(1)).for_each(|_| ahead.step());
            assert_eq!(ahead.at, (2, 0));
        }
    }
}
