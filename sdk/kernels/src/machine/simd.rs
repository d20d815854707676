//! Compiling one generic body for several instruction sets and choosing among them once, at run
//! time.
//!
//! The bodies are plain loops that LLVM vectorises. No body uses fused multiply-add or reassociates
//! a sum, so all levels give the same bits and a machine without AVX-512 reproduces the results of
//! one with it (matrix products excepted).

use std::sync::OnceLock;

use crate::Float;

/// Instruction sets for which kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the target has.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// The best level of this processor, found on the first call.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
    let avx512 = std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512dq")
        && std::is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Defines functions whose bodies are compiled for every [`Level`] and called through [`level`].
///
/// Everything that a body calls in its inner loops must be `#[inline(always)]`, or it is compiled
/// for the baseline.
macro_rules! multiversion {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$generic:ident: $bound:ident $(, const $constant:ident: $kind:ty)*>)?
            ($($argument:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
        $vis fn $name $(<$generic: $bound $(, const $constant: $kind)*>)? ($($argument: $type),*) $(-> $ret)? {
            #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
            #[inline(always)]
            fn body $(<$generic: $bound $(, const $constant: $kind)*>)? ($($argument: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$generic: $bound $(, const $constant: $kind)*>)? ($($argument: $type),*) $(-> $ret)? {
                    body $(::<$generic $(, $constant)*>)? ($($argument),*)
                }
                #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512 $(<$generic: $bound $(, const $constant: $kind)*>)? ($($argument: $type),*) $(-> $ret)? {
                    body $(::<$generic $(, $constant)*>)? ($($argument),*)
                }
                match $crate::machine::simd::level() {
                    $crate::machine::simd::Level::Avx512 => {
                        // SAFETY: `level` found all enabled features on this processor.
                        return unsafe { avx512 $(::<$generic $(, $constant)*>)? ($($argument),*) };
                    }
                    $crate::machine::simd::Level::Avx2 => {
                        // SAFETY: `level` found all enabled features on this processor.
                        return unsafe { avx2 $(::<$generic $(, $constant)*>)? ($($argument),*) };
                    }
                    $crate::machine::simd::Level::Baseline => {}
                }
            }
            body $(::<$generic $(, $constant)*>)? ($($argument),*)
        }
    )+};
}
pub(crate) use multiversion;

/// Lanes of the reductions below: a constant, so that all levels add in the same order.
pub const LANES: usize = 16;

/// Sum of `term(i)` for `i` in `0..len` over 16 lanes, then pairwise: the same order at every
/// level.
#[inline(always)]
pub fn sum_by<F: Float>(len: usize, term: impl Fn(usize) -> F) -> F {
    let mut lanes = [F::ZERO; LANES];
    let whole = len / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(start + lane);
        }
        start += LANES;
    }
    for (lane, i) in (whole..len).enumerate() {
        lanes[lane] += term(i);
    }
    reduce(lanes, |a, b| a + b)
}

/// Largest of the values (NaN if one is NaN, negative infinity if there are none).
#[inline(always)]
pub fn max<F: Float>(x: &[F]) -> F {
    // A NaN replaces the lane and stays: `a > NaN` is false and `NaN > b` is false, so the check is
    // for "not greater".
    let larger = |a: F, b: F| if a >= b || a.is_nan() { a } else { b };
    let mut lanes = [F::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        lanes[lane] = larger(lanes[lane], value);
    }
    reduce(lanes, larger)
}

/// Sum of all values, in the order of [`sum_by`].
#[inline(always)]
pub fn sum<F: Float>(x: &[F]) -> F {
    sum_by(x.len(), |i| x[i])
}

/// Inner product of two slices of one length, in the order of [`sum_by`].
#[inline(always)]
pub fn dot<F: Float>(a: &[F], b: &[F]) -> F {
    let b = &b[..a.len()];
    sum_by(a.len(), |i| a[i] * b[i])
}

#[inline(always)]
fn reduce<F: Float>(mut lanes: [F; LANES], combine: impl Fn(F, F) -> F) -> F {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    multiversion! {
        fn total<F: Float>(x: &[F]) -> F {
            sum(x)
        }
    }

    #[test]
    fn sum_and_max_match_plain_loops() {
        for len in [0, 1, 15, 16, 17, 100, 1000] {
            let x: Vec<f64> = random(len, 1);
            assert!((total(&x) - x.iter().sum::<f64>()).abs() < 1e-12);
            assert_eq!(max(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }

    #[test]
    fn levels_give_the_same_bits() {
        let x: Vec<f32> = random(999, 2);
        assert_eq!(total(&x).to_bits(), sum(&x).to_bits());
    }

    #[test]
    fn max_keeps_nan() {
        for at in [0, 16, 33] {
            let mut x = vec![1.0f32; 40];
            x[at] = f32::NAN;
            assert!(max(&x).is_nan());
        }
    }
}
