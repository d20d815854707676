//! Large products: blocks of k, columns and rows, packed once and shared by all threads.
//!
//! The sum over k is cut by [`Blocks`] into parts that depend on k alone and are added in ascending
//! order, so neither the number of threads nor the shape of tasks changes a bit.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kernels::Float;
use crate::kernels::activation::Activation;
use crate::kernels::scratch::with_scratch;

use super::micro::{Kernel, Tile};
use super::pack::{ALIGN_SLACK, Lines, align};

/// Most steps of k in one pass: a row tile of A then fits the first-level cache.
const K_BLOCK: usize = 512;
/// Most columns of a task: with [`K_BLOCK`] steps they fit the second-level cache.
const COLUMNS: usize = 256;
/// Elements of packed B (and of packed A) that are in work at one time.
const PACKED_LEN: usize = 1 << 22;
/// Multiply-adds below which another thread is not worth waking.
const THREAD_WORK: usize = 1 << 20;
/// Tasks per thread, so that the last to finish is not waited for long.
const TASKS_PER_THREAD: usize = 12;

/// The cut of k: blocks of one length, the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub k: usize,
    pub step: usize,
}

impl Blocks {
    pub(super) fn new(k: usize) -> Self {
        let step = k.div_ceil(k.div_ceil(K_BLOCK).max(1)).next_multiple_of(16);
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

/// B: to be packed, or packed block after block, panel after panel.
#[derive(Clone, Copy)]
pub(super) enum Right<F> {
    Lines(Lines<F>),
    Packed(*const F),
}

/// C = activation(alpha A B + beta C + bias); the value before the activation stays in C if `y` is
/// given, which then receives the activation's.
#[derive(Clone, Copy)]
pub(super) struct Product<F> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Lines<F>,
    pub b: Right<F>,
    pub c: *mut F,
    pub c_row: usize,
    pub alpha: F,
    pub beta: F,
    /// Null for none.
    pub bias: *const F,
    pub activation: Activation,
    /// Rows as far apart as `c`'s; null for none.
    pub y: *mut F,
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
    pack_a: bool,
    /// B is used where it is.
    direct_b: bool,
    threads: usize,
}

/// Part `part` of `parts` of 0..len, of nearly equal sizes.
fn share(len: usize, part: usize, parts: usize) -> Range<usize> {
    part * len / parts..(part + 1) * len / parts
}

impl Plan {
    fn new<F: Float>(product: &Product<F>, kernel: &Kernel<F>, threads: usize) -> Self {
        let Product { m, n, k, .. } = *product;
        let blocks = Blocks::new(k);
        let (tiles, panels) = (m.div_ceil(kernel.rows), n.div_ceil(kernel.cols));
        let work = m.saturating_mul(n).saturating_mul(k);
        let threads = threads.min(work / THREAD_WORK).max(1);
        let col_parts = n.div_ceil(COLUMNS);
        // More row parts for balance, then more column parts if there are too few rows for that.
        let wanted = if threads == 1 { 1 } else { threads * TASKS_PER_THREAD };
        let row_parts = wanted.div_ceil(col_parts).max(tiles.div_ceil(16)).min(tiles);
        let at_least = if threads == 1 { 1 } else { 2 * threads };
        let col_parts = col_parts.max(at_least.div_ceil(row_parts)).min(panels);
        // Rows a power of two apart fall on the same few places of a cache.
        let pack_a = product.a.k_stride != 1
            || (m > 1 && (product.a.line_stride * size_of::<F>()).is_multiple_of(2048));
        // A few row tiles do not repay copying B.
        let direct_b = match product.b {
            Right::Lines(b) => b.line_stride == 1 && tiles <= 3,
            Right::Packed(_) => false,
        };
        let block_len = blocks.step * (panels * kernel.cols).max(tiles * kernel.a_step);
        let mut blocks_at_once = (PACKED_LEN / block_len).clamp(1, blocks.count());
        if !pack_a && (direct_b || matches!(product.b, Right::Packed(_))) {
            blocks_at_once = blocks.count();
        }
        Self {
            blocks,
            tiles,
            row_parts,
            panels,
            col_parts,
            blocks_at_once,
            pack_a,
            direct_b,
            threads,
        }
    }

