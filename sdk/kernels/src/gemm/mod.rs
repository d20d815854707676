//! Matrix products over slices.
//!
//! | for | use |
//! |---|---|
//! | a product of any size and strides | [`gemm`]; [`gemm_serial`] inside a task |
//! | bias and activation in the same pass | [`gemm_fused`] |
//! | a right side that is used again and again (weights in prediction) | [`crate::packed`] |
//! | many products of one shape | [`gemm_batch`] |
//! | many small products inside a task | `pack_panels` once, then `small_raw` |
//! | any of the first two with operands rounded to bfloat16 | [`Matrix::in_bf16`] of both sides |
//!
//! The instruction set (AVX-512, AVX2 with FMA, or what the target has) is chosen at run time. The
//! sum over k is never split among threads and its parts depend on k alone: results depend neither
//! on the number of threads nor on how many rows are multiplied at once.
//!
//! For small products, with NR = `panel_cols::<F>()`:
//!
//! ```text
//! pack_panels(b: Matrix [k, n], out: &mut [F])         out.len() >= packed_len::<F>(k, n)
//! small_raw([m, n, k], alpha, a, [a_row, a_k], b, [b_k, b_panel], beta, c, c_row)
//!                                                       C = alpha A B + beta C; b packed: [NR, k * NR]; not: [row stride, NR]
//! align(&mut buffer)                                    from the next cache line on; allow ALIGN_SLACK more
//! ```

use crate::activation::{Activation, KeptMut};
use crate::machine::scratch::with_scratch;
use crate::machine::workers;
use crate::{Float, KernelError, Result, check_len};

mod batch;
mod blocked;
mod micro;
mod pack;
mod small;
#[cfg(test)]
mod tests;

use blocked::Product;

pub use batch::{Matrices, gemm_batch};
#[cfg(test)]
pub(crate) use micro::FORCED;
pub(crate) use micro::level;
pub(crate) use pack::{ALIGN_SLACK, align};
pub(crate) use small::{pack_panels, packed_len, panel_cols, small_raw, tile_rows};

/// A matrix that is read: element (r, c) is `data[r * row_stride + c * col_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, F> {
    data: &'a [F],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
    bf16: bool,
}

/// A matrix that is written. No two elements share a place.
#[derive(Debug)]
pub struct MatrixMut<'a, F> {
    data: &'a mut [F],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// Fails unless all elements lie within `len`.
fn check_extent(
    argument: &'static str,
    [rows, cols]: [usize; 2],
    [row_stride, col_stride]: [usize; 2],
    len: usize,
) -> Result {
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let needed = (rows - 1)
        .checked_mul(row_stride)
        .zip((cols - 1).checked_mul(col_stride))
        .and_then(|(r, c)| r.checked_add(c))
        .and_then(|last| last.checked_add(1))
        // Pointers count in `isize`.
        .filter(|&needed| isize::try_from(needed).is_ok());
    match needed {
        Some(needed) if needed <= len => Ok(()),
        _ => Err(KernelError::Length {
            kernel: "gemm",
            argument,
            expected: needed.unwrap_or(usize::MAX),
            found: len,
        }),
    }
}

impl<'a, F: Float> Matrix<'a, F> {
    /// A row-major matrix.
    ///
    /// # Errors
    /// If `data` is shorter than `rows * cols`.
    pub fn new(data: &'a [F], rows: usize, cols: usize) -> Result<Self> {
        Self::strided(data, [rows, cols], [cols, 1])
    }

    /// A matrix of shape [rows, cols] with strides [row, column] in elements.
    ///
    /// # Errors
    /// If an element lies outside `data`.
    pub fn strided(data: &'a [F], shape: [usize; 2], strides: [usize; 2]) -> Result<Self> {
        check_extent("matrix", shape, strides, data.len())?;
        let ([rows, cols], [row_stride, col_stride]) = (shape, strides);
        Ok(Self { data, rows, cols, row_stride, col_stride, bf16: false })
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// With `bf16`, products with a matrix that has it too round elements of f32 to bfloat16 (to nearest even) and
    /// sum in f32. Elements of f64 stay as they are.
    pub fn in_bf16(self, bf16: bool) -> Self {
        Self { bf16, ..self }
    }
}

impl<'a, F: Float> MatrixMut<'a, F> {
    /// A row-major matrix.
    ///
    /// # Errors
    /// If `data` is shorter than `rows * cols`.
    pub fn new(data: &'a mut [F], rows: usize, cols: usize) -> Result<Self> {
        Self::strided(data, [rows, cols], [cols, 1])
    }

    /// A matrix of shape [rows, cols] with strides [row, column] in elements, of which one reaches
    /// over the other axis, so that no two elements share a place.
    ///
    /// # Errors
    /// If an element lies outside `data` or two elements would share a place.
    pub fn strided(data: &'a mut [F], shape: [usize; 2], strides: [usize; 2]) -> Result<Self> {
        check_extent("result", shape, strides, data.len())?;
        let ([rows, cols], [row_stride, col_stride]) = (shape, strides);
        let spans = |inner: usize, len: usize, outer: usize, outer_len: usize| {
            (len <= 1 || inner >= 1) && (outer_len <= 1 || outer > inner * len.saturating_sub(1))
        };
        let separate =
            spans(col_stride, cols, row_stride, rows) || spans(row_stride, rows, col_stride, cols);
        if !separate {
            return Err(KernelError::Value {
                kernel: "gemm",
                argument: "result row stride",
                expected: "such that no two elements of the result share a place",
                found: row_stride as f64,
            });
        }
        Ok(Self { data, rows, cols, row_stride, col_stride })
    }
}

/// What happens to a product while its elements are at hand: activation(A B + beta C + bias).
#[derive(Debug)]
pub struct Epilogue<'a, F> {
    /// One element per column.
    pub bias: Option<&'a [F]>,
    /// Applied last.
    pub activation: Activation,
    /// If given, it receives what the activation's backward pass needs. Laid out like C's slice.
    pub keep: Option<KeptMut<'a, F>>,
}

