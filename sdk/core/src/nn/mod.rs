//! Fused operations with their gradients, over the kernels.
//!
//! The kernels know f32 and f64; f16 and bf16 are computed in f32 and cast back. Gradients of weights go straight
//! into the memory of a parameter's gradient where there is one.

pub mod attention;
pub mod crf;
pub mod embedding;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod recurrent;
pub mod runs;
pub mod softmax;

use candle_core::{DType, Tensor as Raw};

use crate::error::{Error, Result, fail};
use crate::kernels::elementwise::{Store, add_assign};
use crate::kernels::philox::{Counter, Dropout};
use crate::kernels::runs::run_ranges;
use crate::ops;
use crate::rng::Rng;
use crate::storage::{self, Real, Value};
use crate::tape::Pass;
use crate::tensor::Tensor;

/// A kernels' type whose gradients may go straight to a leaf.
pub(crate) trait Direct: Real {
    /// Calls [`Pass::leaf_f32`] for f32; false for f64.
    fn leaf(
        _pass: &mut Pass<'_>,
        _index: usize,
        _f: &mut dyn FnMut(&mut [Self], bool),
    ) -> Result<bool> {
        Ok(false)
    }

    /// Calls [`Pass::leaf_rows_f32`] for f32; false for f64.
    fn leaf_rows(
        _pass: &mut Pass<'_>,
        _index: usize,
        _width: usize,
        _rows: &[u32],
        _f: &mut dyn FnMut(&mut [Self]),
    ) -> Result<bool> {
        Ok(false)
    }
}

impl Direct for f32 {
    fn leaf_rows(
        pass: &mut Pass<'_>,
        index: usize,
        width: usize,
        rows: &[u32],
        f: &mut dyn FnMut(&mut [Self]),
    ) -> Result<bool> {
        pass.leaf_rows_f32(index, width, rows, f)
    }

    fn leaf(
        pass: &mut Pass<'_>,
        index: usize,
        f: &mut dyn FnMut(&mut [Self], bool),
    ) -> Result<bool> {
        pass.leaf_f32(index, f)
    }
}

impl Direct for f64 {}

/// Gives the gradient of input `index` as `f` writes it: straight into a leaf's memory, on top of a gradient that
/// came before from another consumer, or into a new tensor of `shape`. `f` is called once, or not at all where no
/// gradient is wanted.
pub(crate) fn give_written<F: Direct>(
    pass: &mut Pass<'_>,
    index: usize,
    shape: &[usize],
    mut f: impl FnMut(Store, &mut [F]) -> Result<()>,
) -> Result<()> {
    if !pass.wants(index) {
        return Ok(());
    }
    let mut result = Ok(());
    let written = F::leaf(pass, index, &mut |slice, first| {
        result = f(if first { Store::Write } else { Store::Add }, slice);
    })?;
    if written {
        return result;
    }
    if let Some(sum) = pass.pending(index, F::DTYPE, shape) {
        return storage::with_mut::<F, _>(sum, |sum| f(Store::Add, sum))?;
    }
    let mut grad = storage::take::<F>(shape.iter().product());
    f(Store::Write, &mut grad)?;
    pass.give(index, storage::tensor_from_vec(grad, shape.to_vec())?)
}

/// Gives a gradient that lies in a vector, if there is one.
pub(crate) fn give_vec<F: Direct>(
    pass: &mut Pass<'_>,
    index: usize,
    shape: &[usize],
    grad: Option<Vec<F>>,
) -> Result<()> {
    let Some(grad) = grad else { return Ok(()) };
    let mut result = Ok(());
    let written = F::leaf(pass, index, &mut |slot, first| {
        if first {
            slot.copy_from_slice(&grad);
        } else {
            result = add_assign(slot, &grad);
        }
    })?;
    let grad = Value::new(storage::tensor_from_vec(grad, shape.to_vec())?);
    if written { Ok(result?) } else { pass.give(index, grad) }
}

/// A vector for the gradient of input `index`, if it is wanted.
pub(crate) fn wanted<F: Real>(pass: &Pass<'_>, index: usize, len: usize) -> Option<Vec<F>> {
    pass.wants(index).then(|| storage::take::<F>(len))
}

/// The value, contiguous.
pub fn dense(x: &Raw) -> Result<Value> {
    Ok(Value::new(x.contiguous()?))
}

/// A gradient that may be overwritten: itself if nobody else uses it, else a copy.
pub(crate) fn owned<F: Real>(grad: Value) -> Result<Value> {
    if grad.is_contiguous() && storage::is_unique(&grad) {
        return Ok(grad);
    }
    let grad = dense(&grad)?;
    if storage::is_unique(&grad) {
        return Ok(grad);
    }
    let mut copy = storage::take::<F>(grad.elem_count());
    copy.copy_from_slice(&storage::read::<F>(&grad)?);
    Ok(Value::new(storage::tensor_from_vec(copy, grad.dims().to_vec())?))
}

