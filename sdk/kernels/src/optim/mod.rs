//! What optimizer steps over arenas share: segments, gradients of which only some rows mean anything, and how work is
//! cut.
//!
//! A [`Segment`] is one parameter (or a run of parameters with the same settings) inside the arena. Work is cut into
//! chunks of constant size inside segments. The steps are in [`crate::optim::adam`], [`crate::optim::sgd`] and
//! [`crate::optim::adafactor`].

pub mod adafactor;
pub mod adam;
pub mod sgd;

use crate::elementwise;
use crate::{Float, KernelError, Result, check_len, map_tasks};

/// One parameter inside an arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// First element in the arena.
    pub offset: usize,
    /// Elements.
    pub len: usize,
    /// Rows, if it is a matrix; `rows * cols == len`.
    pub rows: usize,
    /// Columns, 0 if it is not a matrix.
    pub cols: usize,
    /// The learning rate is multiplied by this.
    pub lr_scale: f64,
    /// Weight decay of this parameter.
    pub weight_decay: f64,
    /// Frozen parameters are skipped: neither they nor their moments change.
    pub active: bool,
}

/// Which rows of a segment's gradient mean anything; all others are zero, whatever their memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchedRows<'a> {
    /// Elements of a row; divides the segment.
    pub width: usize,
    /// Numbers of the rows, ascending.
    pub rows: &'a [u32],
}

/// The gradients of an arena.
#[derive(Debug, Clone, Copy)]
pub struct Gradients<'a, F> {
    /// As many as the arena has elements.
    pub values: &'a [F],
    /// For each segment whose gradient is of rows, which; whole gradients where it is `None` or missing. A step gives
    /// the bits of a whole gradient with zeros in all other rows, up to the sign of zeros.
    pub touched: &'a [Option<TouchedRows<'a>>],
}

impl<'a, F, S: AsRef<[F]> + ?Sized> From<&'a S> for Gradients<'a, F> {
    fn from(values: &'a S) -> Self {
        Self { values: values.as_ref(), touched: &[] }
    }
}

impl<F: Float> Gradients<'_, F> {
    /// Fails unless there are `len` and all rows lie within their segments, which must have been checked.
    pub(crate) fn check(&self, kernel: &'static str, segments: &[Segment], len: usize) -> Result {
        check_len(kernel, "gradients", len, self.values.len())?;
        for (segment, touched) in segments.iter().zip(self.touched) {
            let Some(TouchedRows { width, rows }) = *touched else { continue };
            check_len(kernel, "touched rows", segment.len / width.max(1) * width, segment.len)?;
            let end = rows.last().map_or(0, |&last| (last as usize + 1) * width);
            check_len(kernel, "touched rows", end.min(segment.len), end)?;
        }
        Ok(())
    }

    /// The part of one segment, with its rows.
    pub(crate) fn of(&self, index: usize, segment: &Segment) -> Gradient<'_, F> {
        Gradient {
            values: &self.values[segment.offset..segment.offset + segment.len],
            touched: self.touched.get(index).copied().flatten().filter(|rows| rows.width > 0),
            start: 0,
        }
    }
}

/// The gradient of a segment or of a part of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gradient<'a, F> {
    /// Its memory.
    pub(crate) values: &'a [F],
    /// The rows that mean anything, if not all do; some may lie outside.
    touched: Option<TouchedRows<'a>>,
    /// Where it begins in its segment.
    start: usize,
}

impl<'a, F: Float> Gradient<'a, F> {
    /// Elements of a row where the gradient is of rows.
    pub(crate) fn width(&self) -> Option<usize> {
        self.touched.map(|rows| rows.width)
    }

