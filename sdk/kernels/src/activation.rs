//! Activation functions, their derivatives, and passes over slices.

use std::ops::Deref;

use half::bf16;

use crate::elementwise::mul_assign_block;
use crate::machine::lanes::{LANES, by_level};
use crate::machine::simd::multiversion;
use crate::packed::{bf16_bits, bf16_value};
use crate::{BLOCK_LEN, Float, Result, check_len, for_each_task};

/// An elementwise activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// x.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// x Phi(x), Phi the normal distribution (Hendrycks and Gimpel, 2016); BERT's.
    Gelu,
    /// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2; GPT-2's approximation.
    GeluTanh,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x / (1 + exp(-x)), also called swish.
    Silu,
}

const RELU: u8 = 1;
const GELU_TANH: u8 = 2;
const TANH: u8 = 3;
const SIGMOID: u8 = 4;
const SILU: u8 = 5;

/// Elements that are computed before they are rounded or multiplied; they stay in the first-level cache.
const PART: usize = 256;

/// sqrt(2 / pi).
const GELU_TANH_SCALE: f64 = 0.797_884_560_802_865_4;
const GELU_TANH_CUBE: f64 = 0.044_715;

#[inline(always)]
fn value<F: Float, const KIND: u8>(x: F) -> F {
    match KIND {
        // A NaN stays: the comparison is false.
        RELU => {
            if x < F::ZERO {
                F::ZERO
            } else {
                x
            }
        }
        GELU_TANH => F::HALF * x * (F::ONE + gelu_tanh_inner(x).tanh()),
        TANH => x.tanh(),
        SIGMOID => x.sigmoid(),
        SILU => x * x.sigmoid(),
        _ => x,
    }
}

#[inline(always)]
fn gelu_tanh_inner<F: Float>(x: F) -> F {
    F::from_f64(GELU_TANH_SCALE) * (x + F::from_f64(GELU_TANH_CUBE) * x * x * x)
}

#[inline(always)]
fn derivative<F: Float, const KIND: u8>(x: F) -> F {
    match KIND {
        RELU => {
            if x > F::ZERO {
                F::ONE
            } else {
                F::ZERO
            }
        }
        GELU_TANH => {
            let t = gelu_tanh_inner(x).tanh();
            let slope =
                F::from_f64(GELU_TANH_SCALE) * (F::ONE + F::from_f64(3.0 * GELU_TANH_CUBE) * x * x);
            F::HALF * (F::ONE + t) + F::HALF * x * (F::ONE - t * t) * slope
        }
        TANH => {
            let t = x.tanh();
            F::ONE - t * t
        }
        SIGMOID => {
            let s = x.sigmoid();
            s * (F::ONE - s)
        }
        SILU => {
            let s = x.sigmoid();
            s * (F::ONE + x * (F::ONE - s))
        }
        _ => F::ONE,
    }
}

multiversion! {
    fn apply<F: Float, const KIND: u8>(x: &mut [F]) {
        for value in x {
            *value = self::value::<F, KIND>(*value);
        }
    }

    /// Values in place of x, and the derivatives there. What both need is computed once.
    fn apply_with_slope<F: Float, const KIND: u8>(x: &mut [F], slope: &mut [F]) {
        for (value, slope) in x.iter_mut().zip(slope) {
            *slope = derivative::<F, KIND>(*value);
            *value = self::value::<F, KIND>(*value);
        }
    }

    fn round_to_bf16<F: Float>(x: &[F], out: &mut [bf16]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = bf16::from_bits(bf16_bits(x.to_f64() as f32));
        }
    }

    fn multiply_bf16<F: Float>(slope: &[bf16], dy: &mut [F]) {
        for (gradient, slope) in dy.iter_mut().zip(slope) {
            *gradient *= F::from_f32(bf16_value(slope.to_bits()));
        }
    }

    fn apply_derivative<F: Float, const KIND: u8>(x: &[F], dy: &mut [F]) {
        for (gradient, &x) in dy.iter_mut().zip(x) {
            *gradient *= derivative::<F, KIND>(x);
        }
    }
}

