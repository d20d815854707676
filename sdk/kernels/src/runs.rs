//! Runs of tokens: the rows of a batch laid end to end, with their cumulative lengths.

use std::marker::PhantomData;
use std::ops::Range;

use crate::machine::scratch::take;
use crate::{Float, KernelError, Result, for_each_task};

/// Multiply-adds below which a kernel over runs stays on the calling thread.
const SERIAL_WORK: usize = 1 << 19;

/// The rows of each run from the cumulative lengths `starts` [B + 1]. Runs may be empty; B may be 0.
///
/// # Errors
/// If `starts` is empty, does not begin with 0, falls, or does not end with `rows`; the error names `kernel` and
/// `argument`.
pub fn run_ranges(
    kernel: &'static str,
    argument: &'static str,
    starts: &[i64],
    rows: usize,
) -> Result<Vec<Range<usize>>> {
    let expected =
        "cumulative lengths that begin with 0, never fall and end with the number of rows";
    let fail = |found: f64| Err(KernelError::Value { kernel, argument, expected, found });
    match (starts.first(), starts.last()) {
        (None, _) | (_, None) => return fail(f64::NAN),
        (Some(&first), _) if first != 0 => return fail(first as f64),
        (_, Some(&last)) if last != rows as i64 => return fail(last as f64),
        _ => {}
    }
    if let Some(pair) = starts.windows(2).find(|pair| pair[1] < pair[0]) {
        return fail(pair[1] as f64);
    }
    Ok(starts.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect())
}

/// [`for_each_task`], but on the calling thread if all tasks together have little work (in multiply-adds).
pub(crate) fn for_each_run_task<T: Send>(work: usize, tasks: Vec<T>, f: impl Fn(T) + Send + Sync) {
    if work < SERIAL_WORK {
        tasks.into_iter().for_each(f);
    } else {
        for_each_task(tasks, f);
    }
}

/// Multiply-adds of one task of [`for_each_weighed`]: some ten microseconds.
const TASK_WORK: usize = 1 << 19;

/// Calls `f` for every item, whose multiply-adds `work` tells, and the item that follows on the same thread, if one
/// is known: neighbours share tasks until these are worth a thread's while, and little work altogether stays on the
/// calling thread.
pub(crate) fn for_each_weighed<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> usize,
    f: impl Fn(&T, Option<&T>) + Send + Sync,
) {
    let mut tasks = Vec::new();
    let (mut begin, mut total, mut sum) = (0, 0usize, 0usize);
    for (i, item) in items.iter().enumerate() {
        let work = work(item);
        total = total.saturating_add(work);
        sum = sum.saturating_add(work);
        if sum >= TASK_WORK {
            tasks.push(&items[begin..=i]);
            (begin, sum) = (i + 1, 0);
        }
    }
    tasks.push(&items[begin..]);
    for_each_run_task(total, tasks, |items| {
        for (i, item) in items.iter().enumerate() {
            f(item, items.get(i + 1));
        }
    });
}

/// The rows of each run, cut from `data` [rows, cols]; the runs lie end to end and cover it.
pub(crate) fn split_runs<'a, F>(
    data: &'a mut [F],
    runs: &[Range<usize>],
    cols: usize,
) -> Vec<&'a mut [F]> {
    let mut rest = data;
    runs.iter().map(|run| take(&mut rest, run.len() * cols)).collect()
}

/// A matrix that is read, whose rows begin `stride` elements apart: a part of the columns of a wider row-major
/// matrix, such as the keys in a fused [T, 3 H] buffer.
#[derive(Debug, Clone, Copy)]
pub struct RowsView<'a, F> {
    data: &'a [F],
    stride: usize,
}

impl<'a, F: Float> RowsView<'a, F> {
    /// Element (r, c) is `data[r * stride + c]`.
    pub fn new(data: &'a [F], stride: usize) -> Self {
        Self { data, stride }
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Fails unless `rows` rows of `cols` elements lie within the data.
    pub(crate) fn check(
        &self,
        kernel: &'static str,
        argument: &'static str,
        rows: usize,
        cols: usize,
    ) -> Result {
        let expected = rows.checked_sub(1).map_or(0, |last| last * self.stride + cols);
        if self.data.len() < expected || (rows > 1 && self.stride < cols) {
            return Err(KernelError::Length { kernel, argument, expected, found: self.data.len() });
        }
        Ok(())
    }

    /// The data from element (`row`, `col`) on.
    pub(crate) fn from(&self, row: usize, col: usize) -> &'a [F] {
        &self.data[row * self.stride + col..]
    }

