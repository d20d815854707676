//! Sums, products and reductions over slices, in blocks of constant size.

use crate::machine::simd::{self, multiversion};
use crate::philox::Dropout;
use crate::{
    BLOCK_LEN, Float, Result, blocks, check_len, for_each_task, map_tasks, rows_per_block,
};

/// What a kernel does with a result that may already hold a contribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Overwrites, whatever was there.
    Write,
    /// Adds.
    Add,
}

multiversion! {
    fn add_assign_block<F: Float>(y: &mut [F], x: &[F]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    pub(crate) fn mul_assign_block<F: Float>(y: &mut [F], x: &[F]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y *= x;
        }
    }

    fn axpy_block<F: Float>(alpha: F, x: &[F], y: &mut [F]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += alpha * x;
        }
    }

    fn lerp_block<F: Float>(alpha: F, x: &[F], y: &mut [F]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += alpha * (x - *y);
        }
    }

    fn scale_block<F: Float>(alpha: F, x: &mut [F]) {
        for x in x {
            *x *= alpha;
        }
    }

    fn add_block<F: Float>(a: &[F], b: &[F], out: &mut [F]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = a + b;
        }
    }

    fn mul_block<F: Float>(a: &[F], b: &[F], out: &mut [F]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = a * b;
        }
    }

    fn zip_block<F: Float, const OP: u8>(a: &[F], b: &[F], out: &mut [F]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = match OP {
                0 => a + b,
                1 => a - b,
                2 => a * b,
                _ => a / b,
            };
        }
    }

    fn affine_block<F: Float>(scale: F, shift: F, x: &[F], out: &mut [F]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * scale + shift;
        }
    }

    fn mul_add_block<F: Float>(a: &[F], b: &[F], out: &mut [F]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out += a * b;
        }
    }

    fn sum_block<F: Float>(x: &[F]) -> f64 {
        simd::sum_by(x.len(), |i| x[i].to_f64())
    }

    fn square_sum_block<F: Float>(x: &[F]) -> f64 {
        simd::sum_by(x.len(), |i| {
            let value = x[i].to_f64();
            value * value
        })
    }

    fn dot_block<F: Float>(a: &[F], b: &[F]) -> f64 {
        let b = &b[..a.len()];
        simd::sum_by(a.len(), |i| a[i].to_f64() * b[i].to_f64())
    }

    fn dropout_block<F: Float>(dropout: Dropout, start: u64, x: &mut [F]) {
        let mut factors = [F::ZERO; 256];
        let mut at = start;
        for chunk in x.chunks_mut(256) {
            dropout.factors(at, &mut factors[..chunk.len()]);
            for (x, &factor) in chunk.iter_mut().zip(&factors) {
                *x *= factor;
            }
            at += 256;
        }
    }

    fn dropout_into_block<F: Float>(dropout: Dropout, start: u64, x: &[F], y: &mut [F]) {
        let mut at = start;
        for (x, y) in x.chunks(256).zip(y.chunks_mut(256)) {
            dropout.factors(at, y);
            for (y, &x) in y.iter_mut().zip(x) {
                *y *= x;
            }
            at += 256;
        }
    }

    fn column_sum_block<F: Float>(x: &[F], out: &mut [F]) {
        for row in x.chunks_exact(out.len()) {
            for (out, &x) in out.iter_mut().zip(row) {
                *out += x;
            }
        }
    }
}

fn pairwise<F: Float>(
    kernel: &'static str,
    x: &[F],
    y: &mut [F],
    f: impl Fn(&[F], &mut [F]) + Send + Sync,
) -> Result {
    check_len(kernel, "x", y.len(), x.len())?;
    let tasks = x.chunks(BLOCK_LEN).zip(y.chunks_mut(BLOCK_LEN)).collect();
    for_each_task(tasks, |(x, y)| f(x, y));
    Ok(())
}

fn triples<F: Float>(
    kernel: &'static str,
    a: &[F],
    b: &[F],
    out: &mut [F],
    f: impl Fn(&[F], &[F], &mut [F]) + Send + Sync,
) -> Result {
    check_len(kernel, "a", out.len(), a.len())?;
    check_len(kernel, "b", out.len(), b.len())?;
    let tasks = a.chunks(BLOCK_LEN).zip(b.chunks(BLOCK_LEN)).zip(out.chunks_mut(BLOCK_LEN));
    for_each_task(tasks.collect(), |((a, b), out)| f(a, b, out));
    Ok(())
}

/// y += x.
///
/// # Errors
/// If the lengths differ; so do all functions of this file.
pub fn add_assign<F: Float>(y: &mut [F], x: &[F]) -> Result {
    pairwise("add_assign", x, y, |x, y| add_assign_block(y, x))
}

/// y *= x.
///
/// # Errors
/// If the lengths differ.
pub fn mul_assign<F: Float>(y: &mut [F], x: &[F]) -> Result {
    pairwise("mul_assign", x, y, |x, y| mul_assign_block(y, x))
}

/// y += alpha x.
///
/// # Errors
/// If the lengths differ.
pub fn axpy<F: Float>(alpha: F, x: &[F], y: &mut [F]) -> Result {
    pairwise("axpy", x, y, |x, y| axpy_block(alpha, x, y))
}