// GELU stands in every layer of BERT and takes a quarter of the product before it, so it has vectors of its own.
by_level! {
    fn gelu<F, L>(x: &mut [F]) {
        let (whole, rest) = x.as_chunks_mut::<LANES>();
        let mut last = padded(rest);
        for x in whole.iter_mut().chain((!rest.is_empty()).then_some(&mut last)) {
            // SAFETY: as many elements as a vector has; the instruction set is the caller's promise.
            unsafe {
                let v = L::load(x.as_ptr());
                v.mul(v.normal().0).store(x.as_mut_ptr());
            }
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }

    fn gelu_with_slope<F, L>(x: &mut [F], slope: &mut [F]) {
        let ((whole, rest), (slopes, last_slopes)) = (x.as_chunks_mut::<LANES>(), slope.as_chunks_mut::<LANES>());
        let (mut last, mut last_slope) = (padded(rest), [F::ZERO; LANES]);
        let vectors = whole.iter_mut().chain((!rest.is_empty()).then_some(&mut last));
        for (x, slope) in vectors.zip(slopes.iter_mut().chain([&mut last_slope])) {
            // SAFETY: as above.
            unsafe {
                let v = L::load(x.as_ptr());
                let (cumulative, density) = v.normal();
                v.mul_add(density, cumulative).store(slope.as_mut_ptr());
                v.mul(cumulative).store(x.as_mut_ptr());
            }
        }
        rest.copy_from_slice(&last[..rest.len()]);
        last_slopes.copy_from_slice(&last_slope[..last_slopes.len()]);
    }
}

/// The elements behind the last whole vector as one, filled up with zeros.
#[inline(always)]
fn padded<F: Float>(rest: &[F]) -> [F; LANES] {
    let mut vector = [F::ZERO; LANES];
    vector[..rest.len()].copy_from_slice(rest);
    vector
}

/// dy *= the derivative at x, part by part.
fn multiply_by_slope_of_gelu<F: Float>(x: &[F], dy: &mut [F]) {
    let (mut value, mut slope) = ([F::ZERO; PART], [F::ZERO; PART]);
    for (x, dy) in x.chunks(PART).zip(dy.chunks_mut(PART)) {
        let (value, slope) = (&mut value[..x.len()], &mut slope[..x.len()]);
        value.copy_from_slice(x);
        gelu_with_slope(value, slope);
        mul_assign_block(dy, slope);
    }
}

/// What a forward pass keeps of an activation for the backward pass, an element for each of its input.
#[derive(Debug, Clone, Copy)]
pub enum Kept<Values, Rounded> {
    /// The input. The value can be computed again from it, too.
    Input(Values),
    /// The derivative at the input, which spares the backward pass to compute it.
    Slope(Values),
    /// The derivative rounded to bfloat16, for gradients that the products of the backward pass round as well.
    RoundedSlope(Rounded),
}

/// [`Kept`] to be written.
pub type KeptMut<'a, F> = Kept<&'a mut [F], &'a mut [bf16]>;
/// [`Kept`] to be read.
pub type KeptRef<'a, F> = Kept<&'a [F], &'a [bf16]>;

impl<Values, Rounded> Kept<Values, Rounded> {
    /// The same thing, in other hands.
    pub(crate) fn map<V, R>(
        self,
        values: impl FnOnce(Values) -> V,
        rounded: impl FnOnce(Rounded) -> R,
    ) -> Kept<V, R> {
        match self {
            Self::Input(kept) => Kept::Input(values(kept)),
            Self::Slope(kept) => Kept::Slope(values(kept)),
            Self::RoundedSlope(kept) => Kept::RoundedSlope(rounded(kept)),
        }
    }
}

impl<F, H, V: Deref<Target = [F]>, R: Deref<Target = [H]>> Kept<V, R> {
    /// Elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Input(kept) | Self::Slope(kept) => kept.len(),
            Self::RoundedSlope(kept) => kept.len(),
        }
    }
}

