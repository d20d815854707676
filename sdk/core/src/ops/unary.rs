//! Elementwise operations on one tensor.

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi as abi;

use super::{check_float, pooled};
use crate::device;
use crate::error::{Result, fail};
use crate::kernels::activation::{
    Activation, activation_backward, activation_backward_in_place, activation_forward,
};
use crate::storage::{self, Real, Value};
use crate::tape::record1;
use crate::tensor::Tensor;

/// Name of an `ET_UNARY_` operation. Errors: `INVALID_ARGUMENT` for an unknown code.
pub fn name(op: i32) -> Result<&'static str> {
    Ok(match op {
        abi::ET_UNARY_NEG => "neg",
        abi::ET_UNARY_EXP => "exp",
        abi::ET_UNARY_LOG => "log",
        abi::ET_UNARY_SQRT => "sqrt",
        abi::ET_UNARY_SQR => "sqr",
        abi::ET_UNARY_ABS => "abs",
        abi::ET_UNARY_RECIP => "recip",
        abi::ET_UNARY_SIN => "sin",
        abi::ET_UNARY_COS => "cos",
        abi::ET_UNARY_TANH => "tanh",
        abi::ET_UNARY_SIGMOID => "sigmoid",
        abi::ET_UNARY_RELU => "relu",
        abi::ET_UNARY_GELU => "gelu",
        abi::ET_UNARY_GELU_TANH => "gelu_tanh",
        abi::ET_UNARY_SILU => "silu",
        abi::ET_UNARY_ERF => "erf",
        abi::ET_UNARY_SIGN => "sign",
        other => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "unary: {other} is no operation, expected an ET_UNARY_ constant"
        ),
    })
}

/// True if the operation works for the type.
pub fn supports(op: i32, dtype: DType) -> bool {
    name(op).is_ok()
        && (dtype.is_float()
            || matches!(
                op,
                abi::ET_UNARY_NEG
                    | abi::ET_UNARY_ABS
                    | abi::ET_UNARY_SIGN
                    | abi::ET_UNARY_SQR
                    | abi::ET_UNARY_RELU
            ) && (dtype == DType::I64 || op != abi::ET_UNARY_NEG))
}

/// The kernel that computes an operation, if it is one of the kernels'.
fn activation_of(op: i32) -> Option<Activation> {
    Some(match op {
        abi::ET_UNARY_TANH => Activation::Tanh,
        abi::ET_UNARY_SIGMOID => Activation::Sigmoid,
        abi::ET_UNARY_RELU => Activation::Relu,
        abi::ET_UNARY_GELU => Activation::Gelu,
        abi::ET_UNARY_GELU_TANH => Activation::GeluTanh,
        abi::ET_UNARY_SILU => Activation::Silu,
        _ => return None,
    })
}

/// Applies an `ET_UNARY_` operation. Integers know neg (I64), abs, sign, sqr and relu. Errors: `INVALID_ARGUMENT`,
/// `DTYPE`.
pub fn unary(op: i32, x: &Tensor) -> Result<Tensor> {
    let name = name(op)?;
    if x.dtype().is_int() {
        return integer(op, name, x);
    }
    check_float(name, x.dtype())?;
    if let Some(activation) = activation_of(op) {
        return match x.dtype() {
            DType::F32 => activate::<f32>(name, activation, x),
            DType::F64 => activate::<f64>(name, activation, x),
            dtype => {
                let wide = activate::<f32>(name, activation, &super::shape::cast(x, DType::F32)?)?;
                super::shape::cast(&wide, dtype)
            }
        };
    }
    x.widen()?;
    let v = x.value();
    let y = match op {
        abi::ET_UNARY_NEG => pooled::affine(v, -1.0, -0.0)?,
        abi::ET_UNARY_EXP => v.exp()?,
        abi::ET_UNARY_LOG => v.log()?,
        abi::ET_UNARY_SQRT => v.sqrt()?,
        abi::ET_UNARY_SQR => v.sqr()?,
        abi::ET_UNARY_ABS => v.abs()?,
        abi::ET_UNARY_RECIP => v.recip()?,
        abi::ET_UNARY_SIN => v.sin()?,
        abi::ET_UNARY_COS => v.cos()?,
        abi::ET_UNARY_ERF => v.erf()?,
        _ => v.sign()?,
    };
    if op == abi::ET_UNARY_SIGN {
        return Ok(Tensor::new(y));
    }
    // What the derivative needs: the result where it is written by the result, else the input.
    let saved: Option<Value> = match op {
        abi::ET_UNARY_NEG => None,
        abi::ET_UNARY_EXP | abi::ET_UNARY_SQRT | abi::ET_UNARY_RECIP => Some(Value::new(y.clone())),
        _ => Some(x.save()),
    };
    Ok(record1(name, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad: &Raw = &grad;
        let dx = match saved.as_deref() {
            None => pooled::affine(grad, -1.0, -0.0)?,
            Some(s) => match op {
                abi::ET_UNARY_EXP => pooled::mul(grad, s)?,
                abi::ET_UNARY_SQRT => (grad / s)?.affine(0.5, 0.0)?,
                abi::ET_UNARY_RECIP => (grad * s.sqr()?)?.neg()?,
                abi::ET_UNARY_LOG => pooled::div(grad, s)?,
                abi::ET_UNARY_SQR => pooled::affine(&pooled::mul(grad, s)?, 2.0, 0.0)?,
                abi::ET_UNARY_ABS => (grad * s.sign()?)?,
                abi::ET_UNARY_SIN => (grad * s.cos()?)?,
                abi::ET_UNARY_COS => (grad * s.sin()?)?.neg()?,
                // erf' = 2 / sqrt(pi) exp(-x^2)
                _ => (grad * s.sqr()?.neg()?.exp()?)?
                    .affine(std::f64::consts::FRAC_2_SQRT_PI, 0.0)?,
            },
        };
        pass.give(0, dx)
    }))
}

