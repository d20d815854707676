//! Linear layers: products by cuBLASLt with the bias in their epilogue, gradients of weights straight into the arena.
//!
//! In mixed precision, operands and results are kept in bf16 or f16, weights are copies that are made once per
//! version, and one pass over a layer's gradient takes it through the activation and sums it for the bias. Layers of
//! few outputs, such as a head's last, give f32.

use std::sync::Arc;

use candle_core::{DType, Tensor as Raw};

use super::activation::{Partial, backward, column_sum, finish_columns, forward, slopes};
use super::lt::Product;
use super::memory::{empty, floats};
use super::mixed::{convert, elements, gradient, gradient_type, is_half, kept_type};
use easytransfer_core::error::Result;
use easytransfer_core::inference::{Packs, SMALLEST_OUTPUTS};
use easytransfer_core::recompute::{self, Recipe, Saved};
use easytransfer_core::storage::Value;
use easytransfer_core::tape::{Pass, record_narrow, records};
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::activation::Activation;

/// Gives the gradient of input `index` as `f(out, add)` writes it: straight into a leaf's memory, else into a new
/// tensor.
pub(super) fn give_written(
    pass: &mut Pass<'_>,
    index: usize,
    shape: &[usize],
    mut f: impl FnMut(&Raw, bool) -> Result<()>,
) -> Result<()> {
    if !pass.wants(index) {
        return Ok(());
    }
    if pass.leaf_view(index, &mut |view, first| f(view, !first))? {
        return Ok(());
    }
    let grad = floats(shape)?;
    f(&grad, false)?;
    pass.give(index, grad)
}

/// A weight or bias, and where its copies in fewer bits are if it is the value of a parameter.
struct Weight {
    value: Value,
    packs: Option<Arc<Packs>>,
}

impl Weight {
    fn new(weight: &Tensor) -> Result<Self> {
        Ok(Self { value: elements(weight, DType::F32)?, packs: weight.packs().cloned() })
    }

    /// The elements in `dtype`.
    fn elements(&self, dtype: DType) -> Result<Value> {
        Ok(match &self.packs {
            Some(packs) if is_half(dtype) => Value::new(packs.narrow(&self.value, dtype)?),
            _ => convert(&self.value, dtype)?,
        })
    }
}

/// A layer's extents, and its products.
#[derive(Clone, Copy)]
pub(super) struct Extents {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
}

impl Extents {
    /// out = x W^T (+ b). The operands are of one type, bias and result of one.
    pub fn forward(self, x: &Raw, weight: &Raw, bias: Option<&Raw>, out: &Raw) -> Result<()> {
        let product = Product {
            m: self.outputs,
            n: self.rows,
            k: self.inputs,
            a: weight,
            transpose_a: true,
            b: x,
            transpose_b: false,
            bias: bias.filter(|_| self.inputs > 0),
            out,
            add: false,
        };
        product.run()
    }

    /// out (+)= dy^T x, the gradient of the weight.
    pub fn weight_gradient(self, x: &Raw, dy: &Raw, out: &Raw, add: bool) -> Result<()> {
        let product = Product {
            m: self.inputs,
            n: self.outputs,
            k: self.rows,
            a: x,
            transpose_a: false,
            b: dy,
            transpose_b: true,
            bias: None,
            out,
            add,
        };
        product.run()
    }

    /// out (+)= dy W, the gradient of x.
    pub fn input_gradient(self, weight: &Raw, dy: &Raw, out: &Raw, add: bool) -> Result<()> {
        let product = Product {
            m: self.inputs,
            n: self.rows,
            k: self.outputs,
            a: weight,
            transpose_a: false,
            b: dy,
            transpose_b: false,
            bias: None,
            out,
            add,
        };
        product.run()
    }
}

/// activation(x W^T + b), x [.., i] f32; shapes were checked.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (outputs, inputs) = (weight.dims()[0], weight.dims()[1]);
    let rows = x.elem_count().checked_div(inputs).unwrap_or_else(|| {
        // Rows without columns: every output is the bias.
        x.dims()[..x.dims().len() - 1].iter().product()
    });
    let extents = Extents { rows, inputs, outputs };
    let mut tracked = vec![x, weight];
    tracked.extend(bias);
    let recording = records(&tracked);
    let ahead = kept_type()?;
    let back = gradient_type(ahead);
    let kept = if outputs >= SMALLEST_OUTPUTS { ahead } else { DType::F32 };
    let vx = elements(x, ahead)?;
    let weight = Weight::new(weight)?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let pre = {
        let bias = bias.map(|bias| Weight::new(bias)?.elements(kept)).transpose()?;
        let weight = weight.elements(ahead)?;
        let y = empty(kept, dims)?;
        extents.forward(&vx, &weight, bias.as_deref(), &y)?;
        match &bias {
            // Without columns every output is the bias.
            Some(bias) if inputs == 0 => Value::new(y.broadcast_add(bias)?),
            _ => y,
        }
    };
    let (y, pre) = match activation {
        Activation::None => (pre, None),
        _ => (forward(activation, &pre)?, recording.then_some(pre)),
    };
    let recipe = pre
        .clone()
        .filter(|_| recompute::is_cheap())
        .map(|pre| -> Recipe { Arc::new(move || forward(activation, &pre)) });
    let saved = Saved::new(x, &vx);
    drop(vx);
    // The gradient of x is kept as x is.
    let dx_type = if x.is_narrow() { back } else { DType::F32 };
    let (dims_x, dims_w) = (x.dims().to_vec(), vec![outputs, inputs]);
    let y = record_narrow("linear", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dy = gradient(&grad, gradient_type(kept))?;
        drop(grad);
        let (dy, sums): (Value, Partial) = match &pre {
            Some(pre) if is_half(kept) => {
                let (dz, sums) = slopes(activation, pre, &dy, rows, outputs, pass.wants(2))?;
                (dz, sums)
            }
            Some(pre) => (backward(activation, pre, &dy)?, None),
            None => (dy, None),
        };
        drop(pre);
        give_written(pass, 2, &[outputs], |out, add| match &sums {
            Some((partial, parts)) => finish_columns(partial, *parts, outputs, add, out),
            None => column_sum(&dy, rows, outputs, add, out),
        })?;
        let dy = convert(&dy, back)?;
        if pass.wants(1) {
            let x = saved.value()?;
            let x = gradient(&x, back)?;
            give_written(pass, 1, &dims_w, |out, add| extents.weight_gradient(&x, &dy, out, add))?;
        }
        drop(saved);
        if !pass.wants(0) {
            return Ok(());
        }
        let weight = weight.elements(back)?;
        // Queries, keys and values are made of one x: the later gradients are added where the first one lies.
        if is_half(dx_type)
            && let Some(sum) = pass.pending_on_device(0, dx_type, &dims_x)
        {
            return extents.input_gradient(&weight, &dy, sum, true);
        }
        let dx = empty(dx_type, dims_x)?;
        extents.input_gradient(&weight, &dy, &dx, false)?;
        pass.give(0, dx)
    });
    Ok(match recipe {
        Some(recipe) => y.with_recipe(recipe),
        None => y,
    })
}