/// Chooses the function compiled for an activation.
macro_rules! by_kind {
    ($activation:expr, $none:expr, $gelu:ident, $function:ident::<$float:ident>($($argument:expr),*)) => {
        match $activation {
            Activation::None => $none,
            Activation::Relu => $function::<$float, RELU>($($argument),*),
            Activation::Gelu => $gelu::<$float>($($argument),*),
            Activation::GeluTanh => $function::<$float, GELU_TANH>($($argument),*),
            Activation::Tanh => $function::<$float, TANH>($($argument),*),
            Activation::Sigmoid => $function::<$float, SIGMOID>($($argument),*),
            Activation::Silu => $function::<$float, SILU>($($argument),*),
        }
    };
}

impl Activation {
    /// The name that configurations use: `none`, `relu`, `gelu`, `gelu-tanh`, `tanh`, `sigmoid`,
    /// `silu`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Silu => "silu",
        }
    }

    /// Replaces every x by its value, on the calling thread; for use inside a task.
    pub fn apply_serial<F: Float>(self, x: &mut [F]) {
        by_kind!(self, {}, gelu, apply::<F>(x))
    }

    /// [`Self::apply_serial`], and the derivatives at x.
    ///
    /// # Panics
    /// If the lengths differ.
    fn apply_with_slope_serial<F: Float>(self, x: &mut [F], slope: &mut [F]) {
        assert_eq!(x.len(), slope.len(), "activation input and slope differ");
        by_kind!(self, slope.fill(F::ONE), gelu_with_slope, apply_with_slope::<F>(x, slope))
    }

    /// [`Self::apply_with_slope_serial`] with rounded derivatives.
    ///
    /// # Panics
    /// If the lengths differ.
    fn apply_with_rounded_slope_serial<F: Float>(self, x: &mut [F], slope: &mut [bf16]) {
        assert_eq!(x.len(), slope.len(), "activation input and slope differ");
        let mut exact = [F::ZERO; PART];
        for (x, slope) in x.chunks_mut(PART).zip(slope.chunks_mut(PART)) {
            let exact = &mut exact[..x.len()];
            self.apply_with_slope_serial(x, exact);
            round_to_bf16(exact, slope);
        }
    }

    /// [`Self::apply_serial`], and what [`Self::backward_serial`] needs.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn forward_serial<F: Float>(self, x: &mut [F], keep: Option<KeptMut<'_, F>>) {
        match keep {
            None => self.apply_serial(x),
            Some(Kept::Input(kept)) => {
                kept.copy_from_slice(x);
                self.apply_serial(x);
            }
            Some(Kept::Slope(kept)) => self.apply_with_slope_serial(x, kept),
            Some(Kept::RoundedSlope(kept)) => self.apply_with_rounded_slope_serial(x, kept),
        }
    }

    /// Multiplies every gradient by the derivative, on the calling thread; for use inside a task. With `rounded`, a
    /// derivative that must be computed is rounded to bfloat16, so that it has the bits of [`Kept::RoundedSlope`].
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn backward_serial<F: Float>(self, kept: KeptRef<'_, F>, rounded: bool, dy: &mut [F]) {
        assert_eq!(kept.len(), dy.len(), "what an activation keeps and its gradient differ");
        match kept {
            Kept::Input(x) if rounded => {
                let (mut value, mut slope) = ([F::ZERO; PART], [bf16::ZERO; PART]);
                for (x, dy) in x.chunks(PART).zip(dy.chunks_mut(PART)) {
                    let (value, slope) = (&mut value[..x.len()], &mut slope[..x.len()]);
                    value.copy_from_slice(x);
                    self.apply_with_rounded_slope_serial(value, slope);
                    multiply_bf16(slope, dy);
                }
            }
            Kept::Input(x) => self.apply_derivative_serial(x, dy),
            Kept::Slope(slope) => mul_assign_block(dy, slope),
            Kept::RoundedSlope(slope) => multiply_bf16(slope, dy),
        }
    }

    /// Multiplies every gradient by the derivative at x, on the calling thread; for use inside a
    /// task.
    ///
    /// # Panics
    /// If the lengths differ (except for [`Activation::None`], which ignores `x`).
    pub fn apply_derivative_serial<F: Float>(self, x: &[F], dy: &mut [F]) {
        assert!(self == Self::None || x.len() == dy.len(), "activation input and gradient differ");
        by_kind!(self, {}, multiply_by_slope_of_gelu, apply_derivative::<F>(x, dy))
    }
}

