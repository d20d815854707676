//! Elementwise kernels: activations, dropout, casts, sums of columns.

use candle_core::{DType, Tensor as Raw};

use super::launch::{Dropout, Launch, Module::Elementwise};
use super::memory::{empty, floats};
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::kernels::philox;
use crate::storage::Value;
use crate::tape::record1;
use crate::tensor::Tensor;

/// The kernels' number of an activation, that of its `ET_ACTIVATION_` constant.
fn code(activation: Activation) -> i32 {
    use easytransfer_abi as abi;
    match activation {
        Activation::None => abi::ET_ACTIVATION_NONE,
        Activation::Relu => abi::ET_ACTIVATION_RELU,
        Activation::Gelu => abi::ET_ACTIVATION_GELU,
        Activation::GeluTanh => abi::ET_ACTIVATION_GELU_TANH,
        Activation::Tanh => abi::ET_ACTIVATION_TANH,
        Activation::Sigmoid => abi::ET_ACTIVATION_SIGMOID,
        Activation::Silu => abi::ET_ACTIVATION_SILU,
    }
}

/// y = activation(x), x contiguous f32.
pub(super) fn forward(activation: Activation, x: &Raw) -> Result<Raw> {
    let y = floats(x.shape())?;
    let n = x.elem_count();
    let launch = Launch::new(Elementwise, "et_activation_forward");
    // SAFETY: x and y have n elements.
    unsafe { launch.elements(n).i32(code(activation)).u64(n).tensor(x).tensor(&y).run() }?;
    Ok(y)
}

/// dy activation'(x), both contiguous f32.
pub(super) fn backward(activation: Activation, x: &Raw, dy: &Raw) -> Result<Raw> {
    let dx = floats(dy.shape())?;
    let n = x.elem_count();
    let launch = Launch::new(Elementwise, "et_activation_backward");
    let launch = launch.elements(n).i32(code(activation)).u64(n);
    // SAFETY: all three have n elements.
    unsafe { launch.tensor(x).tensor(dy).tensor(&dx).run() }?;
    Ok(dx)
}

/// An activation as an operation of its own.
pub(crate) fn activate(name: &'static str, activation: Activation, x: &Tensor) -> Result<Tensor> {
    let v = Value::new(x.value().contiguous()?);
    let y = forward(activation, &v)?;
    Ok(record1(name, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, backward(activation, &v, &grad.contiguous()?)?)
    }))
}

fn drop_out(dropout: philox::Dropout, x: &Raw) -> Result<Raw> {
    let y = floats(x.shape())?;
    let n = x.elem_count();
    let launch = Launch::new(Elementwise, "et_dropout").elements(n.div_ceil(4));
    // SAFETY: x and y have n elements.
    unsafe { launch.value(Dropout::from(Some(dropout))).u64(n).tensor(x).tensor(&y).run() }?;
    Ok(y)
}

/// x times the dropout factors.
pub(crate) fn dropout(x: &Tensor, dropout: philox::Dropout) -> Result<Tensor> {
    let y = drop_out(dropout, &x.value().contiguous()?)?;
    Ok(record1("dropout", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, drop_out(dropout, &grad.contiguous()?)?)
    }))
}

/// Rows that one block of a column sum adds: depends on the shape only, so the order of sums does too.
pub(super) fn chunk_rows(rows: usize) -> usize {
    rows.div_ceil(128).max(64)
}

/// out [cols] = (add ? out : 0) + the sums of the columns of x [rows, cols].
pub(super) fn column_sum(x: &Raw, rows: usize, cols: usize, add: bool, out: &Raw) -> Result<()> {
    let chunk = chunk_rows(rows);
    let parts = rows.div_ceil(chunk);
    let partial = floats((parts.max(1), cols))?;
    let launch = Launch::new(Elementwise, "et_column_partial").block(32, 8);
    let launch = launch.grid(cols.div_ceil(32), parts).u64(rows).u64(cols).u64(chunk);
    // SAFETY: x has rows * cols elements, partial one row per block row.
    unsafe { launch.tensor(x).tensor(&partial).run() }?;
    finish_columns(&partial, parts, cols, add, out)
}

/// out [cols] = (add ? out : 0) + the sums of the columns of `partial` [parts, cols], in order.
pub(super) fn finish_columns(
    partial: &Raw,
    parts: usize,
    cols: usize,
    add: bool,
    out: &Raw,
) -> Result<()> {
    let launch = Launch::new(Elementwise, "et_column_finish").elements(cols);
    // SAFETY: partial has parts * cols elements, out cols.
    unsafe { launch.u64(parts).u64(cols).flag(add).tensor(partial).tensor(out).run() }
}

/// y (+)= x, both contiguous f32 of one length.
pub(crate) fn store(x: &Raw, add: bool, y: &Raw) -> Result<()> {
    let n = x.elem_count();
    let launch = Launch::new(Elementwise, "et_store").elements(n).u64(n).flag(add);
    // SAFETY: both have n elements.
    unsafe { launch.tensor(x).tensor(y).run() }
}

/// x, contiguous f32, in half the bits.
pub(super) fn narrow(x: &Raw, dtype: DType) -> Result<Raw> {
    let name = match dtype {
        DType::BF16 => "et_cast_bf16",
        DType::F16 => "et_cast_f16",
        _ => return Ok(x.clone()),
    };
    let y = empty(dtype, x.shape())?;
    let n = x.elem_count();
    // SAFETY: both have n elements, y of the kernel's type.
    unsafe { Launch::new(Elementwise, name).elements(n).u64(n).tensor(x).tensor(&y).run() }?;
    Ok(y)
}