    /// `len` elements from `first` on.
    pub(crate) fn part(&self, first: usize, len: usize) -> Gradient<'a, F> {
        let start = self.start + first;
        let touched = self.touched.map(|TouchedRows { width, rows }| {
            let begin = rows.partition_point(|&row| (row as usize + 1) * width <= start);
            let end = rows.partition_point(|&row| row as usize * width < start + len);
            TouchedRows { width, rows: &rows[begin..end.max(begin)] }
        });
        Gradient { values: &self.values[first..first + len], touched, start }
    }

    /// Calls `f(range, is_touched)` for the whole, piece after piece: rows that mean something, one by one, and what
    /// lies between.
    pub(crate) fn for_each_piece(&self, mut f: impl FnMut(std::ops::Range<usize>, bool)) {
        let len = self.values.len();
        let Some(TouchedRows { width, rows }) = self.touched else { return f(0..len, true) };
        let mut at = 0;
        for &row in rows {
            let begin = (row as usize * width).saturating_sub(self.start).min(len);
            let end = ((row as usize + 1) * width).saturating_sub(self.start).min(len);
            if begin > at {
                f(at..begin, false);
            }
            f(begin..end, true);
            at = end;
        }
        if at < len {
            f(at..len, false);
        }
    }

    /// True if nothing in it means anything, so that all of it is zero.
    pub(crate) fn is_still(&self) -> bool {
        self.touched.is_some_and(|touched| touched.rows.is_empty())
    }

    /// The gradient with zeros where it means nothing: itself, or a copy in the beginning of `room`.
    pub(crate) fn whole<'b>(&self, room: &'b mut [F]) -> &'b [F]
    where
        'a: 'b,
    {
        if self.touched.is_none() {
            return self.values;
        }
        let room = &mut room[..self.values.len()];
        self.for_each_piece(|range, is_touched| {
            if is_touched {
                room[range.clone()].copy_from_slice(&self.values[range]);
            } else {
                room[range].fill(F::ZERO);
            }
        });
        room
    }
}

/// Elements that one task updates.
pub const CHUNK: usize = 32 * 1024;

/// How segments are cut into tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Into chunks of [`CHUNK`] elements, so that sums have the same order however the gradient lies.
    Even,
    /// Where the gradient is of rows, between them.
    Rows,
}

/// Fails unless the segments ascend without overlap inside an arena of `len` elements.
pub(crate) fn check_segments(kernel: &'static str, segments: &[Segment], len: usize) -> Result {
    let mut end = 0;
    for (position, s) in segments.iter().enumerate() {
        let stop = s.offset.checked_add(s.len);
        let inside = s.offset >= end && stop.is_some_and(|stop| stop <= len);
        if !inside || (s.cols != 0 && s.rows.checked_mul(s.cols) != Some(s.len)) {
            return Err(KernelError::Index {
                kernel,
                argument: "segments (ascending, disjoint, rows * cols = len)",
                position,
                value: s.offset as i64,
                bound: len,
            });
        }
        end = s.offset + s.len;
    }
    Ok(())
}

/// The active segments' parts of a mutable arena, each with its segment's number. The segments must
/// have been checked.
pub(crate) fn split<'a, T>(segments: &[Segment], arena: &'a mut [T]) -> Vec<&'a mut [T]> {
    let (mut rest, mut at) = (arena, 0);
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments {
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(segment.offset - at);
        let (part, tail) = tail.split_at_mut(segment.len);
        parts.push(part);
        (rest, at) = (tail, segment.offset + segment.len);
    }
    parts
}

/// One task: a chunk of a segment in every arena. `m` and `v` are empty where there is none.
pub(crate) struct Part<'a, F> {
    pub(crate) segment: &'a Segment,
    pub(crate) index: usize,
    pub(crate) p: &'a mut [F],
    pub(crate) g: Gradient<'a, F>,
    pub(crate) m: &'a mut [F],
    pub(crate) v: &'a mut [F],
}

