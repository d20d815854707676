use super::micro::FORCED;
use super::*;
use crate::activation::Kept;
use crate::machine::simd::{self, Level};
use crate::testing::{assert_close, assert_same_bits, random, with_one_and_three_threads};

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

/// Runs `f` with every instruction set that the machine has.
fn at_every_level(f: impl Fn(Level)) {
    for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
        if level <= simd::level() {
            FORCED.set(Some(level));
            f(level);
            FORCED.set(None);
        }
    }
}

/// Sizes that go through every edge of tiles and panels, one axis after the other.
fn odd_sizes() -> Vec<[usize; 3]> {
    let axis = |at: usize, others: [usize; 3]| {
        (1..=70).map(move |len| {
            let mut sizes = others;
            sizes[at] = len;
            sizes
        })
    };
    let mut all: Vec<_> =
        axis(0, [0, 35, 19]).chain(axis(1, [17, 0, 19])).chain(axis(2, [17, 35, 0])).collect();
    // Several blocks of k, several groups of them, more than one task.
    all.extend([[29, 70, 1100], [3, 2, 5000], [300, 530, 70]]);
    all
}

#[test]
fn every_level_and_stride_matches_naive_at_odd_sizes() {
    at_every_level(|level| {
        for [m, n, k] in odd_sizes() {
            // A, B and C as they are, transposed, and with gaps in both directions.
            for (layout_a, layout_b, layout_c) in
                [(0, 0, 0), (0, 1, 0), (1, 0, 0), (2, 2, 0), (0, 0, 1), (1, 1, 2)]
            {
                let strides = |layout: usize, rows: usize, cols: usize| match layout {
                    0 => [cols + 3, 1],
                    1 => [1, rows],
                    _ => [2 * cols + 1, 2],
                };
                let len = |[r, c]: [usize; 2], rows: usize, cols: usize| {
                    (rows - 1) * r + (cols - 1) * c + 1
                };
                let (sa, sb, sc) =
                    (strides(layout_a, m, k), strides(layout_b, k, n), strides(layout_c, m, n));
                let a: Vec<f32> = random(len(sa, m, k), 1);
                let b: Vec<f32> = random(len(sb, k, n), 2);
                let mut c = vec![f32::NAN; len(sc, m, n)];
                let left = Matrix::strided(&a, [m, k], sa).unwrap();
                let right = Matrix::strided(&b, [k, n], sb).unwrap();
                let mut result = MatrixMut::strided(&mut c, [m, n], sc).unwrap();
                gemm(1.0, left, right, 0.0, &mut result).unwrap();
                let expected = naive(
                    [m, n, k],
                    |i, p| a[i * sa[0] + p * sa[1]],
                    |p, j| b[p * sb[0] + j * sb[1]],
                );
                let found: Vec<f32> =
                    (0..m * n).map(|at| c[at / n * sc[0] + at % n * sc[1]]).collect();
                let worst = found
                    .iter()
                    .zip(&expected)
                    .map(|(x, y)| (f64::from(*x) - y).abs())
                    .fold(0.0, f64::max);
                // NaN would hide in `max`.
                assert!(found.iter().all(|x| x.is_finite()), "{level:?} {m} {n} {k}");
                assert!(
                    worst <= 1e-7 * (k as f64 + 8.0),
                    "{level:?} {m} {n} {k} {layout_a}{layout_b}{layout_c}: {worst}"
                );
                let written = found.len();
                assert_eq!(
                    c.iter().filter(|x| x.is_finite()).count(),
                    written,
                    "gaps of C were written"
                );
            }
        }
    });
}

#[test]
fn small_products_match_the_others_to_the_bit() {
    at_every_level(|_| {
        for [m, n, k] in odd_sizes() {
            if k > 512 {
                continue;
            }
            let (a, b): (Vec<f32>, Vec<f32>) = (random(m * k, 1), random(k * n, 2));
            let start: Vec<f32> = random(m * n, 3);
            for turned in [false, true] {
                let right = if turned {
                    Matrix::new(&b, n, k).unwrap().t()
                } else {
                    Matrix::new(&b, k, n).unwrap()
                };
                let left = Matrix::new(&a, m, k).unwrap();
                let mut expected = start.clone();
                gemm_serial(
                    0.5,
                    left,
                    right,
                    0.25,
                    &mut MatrixMut::new(&mut expected, m, n).unwrap(),
                )
                .unwrap();
                let mut buffer = vec![f32::NAN; packed_len::<f32>(k, n) + ALIGN_SLACK];
                let packed = align(&mut buffer);
                pack_panels(right, packed);
                let product = |b: &[f32], strides: [usize; 2]| {
                    let mut c = start.clone();
                    // SAFETY: the strides are those of the slices, which hold all elements.
                    unsafe {
                        small_raw(
                            [m, n, k],
                            0.5,
                            a.as_ptr(),
                            [k, 1],
                            b.as_ptr(),
                            strides,
                            0.25,
                            c.as_mut_ptr(),
                            n,
                        );
                    }
                    c
                };
                let width = panel_cols::<f32>();
                assert_same_bits(&product(packed, [width, k * width]), &expected);
                if !turned {
                    assert_same_bits(&product(&b, [n, width]), &expected);
                }
            }
        }
    });
}