/// y += alpha (x - y).
///
/// # Errors
/// If the lengths differ.
pub fn lerp<F: Float>(alpha: F, x: &[F], y: &mut [F]) -> Result {
    pairwise("lerp", x, y, |x, y| lerp_block(alpha, x, y))
}

/// x *= alpha.
pub fn scale<F: Float>(alpha: F, x: &mut [F]) {
    for_each_task(x.chunks_mut(BLOCK_LEN).collect(), |x| scale_block(alpha, x));
}

/// out = a + b.
///
/// # Errors
/// If the lengths differ.
pub fn add<F: Float>(a: &[F], b: &[F], out: &mut [F]) -> Result {
    triples("add", a, b, out, add_block)
}

/// out = a b.
///
/// # Errors
/// If the lengths differ.
pub fn mul<F: Float>(a: &[F], b: &[F], out: &mut [F]) -> Result {
    triples("mul", a, b, out, mul_block)
}

/// An operation of two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zip {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a b.
    Mul,
    /// a / b.
    Div,
}

/// out = a op b, where `b` may be shorter and is repeated: the rows of a matrix and one row, for instance.
///
/// # Errors
/// If `out` and `a` differ in length or `b` does not divide them.
pub fn zip<F: Float>(op: Zip, a: &[F], b: &[F], out: &mut [F]) -> Result {
    check_len("zip", "a", out.len(), a.len())?;
    check_len("zip", "b", a.len() / b.len().max(1) * b.len(), a.len())?;
    let block = |a: &[F], b: &[F], out: &mut [F]| match op {
        Zip::Add => zip_block::<F, 0>(a, b, out),
        Zip::Sub => zip_block::<F, 1>(a, b, out),
        Zip::Mul => zip_block::<F, 2>(a, b, out),
        Zip::Div => zip_block::<F, 3>(a, b, out),
    };
    if a.len() == b.len() {
        return triples("zip", a, b, out, block);
    }
    let part = rows_per_block(b.len()) * b.len().max(1);
    for_each_task(a.chunks(part).zip(out.chunks_mut(part)).collect(), |(a, out)| {
        for (a, out) in a.chunks(b.len()).zip(out.chunks_mut(b.len())) {
            block(a, b, out);
        }
    });
    Ok(())
}

/// out = x scale + shift.
///
/// # Errors
/// If the lengths differ.
pub fn affine<F: Float>(scale: F, shift: F, x: &[F], out: &mut [F]) -> Result {
    pairwise("affine", x, out, |x, out| affine_block(scale, shift, x, out))
}

/// out += a b.
///
/// # Errors
/// If the lengths differ.
pub fn mul_add_assign<F: Float>(a: &[F], b: &[F], out: &mut [F]) -> Result {
    triples("mul_add_assign", a, b, out, mul_add_block)
}

/// Sum of all elements in `f64`.
pub fn sum<F: Float>(x: &[F]) -> f64 {
    map_tasks(x.chunks(BLOCK_LEN).collect(), sum_block).into_iter().sum()
}

/// Sum of all squares in `f64`.
pub fn square_sum<F: Float>(x: &[F]) -> f64 {
    map_tasks(x.chunks(BLOCK_LEN).collect(), square_sum_block).into_iter().sum()
}

/// Inner product in `f64`.
///
/// # Errors
/// If the lengths differ.
pub fn dot<F: Float>(a: &[F], b: &[F]) -> Result<f64> {
    check_len("dot", "b", a.len(), b.len())?;
    let tasks = a.chunks(BLOCK_LEN).zip(b.chunks(BLOCK_LEN)).collect();
    Ok(map_tasks(tasks, |(a, b)| dot_block(a, b)).into_iter().sum())
}

/// x *= the factors of the dropout (0 or 1 / (1 - p)): the forward pass on values, the backward
/// pass on gradients.
pub fn dropout_assign<F: Float>(dropout: Dropout, x: &mut [F]) {
    let starts = blocks(x.len(), BLOCK_LEN);
    let tasks = starts.into_iter().zip(x.chunks_mut(BLOCK_LEN)).collect();
    for_each_task(tasks, |(range, x)| dropout_block(dropout, range.start as u64, x));
}

/// y = x times the factors of the dropout.
///
/// # Errors
/// If the lengths differ.
pub fn dropout_into<F: Float>(dropout: Dropout, x: &[F], y: &mut [F]) -> Result {
    check_len("dropout_into", "x", y.len(), x.len())?;
    let tasks = x.chunks(BLOCK_LEN).zip(y.chunks_mut(BLOCK_LEN)).enumerate().collect();
    for_each_task(tasks, |(block, (x, y))| {
        dropout_into_block(dropout, (block * BLOCK_LEN) as u64, x, y);
    });
    Ok(())
}

/// Rows whose column sums one task makes: a constant for a given number of columns.
pub(crate) fn rows_per_partial_sum(cols: usize) -> usize {
    (4 * BLOCK_LEN / cols.max(1)).max(16)
}

