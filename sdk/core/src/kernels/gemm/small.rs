//! Products of a few rows on the calling thread, for kernels that pack B once and use it many times.

use crate::kernels::Float;

use super::micro::{Kernel, Tile};
use super::pack::Lines;
use super::{Matrix, MatrixMut};

/// Columns of a packed panel on this processor.
pub(crate) fn panel_cols<F: Float>() -> usize {
    Kernel::<F>::best().cols
}

/// Most rows of a tile on this processor.
pub(crate) fn tile_rows<F: Float>() -> usize {
    Kernel::<F>::best().rows
}

/// Elements that [`pack_panels`] writes for a matrix [k, n].
pub(crate) fn packed_len<F: Float>(k: usize, n: usize) -> usize {
    n.next_multiple_of(panel_cols::<F>()) * k
}

/// Packs B [k, n] of any strides: panel j holds columns `j * panel_cols` on, row after row, unspecified
/// beyond `n`. The products are fastest if `out` starts at a cache line ([`super::align`]).
///
/// # Panics
/// If `out` is shorter than [`packed_len`].
pub(crate) fn pack_panels<F: Float>(b: Matrix<'_, F>, out: &mut [F]) {
    let kernel = Kernel::<F>::best();
    let (k, width) = (b.rows, kernel.cols);
    assert!(out.len() >= packed_len::<F>(b.rows, b.cols), "too little room for packed panels");
    let lines = b.columns();
    for (first, panel) in (0..b.cols).step_by(width).zip(out.chunks_exact_mut((k * width).max(1))) {
        // SAFETY: the matrix lies within its slice; the panel has `k * width` elements of its own.
        unsafe {
            let columns = (b.cols - first).min(width);
            lines.from(first, 0).pack(kernel, columns, k, width, panel.as_mut_ptr());
        }
    }
}

/// B of [`small`]: packed panels, or rows used where they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a, F> {
    data: &'a [F],
    k: usize,
    n: usize,
    k_stride: usize,
    panel_stride: usize,
}

impl<'a, F: Float> Panels<'a, F> {
    /// What [`pack_panels`] wrote for a matrix [k, n].
    ///
    /// # Panics
    /// If `data` is shorter than [`packed_len`].
    pub(crate) fn packed(data: &'a [F], k: usize, n: usize) -> Self {
        assert!(data.len() >= packed_len::<F>(k, n), "too few elements for packed panels");
        let k_stride = panel_cols::<F>();
        Self { data, k, n, k_stride, panel_stride: k * k_stride }
    }

    /// A matrix whose rows are contiguous, unpacked: pays where few rows of A meet it.
    ///
    /// # Panics
    /// If neighbours in a row are not neighbours in memory.
    pub(crate) fn rows(b: Matrix<'a, F>) -> Self {
        assert!(b.col_stride == 1 || b.cols <= 1, "rows must be contiguous");
        let panel_stride = panel_cols::<F>();
        Self { data: b.data, k: b.rows, n: b.cols, k_stride: b.row_stride, panel_stride }
    }
}

/// C = alpha A B + beta C on the calling thread. With `beta` zero, C is not read. Each element is one
/// sum over k in ascending order.
///
/// # Panics
/// If the shapes do not fit each other or C's rows are not contiguous.
#[inline]
pub(crate) fn small<F: Float>(
    alpha: F,
    a: Matrix<'_, F>,
    b: Panels<'_, F>,
    beta: F,
    c: &mut MatrixMut<'_, F>,
) {
    assert!(a.cols == b.k && a.rows == c.rows && b.n == c.cols, "shapes of a product do not fit");
    assert!(c.col_stride == 1 || c.cols <= 1, "rows of the result must be contiguous");
    let (strides, c_row) = ([a.row_stride, a.col_stride], c.row_stride);
    let b_strides = [b.k_stride, b.panel_stride];
    // SAFETY: all matrices lie within their slices, the shapes fit, and C is borrowed exclusively.
    unsafe {
        small_raw(
            [a.rows, b.n, b.k],
            alpha,
            a.data.as_ptr(),
            strides,
            b.data.as_ptr(),
            b_strides,
            beta,
            c.data.as_mut_ptr(),
            c_row,
        );
    }
}

/// [`small`] for pointers: A [m, k] with strides [row, k]; B with the strides [k, panel], a panel
/// being [`panel_cols`] columns; C's rows are contiguous and `c_row` apart.
///
/// # Safety
/// All elements of A and B can be read (a packed B includes its padding) and those of C written, and
/// C overlaps neither.
#[allow(clippy::too_many_arguments, reason = "three matrices with their strides")]
pub(crate) unsafe fn small_raw<F: Float>(
    [m, n, k]: [usize; 3],
    alpha: F,
    a: *const F,
    [a_row, a_k]: [usize; 2],
    b: *const F,
    [b_k, b_panel]: [usize; 2],
    beta: F,
    c: *mut F,
    c_row: usize,
) {
    let kernel = Kernel::<F>::best();
    let tiles = m.div_ceil(kernel.rows);
    let mut row = 0;
    for tile in 0..tiles {
        // Rows are dealt evenly, so that no tile is much smaller than the others.
        let rows = (m - row).div_ceil(tiles - tile);
        for (panel, col) in (0..n).step_by(kernel.cols).enumerate() {
            let tile = Tile {
                k,
                a: a.wrapping_add(row * a_row),
                a_row,
                a_k,
                b: b.wrapping_add(panel * b_panel),
                b_k,
                c: c.wrapping_add(row * c_row + col),
                c_row,
                rows,
                cols: (n - col).min(kernel.cols),
                alpha,
                beta,
                bias: std::ptr::null(),
            };
            // SAFETY: the caller's promise, for a part of the matrices; `best` answers only what the
            // processor has.
            unsafe { (kernel.tile)(&tile) };
        }
        row += rows;
    }
}

/// All columns of a matrix as lines to pack.
impl<F: Float> Matrix<'_, F> {
    pub(super) fn columns(&self) -> Lines<F> {
        Lines { data: self.data.as_ptr(), line_stride: self.col_stride, k_stride: self.row_stride }
    }
}
