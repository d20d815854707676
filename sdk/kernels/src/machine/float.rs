//! The two element types and their elementary functions.
//!
//! The `f32` functions are branch-free polynomials that LLVM vectorises inside `multiversion!`
//! bodies; they use no fused multiply-add, so they give the same bits on every processor.
//! Coefficients are minimax fits (Lawson's iteration on Chebyshev nodes) of the functions named at
//! each place. The `f64` functions serve tests and need only be accurate.

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// An element type of the kernels: `f32` or `f64`.
pub trait Float:
    sealed::Sealed
    + Copy
    + Send
    + Sync
    + PartialOrd
    + Debug
    + Display
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + crate::machine::lanes::ByLevel
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// 0.5.
    const HALF: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;

    /// The nearest value.
    fn from_f64(value: f64) -> Self;
    /// The nearest value (all Philox normals are made in `f32`).
    fn from_f32(value: f32) -> Self;
    /// The same value.
    fn to_f64(self) -> f64;
    /// `word` / 2^32 (24 leading bits for `f32`), in [0, 1).
    fn from_word(word: u32) -> Self;
    /// True for NaN.
    fn is_nan(self) -> bool;
    /// False for NaN and the infinities.
    fn is_finite(self) -> bool;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The exponential; subnormal results are zero in `f32`. Error below 2 ulp.
    fn exp(self) -> Self;
    /// The natural logarithm. Error below 2 ulp; subnormal arguments count as zero in `f32`.
    fn ln(self) -> Self;
    /// The hyperbolic tangent. Error below 3 ulp.
    fn tanh(self) -> Self;
    /// The error function. Error below 2 ulp.
    fn erf(self) -> Self;
    /// The standard normal distribution at `self`: (cumulative, density), both of small relative
    /// error in the lower tail.
    fn normal(self) -> (Self, Self);

    /// The logistic function 1 / (1 + exp(-x)).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }

    /// The greater of two; the second if one is NaN.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    /// The lesser of two; the second if one is NaN.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
}

/// Value of the polynomial with the coefficients `c` (lowest power first) at `x`, by Horner's rule.
#[inline(always)]
fn polynomial<const N: usize>(c: [f32; N], x: f32) -> f32 {
    let mut value = c[N - 1];
    for i in (0..N - 1).rev() {
        value = value * x + c[i];
    }
    value
}

/// exp(x) = 2^n (1 + q): (n, q) with n an integer in a float and |q| < 0.42.
#[inline(always)]
fn exp_parts(x: f32) -> (i32, f32) {
    // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 in two parts, the first with enough trailing zeros that `n` times it is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    // exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2) / 2; error 4e-9.
    let p = polynomial([0.5, 1.666_651_3e-1, 4.166_618_7e-2, 8.369_598e-3, 1.395_171_7e-3], r);
    ((rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32), r + r * r * p)
}

/// 1 / sqrt(2 pi).
pub(super) const INVERSE_SQRT_TAU: f32 = 0.398_942_3;

/// t P(t) with t = 1 / (1 + a / 4) is the upper tail of the standard normal distribution at `a >= 0` over exp(-a^2 /
/// 2); relative error 1e-8 up to a = 14. The coefficients of P, lowest power first.
pub(super) const SCALED_TAIL: [f32; 10] = [
    9.974_633e-2,
    9.952_148e-2,
    9.528_77e-2,
    7.301_356e-2,
    8.384_903_4e-2,
    1.773_881e-2,
    2.260_596_8e-2,
    5.588_317_8e-2,
    -6.453_875e-2,
    1.689_269_6e-2,
];

/// See [`SCALED_TAIL`].
#[inline(always)]
fn scaled_tail(a: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.25 * a);
    t * polynomial(SCALED_TAIL, t)
}

