//! A right side that is packed once and used by many products.

use crate::kernels::Float;

use super::Matrix;
use super::blocked::Blocks;
use super::micro::Kernel;
use super::pack::{ALIGN_SLACK, align};

/// B [k, n] as the products read it: blocks of k, in each the panels of columns, in each panel row
/// after row. Can be shared by threads.
#[derive(Debug)]
pub struct PackedMatrix<F> {
    data: Vec<F>,
    /// Where the packed elements begin: at a cache line.
    start: usize,
    rows: usize,
    cols: usize,
    /// Columns of a panel.
    width: usize,
}

impl<F: Float> PackedMatrix<F> {
    /// Packs a matrix [k, n]; of a linear layer with the weight [outputs, inputs], the transposed
    /// weight. Takes up to 31 more columns of memory than the matrix has.
    pub fn new(b: Matrix<'_, F>) -> Self {
        let kernel = Kernel::<F>::best();
        let (width, blocks) = (kernel.cols, Blocks::new(b.rows));
        let padded = b.cols.next_multiple_of(width);
        let mut data = vec![F::ZERO; padded * b.rows + ALIGN_SLACK];
        let len = data.len();
        let mut rest = align(&mut data);
        let start = len - rest.len();
        for block in 0..blocks.count() {
            let steps = blocks.range(block);
            for first in (0..b.cols).step_by(width) {
                let (panel, after) = rest.split_at_mut(width * steps.len());
                let lines = (b.cols - first).min(width);
                let source = b.columns().from(first, steps.start);
                // SAFETY: the matrix lies within its slice; the panel has as many elements as are
                // written.
                unsafe { source.pack(kernel, lines, steps.len(), width, panel.as_mut_ptr()) };
                rest = after;
            }
        }
        Self { data, start, rows: b.rows, cols: b.cols, width }
    }

    /// Length of the sums: k.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice())
    }

    /// The packed elements.
    ///
    /// # Panics
    /// If another instruction set than now was in force when it was packed, which only tests can do.
    pub(super) fn as_ptr(&self) -> *const F {
        assert_eq!(self.width, Kernel::<F>::best().cols, "packed for another kernel");
        self.data[self.start..].as_ptr()
    }
}
