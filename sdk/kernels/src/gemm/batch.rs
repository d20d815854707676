//! Many products of one shape as one list of tasks.

use crate::machine::workers;
use crate::{Float, Result, check_len, for_each_task};

use super::{Matrix, MatrixMut, gemm, gemm_serial};

/// Multiply-adds of a task: enough to repay handing it over.
const TASK_WORK: usize = 1 << 19;

/// Matrices of one shape and one pair of strides in one slice; matrix i begins at `starts[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrices<'a, F> {
    /// Where the elements lie.
    pub data: &'a [F],
    /// The first element of each matrix.
    pub starts: &'a [usize],
    /// [rows, columns].
    pub shape: [usize; 2],
    /// Distance of rows and of columns in elements.
    pub strides: [usize; 2],
}

impl<'a, F: Float> Matrices<'a, F> {
    fn get(&self, i: usize) -> Result<Matrix<'a, F>> {
        let start = self.starts[i].min(self.data.len());
        Matrix::strided(&self.data[start..], self.shape, self.strides)
    }
}

/// C_i = A_i B_i for all i; `c` holds the results one after the other, row-major. Uses all threads
/// of the current pool when there is enough to do: for different matrices if there are many, else
/// inside each.
///
/// # Errors
/// If the shapes or numbers do not fit each other, or an element lies outside its slice.
pub fn gemm_batch<F: Float>(a: Matrices<'_, F>, b: Matrices<'_, F>, c: &mut [F]) -> Result {
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    let count = a.starts.len();
    check_len("gemm", "rows of the second matrix", k, inner)?;
    check_len("gemm", "matrices on the right", count, b.starts.len())?;
    check_len("gemm", "results", count * m * n, c.len())?;
    if c.is_empty() {
        return Ok(());
    }
    // So that the tasks cannot fail.
    for i in 0..count {
        a.get(i)?;
        b.get(i)?;
    }
    let threads = workers::count();
    if count < 2 * threads {
        for (i, c) in c.chunks_exact_mut(m * n).enumerate() {
            gemm(F::ONE, a.get(i)?, b.get(i)?, F::ZERO, &mut MatrixMut::new(c, m, n)?)?;
        }
        return Ok(());
    }
    let each = (TASK_WORK / (m * n * k).max(1)).max(count / (8 * threads)).max(1);
    for_each_task(c.chunks_mut(each * m * n).enumerate().collect(), |(task, part)| {
        for (at, c) in part.chunks_exact_mut(m * n).enumerate() {
            let i = task * each + at;
            let product = |c| -> Result {
                gemm_serial(F::ONE, a.get(i)?, b.get(i)?, F::ZERO, &mut MatrixMut::new(c, m, n)?)
            };
            product(c).expect("all matrices were checked");
        }
    });
    Ok(())
}