impl Float for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const HALF: Self = 0.5;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_word(word: u32) -> Self {
        // 24 bits fit a signed integer, whose conversion every instruction set has.
        (word >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn exp(self) -> Self {
        const LOW: f32 = -87.336_54;
        const HIGH: f32 = 88.722_83;
        // Comparisons are false for NaN, which therefore passes through.
        let x = if self < LOW { LOW } else { self };
        let x = if x > HIGH { HIGH } else { x };
        let (n, q) = exp_parts(x);
        let value = f32::from_bits(((1.0 + q).to_bits() as i32).wrapping_add(n << 23) as u32);
        let value = if self < LOW { 0.0 } else { value };
        let value = if self > HIGH { f32::INFINITY } else { value };
        if self.is_nan() { self } else { value }
    }

    #[inline(always)]
    fn ln(self) -> Self {
        // x = 2^e m with m in [sqrt(1/2), sqrt(2)).
        let bits = (self.to_bits() as i32).wrapping_sub(0x3f35_04f3);
        let e = (bits >> 23) as f32;
        let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3) as u32);
        // ln(m) = 2 atanh(s), s = (m - 1) / (m + 1), as f - s (f - s^2 P) to keep the leading term
        // exact.
        let f = m - 1.0;
        let s = f / (2.0 + f);
        let z = s * s;
        let p = z * polynomial([6.666_665_6e-1, 4.000_035_6e-1, 2.853_588_2e-1, 2.361_066_8e-1], z);
        let value = e * 0.693_359_4 + (f + (e * -2.121_944_4e-4 - s * (f - p)));
        let value = if self < f32::MIN_POSITIVE { f32::NEG_INFINITY } else { value };
        let value = if self < 0.0 { f32::NAN } else { value };
        if self < f32::INFINITY { value } else { self }
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        // tanh(x) = (exp(2x) - 1) / (exp(2x) + 1), the difference taken before rounding. From 10 on
        // it is 1.
        let a = self.abs();
        let a = if a > 10.0 { 10.0 } else { a };
        let (n, q) = exp_parts(2.0 * a);
        let scale = f32::from_bits((n.wrapping_add(127) << 23) as u32);
        let minus_one = scale * q + (scale - 1.0);
        let value = (minus_one / (minus_one + 2.0)).copysign(self);
        if self.is_nan() { self } else { value }
    }

    #[inline(always)]
    fn erf(self) -> Self {
        let a = self.abs();
        let z = if a > 1.0 { 1.0 } else { a * a };
        // erf(x) / x - 1 on [0, 1] as a polynomial in x^2, error 2e-9; the 1 apart, so that it is
        // exact.
        let small = a + a * polynomial(
            [
                1.283_791_7e-1,
                -3.761_262_7e-1,
                1.128_36e-1,
                -2.685_444_5e-2,
                5.189_535e-3,
                -8.020_841e-4,
                7.889_119e-5,
            ],
            z,
        );
        let large = 1.0 - 2.0 * Float::exp(-(a * a)) * scaled_tail(a * std::f32::consts::SQRT_2);
        (if a > 1.0 { large } else { small }).copysign(self)
    }

    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        // Qualified: the inherent method of f32 is the C library's.
        let e = Float::exp(-0.5 * self * self);
        let tail = e * scaled_tail(self.abs());
        let cumulative = if self < 0.0 { tail } else { 1.0 - tail };
        (cumulative, e * INVERSE_SQRT_TAU)
    }
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const HALF: Self = 0.5;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_word(word: u32) -> Self {
        f64::from(word) * (1.0 / 4_294_967_296.0)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        self.tanh()
    }
    fn erf(self) -> Self {
        (1.0 - erfc_f64(self.abs())).copysign(self)
    }
    fn normal(self) -> (Self, Self) {
        let tail = 0.5 * erfc_f64(self.abs() * std::f64::consts::FRAC_1_SQRT_2);
        let density = (-0.5 * self * self).exp()
            * (0.5 * std::f64::consts::FRAC_2_SQRT_PI)
            * std::f64::consts::FRAC_1_SQRT_2;
        (if self < 0.0 { tail } else { 1.0 - tail }, density)
    }
}

