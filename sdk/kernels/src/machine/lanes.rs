//! Sixteen numbers side by side, for kernels that keep vectors in registers from one operation to the next.
//!
//! A body that `by_level!` compiles is generic over [`Lanes`] and is inlined into one function per instruction set.
//! Unlike the bodies of `multiversion!` it may use fused multiply-add, so its last bits depend on the processor, as
//! those of products do.

use crate::Float;
use crate::machine::simd;

/// Numbers of a vector.
pub(crate) const LANES: usize = 16;

/// A vector of [`LANES`] numbers.
///
/// # Safety
/// For all methods: the processor has the instruction set of the implementation.
pub trait Lanes: Copy {
    /// What a lane holds.
    type Element: Float;

    /// All lanes are `value`.
    unsafe fn splat(value: Self::Element) -> Self;
    /// Reads [`LANES`] elements.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load(from: *const Self::Element) -> Self;
    /// Writes [`LANES`] elements.
    ///
    /// # Safety
    /// They can be written.
    unsafe fn store(self, to: *mut Self::Element);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// The sum of all lanes.
    unsafe fn sum(self) -> Self::Element;
    /// `self * factor + term`.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `self * factor - term`.
    unsafe fn mul_sub(self, factor: Self, term: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// The greater; `other` if one is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// The exponential, error below 2 ulp, for arguments up to 88; zero from -104 down; NaN stays.
    unsafe fn exp(self) -> Self;
    /// The standard normal distribution: (cumulative, density), relative errors below 2e-6 from -6 on; NaN stays.
    unsafe fn normal(self) -> (Self, Self);
    /// The bits of the lanes below zero; NaN is not.
    unsafe fn negative(self) -> u16;
    /// Zero in the lanes whose bit is not set, whatever stood there.
    unsafe fn keep(self, bits: u16) -> Self;
    /// `other` in the lanes whose bit is not set.
    unsafe fn or(self, bits: u16, other: Self) -> Self;
}

/// The vectors of an element type.
pub trait ByLevel: Sized {
    /// With AVX-512 F, BW, DQ and VL.
    type Avx512: Lanes<Element = Self>;
    /// With AVX2 and FMA.
    type Avx2: Lanes<Element = Self>;
    /// With what every processor has.
    type Baseline: Lanes<Element = Self>;
}

impl ByLevel for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx512 = x86::Avx512;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = x86::Avx2;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx512 = Plain<f32>;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx2 = Plain<f32>;
    type Baseline = Plain<f32>;
}

impl ByLevel for f64 {
    type Avx512 = Plain<f64>;
    type Avx2 = Plain<f64>;
    type Baseline = Plain<f64>;
}

/// Compiles bodies generic over `L`, a [`Lanes`] whose element is the type parameter, for every level and chooses by
/// [`level`].
macro_rules! by_level {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$float:ident, $lanes:ident>($($argument:ident: $type:ty),* $(,)?) $body:block
    )+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
        $vis fn $name<$float: $crate::Float>($($argument: $type),*) {
            /// # Safety
            /// The processor has the vectors' instruction set.
            #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
            #[inline(always)]
            unsafe fn body<$float: $crate::Float, $lanes: $crate::machine::lanes::Lanes<Element = $float>>(
                $($argument: $type),*
            ) $body

            #[cfg(target_arch = "x86_64")]
            {
                /// # Safety
                /// The processor has the instruction set.
                #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2<$float: $crate::Float>($($argument: $type),*) {
                    // SAFETY: the caller's promise.
                    unsafe { body::<$float, $float::Avx2>($($argument),*) }
                }
                /// # Safety
                /// The processor has the instruction set.
                #[allow(clippy::too_many_arguments, reason = "kernels take their slices one by one")]
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                unsafe fn avx512<$float: $crate::Float>($($argument: $type),*) {
                    // SAFETY: the caller's promise.
                    unsafe { body::<$float, $float::Avx512>($($argument),*) }
                }
                match $crate::gemm::level() {
                    $crate::machine::simd::Level::Avx512 => {
                        // SAFETY: `level` found the instruction set on this processor.
                        return unsafe { avx512::<$float>($($argument),*) };
                    }
                    $crate::machine::simd::Level::Avx2 => {
                        // SAFETY: `level` found the instruction set on this processor.
                        return unsafe { avx2::<$float>($($argument),*) };
                    }
                    $crate::machine::simd::Level::Baseline => {}
                }
            }
            // SAFETY: every processor has these.
            unsafe { body::<$float, $float::Baseline>($($argument),*) }
        }
    )+};
}
pub(crate) use by_level;

/// An array; LLVM makes vectors of it.
#[derive(Debug, Clone, Copy)]
pub struct Plain<F>([F; LANES]);