/// The tasks of the active segments. Everything must have been checked.
pub(crate) fn parts<'a, F: Float>(
    cut: Cut,
    segments: &'a [Segment],
    g: &'a Gradients<'a, F>,
    p: &'a mut [F],
    m: &'a mut [F],
    v: &'a mut [F],
) -> Vec<Part<'a, F>> {
    let (has_m, has_v) = (!m.is_empty(), !v.is_empty());
    let mut ms = if has_m { split(segments, m) } else { Vec::new() }.into_iter();
    let mut vs = if has_v { split(segments, v) } else { Vec::new() }.into_iter();
    let mut all = Vec::new();
    for (index, (segment, p)) in segments.iter().zip(split(segments, p)).enumerate() {
        let m = ms.next().unwrap_or_default();
        let v = vs.next().unwrap_or_default();
        if !segment.active {
            continue;
        }
        let g = g.of(index, segment);
        let chunk = match (cut, g.width()) {
            (Cut::Rows, Some(width)) => (CHUNK / width).max(1) * width,
            _ => CHUNK,
        };
        let (mut m, mut v) = (m.chunks_mut(chunk), v.chunks_mut(chunk));
        for (number, p) in p.chunks_mut(chunk).enumerate() {
            let (m, v) = (m.next().unwrap_or_default(), v.next().unwrap_or_default());
            all.push(Part { segment, index, g: g.part(number * chunk, p.len()), p, m, v });
        }
    }
    all
}

/// True if all elements are zero.
#[inline(always)]
pub(crate) fn is_zero<F: Float>(x: &[F]) -> bool {
    // Whole blocks, because a search that stops at each element does not vectorise.
    x.chunks(64).all(|block| block.iter().fold(true, |zero, x| zero & (*x == F::ZERO)))
}

/// Sum of the squared gradients of all active segments, in `f64`, in the order of the arena. Not
/// finite if a gradient is not.
///
/// # Errors
/// If a segment lies outside the arena.
pub fn squared_norm<F: Float>(segments: &[Segment], g: &[F]) -> Result<f64> {
    check_segments("squared_norm", segments, g.len())?;
    let active = segments.iter().filter(|s| s.active);
    let tasks = active.flat_map(|s| g[s.offset..s.offset + s.len].chunks(CHUNK)).collect();
    // A chunk's inner blocks run on the same thread pool; their order is fixed as well.
    Ok(map_tasks(tasks, |chunk| elementwise::square_sum(chunk)).into_iter().sum())
}

