//! Products of a few rows on the calling thread, for kernels that pack B once and use it many times.

use crate::Float;

use super::Matrix;
use super::micro::{Kernel, Tile};
use super::pack::Lines;

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

/// C = alpha A B + beta C on the calling thread. With `beta` zero, C is not read. A [m, k] has the
/// strides [row, k]. B has the strides [k, panel], a panel being [`panel_cols`] columns: [panel_cols, k *
/// panel_cols] if [`pack_panels`] wrote it, [row stride, panel_cols] for contiguous rows used where
/// they are, which pays where few rows of A meet it. C's rows are contiguous and `c_row` apart. Each
/// element is one sum over k in ascending order.
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
