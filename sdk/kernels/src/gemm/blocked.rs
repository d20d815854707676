//! Large products: blocks of k, columns and rows, packed once and shared by all threads.
//!
//! The sum over k is cut by [`Blocks`] into parts that depend on k alone and are added in ascending
//! order, so neither the number of threads nor the shape of tasks changes a bit.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;

use crate::Float;
use crate::activation::{Activation, Kept};
use crate::machine::scratch::with_scratch;
use crate::machine::workers;

use super::micro::{Kernel, Tile, Words};
use super::pack::{ALIGN_SLACK, Lines, align};

/// Most steps of k in one pass: a row tile of A then fits the first-level cache.
const K_BLOCK: usize = 384;
/// Most words of B that a task takes at one time: they fit the second-level cache. So many columns are a task's, and
/// A's tiles are read (and packed) once for them.
const TASK_WORDS: usize = 384 * K_BLOCK;
/// Elements of packed B (and of packed A) that are in work at one time.
const PACKED_LEN: usize = 1 << 20;
/// Row tiles up to which a B with contiguous rows is used where it is: so few do not repay a copy.
const DIRECT_TILES: usize = 3;
/// Steps of all lines, or panels or tiles of all steps, that are packed as one ticket.
const PACK_STEPS: usize = 32;
const PACK_UNITS: usize = 2;
/// Row tiles up to which every task packs its own columns, so that nobody waits for others.
const OWN_TILES: usize = 16;
/// Multiply-adds below which another thread is not worth waking.
const THREAD_WORK: usize = 1 << 20;
/// Multiply-adds from which on only threads of the pool work.
const POOL_WORK: usize = 1 << 25;
/// Tasks per thread, so that the last to finish is not waited for long.
const TASKS_PER_THREAD: usize = 32;

/// The cut of k: blocks of one length, the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub k: usize,
    pub step: usize,
}

impl Blocks {
    /// The cut where a word of packed lines is so many steps.
    pub(super) fn new(k: usize, word: usize) -> Self {
        let step = k.div_ceil(k.div_ceil(K_BLOCK * word).max(1)).next_multiple_of(16 * word);
        Self { k, step: step.max(1) }
    }

    pub(super) fn count(self) -> usize {
        // A product over nothing has one empty block, which scales C.
        self.k.div_ceil(self.step).max(1)
    }

    pub(super) fn range(self, block: usize) -> Range<usize> {
        (block * self.step).min(self.k)..((block + 1) * self.step).min(self.k)
    }
}

/// C = activation(alpha A B + beta C + bias).
#[derive(Clone, Copy)]
pub(super) struct Product<F> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Lines<F>,
    pub b: Lines<F>,
    pub c: *mut F,
    pub c_row: usize,
    pub alpha: F,
    pub beta: F,
    /// Whether operands of f32 are rounded to bfloat16.
    pub bf16: bool,
    /// Null for none.
    pub bias: *const F,
    pub activation: Activation,
    /// Where what the activation's backward pass needs goes, rows as far apart as `c`'s.
    pub keep: Option<Kept<*mut F, *mut bf16>>,
}

// SAFETY: the pointers are those of slices of `Send + Sync` elements, and who runs a product promises that
// they can be read, and written by it alone.
unsafe impl<F: Float> Send for Product<F> {}
// SAFETY: as above; the tasks of one product write disjoint parts.
unsafe impl<F: Float> Sync for Product<F> {}

/// How a product is cut. All counts are at least one.
struct Plan {
    blocks: Blocks,
    /// Row tiles, and how many of them a task has at most.
    tiles: usize,
    row_parts: usize,
    /// Panels of B, and column parts.
    panels: usize,
    col_parts: usize,
    /// Blocks of k that are packed at one time.
    blocks_at_once: usize,
    a: Pack,
    b: Pack,
    threads: usize,
}

/// The sides of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

/// When one side is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pack {
    /// Not at all: it is used where it is.
    Never,
    /// By every task for itself: A's tiles one by one, or B's panels, a task then having all rows.
    ByTask,
    /// Before the tasks, which share it.
    Before,
}