#[test]
fn rows_do_not_depend_on_their_number() {
    let [m, n, k] = [200, 300, 700];
    let (a, b): (Vec<f32>, Vec<f32>) = (random(m * k, 1), random(k * n, 2));
    let right = Matrix::new(&b, n, k).unwrap().t();
    let mut all = vec![0f32; m * n];
    gemm(
        1.0,
        Matrix::new(&a, m, k).unwrap(),
        right,
        0.0,
        &mut MatrixMut::new(&mut all, m, n).unwrap(),
    )
    .unwrap();
    for rows in [1, 13, 60] {
        let mut some = vec![0f32; rows * n];
        let left = Matrix::new(&a, rows, k).unwrap();
        gemm(1.0, left, right, 0.0, &mut MatrixMut::new(&mut some, rows, n).unwrap()).unwrap();
        assert_same_bits(&some, &all[..rows * n]);
    }
}

#[test]
fn fused_products_match_separate_passes_to_the_bit() {
    let check = || {
        for [m, n, k] in [[1, 1, 1], [13, 96, 40], [70, 47, 1000], [200, 600, 64], [5, 8, 0]] {
            let (x, w): (Vec<f32>, Vec<f32>) = (random(m * k, 1), random(n * k, 2));
            let (bias, start): (Vec<f32>, Vec<f32>) = (random(n, 3), random(m * n, 4));
            let left = Matrix::new(&x, m, k).unwrap();
            let right = Matrix::new(&w, n, k).unwrap().t();
            for activation in
                [Activation::None, Activation::Relu, Activation::Gelu, Activation::Tanh]
            {
                for beta in [0.0, 1.0] {
                    let mut sum = start.clone();
                    gemm(1.0, left, right, beta, &mut MatrixMut::new(&mut sum, m, n).unwrap())
                        .unwrap();
                    for row in sum.chunks_exact_mut(n) {
                        row.iter_mut().zip(&bias).for_each(|(value, b)| *value += b);
                    }
                    let mut value = sum.clone();
                    activation.apply_serial(&mut value);
                    for keep in [false, true] {
                        let (mut c, mut kept) = (start.clone(), vec![f32::NAN; m * n]);
                        let epilogue = Epilogue {
                            bias: Some(&bias),
                            activation,
                            keep: keep.then_some(Kept::Input(kept.as_mut_slice())),
                        };
                        let mut result = MatrixMut::new(&mut c, m, n).unwrap();
                        gemm_fused(left, right, beta, &mut result, epilogue).unwrap();
                        assert_same_bits(&c, &value);
                        if keep {
                            assert_same_bits(&kept, &sum);
                        }
                    }
                }
            }
        }
    };
    check();
    // A level is forced on one thread, and activations are computed where the product is.
    workers::in_pool_of(1, || at_every_level(|_| check()));
}

#[test]
fn fused_products_refuse_what_does_not_fit() {
    let (x, mut c) = ([0f32; 6], [0f32; 6]);
    let (a, b) = (Matrix::new(&x, 2, 3).unwrap(), Matrix::new(&x, 3, 2).unwrap());
    let columns = &mut MatrixMut::strided(&mut c, [2, 2], [1, 2]).unwrap();
    let error = gemm_fused(a, b, 0.0, columns, Epilogue::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "gemm: result column stride must be 1 where bias or activation is applied, found 2"
    );
    let mut rows = MatrixMut::new(&mut c, 2, 2).unwrap();
    let epilogue = Epilogue { bias: Some(&x[..3]), ..Epilogue::default() };
    let error = gemm_fused(a, b, 0.0, &mut rows, epilogue).unwrap_err().to_string();
    assert_eq!(error, "gemm: bias must have 2 elements, found 3");
    assert!(gemm_fused(a, a, 0.0, &mut rows, Epilogue::default()).is_err());
}