impl<F: Float> Plain<F> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(F, F) -> F) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl<F: Float> Lanes for Plain<F> {
    type Element = F;

    #[inline(always)]
    unsafe fn splat(value: F) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const F) -> Self {
        // SAFETY: the caller's promise; arrays are aligned as their elements are.
        Self(unsafe { from.cast::<[F; LANES]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut F) {
        // SAFETY: as above.
        unsafe { to.cast::<[F; LANES]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn sum(self) -> F {
        simd::sum(&self.0)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        self.zip(factor, |a, b| a * b).zip(term, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul_sub(self, factor: Self, term: Self) -> Self {
        self.zip(factor, |a, b| a * b).zip(term, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        Self(self.0.map(Float::exp))
    }
    #[inline(always)]
    unsafe fn normal(self) -> (Self, Self) {
        let both = self.0.map(Float::normal);
        (Self(both.map(|both| both.0)), Self(both.map(|both| both.1)))
    }
    #[inline(always)]
    unsafe fn negative(self) -> u16 {
        (0..LANES).fold(0, |bits, i| bits | u16::from(self.0[i] < F::ZERO) << i)
    }
    #[inline(always)]
    unsafe fn keep(self, bits: u16) -> Self {
        // SAFETY: arrays need no instruction set.
        unsafe { self.or(bits, Self::splat(F::ZERO)) }
    }
    #[inline(always)]
    unsafe fn or(self, bits: u16, other: Self) -> Self {
        Self(std::array::from_fn(|i| if bits >> i & 1 == 1 { self.0[i] } else { other.0[i] }))
    }
}

/// Below this the exponential of an `f32` is zero.
#[cfg(target_arch = "x86_64")]
const LOWEST: f32 = -104.0;
/// ln 2 in two parts, the first with enough trailing zeros that an exponent times it is exact.
#[cfg(target_arch = "x86_64")]
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2) / 2, error 4e-9: the coefficients of P and below, highest power first.
#[cfg(target_arch = "x86_64")]
const EXP: [f32; 7] = [1.395_171_7e-3, 8.369_598e-3, 4.166_618_7e-2, 1.666_651_3e-1, 0.5, 1.0, 1.0];

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::f32::consts::LOG2_E;

    use super::super::float::{INVERSE_SQRT_TAU, SCALED_TAIL};
    use super::{EXP, LN_2, LOWEST, Lanes};

    // The methods are inlined into functions that enable the instruction set, which is the promise of the trait's
    // callers.

    /// As `Float::normal`, by fused multiply-add.
    ///
    /// # Safety
    /// As the methods of [`Lanes`].
    #[inline(always)]
    unsafe fn normal<L: Lanes<Element = f32>>(x: L) -> (L, L) {
        // SAFETY: the caller's promise.
        unsafe {
            let one = L::splat(1.0);
            // NaN on both sides answers NaN.
            let magnitude = x.max(L::splat(0.0).sub(x));
            let e = x.mul(L::splat(-0.5)).mul(x).exp();
            let t = one.div(magnitude.mul_add(L::splat(0.25), one));
            let mut scaled = L::splat(SCALED_TAIL[SCALED_TAIL.len() - 1]);
            for &coefficient in SCALED_TAIL.iter().rev().skip(1) {
                scaled = scaled.mul_add(t, L::splat(coefficient));
            }
            let tail = e.mul(t.mul(scaled));
            let cumulative = tail.or(x.negative(), one.sub(tail));
            (cumulative, e.mul(L::splat(INVERSE_SQRT_TAU)))
        }
    }

    #[derive(Debug, Clone, Copy)]
    pub struct Avx512(__m512);

    impl Lanes for Avx512 {
        type Element = f32;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the trait's promise; so below.
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's and the caller's promise.
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's and the caller's promise.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: the trait's promise.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
        #[inline(always)]
        unsafe fn mul_sub(self, factor: Self, term: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_fmsub_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn normal(self) -> (Self, Self) {
            // SAFETY: the trait's promise.
            unsafe { normal(self) }
        }
        #[inline(always)]
        unsafe fn negative(self) -> u16 {
            // SAFETY: the trait's promise.
            unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: the trait's promise. The instruction answers its second operand for NaN.
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn exp(self) -> Self {
            // SAFETY: the trait's promise.
            unsafe {
                let x = _mm512_max_ps(_mm512_set1_ps(LOWEST), self.0);
                let n = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(
                    x,
                    _mm512_set1_ps(LOG2_E),
                ));
                let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2[0]), x);
                let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2[1]), r);
                let mut value = _mm512_set1_ps(EXP[0]);
                for &coefficient in &EXP[1..] {
                    value = _mm512_fmadd_ps(value, r, _mm512_set1_ps(coefficient));
                }
                Self(_mm512_scalef_ps(value, n))
            }
        }
        #[inline(always)]
        unsafe fn keep(self, bits: u16) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_maskz_mov_ps(bits, self.0) })
        }
        #[inline(always)]
        unsafe fn or(self, bits: u16, other: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { _mm512_mask_mov_ps(other.0, bits, self.0) })
        }
    }

    #[derive(Debug, Clone, Copy)]
    pub struct Avx2([__m256; 2]);

    impl Avx2 {
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
            Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
        }

        /// All bits of the lanes whose bit is set.
        ///
        /// # Safety
        /// The processor has AVX2.
        #[inline(always)]
        unsafe fn masks(bits: u16) -> [__m256; 2] {
            [0, 8].map(|shift| {
                // SAFETY: the caller's promise.
                unsafe {
                    let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
                    let all = _mm256_set1_epi32(i32::from(bits >> shift));
                    _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, each), each))
                }
            })
        }
    }

    impl Lanes for Avx2 {
        type Element = f32;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the trait's promise.
            Self(unsafe { [_mm256_set1_ps(value); 2] })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's and the caller's promise.
            Self(unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's and the caller's promise.
            unsafe {
                _mm256_storeu_ps(to, self.0[0]);
                _mm256_storeu_ps(to.add(8), self.0[1]);
            }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            self.zip(other, |a, b| unsafe { _mm256_add_ps(a, b) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            self.zip(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            self.zip(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: the trait's promise.
            unsafe {
                let eight = _mm256_add_ps(self.0[0], self.0[1]);
                let high = _mm256_extractf128_ps::<1>(eight);
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), high);
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
        #[inline(always)]
        unsafe fn mul_sub(self, factor: Self, term: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(std::array::from_fn(|i| unsafe {
                _mm256_fmsub_ps(self.0[i], factor.0[i], term.0[i])
            }))
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: the trait's promise.
            Self(std::array::from_fn(|i| unsafe {
                _mm256_fmadd_ps(self.0[i], factor.0[i], term.0[i])
            }))
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: the trait's promise.
            self.zip(other, |a, b| unsafe { _mm256_div_ps(a, b) })
        }
        #[inline(always)]
        unsafe fn normal(self) -> (Self, Self) {
            // SAFETY: the trait's promise.
            unsafe { normal(self) }
        }
        #[inline(always)]
        unsafe fn negative(self) -> u16 {
            // SAFETY: the trait's promise.
            let [low, high] = self.0.map(|x| unsafe {
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps()))
            });
            (low | high << 8) as u16
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: the trait's promise. The instruction answers its second operand for NaN.
            self.zip(other, |a, b| unsafe { _mm256_max_ps(a, b) })
        }
        #[inline(always)]
        unsafe fn exp(self) -> Self {
            // SAFETY: the trait's promise.
            Self(self.0.map(|x| unsafe {
                let x = _mm256_max_ps(_mm256_set1_ps(LOWEST), x);
                let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
                    _mm256_mul_ps(x, _mm256_set1_ps(LOG2_E)),
                );
                let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2[0]), x);
                let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2[1]), r);
                let mut value = _mm256_set1_ps(EXP[0]);
                for &coefficient in &EXP[1..] {
                    value = _mm256_fmadd_ps(value, r, _mm256_set1_ps(coefficient));
                }
                // Times 2^n in two steps, because 2^n alone may be below what an exponent can say.
                let n = _mm256_cvtps_epi32(n);
                let half = _mm256_srai_epi32::<1>(n);
                for part in [half, _mm256_sub_epi32(n, half)] {
                    let exponent = _mm256_add_epi32(part, _mm256_set1_epi32(127));
                    let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
                    value = _mm256_mul_ps(value, power);
                }
                value
            }))
        }
        #[inline(always)]
        unsafe fn keep(self, bits: u16) -> Self {
            // SAFETY: the trait's promise.
            unsafe { self.zip(Self(Self::masks(bits)), |a, b| _mm256_and_ps(a, b)) }
        }
        #[inline(always)]
        unsafe fn or(self, bits: u16, other: Self) -> Self {
            // SAFETY: the trait's promise.
            unsafe {
                let masks = Self::masks(bits);
                Self(std::array::from_fn(|i| _mm256_blendv_ps(other.0[i], self.0[i], masks[i])))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at_every_level, random};

    by_level! {
        fn exponentials<F, L>(x: &mut [F]) {
            for chunk in x.chunks_exact_mut(LANES) {
                // SAFETY: a chunk has as many elements as a vector.
                unsafe { L::load(chunk.as_ptr()).exp().store(chunk.as_mut_ptr()) }
            }
        }

        fn normals<F, L>(x: &mut [F], density: &mut [F]) {
            for (x, density) in x.chunks_exact_mut(LANES).zip(density.chunks_exact_mut(LANES)) {
                // SAFETY: a chunk has as many elements as a vector.
                unsafe {
                    let both = L::load(x.as_ptr()).normal();
                    both.0.store(x.as_mut_ptr());
                    both.1.store(density.as_mut_ptr());
                }
            }
        }

        fn arithmetic<F, L>(a: &[F], b: &[F], bits: u16, out: &mut [F]) {
            // SAFETY: the test passes vectors and room for ten and a number.
            unsafe {
                let (a, b) = (L::load(a.as_ptr()), L::load(b.as_ptr()));
                let two = L::splat(F::from_f64(2.0));
                let all = [
                    a.add(b), a.sub(b), a.mul(b), a.mul_sub(b, two), a.max(b), a.keep(bits), a.or(bits, b),
                    a.mul_add(b, two), a.div(b), a.keep(a.negative()),
                ];
                for (i, value) in all.into_iter().enumerate() {
                    value.store(out[LANES * i..LANES * (i + 1)].as_mut_ptr());
                }
                out[10 * LANES] = b.sum();
            }
        }
    }

    #[test]
    fn exponentials_are_within_two_units_at_every_level() {
        at_every_level(|| {
            let x: Vec<f32> = (0..16 * 4000).map(|i| -87.0 + 175.0 * i as f32 / 64_000.0).collect();
            let mut found = x.clone();
            exponentials(&mut found);
            for (x, found) in x.iter().zip(&found) {
                let expected = f64::from(*x).exp();
                let unit = f64::from((expected as f32).next_up()) - f64::from(expected as f32);
                let error = (f64::from(*found) - expected).abs() / unit;
                assert!(error < 2.0, "exp({x}) = {found}, {error} units off");
            }
            let mut special = [f32::NEG_INFINITY; LANES];
            special[1] = f32::NAN;
            special[2] = -1e30;
            special[3] = 0.0;
            exponentials(&mut special);
            assert!(special[0] == 0.0 && special[1].is_nan() && special[2] == 0.0);
            assert_eq!(special[3], 1.0);
        });
    }

    #[test]
    fn normal_is_accurate_in_the_lower_tail_at_every_level() {
        at_every_level(|| {
            let mut x: Vec<f32> = (0..16 * 100).map(|i| -6.0 + 0.0075 * i as f32).collect();
            x[7] = f32::NAN;
            let (mut cumulative, mut density) = (x.clone(), x.clone());
            normals(&mut cumulative, &mut density);
            for ((x, cumulative), density) in x.iter().zip(&cumulative).zip(&density) {
                let exact = Float::normal(f64::from(*x));
                for (found, exact) in [(cumulative, exact.0), (density, exact.1)] {
                    assert!(
                        (f64::from(*found) - exact).abs() < 2e-6 * exact
                            || (found.is_nan() && x.is_nan()),
                        "{x}: {found}, {exact}"
                    );
                }
            }
        });
    }

    #[test]
    fn lanes_compute_element_by_element() {
        fn check<F: Float>() {
            let (mut a, b): (Vec<F>, Vec<F>) = (random(LANES, 1), random(LANES, 2));
            a[3] = F::from_f64(f64::NAN);
            let bits = 0b1010_0110_1100_0111;
            let mut out = vec![F::ZERO; 10 * LANES + 1];
            arithmetic(&a, &b, bits, &mut out);
            let sum: f64 = b.iter().map(|b| b.to_f64()).sum();
            assert!((out[10 * LANES].to_f64() - sum).abs() < 1e-5);
            for i in 0..LANES {
                let (x, y, kept) = (a[i].to_f64(), b[i].to_f64(), bits >> i & 1 == 1);
                let larger = if x > y { x } else { y };
                let expected = [
                    x + y,
                    x - y,
                    x * y,
                    x * y - 2.0,
                    larger,
                    if kept { x } else { 0.0 },
                    if kept { x } else { y },
                    x * y + 2.0,
                    x / y,
                    if x < 0.0 { x } else { 0.0 },
                ];
                for (k, expected) in expected.into_iter().enumerate() {
                    let found = out[LANES * k + i].to_f64();
                    assert!(
                        (found - expected).abs() < 1e-6 * (1.0 + expected.abs())
                            || (found.is_nan() && expected.is_nan()),
                        "operation {k}, lane {i}: found {found}, expected {expected}"
                    );
                }
            }
        }
        at_every_level(|| {
            check::<f32>();
            check::<f64>();
        });
    }
}