/// Part `part` of `parts` of 0..len, of nearly equal sizes.
fn share(len: usize, part: usize, parts: usize) -> Range<usize> {
    part * len / parts..(part + 1) * len / parts
}

impl Plan {
    fn new<F: Float>(product: &Product<F>, kernel: &Kernel<F>, threads: usize) -> Self {
        let Product { m, n, k, .. } = *product;
        let blocks = Blocks::new(k, kernel.words.steps());
        let as_they_are = kernel.words == Words::Elements;
        let (tiles, panels) = (m.div_ceil(kernel.rows), n.div_ceil(kernel.cols));
        let work = m.saturating_mul(n).saturating_mul(k);
        let threads = threads.min(work / THREAD_WORK).max(1);
        let b = match tiles {
            ..=DIRECT_TILES if as_they_are && product.b.line_stride == 1 => Pack::Never,
            ..=OWN_TILES => Pack::ByTask,
            _ => Pack::Before,
        };
        let block_words = blocks.step.div_ceil(kernel.words.steps());
        let col_parts = n.saturating_mul(block_words).div_ceil(TASK_WORDS);
        // More row parts for balance, then more column parts if there are too few rows for that.
        let wanted = if threads == 1 { 1 } else { threads * TASKS_PER_THREAD };
        let row_parts = match b {
            Pack::ByTask => 1,
            _ => wanted.div_ceil(col_parts).max(tiles.div_ceil(16)).min(tiles),
        };
        let at_least = match (threads, b) {
            (1, _) => 1,
            (_, Pack::ByTask) => wanted,
            _ => 2 * threads,
        };
        let col_parts = col_parts.max(at_least.div_ceil(row_parts)).min(panels);
        // Rows a whole number of pages apart fall on the same few places of the first-level cache.
        let page = (product.a.line_stride * size_of::<F>()).is_multiple_of(4096);
        let a = match product.a.k_stride {
            1 if as_they_are && (m == 1 || !page) => Pack::Never,
            1 if as_they_are && b != Pack::ByTask => Pack::ByTask,
            _ => Pack::Before,
        };
        let block_len = blocks.step * (panels * kernel.cols).max(tiles * kernel.a_step);
        let mut blocks_at_once = (PACKED_LEN / block_len).clamp(1, blocks.count());
        if a != Pack::Before && b != Pack::Before {
            blocks_at_once = blocks.count();
        }
        Self { blocks, tiles, row_parts, panels, col_parts, blocks_at_once, a, b, threads }
    }

    fn row_range(&self, m: usize, tile: usize) -> Range<usize> {
        share(m, tile, self.tiles)
    }
}

/// Runs a product on `threads` threads at most.
///
/// # Safety
/// All elements that the product names can be read, those of C and of what is kept written, by nobody else
/// meanwhile.
pub(super) unsafe fn run<F: Float>(product: &Product<F>, threads: usize) {
    if product.m == 0 || product.n == 0 {
        return;
    }
    let kernel = Kernel::<F>::best_for(product.bf16);
    let plan = Plan::new(product, kernel, threads);
    let steps = (plan.blocks.step * plan.blocks_at_once).div_ceil(kernel.words.steps());
    let b_len = if plan.b == Pack::Before { plan.panels * kernel.cols * steps } else { 0 };
    let a_len = if plan.a == Pack::Before { plan.tiles * kernel.a_step * steps } else { 0 };
    let work = |packed: &mut [F]| {
        let packed = align(packed);
        let (b, a) = packed.split_at_mut(b_len);
        let job = Job {
            product,
            kernel,
            plan: &plan,
            packed_b: b.as_mut_ptr(),
            packed_a: a.as_mut_ptr(),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        };
        if plan.threads == 1 {
            job.take_part();
        } else {
            // The calling thread begins at once with a product that is done soon. A long one is left
            // to the pool's threads, so that a thread from outside does not contend with them for a
            // processor.
            if product.m.saturating_mul(product.n).saturating_mul(product.k) < POOL_WORK {
                workers::in_place_scope(|scope| job.share_out(scope));
            } else {
                workers::enter(|| rayon::scope(|scope| job.share_out(scope)));
            }
        }
    };
    if a_len + b_len == 0 {
        work(&mut []);
    } else {
        with_scratch::<F, _>(a_len + b_len + ALIGN_SLACK, work);
    }
}

