//! Linear layers.

use std::sync::Arc;

use candle_core::DType;
use easytransfer_abi as abi;
use half::bf16;

use super::{
    Direct, by_dtype, check_shape, dense, give_vec, give_written, given, owned, rows_cols, wanted,
};
use crate::device;
use crate::error::{Result, fail};
use crate::inference::{self, PackedWeight};
use crate::kernels::activation::{Activation, Kept, KeptMut, KeptRef, activation_forward};
use crate::kernels::elementwise::{Store, column_sum};
use crate::kernels::linear::{
    LinearShape, linear_backward_activation, linear_backward_products, linear_forward,
};
use crate::kernels::packed::linear_packed;
use crate::precision;
use crate::recompute::{self, Recipe, Saved};
use crate::storage::{self, Value};
use crate::tape::{keeps, record1, records};
use crate::tensor::Tensor;

/// The activation of an `ET_ACTIVATION_` constant. Errors: `INVALID_ARGUMENT`.
pub fn activation_from_code(code: i32) -> Result<Activation> {
    Ok(match code {
        abi::ET_ACTIVATION_NONE => Activation::None,
        abi::ET_ACTIVATION_RELU => Activation::Relu,
        abi::ET_ACTIVATION_GELU => Activation::Gelu,
        abi::ET_ACTIVATION_GELU_TANH => Activation::GeluTanh,
        abi::ET_ACTIVATION_TANH => Activation::Tanh,
        abi::ET_ACTIVATION_SIGMOID => Activation::Sigmoid,
        abi::ET_ACTIVATION_SILU => Activation::Silu,
        other => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "linear: {other} is no activation, expected an ET_ACTIVATION_ constant"
        ),
    })
}

/// activation(x W^T + b) for x [.., i], W [o, i], b `[o]`. Errors: `SHAPE`, `DTYPE`.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    if let Some(y) = packed(x, weight, bias, activation)? {
        return Ok(y);
    }
    by_dtype("linear", &[Some(x), Some(weight), bias], |inputs, double| {
        let (x, weight, bias) = (given(inputs, 0)?, given(inputs, 1)?, inputs[2].as_ref());
        if double {
            typed::<f64>(x, weight, bias, activation)
        } else {
            typed::<f32>(x, weight, bias, activation)
        }
    })
}

