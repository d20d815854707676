//! Activation functions, their derivatives, and passes over slices.

use super::simd::multiversion;
use super::{BLOCK_LEN, Float, Result, check_len, for_each_task};

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
const GELU: u8 = 2;
const GELU_TANH: u8 = 3;
const TANH: u8 = 4;
const SIGMOID: u8 = 5;
const SILU: u8 = 6;

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
        GELU => x * x.normal().0,
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
        GELU => {
            let (cumulative, density) = x.normal();
            cumulative + x * density
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

    fn apply_derivative<F: Float, const KIND: u8>(x: &[F], dy: &mut [F]) {
        for (gradient, &x) in dy.iter_mut().zip(x) {
            *gradient *= derivative::<F, KIND>(x);
        }
    }
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
        match self {
            Self::None => {}
            Self::Relu => apply::<F, RELU>(x),
            Self::Gelu => apply::<F, GELU>(x),
            Self::GeluTanh => apply::<F, GELU_TANH>(x),
            Self::Tanh => apply::<F, TANH>(x),
            Self::Sigmoid => apply::<F, SIGMOID>(x),
            Self::Silu => apply::<F, SILU>(x),
        }
    }

    /// Multiplies every gradient by the derivative at x, on the calling thread; for use inside a
    /// task.
    ///
    /// # Panics
    /// If the lengths differ (except for [`Activation::None`], which ignores `x`).
    pub fn apply_derivative_serial<F: Float>(self, x: &[F], dy: &mut [F]) {
        assert!(self == Self::None || x.len() == dy.len(), "activation input and gradient differ");
        match self {
            Self::None => {}
            Self::Relu => apply_derivative::<F, RELU>(x, dy),
            Self::Gelu => apply_derivative::<F, GELU>(x, dy),
            Self::GeluTanh => apply_derivative::<F, GELU_TANH>(x, dy),
            Self::Tanh => apply_derivative::<F, TANH>(x, dy),
            Self::Sigmoid => apply_derivative::<F, SIGMOID>(x, dy),
            Self::Silu => apply_derivative::<F, SILU>(x, dy),
        }
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
    use crate::kernels::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
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
    fn threads_and_levels_do_not_change_bits() {
        let x: Vec<f32> = random(3 * BLOCK_LEN + 7, 4);
        let (one, three) = with_one_and_three_threads(|| {
            let mut y = vec![0.0; x.len()];
            activation_forward(Activation::Gelu, &x, &mut y).unwrap();
            y
        });
        assert_same_bits(&one, &three);
        let plain: Vec<f32> = x.iter().map(|&x| value::<f32, GELU>(x)).collect();
        assert_same_bits(&one, &plain);
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