fn activate<F: Real>(name: &'static str, activation: Activation, x: &Tensor) -> Result<Tensor> {
    if let Some(y) = device::offer(&[x], |device| device.activate(name, activation, x))? {
        return Ok(y);
    }
    let v = Value::new(x.value().contiguous()?);
    let mut y = storage::take::<F>(v.elem_count());
    activation_forward(activation, &storage::read::<F>(&v)?, &mut y)?;
    let y = storage::tensor_from_vec(y, v.dims().to_vec())?;
    Ok(record1(name, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let x = storage::read::<F>(&v)?;
        let dx = if grad.is_contiguous() && storage::is_unique(&grad) {
            storage::with_mut::<F, _>(&grad, |dy| {
                activation_backward_in_place(activation, &x, dy)
            })??;
            grad
        } else {
            let grad = Value::new(grad.contiguous()?);
            let mut dx = storage::take::<F>(x.len());
            activation_backward(activation, &x, &storage::read::<F>(&grad)?, &mut dx)?;
            Value::new(storage::tensor_from_vec(dx, v.dims().to_vec())?)
        };
        pass.give(0, dx)
    }))
}

fn integer(op: i32, name: &str, x: &Tensor) -> Result<Tensor> {
    if !supports(op, x.dtype()) {
        fail!(ET_ERR_DTYPE, "{name}: not defined for integers, found {}", x.dtype().as_str());
    }
    let v = x.value().contiguous()?;
    let shape = v.dims().to_vec();
    let unsigned = |x: u64| match op {
        abi::ET_UNARY_SIGN => u64::from(x > 0),
        abi::ET_UNARY_SQR => x.wrapping_mul(x),
        _ => x,
    };
    let y = match v.dtype() {
        DType::U8 => {
            let y =
                storage::read::<u8>(&v)?.iter().map(|&x| unsigned(u64::from(x)) as u8).collect();
            storage::tensor_from_vec::<u8>(y, shape)?
        }
        DType::U32 => {
            let y =
                storage::read::<u32>(&v)?.iter().map(|&x| unsigned(u64::from(x)) as u32).collect();
            storage::tensor_from_vec::<u32>(y, shape)?
        }
        _ => {
            let y = storage::read::<i64>(&v)?
                .iter()
                .map(|&x| match op {
                    abi::ET_UNARY_NEG => x.wrapping_neg(),
                    abi::ET_UNARY_ABS => x.wrapping_abs(),
                    abi::ET_UNARY_SIGN => x.signum(),
                    abi::ET_UNARY_SQR => x.wrapping_mul(x),
                    _ => x.max(0),
                })
                .collect();
            storage::tensor_from_vec::<i64>(y, shape)?
        }
    };
    Ok(Tensor::new(y))
}

/// `x * scale + shift`.
pub fn affine(x: &Tensor, scale: f64, shift: f64) -> Result<Tensor> {
    let y = pooled::affine(x.value(), scale, shift)?;
    Ok(record1("affine", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dx = if scale == 1.0 { grad } else { Value::new(pooled::affine(&grad, scale, 0.0)?) };
        pass.give(0, dx)
    }))
}

/// `x ^ exponent`. Errors: `DTYPE` for integers.
pub fn power(x: &Tensor, exponent: f64) -> Result<Tensor> {
    check_float("power", x.dtype())?;
    let y = x.value().powf(exponent)?;
    let saved = x.save();
    Ok(record1("power", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dx = if exponent == 0.0 {
            grad.zeros_like()?
        } else {
            (&*grad * saved.powf(exponent - 1.0)?)?.affine(exponent, 0.0)?
        };
        pass.give(0, dx)
    }))
}

/// Values limited to `[low, high]`; the gradient is 0 outside. Errors: `INVALID_ARGUMENT` unless low <= high.
pub fn clamp(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    if low > high || low.is_nan() || high.is_nan() {
        fail!(ET_ERR_INVALID_ARGUMENT, "clamp: low must not be above high, found {low} and {high}");
    }
    if x.value().elem_count() == 0 {
        return Ok(x.clone());
    }
    let v = x.value();
    let bound = |value: f64| -> Result<Raw> {
        Ok(Raw::full(value, (), v.device())?.to_dtype(v.dtype())?.broadcast_as(v.shape())?)
    };
    let (low, high) = (bound(low)?, bound(high)?);
    let y = v.maximum(&low)?.minimum(&high)?;
    let saved = x.save();
    Ok(record1("clamp", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let inside = saved.ge(&low)?.mul(&saved.le(&high)?)?;
        pass.give(0, inside.where_cond(&grad, &grad.zeros_like()?)?)
    }))
}