    /// The same matrix without the rows before `row` and the columns before `col`.
    pub(crate) fn part(&self, row: usize, col: usize) -> Self {
        Self { data: self.from(row, col), stride: self.stride }
    }

    /// The first element of `rows` x `cols`, all of which can be read through it.
    ///
    /// # Panics
    /// If there is no element or one lies outside the data.
    pub(crate) fn block(&self, rows: Range<usize>, cols: Range<usize>) -> *const F {
        assert!(!rows.is_empty() && !cols.is_empty(), "empty block");
        let start = rows.start * self.stride + cols.start;
        self.data[start..(rows.end - 1) * self.stride + cols.end].as_ptr()
    }

    /// The columns `cols` of `row`.
    #[inline(always)]
    pub(crate) fn segment(&self, row: usize, cols: Range<usize>) -> &'a [F] {
        &self.data[row * self.stride + cols.start..row * self.stride + cols.end]
    }
}

/// A matrix of which several tasks write separate segments of rows.
#[derive(Debug)]
pub(crate) struct SharedRows<'a, F> {
    data: *mut F,
    len: usize,
    stride: usize,
    offset: usize,
    marker: PhantomData<&'a mut [F]>,
}

// SAFETY: the pointer stands for an exclusive borrow of `F: Send` elements, and `segment` obliges its callers to keep
// segments apart.
unsafe impl<F: Send> Send for SharedRows<'_, F> {}
// SAFETY: as above.
unsafe impl<F: Send> Sync for SharedRows<'_, F> {}

impl<'a, F> SharedRows<'a, F> {
    /// Element (r, c) is `data[r * stride + c]`.
    pub(crate) fn new(data: &'a mut [F], stride: usize) -> Self {
        let (len, data) = (data.len(), data.as_mut_ptr());
        Self { data, len, stride, offset: 0, marker: PhantomData }
    }

    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The first element of `rows` x `cols`. Reading and writing these elements through it is sound as long as no
    /// other reference to one of them is used.
    ///
    /// # Panics
    /// If there is no element or one lies outside the matrix.
    pub(crate) fn block(&self, rows: Range<usize>, cols: Range<usize>) -> *mut F {
        assert!(!rows.is_empty() && !cols.is_empty(), "empty block");
        let start = rows.start * self.stride + self.offset + cols.start;
        let end = (rows.end - 1) * self.stride + self.offset + cols.end;
        assert!(start < end && end <= self.len, "block outside matrix");
        self.data.wrapping_add(start)
    }

    /// The same elements, with column 0 `columns` further to the right.
    pub(crate) fn shifted(&self, columns: usize) -> Self {
        Self { offset: self.offset + columns, ..*self }
    }

    /// The columns `cols` of `row`.
    ///
    /// # Panics
    /// If an element lies outside the matrix.
    ///
    /// # Safety
    /// No two segments that are alive at the same time share an element.
    #[inline(always)]
    pub(crate) unsafe fn segment(&self, row: usize, cols: Range<usize>) -> &'a mut [F] {
        let start = row * self.stride + self.offset + cols.start;
        assert!(cols.start <= cols.end && start + cols.len() <= self.len, "segment outside matrix");
        // SAFETY: within the borrowed slice by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), cols.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_runs() {
        assert_eq!(run_ranges("k", "starts", &[0, 2, 2, 5], 5).unwrap(), [0..2, 2..2, 2..5]);
        assert!(run_ranges("k", "starts", &[0], 0).unwrap().is_empty());
        for bad in [&[][..], &[1, 5], &[0, 3, 2, 5], &[0, 4]] {
            assert!(run_ranges("k", "starts", bad, 5).is_err(), "{bad:?}");
        }
        let text = run_ranges("pool", "starts", &[0, 4], 5).unwrap_err().to_string();
        assert!(text.starts_with("pool: starts must be cumulative lengths"), "{text}");
    }

    #[test]
    fn shared_rows_address_columns_of_a_wider_matrix() {
        let mut data: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let shared = SharedRows::new(&mut data, 6);
        let right = shared.shifted(3);
        // SAFETY: the segments are in different rows.
        let (a, b) = unsafe { (right.segment(0, 1..3), right.segment(1, 0..3)) };
        assert_eq!((&a[..], &b[..]), (&[4.0, 5.0][..], &[9.0, 10.0, 11.0][..]));
        let rows = RowsView::new(&data, 6);
        assert_eq!(rows.segment(1, 2..4), [8.0, 9.0]);
        assert!(rows.check("k", "x", 2, 6).is_ok() && rows.check("k", "x", 3, 1).is_err());
    }
}