/// y = activation(x), elementwise.
///
/// # Errors
/// If the lengths differ.
pub fn activation_forward<F: Float>(activation: Activation, x: &[F], y: &mut [F]) -> Result {
    check_len("activation_forward", "y", x.len(), y.len())?;
    let tasks = x.chunks(BLOCK_LEN).zip(y.chunks_mut(BLOCK_LEN)).collect();
    for_each_task(tasks, |(x, y)| {
        y.copy_from_slice(x);
        activation.apply_serial(y);
    });
    Ok(())
}

/// x = activation(x), elementwise.
pub fn activation_in_place<F: Float>(activation: Activation, x: &mut [F]) {
    if activation != Activation::None {
        for_each_task(x.chunks_mut(BLOCK_LEN).collect(), |x| activation.apply_serial(x));
    }
}

/// dx = dy * activation'(x), elementwise, x being the input of the forward pass. All slices have
/// one length.
///
/// # Errors
/// If the lengths differ.
pub fn activation_backward<F: Float>(
    activation: Activation,
    x: &[F],
    dy: &[F],
    dx: &mut [F],
) -> Result {
    check_len("activation_backward", "x", dy.len(), x.len())?;
    check_len("activation_backward", "dx", dy.len(), dx.len())?;
    let tasks = x
        .chunks(BLOCK_LEN)
        .zip(dy.chunks(BLOCK_LEN))
        .zip(dx.chunks_mut(BLOCK_LEN))
        .map(|((x, dy), dx)| (x, dy, dx))
        .collect();
    for_each_task(tasks, |(x, dy, dx)| {
        dx.copy_from_slice(dy);
        activation.apply_derivative_serial(x, dx);
    });
    Ok(())
}