/// Multiplies all active segments by `factor`.
///
/// # Errors
/// If a segment lies outside the arena.
pub fn scale<F: Float>(segments: &[Segment], factor: f64, x: &mut [F]) -> Result {
    check_segments("scale", segments, x.len())?;
    for (segment, part) in segments.iter().zip(split(segments, x)) {
        if segment.active {
            elementwise::scale(F::from_f64(factor), part);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::optim::adafactor::{Adafactor, adafactor, adafactor_state_len};
    use crate::optim::adam::{Adam, adam, adamw, lamb};
    use crate::optim::sgd::{Sgd, sgd};
    use crate::testing::random;

    pub(crate) fn segment(offset: usize, len: usize) -> Segment {
        let (rows, cols, lr_scale, weight_decay) = (0, 0, 1.0, 0.1);
        Segment { offset, len, rows, cols, lr_scale, weight_decay, active: true }
    }

    #[test]
    fn norm_and_scale_see_active_segments_only() {
        let segments = [segment(0, 2), Segment { active: false, ..segment(2, 1) }, segment(3, 1)];
        let mut g = [3f32, 4.0, 100.0, 12.0];
        assert_eq!(squared_norm(&segments, &g).unwrap(), 169.0);
        scale(&segments, 0.5, &mut g).unwrap();
        assert_eq!(g, [1.5, 2.0, 100.0, 6.0]);
        g[0] = f32::NAN;
        assert!(squared_norm(&segments, &g).unwrap().is_nan());
    }

    #[test]
    fn bad_segments_are_refused() {
        let g = [0f32; 4];
        for segments in [
            [segment(0, 5), segment(5, 0)],
            [segment(0, 3), segment(2, 1)],
            [segment(0, 1), segment(usize::MAX, 2)],
            [segment(0, 1), Segment { rows: 2, cols: 2, ..segment(1, 3) }],
        ] {
            assert!(squared_norm(&segments, &g).is_err());
        }
    }

    /// A step of some optimizer on parameters and two states.
    type Step = fn(u64, &[Segment], Gradients<'_, f32>, &mut [Vec<f32>; 3]) -> Result;

    /// Every optimizer that reads rows.
    const STEPS: [(&str, Step); 7] = [
        ("adamw", |step, segments, g, [p, m, v]| adamw(adam_of(step), segments, g, p, m, v)),
        ("adam", |step, segments, g, [p, m, v]| adam(adam_of(step), segments, g, p, m, v)),
        ("lamb", |step, segments, g, [p, m, v]| lamb(adam_of(step), segments, g, p, m, v)),
        ("sgd", |step, segments, g, [p, _, _]| {
            sgd(sgd_of(step, 0.0, false), segments, g, p, &mut [])
        }),
        ("momentum", |step, segments, g, [p, m, _]| {
            sgd(sgd_of(step, 0.9, false), segments, g, p, m)
        }),
        ("nesterov", |step, segments, g, [p, m, _]| {
            sgd(sgd_of(step, 0.9, true), segments, g, p, m)
        }),
        ("adafactor", |step, segments, g, [p, m, _]| {
            let op = Adafactor { lr: 1e-2, step, grad_scale: 0.37, ..Adafactor::default() };
            let len = segments.iter().map(adafactor_state_len).sum();
            adafactor(op, segments, g, p, &mut m[..len], &mut [])
        }),
    ];

    fn adam_of(step: u64) -> Adam {
        Adam { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, step, grad_scale: 0.37 }
    }

    fn sgd_of(step: u64, momentum: f64, nesterov: bool) -> Sgd {
        Sgd { lr: 0.1, momentum, dampening: 0.0, nesterov, step, grad_scale: 0.37 }
    }

    #[test]
    fn rows_give_the_bits_of_a_whole_gradient_with_zeros() {
        // Two segments: a table of more rows than one task takes, and a whole one.
        let (width, rows) = (48, 2000);
        let len = rows * width;
        let n = len + 100;
        let touched: Vec<u32> =
            (0..rows as u32).filter(|row| row % 7 == 3 || *row == 1999).collect();
        for ((name, step), decays) in STEPS
            .into_iter()
            .flat_map(|step| [(0.01, 0.01), (0.0, 0.01), (0.01, 0.0)].map(|decays| (step, decays)))
        {
            let table = Segment { rows, cols: width, weight_decay: decays.0, ..segment(0, len) };
            let segments = [table, Segment { weight_decay: decays.1, ..segment(len, 100) }];
            let start: Vec<f32> = random(n, 1);
            let mut whole = [start, vec![0.0; n], vec![0.0; n]];
            let mut by_rows = whole.clone();
            for number in 1..=3u64 {
                // Other rows in every step, and garbage where the rows' gradient is not meant.
                let mut now: Vec<u32> =
                    touched.iter().map(|row| (row + number as u32) % rows as u32).collect();
                now.sort_unstable();
                let garbage: Vec<f32> = random(n, 10 + number);
                let mut clean = garbage.clone();
                for row in (0..rows).filter(|&row| now.binary_search(&(row as u32)).is_err()) {
                    clean[row * width..(row + 1) * width].fill(0.0);
                }
                step(number, &segments, Gradients::from(&clean), &mut whole).unwrap();
                let touched = [Some(TouchedRows { width, rows: &now }), None];
                let gradients = Gradients { values: &garbage, touched: &touched };
                step(number, &segments, gradients, &mut by_rows).unwrap();
                // Zeros may differ in sign.
                assert!(whole == by_rows, "{name} {decays:?} step {number}");
            }
        }
        let table = [Segment { rows: 2, cols: 4, ..segment(0, 8) }];
        let touched = [Some(TouchedRows { width: 4, rows: &[2] })];
        for (name, step) in STEPS {
            let mut memory = [vec![0f32; 8], vec![0f32; 8], vec![0f32; 8]];
            let beyond = Gradients { values: &[1f32; 8], touched: &touched };
            assert!(step(1, &table, beyond, &mut memory).is_err(), "{name}");
            assert_eq!(memory[0], [0.0; 8], "{name}");
        }
    }
}