/// Runs `f` on inputs of one type that the kernels know; `f` is told whether that is f64. Other floating point types
/// go through f32. Errors: `DTYPE` for integers and when types differ.
pub(crate) fn by_dtype(
    op: &str,
    inputs: &[Option<&Tensor>],
    f: impl FnOnce(&[Option<Tensor>], bool) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut dtype: Option<DType> = None;
    for input in inputs.iter().flatten() {
        ops::check_float(op, input.dtype())?;
        if let Some(first) = dtype {
            ops::check_same_dtype(op, first, input.dtype())?;
        }
        dtype = Some(input.dtype());
    }
    let dtype = dtype.unwrap_or(DType::F32);
    if !reads_narrow(op) {
        inputs.iter().flatten().try_for_each(|input| input.widen())?;
    }
    let own = |input: &Option<&Tensor>| input.cloned();
    match dtype {
        DType::F32 | DType::F64 => {
            f(&inputs.iter().map(own).collect::<Vec<_>>(), dtype == DType::F64)
        }
        _ => {
            let wide = |input: &Option<&Tensor>| {
                input.map(|input| ops::shape::cast(input, DType::F32)).transpose()
            };
            let inputs = inputs.iter().map(wide).collect::<Result<Vec<_>>>()?;
            ops::shape::cast(&f(&inputs, false)?, dtype)
        }
    }
}

/// True if the operation has a way on devices that reads f32 as it is kept, in bf16 or f16.
fn reads_narrow(op: &str) -> bool {
    const ALL: [&str; 11] = [
        "linear",
        "layer_norm",
        "rms_norm",
        "attention",
        "dropout",
        "pool",
        "cross_entropy",
        "embedding_sum",
        "to_padded",
        "from_padded",
        "conv1d",
    ];
    ALL.contains(&op)
}

/// Input `index` of [`by_dtype`], which was given.
pub(crate) fn given(inputs: &[Option<Tensor>], index: usize) -> Result<&Tensor> {
    inputs.get(index).and_then(Option::as_ref).ok_or_else(|| {
        Error::new(easytransfer_abi::ET_ERR_INVALID_ARGUMENT, format!("input {index} is missing"))
    })
}

/// Rows and columns of a tensor seen as a matrix of its last axis. Errors: `SHAPE` for a scalar.
pub fn rows_cols(op: &str, x: &Tensor) -> Result<(usize, usize)> {
    match x.dims() {
        [lead @ .., cols] => Ok((lead.iter().product(), *cols)),
        [] => fail!(ET_ERR_SHAPE, "{op}: expected one axis or more, found a scalar"),
    }
}

/// Fails unless `x` has the shape `expected`.
pub(crate) fn check_shape(op: &str, name: &str, x: &Tensor, expected: &[usize]) -> Result<()> {
    if x.dims() != expected {
        fail!(ET_ERR_SHAPE, "{op}: {name} must have the shape {expected:?}, found {:?}", x.dims());
    }
    Ok(())
}

/// The contiguous values of an I64 tensor with one axis.
pub(crate) fn integers(op: &str, name: &str, x: &Tensor) -> Result<Value> {
    if x.dtype() != DType::I64 {
        fail!(ET_ERR_DTYPE, "{op}: {name} must be of type i64, found {}", x.dtype().as_str());
    }
    if x.dims().len() != 1 {
        fail!(ET_ERR_SHAPE, "{op}: {name} must have one axis, found the shape {:?}", x.dims());
    }
    dense(x.value())
}

/// The values of `starts`, which must describe runs of `rows` rows in all.
pub(crate) fn run_starts(
    op: &'static str,
    name: &'static str,
    starts: &Tensor,
    rows: usize,
) -> Result<Value> {
    let value = integers(op, name, starts)?;
    run_ranges(op, name, &storage::read::<i64>(&value)?, rows)?;
    Ok(value)
}

/// Dropout of `len` elements, or `None` when it is off. Errors: `INVALID_ARGUMENT` when `p` is outside [0, 1).
pub(crate) fn dropout_of(
    op: &str,
    p: f64,
    rng: Option<&Rng>,
    len: usize,
) -> Result<Option<Dropout>> {
    if !(0.0..1.0).contains(&p) {
        fail!(ET_ERR_INVALID_ARGUMENT, "{op}: dropout must be at least 0 and below 1, found {p}");
    }
    let Some(rng) = rng.filter(|_| p > 0.0) else { return Ok(None) };
    let (seed, stream, offset) = rng.reserve(len);
    Ok(Some(Dropout::new(p, Counter::new(seed, stream, offset))?))
}
