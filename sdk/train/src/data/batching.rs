//! Which rows go into which batch. A batch is a run of tokens without padding, so its cost is the sum of its rows'
//! lengths; rows of like length are put together all the same, because attention works best on even runs and the
//! convolutional models do pad.

use std::collections::BTreeMap;

use crate::data::counted::Counted;

/// How to make batches.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOptions {
    /// The most tokens in a batch. A single longer row gets a batch of its own.
    pub max_tokens: u32,
    /// The most rows in a batch; 0 means no limit.
    pub max_rows: u32,
    /// How many rows, in shuffled order, are sorted by length together; 0 and 1 mean no sorting. A few dozen batches'
    /// worth keeps batches even and still random.
    pub window: u32,
    /// The run's seed.
    pub seed: u64,
    /// The epoch, counted from 0; each has another order.
    pub epoch: u64,
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions { max_tokens: 4096, max_rows: 0, window: 4096, seed: 0, epoch: 0 }
    }
}

/// The rows of one epoch of training in shuffled order, cut into windows whose batches depend on nothing outside of
/// them. So a window's features can be made when its turn comes, and a run can go on from any batch without looking
/// at those before.
///
/// Within a window, rows are sorted by length and packed up to the limits, and the batches are shuffled. Every row is
/// in exactly one batch, and all of it depends on the arguments only. At most `u32::MAX` rows; more are refused by
/// whoever reads them.
#[derive(Debug)]
pub struct Epoch {
    order: Vec<u32>,
    options: BatchOptions,
    /// Number of batches before each window, and at the end the number of all.
    before: Vec<usize>,
}

/// Rows of a window without sorting: as many as the default sorts.
const UNSORTED_WINDOW: usize = 2048;

/// Rows of a window: whole batches, so that a limit of rows leaves one incomplete batch per epoch at most.
fn window_len(options: &BatchOptions) -> usize {
    let window = match options.window {
        0 | 1 => UNSORTED_WINDOW,
        window => window as usize,
    };
    match options.max_rows as usize {
        0 => window,
        rows => window.next_multiple_of(rows),
    }
}

/// Whether the number of batches depends on more than the number of rows, when no row has more than `longest` tokens
/// (0 when that is not known).
pub fn needs_lengths(options: &BatchOptions, longest: u32) -> bool {
    let fullest = u64::from(options.max_rows) * u64::from(longest);
    fullest == 0 || fullest > u64::from(options.max_tokens)
}

impl Epoch {
    /// Shuffles `rows` rows. `lengths` are their lengths in tokens; none are needed when only the number of rows
    /// limits a batch ([`needs_lengths`]).
    pub fn new(rows: usize, lengths: Option<&[u32]>, options: &BatchOptions) -> Epoch {
        let mut order: Vec<u32> = (0..u32::try_from(rows).unwrap_or(u32::MAX)).collect();
        Counted::new(options.seed, options.epoch << 32).shuffle(&mut order);
        let mut before = vec![0];
        for window in order.chunks(window_len(options)) {
            let count = match lengths {
                Some(lengths) => {
                    let lengths: Vec<u32> =
                        window.iter().map(|&row| lengths[row as usize]).collect();
                    pack_window(&lengths, options).len()
                }
                None => window.len().div_ceil((options.max_rows as usize).max(1)),
            };
            before.push(before[before.len() - 1] + count);
        }
        Epoch { order, options: options.clone(), before }
    }

    /// Number of batches.
    pub fn batches(&self) -> usize {
        self.before[self.before.len() - 1]
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.before.len() - 1
    }

    /// The rows of a window.
    pub fn window(&self, index: usize) -> &[u32] {
        let len = window_len(&self.options);
        &self.order[index * len..self.order.len().min((index + 1) * len)]
    }

    /// The window that holds a batch, and the batch's place in it. For the number of all batches, the place behind
    /// the last window.
    pub fn place(&self, batch: usize) -> (usize, usize) {
        let window = self.before.partition_point(|&before| before <= batch) - 1;
        (window, batch - self.before[window])
    }