impl<F> Default for Epilogue<'_, F> {
    fn default() -> Self {
        Self { bias: None, activation: Activation::None, keep: None }
    }
}

/// C = alpha A B + beta C for A [m, k], B [k, n], C [m, n]. With `beta` zero, C is not read. Uses
/// all threads of the current pool when the product is large enough.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn gemm<F: Float>(
    alpha: F,
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    beta: F,
    c: &mut MatrixMut<'_, F>,
) -> Result {
    any_layout(alpha, a, b, beta, c, workers::count())
}

/// [`gemm`] on the calling thread: for products inside a task.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn gemm_serial<F: Float>(
    alpha: F,
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    beta: F,
    c: &mut MatrixMut<'_, F>,
) -> Result {
    any_layout(alpha, a, b, beta, c, 1)
}

/// C = activation(A B + beta C + bias) in one pass; see [`Epilogue`]. Threads as in [`gemm`].
///
/// # Errors
/// If the shapes do not fit each other, or the rows of C are not contiguous.
pub fn gemm_fused<F: Float>(
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    beta: F,
    c: &mut MatrixMut<'_, F>,
    epilogue: Epilogue<'_, F>,
) -> Result {
    check_shapes(a, b, c)?;
    if c.col_stride != 1 && c.cols > 1 {
        return Err(KernelError::Value {
            kernel: "gemm",
            argument: "result column stride",
            expected: "1 where bias or activation is applied",
            found: c.col_stride as f64,
        });
    }
    if let Some(bias) = epilogue.bias {
        check_len("gemm", "bias", c.cols, bias.len())?;
    }
    if let Some(keep) = &epilogue.keep {
        check_len("gemm", "what is kept", c.data.len(), keep.len())?;
    }
    let product = Product {
        m: c.rows,
        n: c.cols,
        k: a.cols,
        a: a.t().columns(),
        b: b.columns(),
        c: c.data.as_mut_ptr(),
        c_row: c.row_stride,
        alpha: F::ONE,
        beta,
        bf16: a.bf16 && b.bf16,
        bias: epilogue.bias.map_or(std::ptr::null(), <[F]>::as_ptr),
        activation: epilogue.activation,
        keep: epilogue.keep.map(|keep| keep.map(<[F]>::as_mut_ptr, <[_]>::as_mut_ptr)),
    };
    // SAFETY: the constructors checked that all elements lie within their slices, the shapes fit each
    // other, what is kept has C's layout, and both are borrowed exclusively.
    unsafe { blocked::run(&product, workers::count()) };
    Ok(())
}

fn check_shapes<F: Float>(a: Matrix<'_, F>, b: Matrix<'_, F>, c: &MatrixMut<'_, F>) -> Result {
    check_len("gemm", "rows of the second matrix", a.cols, b.rows)?;
    check_len("gemm", "rows of the result", a.rows, c.rows)?;
    check_len("gemm", "columns of the result", b.cols, c.cols)
}

fn any_layout<F: Float>(
    alpha: F,
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    beta: F,
    c: &mut MatrixMut<'_, F>,
    threads: usize,
) -> Result {
    check_shapes(a, b, c)?;
    let rows_contiguous = c.col_stride == 1 || c.cols <= 1;
    let cols_contiguous = c.row_stride == 1 || c.rows <= 1;
    // The transposed product gives the same bits. It serves columns that are contiguous, and columns
    // so few that they would fill vectors badly.
    let turned = cols_contiguous && (!rows_contiguous || (c.cols < 8 && c.rows > c.cols));
    if turned || rows_contiguous {
        let (a, b, shape, c_row) = if turned {
            (b.t(), a.t(), [c.cols, c.rows], c.col_stride)
        } else {
            (a, b, [c.rows, c.cols], c.row_stride)
        };
        let product = Product {
            m: shape[0],
            n: shape[1],
            k: a.cols,
            a: a.t().columns(),
            b: b.columns(),
            c: c.data.as_mut_ptr(),
            c_row,
            alpha,
            beta,
            bf16: a.bf16 && b.bf16,
            bias: std::ptr::null(),
            activation: Activation::None,
            keep: None,
        };
        // SAFETY: the constructors checked that all elements lie within their slices, the shapes fit
        // each other, and C is borrowed exclusively.
        unsafe { blocked::run(&product, threads) };
        return Ok(());
    }
    // Neither rows nor columns of C are contiguous: by way of a dense result.
    let (rows, cols) = (c.rows, c.cols);
    with_scratch::<F, _>(rows * cols, |dense| {
        any_layout(alpha, a, b, F::ZERO, &mut MatrixMut::new(dense, rows, cols)?, threads)?;
        for (i, row) in dense.chunks_exact(cols).enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let place = &mut c.data[i * c.row_stride + j * c.col_stride];
                *place = if beta == F::ZERO { value } else { value + beta * *place };
            }
        }
        Ok(())
    })
}