    fn row_range(&self, m: usize, tile: usize) -> Range<usize> {
        share(m, tile, self.tiles)
    }
}

/// Runs a product on `threads` threads at most.
///
/// # Safety
/// All elements that the product names can be read, those of C and y written, by nobody else
/// meanwhile; a packed B was packed by the kernel that is the best now.
pub(super) unsafe fn run<F: Float>(product: &Product<F>, threads: usize) {
    if product.m == 0 || product.n == 0 {
        return;
    }
    let kernel = Kernel::<F>::best();
    let plan = Plan::new(product, kernel, threads);
    let steps = plan.blocks.step * plan.blocks_at_once;
    let b_len = match product.b {
        Right::Lines(_) if !plan.direct_b => plan.panels * kernel.cols * steps,
        _ => 0,
    };
    let a_len = if plan.pack_a { plan.tiles * kernel.a_step * steps } else { 0 };
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
            rayon::in_place_scope(|scope| {
                for _ in 1..plan.threads {
                    scope.spawn(|_| job.take_part());
                }
                job.take_part();
            });
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
    fn take_part(&self) {
        let Plan { panels, tiles, row_parts, col_parts, blocks_at_once, .. } = *self.plan;
        let blocks = self.plan.blocks.count();
        let packs_b = matches!(self.product.b, Right::Lines(_)) && !self.plan.direct_b;
        // Four panels or eight tiles of all blocks of the group: some ten thousand elements.
        let b_tickets = if packs_b { panels.div_ceil(4) } else { 0 };
        let a_tickets = if self.plan.pack_a { tiles.div_ceil(8) } else { 0 };
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
                    self.pack_b(group_blocks, 4 * ticket..panels.min(4 * ticket + 4));
                } else {
                    let ticket = ticket - b_tickets;
                    self.pack_a(group_blocks, 8 * ticket..tiles.min(8 * ticket + 8));
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

    /// Where the packed panel of B begins, and the distance of its steps.
    fn panel(&self, group_start: usize, block: usize, panel: usize) -> (*const F, usize) {
        let (plan, width) = (self.plan, self.kernel.cols);
        let steps = plan.blocks.range(block);
        let padded = plan.panels * width;
        match self.product.b {
            Right::Packed(b) => {
                (b.wrapping_add(steps.start * padded + panel * width * steps.len()), width)
            }
            Right::Lines(b) if plan.direct_b => {
                (b.from(panel * width, steps.start).data, b.k_stride)
            }
            Right::Lines(_) => {
                let start = steps.start - plan.blocks.range(group_start).start;
                let at = start * padded + panel * width * steps.len();
                (self.packed_b.cast_const().wrapping_add(at), width)
            }
        }
    }

    fn pack_b(&self, blocks: Range<usize>, panels: Range<usize>) {
        let Right::Lines(b) = self.product.b else { return };
        let width = self.kernel.cols;
        for block in blocks.clone() {
            let steps = self.plan.blocks.range(block);
            for panel in panels.clone() {
                let (out, _) = self.panel(blocks.start, block, panel);
                let lines = (self.product.n - panel * width).min(width);
                let source = b.from(panel * width, steps.start);
                // SAFETY: who runs the product promises that B can be read; the panel's place
                // belongs to the holder of this ticket.
                unsafe { source.pack(self.kernel, lines, steps.len(), width, out.cast_mut()) };
            }
        }
    }

    /// Where the packed tile of A begins.
    fn packed_tile(&self, group_start: usize, block: usize, tile: usize) -> *mut F {
        let (plan, step) = (self.plan, self.kernel.a_step);
        let steps = plan.blocks.range(block);
        let start = steps.start - plan.blocks.range(group_start).start;
        self.packed_a.wrapping_add(step * (start * plan.tiles + tile * steps.len()))
    }

    fn pack_a(&self, blocks: Range<usize>, tiles: Range<usize>) {
        for block in blocks.clone() {
            let steps = self.plan.blocks.range(block);
            for first in steps.clone().step_by(16) {
                // Some steps of all tiles, so that neighbouring rows share what was read.
                let len = (steps.end - first).min(16);
                for tile in tiles.clone() {
                    let rows = self.plan.row_range(self.product.m, tile);
                    let out = self.packed_tile(blocks.start, block, tile);
                    let out = out.wrapping_add((first - steps.start) * self.kernel.a_step);
                    // Rows of the next tile may fill up the step; nobody reads them.
                    let lines = (self.product.m - rows.start).min(self.kernel.a_step);
                    let source = self.product.a.from(rows.start, first);
                    // SAFETY: who runs the product promises that A can be read; the tile's place
                    // belongs to the holder of this ticket.
                    unsafe { source.pack(self.kernel, lines, len, self.kernel.a_step, out) };
                }
            }
        }
    }

    fn task(&self, blocks: Range<usize>, tiles: Range<usize>, panels: Range<usize>) {
        let (product, plan, kernel) = (self.product, self.plan, self.kernel);
        for block in blocks.clone() {
            let steps = plan.blocks.range(block);
            let last = block + 1 == plan.blocks.count();
            for tile in tiles.clone() {
                let rows = plan.row_range(product.m, tile);
                let (a, a_row, a_k) = if plan.pack_a {
                    let a = self.packed_tile(blocks.start, block, tile).cast_const();
                    (a, 1, kernel.a_step)
                } else {
                    let a = product.a.from(rows.start, steps.start);
                    (a.data, a.line_stride, a.k_stride)
                };
                for panel in panels.clone() {
                    let col = panel * kernel.cols;
                    let (b, b_k) = self.panel(blocks.start, block, panel);
                    let bias = product.bias;
                    let tile = Tile {
                        k: steps.len(),
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
                        bias: if last && !bias.is_null() {
                            bias.wrapping_add(col)
                        } else {
                            std::ptr::null()
                        },
                    };
                    // SAFETY: who runs the product promises that its matrices can be read and
                    // written; this part of C belongs to this task.
                    unsafe { (kernel.tile)(&tile) };
                }
                if last {
                    let cols = panels.start * kernel.cols..product.n.min(panels.end * kernel.cols);
                    self.activate(rows, cols);
                }
            }
        }
    }

    /// The activation over finished rows, which are still in cache.
    fn activate(&self, rows: Range<usize>, cols: Range<usize>) {
        let product = self.product;
        if product.activation == Activation::None && product.y.is_null() {
            return;
        }
        for row in rows {
            let at = row * product.c_row + cols.start;
            // SAFETY: this part of C and of y belongs to this task, and they do not overlap.
            unsafe {
                let c = product.c.wrapping_add(at);
                let y = if product.y.is_null() {
                    c
                } else {
                    let y = product.y.wrapping_add(at);
                    y.copy_from_nonoverlapping(c, cols.len());
                    y
                };
                let y = std::slice::from_raw_parts_mut(y, cols.len());
                product.activation.apply_serial(y);
            }
        }
    }
}