/// 1 - erf(x) for x >= 0: Kummer's series (DLMF 7.6.2) below 2.5, Laplace's continued fraction
/// (DLMF 7.9.1) above.
fn erfc_f64(x: f64) -> f64 {
    if x < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        1.0 - std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    } else {
        let mut fraction = x;
        for n in (1..=120).rev() {
            fraction = x + 0.5 * f64::from(n) / fraction;
        }
        (-x * x).exp() * 0.5 * std::f64::consts::FRAC_2_SQRT_PI / fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error in units in the last place over a grid.
    fn worst_ulp(
        range: std::ops::Range<f32>,
        f: impl Fn(f32) -> f32,
        exact: impl Fn(f64) -> f64,
    ) -> f64 {
        let steps = 200_000;
        let width = (range.end - range.start) / steps as f32;
        (0..steps)
            .map(|i| {
                let x = range.start + width * i as f32;
                let y = exact(f64::from(x));
                let nearest = (y as f32).abs().max(f32::MIN_POSITIVE);
                let ulp = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
                (f64::from(f(x)) - y).abs() / ulp
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_ln_tanh_erf_stay_within_ulps() {
        let exp = worst_ulp(-87.0..88.7, <f32 as Float>::exp, f64::exp);
        let ln = worst_ulp(1e-6..50.0, <f32 as Float>::ln, f64::ln);
        let tanh = worst_ulp(-11.0..11.0, <f32 as Float>::tanh, f64::tanh);
        let tanh_small = worst_ulp(-0.01..0.01, <f32 as Float>::tanh, f64::tanh);
        let erf = worst_ulp(-6.0..6.0, <f32 as Float>::erf, <f64 as Float>::erf);
        println!("ulp: exp {exp} ln {ln} tanh {tanh} {tanh_small} erf {erf}");
        assert!(exp < 2.0 && ln < 2.0 && tanh < 3.0 && tanh_small < 3.0 && erf < 2.0);
    }

    #[test]
    fn normal_is_accurate_in_the_lower_tail() {
        for i in 0..1000 {
            let x = -6.0 + 0.012 * i as f32;
            let (cumulative, density) = <f32 as Float>::normal(x);
            let (exact, exact_density) = <f64 as Float>::normal(f64::from(x));
            assert!(
                (f64::from(cumulative) - exact).abs() < 2e-6 * exact,
                "{x}: {cumulative}, {exact}"
            );
            assert!((f64::from(density) - exact_density).abs() < 2e-6 * exact_density);
        }
    }

    /// DLMF table 7.23 and C. Hastings: published values of the error function.
    #[test]
    fn erf_f64_matches_published_values() {
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((<f64 as Float>::erf(x) - y).abs() < 1e-15);
            assert!((<f64 as Float>::erf(-x) + y).abs() < 1e-15);
        }
        // erfc(4) = 1.541725790028002e-8.
        assert!((erfc_f64(4.0) / 1.541_725_790_028_002e-8 - 1.0).abs() < 1e-13);
    }

    #[test]
    fn special_values_pass_through() {
        let inf = f32::INFINITY;
        assert_eq!(<f32 as Float>::exp(-inf), 0.0);
        assert_eq!(<f32 as Float>::exp(inf), inf);
        assert_eq!(<f32 as Float>::exp(0.0), 1.0);
        assert_eq!(<f32 as Float>::ln(0.0), -inf);
        assert_eq!(<f32 as Float>::ln(inf), inf);
        assert_eq!(<f32 as Float>::ln(1.0), 0.0);
        assert!(<f32 as Float>::ln(-1.0).is_nan());
        assert_eq!(<f32 as Float>::tanh(inf), 1.0);
        assert_eq!(<f32 as Float>::tanh(-inf), -1.0);
        assert_eq!(<f32 as Float>::erf(-inf), -1.0);
        assert_eq!(<f32 as Float>::sigmoid(-inf), 0.0);
        for f in [Float::exp, Float::ln, Float::tanh, Float::erf, Float::sigmoid] {
            let f: fn(f32) -> f32 = f;
            assert!(f(f32::NAN).is_nan());
        }
        assert!(<f32 as Float>::normal(f32::NAN).0.is_nan());
    }
}