#[test]
fn nan_and_infinity_reach_their_rows_and_columns() {
    at_every_level(|_| {
        let [m, n, k] = [20, 40, 30];
        let (mut a, mut b): (Vec<f32>, Vec<f32>) = (random(m * k, 1), random(k * n, 2));
        a[3 * k + 7] = f32::NAN;
        b[5 * n + 33] = f32::INFINITY;
        let mut c = vec![0f32; m * n];
        let (left, right) = (Matrix::new(&a, m, k).unwrap(), Matrix::new(&b, k, n).unwrap());
        gemm(1.0, left, right, 0.0, &mut MatrixMut::new(&mut c, m, n).unwrap()).unwrap();
        for (at, value) in c.iter().enumerate() {
            let (row, col) = (at / n, at % n);
            assert_eq!(value.is_nan(), row == 3, "{row} {col}");
            assert_eq!(value.is_finite(), row != 3 && col != 33, "{row} {col}");
        }
    });
}

#[test]
fn nothing_to_sum_scales_the_result() {
    for beta in [0.0, 2.0] {
        let mut c = [1f32, 2.0, 3.0, 4.0];
        let (a, b) = (Matrix::new(&[], 2, 0).unwrap(), Matrix::new(&[], 0, 2).unwrap());
        gemm(1.0, a, b, beta, &mut MatrixMut::new(&mut c, 2, 2).unwrap()).unwrap();
        assert_eq!(c, [1.0, 2.0, 3.0, 4.0].map(|value| beta * value));
    }
}

#[test]
fn many_threads_and_groups_do_not_change_bits() {
    // Both sides are packed, in several groups of blocks.
    let [m, n, k] = [600, 1100, 6000];
    let (a, b): (Vec<f32>, Vec<f32>) = (random(m * k, 1), random(k * n, 2));
    let (one, three) = with_one_and_three_threads(|| {
        let mut c = vec![1f32; m * n];
        let (left, right) = (Matrix::new(&a, k, m).unwrap().t(), Matrix::new(&b, k, n).unwrap());
        gemm(1.0, left, right, 1.0, &mut MatrixMut::new(&mut c, m, n).unwrap()).unwrap();
        c
    });
    assert_same_bits(&one, &three);
    let (i, j) = (599, 1099);
    let exact: f64 = (0..k).map(|p| f64::from(a[p * m + i]) * f64::from(b[p * n + j])).sum();
    assert!((f64::from(one[i * n + j]) - exact - 1.0).abs() < 1e-3);
}

#[test]
fn batches_match_single_products_to_the_bit() {
    for [count, m, n, k] in [[1, 5, 6, 7], [3, 4, 5, 0], [40, 7, 9, 11], [16, 70, 33, 130]] {
        // A is transposed, B is one matrix for all, C dense.
        let (a, b): (Vec<f32>, Vec<f32>) = (random(count * m * k, 1), random(k * n, 2));
        let starts: Vec<usize> = (0..count).map(|i| i * m * k).collect();
        let left = Matrices { data: &a, starts: &starts, shape: [m, k], strides: [1, m] };
        let zeros = vec![0; count];
        let right = Matrices { data: &b, starts: &zeros, shape: [k, n], strides: [n, 1] };
        let mut found = vec![f32::NAN; count * m * n];
        gemm_batch(left, right, &mut found).unwrap();
        let mut expected = vec![f32::NAN; count * m * n];
        for (i, c) in expected.chunks_exact_mut(m * n).enumerate() {
            let left = Matrix::new(&a[i * m * k..(i + 1) * m * k], k, m).unwrap().t();
            let right = Matrix::new(&b, k, n).unwrap();
            gemm_serial(1.0, left, right, 0.0, &mut MatrixMut::new(c, m, n).unwrap()).unwrap();
        }
        assert_same_bits(&found, &expected);
        let short = Matrices { data: &b[..(k * n).saturating_sub(1)], ..right };
        assert_eq!(gemm_batch(left, short, &mut found).is_err(), k > 0);
        assert!(gemm_batch(left, right, &mut found[1..]).is_err());
    }
}

/// Every instruction set of this processor, and on it the kernels without pairs of bfloat16.
fn at_levels(check: impl Fn()) {
    for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
        FORCED.set(Some(level));
        check();
    }
    FORCED.set(None);
}

fn rounded(x: &[f32]) -> Vec<f32> {
    use crate::packed::{bf16_bits, bf16_value};
    x.iter().map(|&x| bf16_value(bf16_bits(x))).collect()
}

