//! Matrix products over slices: a bounds-checked front of the `gemm` crate, which picks its
//! instruction set at run time.
//!
//! The crate splits the rows and columns of the result among threads but never the sum over `k`, so
//! results do not depend on the number of threads.

use ::gemm::Parallelism;

use super::{Float, KernelError, Result};

/// Multiply-adds below which a product stays on the calling thread: the hand-over would cost more
/// than it saves.
const SERIAL_WORK: usize = 1 << 19;

/// A matrix that is read: element (r, c) is `data[r * row_stride + c * col_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, F> {
    data: &'a [F],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
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
        // The crate counts in `isize`.
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
        Ok(Self { data, rows, cols, row_stride, col_stride })
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
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
    let work = a.rows.saturating_mul(a.cols).saturating_mul(b.cols);
    let threads = if work < SERIAL_WORK { 1 } else { rayon::current_num_threads() };
    run(alpha, a, b, beta, c, threads)
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
    run(alpha, a, b, beta, c, 1)
}

fn run<F: Float>(
    alpha: F,
    a: Matrix<'_, F>,
    b: Matrix<'_, F>,
    beta: F,
    c: &mut MatrixMut<'_, F>,
    threads: usize,
) -> Result {
    let check = |argument, expected, found| super::check_len("gemm", argument, expected, found);
    check("rows of the second matrix", a.cols, b.rows)?;
    check("rows of the result", a.rows, c.rows)?;
    check("columns of the result", b.cols, c.cols)?;
    let parallelism = if threads <= 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    // SAFETY: the constructors checked that every element (r, c) of each matrix lies within its slice and that strides and
    // lengths fit `isize`; the shapes fit each other; C's elements are disjoint and exclusively
    // borrowed; `F` is f32 or f64 because the trait is sealed.
    unsafe {
        ::gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            c.col_stride as isize,
            c.row_stride as isize,
            beta != F::ZERO,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{
        assert_close, assert_same_bits, random, with_one_and_three_threads,
    };

    fn naive<F: Float>(
        [m, n, k]: [usize; 3],
        a: impl Fn(usize, usize) -> F,
        b: impl Fn(usize, usize) -> F,
    ) -> Vec<f64> {
        let mut out = Vec::new();
        for i in 0..m {
            for j in 0..n {
                out.push((0..k).map(|p| a(i, p).to_f64() * b(p, j).to_f64()).sum());
            }
        }
        out
    }

    #[test]
    fn products_match_naive_for_all_transpositions() {
        for [m, n, k] in [[1, 1, 1], [5, 7, 3], [1, 33, 17], [40, 1, 9], [65, 70, 129], [3, 4, 0]] {
            let a: Vec<f32> = random(m * k, 1);
            let b: Vec<f32> = random(k * n, 2);
            let start: Vec<f32> = random(m * n, 3);
            for case in 0..8 {
                let (ta, tb, add) = (case & 1 == 1, case & 2 == 2, case & 4 == 4);
                let left = if ta {
                    Matrix::new(&a, k, m).unwrap().t()
                } else {
                    Matrix::new(&a, m, k).unwrap()
                };
                let right = if tb {
                    Matrix::new(&b, n, k).unwrap().t()
                } else {
                    Matrix::new(&b, k, n).unwrap()
                };
                let mut c = start.clone();
                let beta = if add { 0.5 } else { 0.0 };
                if !add {
                    c.fill(f32::NAN);
                }
                gemm(2.0, left, right, beta, &mut MatrixMut::new(&mut c, m, n).unwrap()).unwrap();
                let mut expected = naive(
                    [m, n, k],
                    |i, p| if ta { a[p * m + i] } else { a[i * k + p] },
                    |p, j| if tb { b[j * k + p] } else { b[p * n + j] },
                );
                for (e, s) in expected.iter_mut().zip(&start) {
                    *e = 2.0 * *e + if add { 0.5 * f64::from(*s) } else { 0.0 };
                }
                assert_close(&c, &expected, 1e-5);
            }
        }
    }

    #[test]
    fn strided_result_leaves_its_gaps_alone() {
        let a: Vec<f64> = random(6, 1);
        let b: Vec<f64> = random(6, 2);
        let mut c = vec![9.0; 9];
        let mut result = MatrixMut::strided(&mut c, [2, 2], [4, 1]).unwrap();
        let (left, right) = (Matrix::new(&a, 2, 3).unwrap(), Matrix::new(&b, 3, 2).unwrap());
        gemm_serial(1.0, left, right, 0.0, &mut result).unwrap();
        let expected = naive([2, 2, 3], |i, p| a[i * 3 + p], |p, j| b[p * 2 + j]);
        assert_close(&[c[0], c[1], c[4], c[5]], &expected, 1e-14);
        assert_eq!([c[2], c[3], c[6], c[7], c[8]], [9.0; 5]);
    }

    #[test]
    fn bad_extents_and_shapes_are_refused() {
        let x = [0f32; 6];
        assert!(Matrix::new(&x, 2, 4).is_err());
        assert!(Matrix::strided(&x, [2, 3], [usize::MAX, 1]).is_err());
        let mut y = [0f32; 6];
        assert!(MatrixMut::strided(&mut y, [3, 2], [0, 1]).is_err());
        assert!(MatrixMut::strided(&mut y, [2, 3], [1, 1]).is_err());
        assert!(MatrixMut::strided(&mut y, [3, 2], [1, 3]).is_ok());
        let (a, b) = (Matrix::new(&x, 2, 3).unwrap(), Matrix::new(&x, 2, 3).unwrap());
        let mut c = MatrixMut::new(&mut y, 2, 2).unwrap();
        let text = gemm(1.0, a, b, 0.0, &mut c).unwrap_err().to_string();
        assert_eq!(text, "gemm: rows of the second matrix must have 3 elements, found 2");
    }

    #[test]
    fn threads_do_not_change_bits() {
        for [m, n, k] in [[130, 300, 520], [64, 64, 700], [1, 2000, 600], [37, 1, 40_000]] {
            let a: Vec<f32> = random(m * k, 1);
            let b: Vec<f32> = random(k * n, 2);
            let (one, three) = with_one_and_three_threads(|| {
                let mut c = vec![0f32; m * n];
                let right = Matrix::new(&b, n, k).unwrap().t();
                let mut result = MatrixMut::new(&mut c, m, n).unwrap();
                gemm(1.0, Matrix::new(&a, m, k).unwrap(), right, 0.0, &mut result).unwrap();
                c
            });
            assert_same_bits(&one, &three);
        }
    }

    /// Prints the rate of one product of BERT's shapes: `cargo test --release -- --ignored
    /// --nocapture gemm_rate`.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn gemm_rate() {
        let [m, k, n] = [1024, 384, 1536];
        let (a, b): (Vec<f32>, Vec<f32>) = (random(m * k, 1), random(k * n, 2));
        let mut c = vec![0f32; m * n];
        let mut best = f64::INFINITY;
        for _ in 0..40 {
            let right = Matrix::new(&b, n, k).unwrap().t();
            let mut result = MatrixMut::new(&mut c, m, n).unwrap();
            let start = std::time::Instant::now();
            gemm(1.0, Matrix::new(&a, m, k).unwrap(), right, 0.0, &mut result).unwrap();
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("{:.0} GFLOP/s", 2e-9 * (m * k * n) as f64 / best);
    }
}