/// Adds the rows of `x` [rows, cols] to `out` [cols] on the calling thread, in order. `out` must
/// not be empty.
pub(crate) fn column_sum_serial<F: Float>(x: &[F], out: &mut [F]) {
    column_sum_block(x, out);
}

/// Combines partial sums in their order, in `f64`, and stores them.
pub(crate) fn store_partial_sums<F: Float>(partials: &[Vec<F>], store: Store, out: &mut [F]) {
    for (column, out) in out.iter_mut().enumerate() {
        let total: f64 = partials.iter().map(|partial| partial[column].to_f64()).sum();
        let total = F::from_f64(total);
        *out = if store == Store::Add { *out + total } else { total };
    }
}

/// Column sums of `x` [rows, cols] into `out` `[cols]`, in an order that depends on the shape only.
///
/// # Errors
/// If `x` is not a whole number of rows of `out.len()` elements.
pub fn column_sum<F: Float>(x: &[F], store: Store, out: &mut [F]) -> Result {
    let cols = out.len();
    if cols == 0 {
        return check_len("column_sum", "x", 0, x.len());
    }
    check_len("column_sum", "x", x.len() / cols * cols, x.len())?;
    let tasks = x.chunks(rows_per_partial_sum(cols) * cols).collect();
    let partials = map_tasks(tasks, |x| {
        let mut partial = vec![F::ZERO; cols];
        column_sum_block(x, &mut partial);
        partial
    });
    store_partial_sums(&partials, store, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::Counter;
    use crate::testing::{assert_close, assert_same_bits, random, with_one_and_three_threads};

    #[test]
    fn arithmetic_matches_plain_loops() {
        let n = 2 * BLOCK_LEN + 3;
        let (a, b): (Vec<f32>, Vec<f32>) = (random(n, 1), random(n, 2));
        let check = |found: &[f32], f: &dyn Fn(f32, f32) -> f32| {
            let expected: Vec<f32> = a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect();
            assert_same_bits(found, &expected);
        };
        let mut out = vec![0f32; n];
        add(&a, &b, &mut out).unwrap();
        check(&out, &|a, b| a + b);
        mul(&a, &b, &mut out).unwrap();
        check(&out, &|a, b| a * b);
        mul_add_assign(&a, &b, &mut out).unwrap();
        check(&out, &|a, b| a * b + a * b);
        out.copy_from_slice(&a);
        add_assign(&mut out, &b).unwrap();
        check(&out, &|a, b| a + b);
        axpy(2.0, &b, &mut out).unwrap();
        check(&out, &|a, b| a + b + 2.0 * b);
        out.copy_from_slice(&a);
        lerp(0.25, &b, &mut out).unwrap();
        check(&out, &|a, b| a + 0.25 * (b - a));
        out.copy_from_slice(&a);
        mul_assign(&mut out, &b).unwrap();
        scale(3.0, &mut out);
        check(&out, &|a, b| a * b * 3.0);
        assert!(add(&a, &b[1..], &mut out).is_err());
    }

    #[test]
    fn reductions_match_plain_loops_and_ignore_threads() {
        let n = 3 * BLOCK_LEN + 11;
        let (a, b): (Vec<f32>, Vec<f32>) = (random(n, 1), random(n, 2));
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (wa, wb) = (wide(&a), wide(&b));
        let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-8, "{x} {y}");
        close(sum(&a), wa.iter().sum());
        close(square_sum(&a), wa.iter().map(|v| v * v).sum());
        close(dot(&a, &b).unwrap(), wa.iter().zip(&wb).map(|(a, b)| a * b).sum());
        let (one, three) = with_one_and_three_threads(|| [sum(&a), square_sum(&a)]);
        assert_eq!(one, three);
        assert_eq!(sum::<f32>(&[]), 0.0);
    }

    #[test]
    fn column_sum_matches_and_ignores_threads() {
        let (rows, cols) = (1000, 193);
        let x: Vec<f32> = random(rows * cols, 1);
        let mut expected = vec![1.0f64; cols];
        for row in x.chunks(cols) {
            for (e, &v) in expected.iter_mut().zip(row) {
                *e += f64::from(v);
            }
        }
        let (one, three) = with_one_and_three_threads(|| {
            let mut out = vec![1f32; cols];
            column_sum(&x, Store::Add, &mut out).unwrap();
            out
        });
        assert_close(&one, &expected, 1e-4);
        assert_same_bits(&one, &three);
        assert!(column_sum(&x[1..], Store::Write, &mut vec![0.0; cols]).is_err());
        let mut none = vec![5f32; 3];
        column_sum(&[], Store::Write, &mut none).unwrap();
        assert_eq!(none, [0.0; 3]);
    }

    #[test]
    fn dropout_assign_multiplies_by_the_factors() {
        let dropout = Dropout::new(0.3, Counter::new(1, 2, 3)).unwrap();
        let mut x = vec![2f32; 2 * BLOCK_LEN + 100];
        dropout_assign(dropout, &mut x);
        let mut factors = vec![0f32; x.len()];
        dropout.write_factors(0, &mut factors);
        scale(2.0, &mut factors);
        assert_same_bits(&x, &factors);
    }
}