/// The layer of prediction: within an [`inference::PredictionScope`], unrecorded, with the value of a parameter as
/// weight. `None` where it does not apply, and for shapes that do not fit, which the general way refuses.
fn packed(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Option<Tensor>> {
    let (Some(wanted), Some(packs)) = (inference::precision(), weight.packs()) else {
        return Ok(None);
    };
    // A device has its own way.
    if !device::is_host(x.stored()) {
        return Ok(None);
    }
    let (&[.., inputs], &[outputs, width]) = (x.dims(), weight.dims()) else { return Ok(None) };
    let is_f32 = |tensor: &Tensor| tensor.dtype() == DType::F32;
    if inputs != width
        || outputs == 0
        || !(is_f32(x) && is_f32(weight) && bias.is_none_or(is_f32))
        || bias.is_some_and(|bias| bias.dims() != [outputs])
        || records(&[x, weight])
        || bias.is_some_and(|bias| records(&[bias]))
    {
        return Ok(None);
    }
    let precision = inference::precision_of_layer(wanted, outputs, inputs);
    let packed = packs.get(precision, || {
        let weight = dense(weight.value())?;
        Ok(PackedWeight::new(precision, &storage::read::<f32>(&weight)?, outputs, inputs)?)
    })?;
    let vx = dense(x.value())?;
    let vb = bias.map(|bias| dense(bias.value())).transpose()?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let mut y = storage::take::<f32>(dims.iter().product());
    {
        let bias = vb.as_deref().map(storage::read::<f32>).transpose()?;
        linear_packed(&storage::read::<f32>(&vx)?, &packed, bias.as_deref(), activation, &mut y)?;
    }
    Ok(Some(Tensor::new(storage::tensor_from_vec(y, dims)?)))
}

fn typed<F: Direct>(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (rows, inputs) = rows_cols("linear", x)?;
    let &[outputs, found] = weight.dims() else {
        fail!(ET_ERR_SHAPE, "linear: the weight must have two axes, found {:?}", weight.dims());
    };
    if found != inputs {
        fail!(
            ET_ERR_SHAPE,
            "linear: the weight {:?} must have as many columns as x {:?}, expected {inputs}, found {found}",
            weight.dims(),
            x.dims()
        );
    }
    if let Some(bias) = bias {
        check_shape("linear", "the bias", bias, &[outputs])?;
    }
    let mut tracked = vec![x, weight];
    tracked.extend(bias);
    let on_device = device::offer(&tracked, |device| device.linear(x, weight, bias, activation))?;
    if let Some(y) = on_device {
        return Ok(y);
    }
    let bf16 = F::DTYPE == DType::F32 && precision::rounds(outputs, inputs);
    let shape = LinearShape { rows, inputs, outputs, bf16 };
    let (vx, vw) = (dense(x.value())?, dense(weight.value())?);
    let vb = bias.map(|bias| dense(bias.value())).transpose()?;
    let mut y = storage::take::<F>(rows * outputs);
    let mut kept =
        (activation != Activation::None && keeps(&tracked)).then(|| take_kept::<F>(shape));
    {
        let bias = vb.as_deref().map(storage::read::<F>).transpose()?;
        let (x, weight) = (storage::read::<F>(&vx)?, storage::read::<F>(&vw)?);
        linear_forward(
            shape,
            &x,
            &weight,
            bias.as_deref(),
            activation,
            &mut y,
            kept.as_mut().map(|kept| kept_mut(kept, rows * outputs)),
        )?;
    }
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let kept = kept.map(held).transpose()?;
    let y = storage::tensor_from_vec(y, dims.clone())?;
    let recipe = match &kept {
        Some(Kept::Input(input)) => {
            let input = input.clone();
            Some(Arc::new(move || {
                let mut y = storage::take::<F>(rows * outputs);
                activation_forward(activation, &storage::read::<F>(&input)?, &mut y)?;
                Ok(Value::new(storage::tensor_from_vec(y, dims.clone())?))
            }) as Recipe)
        }
        _ => None,
    };
    let saved = Saved::new(x, &vx);
    drop(vx);
    let (dims_x, dims_w) = (x.dims().to_vec(), weight.dims().to_vec());
    let y = record1("linear", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dy = match kept {
            Some(kept) => {
                let dy = owned::<F>(grad)?;
                let mut dbias = wanted::<F>(pass, 2, outputs);
                let slot = dbias.as_deref_mut().map(|dbias| (Store::Write, dbias));
                with_kept::<F, _>(&kept, rows * outputs, |kept| {
                    storage::with_mut::<F, _>(&dy, |dy| {
                        linear_backward_activation(shape, activation, kept, dy, slot)
                    })
                })???;
                give_vec(pass, 2, &[outputs], dbias)?;
                dy
            }
            None => {
                let dy = dense(&grad)?;
                drop(grad);
                give_written::<F>(pass, 2, &[outputs], |store, dbias| {
                    Ok(column_sum(&storage::read::<F>(&dy)?, store, dbias)?)
                })?;
                dy
            }
        };
        let dy = storage::read::<F>(&dy)?;
        if pass.wants(1) {
            let x = saved.value()?;
            let x = storage::read::<F>(&x)?;
            give_written::<F>(pass, 1, &dims_w, |store, dw| {
                Ok(linear_backward_products(shape, &x, &[], &dy, None, Some((store, dw)))?)
            })?;
        }
        drop(saved);
        let weight = storage::read::<F>(&vw)?;
        give_written::<F>(pass, 0, &dims_x, |store, dx| {
            Ok(linear_backward_products(shape, &[], &weight, &dy, Some((store, dx)), None)?)
        })
    });
    Ok(match recipe {
        Some(recipe) => y.with_recipe(recipe),
        None => y,
    })
}