/// A product in work. Its tickets are, for every group of blocks of k: packing B, packing A, tasks.
/// They are handed out in order, and a ticket waits until those that it needs are done, all of which
/// are then in the hands of running threads.
struct Job<'a, F> {
    product: &'a Product<F>,
    kernel: &'a Kernel<F>,
    plan: &'a Plan,
    packed_b: *mut F,
    packed_a: *mut F,
    next: AtomicUsize,
    done: AtomicUsize,
}

// SAFETY: the buffers are written by the holder of the ticket for a part and read after it is done.
unsafe impl<F: Float> Sync for Job<'_, F> {}

impl<F: Float> Job<'_, F> {
    /// The product by this thread and others of the pool.
    fn share_out<'scope>(&'scope self, scope: &rayon::Scope<'scope>) {
        for _ in 1..self.plan.threads {
            scope.spawn(|_| self.take_part());
        }
        self.take_part();
    }

    fn take_part(&self) {
        let Plan { panels, tiles, row_parts, col_parts, blocks_at_once, .. } = *self.plan;
        let blocks = self.plan.blocks.count();
        let b_tickets = self.pack_tickets(Side::B);
        let a_tickets = self.pack_tickets(Side::A);
        let tasks = row_parts * col_parts;
        let per_group = b_tickets + a_tickets + tasks;
        let total = blocks.div_ceil(blocks_at_once) * per_group;
        loop {
            let ticket = self.next.fetch_add(1, Ordering::Relaxed);
            if ticket >= total {
                return;
            }
            let (group, ticket) = (ticket / per_group, ticket % per_group);
            let first = group * blocks_at_once;
            let group_blocks = first..blocks.min(first + blocks_at_once);
            if ticket < b_tickets + a_tickets {
                // The buffers are free once the tasks of the group before are done.
                self.wait_for(group * per_group);
                if ticket < b_tickets {
                    self.pack(Side::B, group_blocks, ticket);
                } else {
                    self.pack(Side::A, group_blocks, ticket - b_tickets);
                }
            } else {
                self.wait_for(group * per_group + b_tickets + a_tickets);
                let task = ticket - b_tickets - a_tickets;
                let cols = share(panels, task / row_parts, col_parts);
                self.task(group_blocks, share(tiles, task % row_parts, row_parts), cols);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits until `count` tickets are done. Those of one kind may finish in any order, and a ticket
    /// that needs the ones before is not begun earlier, so the count says which they are.
    fn wait_for(&self, count: usize) {
        let mut turns = 0u32;
        while self.done.load(Ordering::Acquire) < count {
            turns += 1;
            if turns.is_multiple_of(1 << 10) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Words of so many steps.
    fn words(&self, steps: usize) -> usize {
        steps.div_ceil(self.kernel.words.steps())
    }

    /// Where the panel of B begins, and the distance of its steps.
    fn panel(&self, group_start: usize, block: usize, panel: usize) -> (*const F, usize) {
        let (plan, width) = (self.plan, self.kernel.cols);
        let steps = plan.blocks.range(block);
        let padded = plan.panels * width;
        if plan.b == Pack::Before {
            let start = steps.start - plan.blocks.range(group_start).start;
            let at = self.words(start) * padded + panel * width * self.words(steps.len());
            return (self.packed_b.cast_const().wrapping_add(at), width);
        }
        let b = self.product.b;
        (b.from(panel * width, steps.start).data, b.k_stride)
    }

    /// Where the packed tile of A begins.
    fn packed_tile(&self, group_start: usize, block: usize, tile: usize) -> *const F {
        let (plan, step) = (self.plan, self.kernel.a_step);
        let steps = plan.blocks.range(block);
        let start = steps.start - plan.blocks.range(group_start).start;
        let at = self.words(start) * plan.tiles + tile * self.words(steps.len());
        self.packed_a.cast_const().wrapping_add(step * at)
    }

    /// Tickets for packing one side of a group.
    fn pack_tickets(&self, side: Side) -> usize {
        let (when, lines, units) = self.side(side);
        match when {
            Pack::Before if lines.line_stride == 1 => {
                (self.plan.blocks.step * self.plan.blocks_at_once).div_ceil(PACK_STEPS)
            }
            Pack::Before => units.div_ceil(PACK_UNITS),
            _ => 0,
        }
    }

    /// When it is packed, its lines, and how many panels or tiles it has.
    fn side(&self, side: Side) -> (Pack, Lines<F>, usize) {
        match side {
            Side::A => (self.plan.a, self.product.a, self.plan.tiles),
            Side::B => (self.plan.b, self.product.b, self.plan.panels),
        }
    }

    /// Packs the share of a ticket: some steps of all panels or tiles where neighbouring lines are
    /// neighbours in memory, some panels or tiles otherwise, so that memory is read in order.
    fn pack(&self, side: Side, blocks: Range<usize>, ticket: usize) {
        let (_, lines, units) = self.side(side);
        let start = self.plan.blocks.range(blocks.start).start;
        let (from, units) = if lines.line_stride == 1 {
            let from = start + ticket * PACK_STEPS;
            (from..from + PACK_STEPS, 0..units)
        } else {
            (
                start..self.plan.blocks.k,
                units.min(ticket * PACK_UNITS)..units.min((ticket + 1) * PACK_UNITS),
            )
        };
        for block in blocks.clone() {
            let steps = self.plan.blocks.range(block);
            let (first, end) = (steps.start.max(from.start), steps.end.min(from.end));
            let each = 16 * self.kernel.words.steps();
            for first in (first..end).step_by(each) {
                let some = first..end.min(first + each);
                for unit in units.clone() {
                    let (out, step) = match side {
                        Side::A => {
                            (self.packed_tile(blocks.start, block, unit), self.kernel.a_step)
                        }
                        Side::B => self.panel(blocks.start, block, unit),
                    };
                    let out = out.cast_mut().wrapping_add(self.words(first - steps.start) * step);
                    // SAFETY: the place belongs to the holder of this ticket.
                    unsafe { self.pack_unit(side, some.clone(), unit, out) };
                }
            }
        }
    }

    /// Packs some steps of a panel or of a tile.
    ///
    /// # Safety
    /// As many elements as that are can be written at `out`, by this thread alone.
    unsafe fn pack_unit(&self, side: Side, steps: Range<usize>, unit: usize, out: *mut F) {
        let (_, lines, _) = self.side(side);
        let (first, len, width) = match side {
            Side::B => (unit * self.kernel.cols, self.product.n, self.kernel.cols),
            // Rows of the next tile may fill up the step; nobody reads them.
            Side::A => (
                self.plan.row_range(self.product.m, unit).start,
                self.product.m,
                self.kernel.a_step,
            ),
        };
        let source = lines.from(first, steps.start);
        // SAFETY: who runs the product promises that the matrix can be read, the caller that `out`
        // can be written.
        unsafe { source.pack(self.kernel, (len - first).min(width), steps.len(), width, out) };
    }

    fn task(&self, blocks: Range<usize>, tiles: Range<usize>, panels: Range<usize>) {
        if self.plan.b != Pack::ByTask {
            return self.shared_task(blocks, tiles, panels);
        }
        let width = self.kernel.cols;
        with_scratch::<F, _>(self.words(self.plan.blocks.step) * width + ALIGN_SLACK, |buffer| {
            let packed = align(buffer).as_mut_ptr();
            for block in blocks.clone() {
                let steps = self.plan.blocks.range(block);
                for panel in panels.clone() {
                    // SAFETY: the buffer has room for a panel and is this task's own.
                    unsafe { self.pack_unit(Side::B, steps.clone(), panel, packed) };
                    for tile in tiles.clone() {
                        let a = match self.plan.a {
                            Pack::Never => self.unpacked_tile(block, tile),
                            _ => {
                                let a = self.packed_tile(blocks.start, block, tile);
                                (a, [1, self.kernel.a_step])
                            }
                        };
                        self.tile(block, tile, panel, a, (packed, width));
                    }
                }
            }
        });
        tiles.for_each(|tile| self.finish(blocks.end, tile, &panels));
    }

    fn shared_task(&self, blocks: Range<usize>, tiles: Range<usize>, panels: Range<usize>) {
        let (plan, step) = (self.plan, self.kernel.a_step);
        let room = if plan.a == Pack::ByTask { plan.blocks.step * step + ALIGN_SLACK } else { 0 };
        with_scratch::<F, _>(room, |buffer| {
            let own = align(buffer).as_mut_ptr();
            for block in blocks.clone() {
                for tile in tiles.clone() {
                    let a = match plan.a {
                        Pack::Never => self.unpacked_tile(block, tile),
                        Pack::ByTask => {
                            let steps = plan.blocks.range(block);
                            // SAFETY: the buffer has room for a tile and is this task's own.
                            unsafe { self.pack_unit(Side::A, steps, tile, own) };
                            (own.cast_const(), [1, step])
                        }
                        Pack::Before => {
                            let a = self.packed_tile(blocks.start, block, tile);
                            (a, [1, step])
                        }
                    };
                    for panel in panels.clone() {
                        let b = self.panel(blocks.start, block, panel);
                        self.tile(block, tile, panel, a, b);
                    }
                    self.finish(block + 1, tile, &panels);
                }
            }
        });
    }

    fn unpacked_tile(&self, block: usize, tile: usize) -> (*const F, [usize; 2]) {
        let rows = self.plan.row_range(self.product.m, tile);
        let a = self.product.a.from(rows.start, self.plan.blocks.range(block).start);
        (a.data, [a.line_stride, a.k_stride])
    }

    /// One tile of C: A and B with the strides of [row, k] and of k.
    fn tile(
        &self,
        block: usize,
        tile: usize,
        panel: usize,
        (a, [a_row, a_k]): (*const F, [usize; 2]),
        (b, b_k): (*const F, usize),
    ) {
        let (product, plan, kernel) = (self.product, self.plan, self.kernel);
        let steps = plan.blocks.range(block);
        let rows = plan.row_range(product.m, tile);
        let col = panel * kernel.cols;
        let has_bias = block + 1 == plan.blocks.count() && !product.bias.is_null();
        let tile = Tile {
            k: self.words(steps.len()),
            a,
            a_row,
            a_k,
            b,
            b_k,
            c: product.c.wrapping_add(rows.start * product.c_row + col),
            c_row: product.c_row,
            rows: rows.len(),
            cols: (product.n - col).min(kernel.cols),
            alpha: product.alpha,
            beta: if block == 0 { product.beta } else { F::ONE },
            bias: if has_bias { product.bias.wrapping_add(col) } else { std::ptr::null() },
        };
        // SAFETY: who runs the product promises that its matrices can be read and written; this
        // part of C belongs to the task that calls.
        unsafe { (kernel.tile)(&tile) };
    }

    /// After `blocks` blocks of k, the last of them: the activation over rows that are still in
    /// cache.
    fn finish(&self, blocks: usize, tile: usize, panels: &Range<usize>) {
        if blocks == self.plan.blocks.count() {
            let cols =
                panels.start * self.kernel.cols..self.product.n.min(panels.end * self.kernel.cols);
            self.activate(self.plan.row_range(self.product.m, tile), cols);
        }
    }

    fn activate(&self, rows: Range<usize>, cols: Range<usize>) {
        let product = self.product;
        let activation = product.activation;
        if activation == Activation::None && product.keep.is_none() {
            return;
        }
        for row in rows {
            let at = row * product.c_row + cols.start;
            // SAFETY: this part of C and of what is kept belongs to this task, and they do not overlap.
            unsafe {
                let keep = product.keep.map(|keep| {
                    keep.map(|kept| part(kept, at, cols.len()), |kept| part(kept, at, cols.len()))
                });
                activation.forward_serial(part(product.c, at, cols.len()), keep);
            }
        }
    }
}

/// `len` elements from the `at`-th on.
///
/// # Safety
/// They can be read and written, by the caller alone.
unsafe fn part<'a, T>(start: *mut T, at: usize, len: usize) -> &'a mut [T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(start.wrapping_add(at), len) }
}