    /// The batches of a window, as places in [`Epoch::window`], from the lengths of its rows. Errors: there are
    /// others than were counted without lengths, as (expected, found).
    pub fn pack(
        &self,
        index: usize,
        lengths: &[u32],
    ) -> std::result::Result<Vec<Vec<u32>>, (usize, usize)> {
        let mut batches = pack_window(lengths, &self.options);
        let expected = self.before[index + 1] - self.before[index];
        if batches.len() != expected {
            return Err((expected, batches.len()));
        }
        // Stream 0 of an epoch is its order.
        let stream = (self.options.epoch << 32) | (index as u64 + 1);
        Counted::new(self.options.seed, stream).shuffle(&mut batches);
        Ok(batches)
    }
}

fn pack_window(lengths: &[u32], options: &BatchOptions) -> Vec<Vec<u32>> {
    let window = if options.window > 1 { u32::MAX } else { 0 };
    plan_sequential(lengths, &BatchOptions { window, ..options.clone() })
}

/// The batches for evaluation and prediction: windows in file order, sorted by length inside, longest first, so that
/// the most memory is taken at the start. [`Reorder`] brings the results back into file order.
pub fn plan_sequential(lengths: &[u32], options: &BatchOptions) -> Vec<Vec<u32>> {
    let rows: Vec<u32> = (0..u32::try_from(lengths.len()).unwrap_or(u32::MAX)).collect();
    pack(rows, lengths, options)
}