/// Memory for what the activation of a layer keeps: its input where outputs are computed again from it, else its
/// derivative, in half of the bits where the products of the backward pass round the gradient anyhow.
fn take_kept<F: Direct>(shape: LinearShape) -> Kept<Vec<F>, Vec<f32>> {
    let len = shape.rows * shape.outputs;
    if recompute::is_cheap() {
        Kept::Input(storage::take(len))
    } else if shape.bf16 {
        Kept::RoundedSlope(storage::take(len.div_ceil(2)))
    } else {
        Kept::Slope(storage::take(len))
    }
}

/// The `len` elements to write.
fn kept_mut<F>(kept: &mut Kept<Vec<F>, Vec<f32>>, len: usize) -> KeptMut<'_, F> {
    match kept {
        Kept::Input(values) => Kept::Input(values),
        Kept::Slope(values) => Kept::Slope(values),
        Kept::RoundedSlope(words) => {
            // SAFETY: any bits are a bfloat16, and a word has the alignment of one.
            let (_, halves, _) = unsafe { words.align_to_mut::<bf16>() };
            Kept::RoundedSlope(&mut halves[..len])
        }
    }
}

/// The same memory, which goes back to the pool when nobody needs it.
fn held<F: Direct>(kept: Kept<Vec<F>, Vec<f32>>) -> Result<Kept<Value, Value>> {
    fn value<T: storage::Element>(data: Vec<T>) -> Result<Value> {
        let len = data.len();
        Ok(Value::new(storage::tensor_from_vec(data, len)?))
    }
    Ok(match kept {
        Kept::Input(values) => Kept::Input(value(values)?),
        Kept::Slope(values) => Kept::Slope(value(values)?),
        Kept::RoundedSlope(words) => Kept::RoundedSlope(value(words)?),
    })
}

/// Calls `f` with the `len` elements.
fn with_kept<F: Direct, R>(
    kept: &Kept<Value, Value>,
    len: usize,
    f: impl FnOnce(KeptRef<'_, F>) -> R,
) -> Result<R> {
    Ok(match kept {
        Kept::Input(values) => f(Kept::Input(&storage::read::<F>(values)?)),
        Kept::Slope(values) => f(Kept::Slope(&storage::read::<F>(values)?)),
        Kept::RoundedSlope(words) => {
            let words = storage::read::<f32>(words)?;
            // SAFETY: any bits are a bfloat16, and a word has the alignment of one.
            let (_, halves, _) = unsafe { words.align_to::<bf16>() };
            f(Kept::RoundedSlope(&halves[..len]))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::tape::{Leaf, backward};

    /// A leaf with memory of its own; counts how it was written.
    #[derive(Default)]
    struct Memory(Mutex<(Vec<f32>, usize, usize)>);

    impl Leaf for Memory {
        fn accumulate(&self, _grad: &candle_core::Tensor) -> Result<()> {
            self.0.lock().unwrap().2 += 1;
            Ok(())
        }
        fn accumulate_f32(&self, f: &mut dyn FnMut(&mut [f32], bool)) -> Result<bool> {
            let (data, written, _) = &mut *self.0.lock().unwrap();
            let first = *written == 0;
            if first {
                // Garbage that a first contribution must overwrite.
                *data = vec![f32::NAN; 6];
            }
            f(data, first);
            *written += 1;
            Ok(true)
        }
    }

    #[test]
    fn weight_gradients_go_straight_into_the_leaf() {
        let raw = |data: Vec<f32>, shape| storage::tensor_from_vec::<f32>(data, shape).unwrap();
        let memory = Arc::new(Memory::default());
        let w = Tensor::from_leaf(raw(vec![0.5; 6], (2, 3)), memory.clone());
        let x = Tensor::new(raw(vec![1.0, 2.0, 3.0], (1, 3)));
        let seed = Tensor::new(raw(vec![1.0, -1.0], (1, 2)));
        for pass in 1..=2 {
            let y = linear(&x, &w, None, Activation::None).unwrap();
            backward(&y, Some(&seed)).unwrap();
            let (data, written, added) = &*memory.0.lock().unwrap();
            let expected = [1.0, 2.0, 3.0, -1.0, -2.0, -3.0].map(|g| g * pass as f32);
            assert_eq!((data.as_slice(), *written, *added), (&expected[..], pass, 0));
        }
    }
}
