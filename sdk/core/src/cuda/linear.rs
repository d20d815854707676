//! Linear layers: products by cuBLASLt with the bias in their epilogue, gradients of weights straight into the arena.

use candle_core::{DType, Tensor as Raw};

use super::activation::{backward, column_sum, forward, narrow};
use super::device::{Precision, engine};
use super::lt::Product;
use super::memory::floats;
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::nn::dense;
use crate::storage::Value;
use crate::tape::{Pass, record1, records};
use crate::tensor::Tensor;

/// The type in which products forward and backward read their operands. Backward products of half precision read bfloat16, whose
/// range is that of f32: small gradients do not vanish, so no loss has to be scaled.
fn types(precision: Precision) -> (DType, DType) {
    match precision {
        Precision::F32 | Precision::Tf32 => (DType::F32, DType::F32),
        Precision::Bf16 => (DType::BF16, DType::BF16),
        Precision::F16 => (DType::F16, DType::BF16),
    }
}

/// Gives the gradient of input `index` as `f(out, add)` writes it: straight into a leaf's memory, else into a new tensor.
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

/// activation(x W^T + b), x [.., i] f32; shapes were checked.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (outputs, inputs) = (weight.dims()[0], weight.dims()[1]);
    let rows = x.value().elem_count().checked_div(inputs).unwrap_or_else(|| {
        // Rows without columns: every output is the bias.
        x.dims()[..x.dims().len() - 1].iter().product()
    });
    let mut tracked = vec![x, weight];
    tracked.extend(bias);
    let recording = records(&tracked);
    let (ahead, back) = types(engine()?.precision);
    let (vx, vw) = (dense(x.value())?, dense(weight.value())?);
    let vb = bias.map(|bias| dense(bias.value())).transpose()?;
    let (nx, nw) = (narrow(&vx, ahead)?, narrow(&vw, ahead)?);
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let pre = floats(dims)?;
    let mut product = Product {
        m: outputs,
        n: rows,
        k: inputs,
        a: &nw,
        transpose_a: true,
        b: &nx,
        transpose_b: false,
        bias: vb.as_deref(),
        out: &pre,
        add: false,
    };
    if inputs == 0 {
        product.bias = None;
        product.run()?;
        let sum = vb.as_deref().map(|bias| pre.broadcast_add(bias)).transpose()?;
        if let Some(sum) = sum {
            super::activation::store(&sum, false, &pre)?;
        }
    } else {
        product.run()?;
    }
    let (y, saved) = match activation {
        Activation::None => (pre, None),
        _ => {
            let y = forward(activation, &pre)?;
            (y, recording.then(|| Value::new(pre)))
        }
    };
    // What backward products read: the narrow copies where they are of its type, else the values themselves.
    let keep = |narrow: Raw, value: Value| if ahead == back { Value::new(narrow) } else { value };
    let (sx, sw) = (keep(nx, vx), keep(nw, vw));
    let (dims_x, dims_w) = (x.dims().to_vec(), weight.dims().to_vec());
    Ok(record1("linear", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dy = grad.contiguous()?;
        drop(grad);
        let dy = match &saved {
            Some(pre) => backward(activation, pre, &dy)?,
            None => dy,
        };
        drop(saved);
        give_written(pass, 2, &[outputs], |out, add| column_sum(&dy, rows, outputs, add, out))?;
        let dy = narrow(&dy, back)?;
        let (sx, sw) = (narrow_to(&sx, back)?, narrow_to(&sw, back)?);
        give_written(pass, 1, &dims_w, |out, add| {
            let product = Product {
                m: inputs,
                n: outputs,
                k: rows,
                a: &sx,
                transpose_a: false,
                b: &dy,
                transpose_b: true,
                bias: None,
                out,
                add,
            };
            product.run()
        })?;
        if !pass.wants(0) {
            return Ok(());
        }
        let dx = floats(dims_x)?;
        let product = Product {
            m: inputs,
            n: rows,
            k: outputs,
            a: &sw,
            transpose_a: false,
            b: &dy,
            transpose_b: false,
            bias: None,
            out: &dx,
            add: false,
        };
        product.run()?;
        pass.give(0, dx)
    }))
}

fn narrow_to(x: &Raw, dtype: DType) -> Result<Raw> {
    if x.dtype() == dtype { Ok(x.clone()) } else { narrow(x, dtype) }
}