#[test]
fn bf16_products_are_exact_products_of_rounded_operands() {
    // Odd sums, sums over several blocks, one row, few columns, more rows than one task packs for itself.
    for [m, n, k] in
        [[1, 1, 1], [5, 7, 3], [1, 33, 17], [65, 70, 129], [3, 4, 0], [30, 40, 1601], [300, 50, 90]]
    {
        let a: Vec<f32> = random(m * k, 1);
        let b: Vec<f32> = random(k * n, 2);
        let start: Vec<f32> = random(m * n, 3);
        let (ra, rb) = (rounded(&a), rounded(&b));
        for case in 0..8 {
            let (ta, tb, add) = (case & 1 == 1, case & 2 == 2, case & 4 == 4);
            let mut expected = naive(
                [m, n, k],
                |i, p| if ta { ra[p * m + i] } else { ra[i * k + p] },
                |p, j| if tb { rb[j * k + p] } else { rb[p * n + j] },
            );
            for (e, s) in expected.iter_mut().zip(&start) {
                *e += if add { f64::from(*s) } else { 0.0 };
            }
            at_levels(|| {
                let left = match ta {
                    true => Matrix::new(&a, k, m).unwrap().t(),
                    false => Matrix::new(&a, m, k).unwrap(),
                };
                let right = match tb {
                    true => Matrix::new(&b, n, k).unwrap().t(),
                    false => Matrix::new(&b, k, n).unwrap(),
                };
                let mut c = if add { start.clone() } else { vec![f32::NAN; m * n] };
                let beta = if add { 1.0 } else { 0.0 };
                let (left, right) = (left.in_bf16(true), right.in_bf16(true));
                gemm(1.0, left, right, beta, &mut MatrixMut::new(&mut c, m, n).unwrap()).unwrap();
                assert_close(&c, &expected, 1e-5);
            });
        }
    }
}

#[test]
fn bf16_products_of_matrices_with_gaps() {
    let [m, n, k] = [20, 37, 71];
    let (a, b): (Vec<f32>, Vec<f32>) = (random(m * k * 6, 1), random(k * n * 6, 2));
    let left = Matrix::strided(&a, [m, k], [3 * k, 3]).unwrap().in_bf16(true);
    let right = Matrix::strided(&b, [k, n], [2, 2 * k]).unwrap().in_bf16(true);
    let (ra, rb) = (rounded(&a), rounded(&b));
    let expected = naive([m, n, k], |i, p| ra[3 * (i * k + p)], |p, j| rb[2 * (j * k + p)]);
    at_levels(|| {
        let mut c = vec![0f32; m * n];
        gemm(1.0, left, right, 0.0, &mut MatrixMut::new(&mut c, m, n).unwrap()).unwrap();
        assert_close(&c, &expected, 1e-5);
    });
}

#[test]
fn bf16_needs_both_sides_and_leaves_f64_alone() {
    let (a, b): (Vec<f32>, Vec<f32>) = (random(12, 1), random(20, 2));
    let (x, y) = (Matrix::new(&a, 3, 4).unwrap(), Matrix::new(&b, 4, 5).unwrap());
    let product = |x: Matrix<'_, f32>, y: Matrix<'_, f32>| {
        let mut c = vec![0f32; 15];
        gemm(1.0, x, y, 0.0, &mut MatrixMut::new(&mut c, 3, 5).unwrap()).unwrap();
        c
    };
    let exact = product(x, y);
    assert_same_bits(&product(x.in_bf16(true), y), &exact);
    assert_ne!(product(x.in_bf16(true), y.in_bf16(true)), exact);
    let (a, b): (Vec<f64>, Vec<f64>) = (random(12, 1), random(20, 2));
    let (x, y) = (Matrix::new(&a, 3, 4).unwrap(), Matrix::new(&b, 4, 5).unwrap());
    let mut c = vec![0f64; 15];
    let (x, y) = (x.in_bf16(true), y.in_bf16(true));
    gemm(1.0, x, y, 0.0, &mut MatrixMut::new(&mut c, 3, 5).unwrap()).unwrap();
    assert_close(&c, &naive([3, 5, 4], |i, p| a[i * 4 + p], |p, j| b[p * 5 + j]), 1e-14);
}

#[test]
fn bf16_results_depend_neither_on_threads_nor_on_rows() {
    let [m, n, k] = [500, 260, 900];
    let (a, b): (Vec<f32>, Vec<f32>) = (random(m * k, 1), random(k * n, 2));
    let rows = |from: usize, count: usize| {
        let left = Matrix::new(&a[from * k..(from + count) * k], count, k).unwrap().in_bf16(true);
        let right = Matrix::new(&b, k, n).unwrap().in_bf16(true);
        let mut c = vec![0f32; count * n];
        gemm(1.0, left, right, 0.0, &mut MatrixMut::new(&mut c, count, n).unwrap()).unwrap();
        c
    };
    let (one, three) = with_one_and_three_threads(|| rows(0, m));
    assert_same_bits(&one, &three);
    assert_same_bits(&one[3 * n..5 * n], &rows(3, 2));
}