fn pack(mut rows: Vec<u32>, lengths: &[u32], options: &BatchOptions) -> Vec<Vec<u32>> {
    let length = |row: u32| lengths[row as usize].max(1);
    let budget = u64::from(options.max_tokens.max(1));
    let max_rows = if options.max_rows == 0 { usize::MAX } else { options.max_rows as usize };
    let window = (options.window.max(1) as usize).min(rows.len().max(1));
    let mut batches = Vec::new();
    for rows in rows.chunks_mut(window) {
        // A stable sort keeps rows of one length in their shuffled order.
        if options.window > 1 {
            rows.sort_by_key(|&row| std::cmp::Reverse(length(row)));
        }
    }
    // Batches may cross a window's end, so that there is one incomplete batch at most, not one per window.
    let mut batch: Vec<u32> = Vec::new();
    let mut tokens = 0u64;
    for row in rows {
        let cost = u64::from(length(row));
        if !batch.is_empty() && (tokens + cost > budget || batch.len() >= max_rows) {
            batches.push(std::mem::take(&mut batch));
            tokens = 0;
        }
        batch.push(row);
        tokens += cost;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Returns items in the order of their indices, holding back those that came early.
#[derive(Debug)]
pub struct Reorder<T> {
    next: u32,
    waiting: BTreeMap<u32, T>,
}

impl<T> Default for Reorder<T> {
    fn default() -> Reorder<T> {
        Reorder { next: 0, waiting: BTreeMap::new() }
    }
}

impl<T> Reorder<T> {
    /// Takes the item of row `index`; an item of the same index that still waits is replaced.
    pub fn push(&mut self, index: u32, item: T) {
        self.waiting.insert(index, item);
    }

    /// The next item in order, if it has arrived.
    pub fn pop(&mut self) -> Option<T> {
        let item = self.waiting.remove(&self.next)?;
        self.next = self.next.saturating_add(1);
        Some(item)
    }

    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(count: usize) -> Vec<u32> {
        let mut random = Counted::new(1, 2);
        (0..count).map(|_| 1 + random.below(60) as u32).collect()
    }

    fn options() -> BatchOptions {
        BatchOptions { max_tokens: 200, max_rows: 16, window: 100, seed: 3, epoch: 0 }
    }

    fn check_cover(batches: &[Vec<u32>], count: usize) {
        let mut rows: Vec<u32> = batches.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..count as u32).collect::<Vec<_>>());
    }

    /// All batches of an epoch, as rows.
    fn batches(lengths: &[u32], options: &BatchOptions) -> Vec<Vec<u32>> {
        let epoch = Epoch::new(lengths.len(), Some(lengths), options);
        let mut all = Vec::new();
        for index in 0..epoch.windows() {
            assert_eq!(epoch.place(all.len()), (index, 0));
            let window = epoch.window(index);
            let of: Vec<u32> = window.iter().map(|&row| lengths[row as usize]).collect();
            for batch in epoch.pack(index, &of).unwrap() {
                all.push(batch.iter().map(|&place| window[place as usize]).collect());
            }
        }
        assert_eq!(all.len(), epoch.batches());
        assert_eq!(epoch.place(all.len()), (epoch.windows(), 0));
        all
    }

    #[test]
    fn each_row_once_within_the_budget() {
        let lengths = lengths(1000);
        let batches = batches(&lengths, &options());
        check_cover(&batches, 1000);
        for batch in &batches {
            let tokens: u32 = batch.iter().map(|&row| lengths[row as usize]).sum();
            assert!(tokens <= 200 && batch.len() <= 16);
        }
        let total: u32 = lengths.iter().sum();
        // Packed, not merely legal: on average a batch is at least three quarters full.
        assert!((batches.len() as u32) < total / 150 + 10, "{}", batches.len());
    }

    #[test]
    fn rows_alone_limit_batches_without_lengths() {
        let lengths = lengths(1000);
        for (rows, window) in [(16, 100), (48, 2048), (7, 0), (1000, 10)] {
            let options =
                BatchOptions { max_tokens: rows * 60, max_rows: rows, window, ..options() };
            assert!(!needs_lengths(&options, 60) && needs_lengths(&options, 61));
            let blind = Epoch::new(1000, None, &options);
            let seeing = Epoch::new(1000, Some(&lengths), &options);
            assert_eq!((&blind.order, &blind.before), (&seeing.order, &seeing.before));
            assert_eq!(blind.batches(), 1000usize.div_ceil(rows as usize));
        }
        let unlimited = BatchOptions { max_rows: 0, ..options() };
        assert!(needs_lengths(&unlimited, 1) && needs_lengths(&options(), 0));
        // Rows that are longer than was said are noticed.
        let options = BatchOptions { max_tokens: 32, max_rows: 16, ..options() };
        let error = Epoch::new(16, None, &options).pack(0, &[3; 16]).unwrap_err();
        assert_eq!(error, (1, 2));
    }

    #[test]
    fn epoch_depends_on_seed_and_number_only() {
        let lengths = lengths(500);
        let plan = |seed, epoch| batches(&lengths, &BatchOptions { seed, epoch, ..options() });
        assert_eq!(plan(1, 1), plan(1, 1));
        assert_ne!(plan(1, 1), plan(1, 2));
        assert_ne!(plan(1, 1), plan(2, 1));
    }

    #[test]
    fn over_long_row_is_alone_and_empty_rows_count_one() {
        let batches = batches(&[5, 900, 5, 0, 0], &BatchOptions { max_tokens: 11, ..options() });
        check_cover(&batches, 5);
        assert!(batches.contains(&vec![1]));
        assert_eq!(Epoch::new(0, Some(&[]), &options()).batches(), 0);
        let zeros = plan_sequential(&[0; 5], &BatchOptions { max_tokens: 2, ..options() });
        assert_eq!(zeros.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn windows_make_batches_even() {
        let lengths = lengths(2000);
        let spread = |window| -> u32 {
            let batches = batches(&lengths, &BatchOptions { window, ..options() });
            let spread = batches.iter().map(|batch| {
                let of = |row: &u32| lengths[*row as usize];
                batch.iter().map(of).max().unwrap() - batch.iter().map(of).min().unwrap()
            });
            spread.sum()
        };
        assert!(spread(500) * 5 < spread(0));
    }

    #[test]
    fn sequential_plan_restores_file_order() {
        let lengths = lengths(300);
        let batches = plan_sequential(&lengths, &BatchOptions { window: 64, ..options() });
        check_cover(&batches, 300);
        let mut order = Reorder::default();
        let mut restored = Vec::new();
        for row in batches.concat() {
            order.push(row, row);
            while let Some(row) = order.pop() {
                restored.push(row);
            }
        }
        assert!(order.is_empty());
        assert_eq!(restored, (0..300).collect::<Vec<_>>());
    }
}
