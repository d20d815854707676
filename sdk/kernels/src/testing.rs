//! What the kernels' tests share.

use super::Float;
use crate::gemm::FORCED;
use crate::machine::simd::{self, Level};
use crate::machine::workers;
use crate::philox;

/// Reproducible values in [-1, 1).
pub fn random<F: Float>(len: usize, seed: u64) -> Vec<F> {
    let mut out = vec![F::ZERO; len];
    philox::fill_uniform(philox::Counter::new(seed, 99, 0), F::from_f64(-1.0), F::ONE, &mut out);
    out
}

/// Runs `f` in a pool of one thread and in a pool of three.
pub fn with_one_and_three_threads<R: Send>(f: impl Fn() -> R + Send + Sync) -> (R, R) {
    (workers::in_pool_of(1, &f), workers::in_pool_of(3, &f))
}

/// Runs `f` with every instruction set that the machine has, in products and in `by_level!` kernels of this thread.
pub fn at_every_level(f: impl Fn()) {
    for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
        if level <= simd::level() {
            FORCED.set(Some(level));
            f();
            FORCED.set(None);
        }
    }
}

/// Compares to the last bit.
pub fn assert_same_bits(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert_eq!(x.to_bits(), y.to_bits(), "element {i}: {x} and {y}");
    }
}

/// Compares with an absolute plus relative tolerance.
#[track_caller]
pub fn assert_close<F: Float>(found: &[F], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        let difference = (x.to_f64() - y).abs();
        assert!(
            difference <= tolerance * (1.0 + y.abs()),
            "element {i}: found {}, expected {y}",
            x.to_f64()
        );
    }
}

/// Central differences of the scalar function `f` at `x`.
pub fn numeric_gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut at = x.to_vec();
    (0..x.len())
        .map(|i| {
            at[i] = x[i] + step;
            let up = f(&at);
            at[i] = x[i] - step;
            let down = f(&at);
            at[i] = x[i];
            (up - down) / (2.0 * step)
        })
        .collect()
}

/// Inner product, the scalar that gradient tests differentiate.
pub fn dot<F: Float>(a: &[F], b: &[F]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x.to_f64() * y.to_f64()).sum()
}
