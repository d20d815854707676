//! Elementwise kernels: activations, dropout, sums of columns.

use candle_core::{DType, Tensor as Raw};

use super::launch::{Dropout, Launch, Module::Elementwise, Module::Half};
use super::memory::{empty, floats};
use super::mixed::{GRADIENTS, elements, gradient, gradient_type, is_half, named, type_of};
use easytransfer_core::error::Result;
use easytransfer_core::storage::Value;
use easytransfer_core::tape::record_narrow;
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::activation::Activation;
use easytransfer_kernels::philox;

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

/// y = activation(x), x contiguous, f32 or kept in fewer bits; y is kept as x is.
pub(super) fn forward(activation: Activation, x: &Raw) -> Result<Value> {
    let y = empty(x.dtype(), x.shape())?;
    let n = x.elem_count();
    let name = ["et_activation_forward", "et_activation_bf16", "et_activation_f16"];
    let launch = by_type(x.dtype(), name, [n, n.div_ceil(16)]).i32(code(activation)).u64(n);
    // SAFETY: x and y have n elements of the kernel's type.
    unsafe { launch.tensor(x).tensor(&y).run() }?;
    Ok(y)
}

/// A launch of the kernel for this type with that many threads: for f32, for fewer bits.
fn by_type(dtype: DType, names: [&'static str; 3], threads: [usize; 2]) -> Launch {
    let name = named(dtype, names);
    if is_half(dtype) {
        Launch::new(Half, name).elements(threads[1])
    } else {
        Launch::new(Elementwise, name).elements(threads[0])
    }
}

/// dy activation'(x), both contiguous; dy is f32 where x is, else bf16.
pub(super) fn backward(activation: Activation, x: &Raw, dy: &Raw) -> Result<Value> {
    if is_half(x.dtype()) {
        let (rows, cols) = matrix_of(x);
        return slopes(activation, x, dy, rows, cols, false).map(|(dz, _)| dz);
    }
    let dx = floats(dy.shape())?;
    let n = x.elem_count();
    let launch = Launch::new(Elementwise, "et_activation_backward");
    let launch = launch.elements(n).i32(code(activation)).u64(n);
    // SAFETY: all three have n elements.
    unsafe { launch.tensor(x).tensor(dy).tensor(&dx).run() }?;
    Ok(dx)
}

/// Rows and columns of the last axis.
fn matrix_of(x: &Raw) -> (usize, usize) {
    let cols = x.dims().last().copied().unwrap_or(1);
    (x.elem_count().checked_div(cols).unwrap_or(0), cols)
}

/// Sums of columns that are not finished: [parts, cols].
pub(super) type Partial = Option<(Value, usize)>;

/// dy activation'(x) in bf16 for x [rows, cols] that is kept in fewer bits, and on the way the sums of its columns,
/// if they are wanted.
pub(super) fn slopes(
    activation: Activation,
    x: &Raw,
    dy: &Raw,
    rows: usize,
    cols: usize,
    sums: bool,
) -> Result<(Value, Partial)> {
    let dz = empty(GRADIENTS, dy.shape())?;
    let partial = half_columns(code(activation), Some(x), dy, Some(&*dz), rows, cols, sums)?;
    Ok((dz, partial))
}

/// Launches the kernel behind [`slopes`]; without x only the columns of dy are summed.
fn half_columns(
    code: i32,
    x: Option<&Raw>,
    dy: &Raw,
    dz: Option<&Raw>,
    rows: usize,
    cols: usize,
    sums: bool,
) -> Result<Partial> {
    let chunk = chunk_rows(rows, cols);
    let parts = rows.div_ceil(chunk);
    let partial = sums.then(|| floats((parts.max(1), cols))).transpose()?;
    let dtype = x.map_or(GRADIENTS, Raw::dtype);
    let launch = Launch::new(Half, named(dtype, ["", "et_slopes_bf16", "et_slopes_f16"]));
    let launch = launch.block(32, 8).grid(cols.div_ceil(256), parts).i32(code);
    let launch = launch.u64(rows).u64(cols).u64(chunk).maybe(x).tensor(dy).maybe(dz);
    // SAFETY: x, dy and dz have rows * cols elements of the kernel's types, partial one row per block row.
    unsafe { launch.maybe(partial.as_deref()).run() }?;
    Ok(partial.map(|partial| (partial, parts)))
}

/// An activation as an operation of its own.
pub(crate) fn activate(name: &'static str, activation: Activation, x: &Tensor) -> Result<Tensor> {
    let v = elements(x, type_of(x))?;
    let y = forward(activation, &v)?;
    Ok(record_narrow(name, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = gradient(&grad, gradient_type(v.dtype()))?;
        pass.give(0, backward(activation, &v, &grad)?)
    }))
}

fn drop_out(dropout: philox::Dropout, x: &Raw) -> Result<Value> {
    let y = empty(x.dtype(), x.shape())?;
    let n = x.elem_count();
    let names = ["et_dropout", "et_dropout_bf16", "et_dropout_f16"];
    let launch = by_type(x.dtype(), names, [n.div_ceil(4); 2]);
    // SAFETY: x and y have n elements of the kernel's type.
    unsafe { launch.value(Dropout::from(Some(dropout))).u64(n).tensor(x).tensor(&y).run() }?;
    Ok(y)
}

/// x times the dropout factors.
pub(crate) fn dropout(x: &Tensor, dropout: philox::Dropout) -> Result<Tensor> {
    let back = gradient_type(type_of(x));
    let vx = elements(x, type_of(x))?;
    let y = drop_out(dropout, &vx)?;
    Ok(record_narrow("dropout", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = gradient(&grad, back)?;
        pass.give(0, drop_out(dropout, &grad)?)
    }))
}

/// Rows that one block of a column sum adds, a multiple of the eight that it adds at once: depends on the shape only,
/// so the order of sums does too. Blocks of 256 columns are then at most 528, which are at work at once where 132
/// multiprocessors hold four each.
pub(super) fn chunk_rows(rows: usize, cols: usize) -> usize {
    let parts = (528 / cols.div_ceil(256).max(1)).max(1);
    rows.div_ceil(parts).max(1).next_multiple_of(8)
}

/// out [cols] = (add ? out : 0) + the sums of the columns of x [rows, cols], f32 or bf16.
pub(super) fn column_sum(x: &Raw, rows: usize, cols: usize, add: bool, out: &Raw) -> Result<()> {
    if x.dtype() == GRADIENTS {
        return match half_columns(0, None, x, None, rows, cols, true)? {
            Some((partial, parts)) => finish_columns(&partial, parts, cols, add, out),
            None => Ok(()),
        };
    }
    let chunk = chunk_rows(rows, cols);
    let parts = rows.div_ceil(chunk);
    let partial = floats((parts.max(1), cols))?;
    let launch = Launch::new(Elementwise, "et_column_partial").block(32, 8);
    let launch = launch.grid(cols.div_ceil(32), parts).u64(rows).u64(cols).u64(chunk);
    // SAFETY: x has rows * cols elements, partial one row per block row.
    unsafe { launch.tensor(x).tensor(&partial).run() }?;
    finish_columns(&partial, parts, cols, add, out)
}

/// out [cols] = (add ? out : 0) + the sums of the columns of `partial` [parts, cols], in an order that `parts` sets.
pub(super) fn finish_columns(
    partial: &Raw,
    parts: usize,
    cols: usize,
    add: bool,
    out: &Raw,
) -> Result<()> {
    let launch = Launch::new(Elementwise, "et_column_finish").block(32, 32);
    let launch = launch.grid(cols.div_ceil(32), 1);
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