/// dy *= activation'(x), elementwise, x being the input of the forward pass.
///
/// # Errors
/// If the lengths differ.
pub fn activation_backward_in_place<F: Float>(
    activation: Activation,
    x: &[F],
    dy: &mut [F],
) -> Result {
    if activation == Activation::None {
        return Ok(());
    }
    check_len("activation_backward_in_place", "x", dy.len(), x.len())?;
    let tasks = x.chunks(BLOCK_LEN).zip(dy.chunks_mut(BLOCK_LEN)).collect();
    for_each_task(tasks, |(x, dy)| activation.apply_derivative_serial(x, dy));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_same_bits, at_every_level, dot, numeric_gradient, random,
        with_one_and_three_threads,
    };

    const ALL: [Activation; 7] = [
        Activation::None,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Silu,
    ];

    fn naive(activation: Activation, x: f64) -> f64 {
        let erf = <f64 as Float>::erf;
        match activation {
            Activation::None => x,
            Activation::Relu => x.max(0.0),
            Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
            Activation::GeluTanh => {
                let c = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * x * (1.0 + (c * (x + 0.044715 * x.powi(3))).tanh())
            }
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Silu => x / (1.0 + (-x).exp()),
        }
    }

    #[test]
    fn values_match_formulas() {
        let x: Vec<f32> = random::<f32>(5000, 1).iter().map(|v| v * 8.0).collect();
        for activation in ALL {
            let mut y = vec![0.0; x.len()];
            activation_forward(activation, &x, &mut y).unwrap();
            let expected: Vec<f64> = x.iter().map(|&v| naive(activation, f64::from(v))).collect();
            assert_close(&y, &expected, 5e-7);
            let mut in_place = x.clone();
            activation_in_place(activation, &mut in_place);
            assert_same_bits(&y, &in_place);
        }
    }

    #[test]
    fn gradients_match_differences() {
        let x: Vec<f64> = random::<f64>(200, 2).iter().map(|v| v * 4.0).collect();
        let dy: Vec<f64> = random(200, 3);
        for activation in ALL {
            let expected = numeric_gradient(&x, |x| {
                let mut y = vec![0.0; x.len()];
                activation_forward(activation, x, &mut y).unwrap();
                dot(&y, &dy)
            });
            let mut dx = vec![0.0; x.len()];
            activation_backward(activation, &x, &dy, &mut dx).unwrap();
            assert_close(&dx, &expected, 1e-8);
            let mut in_place = dy.clone();
            activation_backward_in_place(activation, &x, &mut in_place).unwrap();
            assert_eq!(dx, in_place);
            // The fast path has its own polynomials.
            let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
            let mut dx32 = vec![0f32; x.len()];
            activation_backward(activation, &narrow(&x), &narrow(&dy), &mut dx32).unwrap();
            assert_close(&dx32, &dx, 1e-6);
        }
    }

    #[test]
    fn threads_and_places_do_not_change_bits() {
        let x: Vec<f32> = random(3 * BLOCK_LEN + 7, 4);
        for activation in [Activation::Gelu, Activation::Silu] {
            let (one, three) = with_one_and_three_threads(|| {
                let mut y = vec![0.0; x.len()];
                activation_forward(activation, &x, &mut y).unwrap();
                y
            });
            assert_same_bits(&one, &three);
            let mut alone = x.clone();
            alone.chunks_mut(1).for_each(|x| activation.apply_serial(x));
            assert_same_bits(&one, &alone);
        }
        let mut silu = x.clone();
        activation_in_place(Activation::Silu, &mut silu);
        // This one is the same on every processor.
        let plain: Vec<f32> = x.iter().map(|&x| value::<f32, SILU>(x)).collect();
        assert_same_bits(&silu, &plain);
    }

    #[test]
    fn gelu_and_its_slope_match_formulas_at_every_level() {
        at_every_level(|| {
            for len in [0, 1, 15, 16, 17, 1003] {
                let x: Vec<f32> = random::<f32>(len, 5).iter().map(|v| v * 7.0).collect();
                let exact: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                let value: Vec<f64> = exact.iter().map(|&x| naive(Activation::Gelu, x)).collect();
                let slope: Vec<f64> = exact
                    .iter()
                    .map(|&x| {
                        let (cumulative, density) = Float::normal(x);
                        cumulative + x * density
                    })
                    .collect();
                let (mut y, mut kept) = (x.clone(), vec![f32::NAN; len]);
                Activation::Gelu.apply_with_slope_serial(&mut y, &mut kept);
                assert_close(&y, &value, 5e-7);
                assert_close(&kept, &slope, 5e-7);
                let mut alone = x.clone();
                Activation::Gelu.apply_serial(&mut alone);
                assert_same_bits(&y, &alone);
                let mut dy = vec![1.0; len];
                Activation::Gelu.apply_derivative_serial(&x, &mut dy);
                assert_same_bits(&dy, &kept);
            }
        });
    }

    #[test]
    fn nan_stays_nan_and_empty_is_allowed() {
        for activation in ALL {
            let mut x = [f32::NAN];
            activation_in_place(activation, &mut x);
            assert!(x[0].is_nan(), "{}", activation.name());
            activation_forward::<f32>(activation, &[], &mut []).unwrap();
        }
        assert!(activation_forward(Activation::Relu, &[1f32], &mut []).is_err());
    }
}
