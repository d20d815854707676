//! Views, joins and conversions: operations that move elements and do not change them.

use candle_core::{DType, Tensor as Raw};

use super::{check_same_dtype, reduce_to};
use crate::device;
use crate::error::{Result, fail};
use crate::storage::Value;
use crate::tape::{Pass, record_narrow, record1};
use crate::tensor::{Tensor, axis_of, shape_len};

/// Elements of `x` in another layout, kept as those of `x` are.
fn viewed(
    op: &'static str,
    x: &Tensor,
    y: Raw,
    backward: impl FnOnce(&mut Pass<'_>) -> Result<()> + Send + 'static,
) -> Tensor {
    if x.is_narrow() {
        record_narrow(op, &[x], y, backward)
    } else {
        record1(op, &[x], y, backward).view_of(x)
    }
}

/// The same elements in another shape. Errors: `SHAPE`.
pub fn reshape(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if shape_len("reshape", shape)? != x.elem_count() {
        fail!(ET_ERR_SHAPE, "reshape: {:?} does not have as many elements as {shape:?}", x.dims());
    }
    let y = x.stored().reshape(shape.to_vec())?;
    let back = x.dims().to_vec();
    Ok(viewed("reshape", x, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, grad.reshape(back)?)
    }))
}

/// Axes in another order. Errors: `INVALID_ARGUMENT` unless `axes` names every axis once.
pub fn permute(x: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let rank = x.dims().len();
    let order =
        axes.iter().map(|&axis| axis_of("permute", axis, rank)).collect::<Result<Vec<_>>>()?;
    let mut back = vec![usize::MAX; rank];
    for (to, &from) in order.iter().enumerate() {
        back[from] = to;
    }
    if order.len() != rank || back.contains(&usize::MAX) {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "permute: expected each of the {rank} axes once, found {axes:?}"
        );
    }
    let y = x.stored().permute(order)?;
    Ok(viewed("permute", x, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, grad.permute(back)?)
    }))
}

/// `len` entries from `start` on one axis. Errors: `INVALID_ARGUMENT`.
pub fn narrow(x: &Tensor, axis: i64, start: usize, len: usize) -> Result<Tensor> {
    let axis = axis_of("narrow", axis, x.dims().len())?;
    let extent = x.dims()[axis];
    if start > extent || len > extent - start {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "narrow: {len} entries from {start} do not lie in the {extent} entries of axis {axis}"
        );
    }
    let y = x.stored().narrow(axis, start, len)?;
    Ok(viewed("narrow", x, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, grad.pad_with_zeros(axis, start, extent - start - len)?)
    }))
}

/// Axes of extent 1 stretched to `shape`. Errors: `SHAPE`.
pub fn broadcast_to(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    shape_len("broadcast_to", shape)?;
    if super::broadcast_shape("broadcast_to", x.dims(), shape)? != shape {
        fail!(ET_ERR_SHAPE, "broadcast_to: {:?} does not stretch to {shape:?}", x.dims());
    }
    let y = x.value().broadcast_as(shape.to_vec())?;
    let back = x.dims().to_vec();
    let y = record1("broadcast_to", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, reduce_to(&grad, &back)?)
    });
    Ok(y.view_of(x))
}

/// The same values, row-major without gaps.
pub fn contiguous(x: &Tensor) -> Result<Tensor> {
    if x.stored().is_contiguous() {
        return Ok(x.clone());
    }
    let y = x.stored().contiguous()?;
    Ok(viewed("contiguous", x, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, grad)
    }))
}

/// Joins tensors on one axis. Errors: `INVALID_ARGUMENT` for none, `SHAPE`, `DTYPE`.
pub fn concat(tensors: &[&Tensor], axis: i64) -> Result<Tensor> {
    let Some((first, rest)) = tensors.split_first() else {
        fail!(ET_ERR_INVALID_ARGUMENT, "concat: expected at least one tensor, found none");
    };
    let axis = axis_of("concat", axis, first.dims().len())?;
    for other in rest {
        check_same_dtype("concat", first.dtype(), other.dtype())?;
        let fits = other.dims().len() == first.dims().len()
            && (0..first.dims().len()).all(|i| i == axis || first.dims()[i] == other.dims()[i]);
        if !fits {
            fail!(
                ET_ERR_SHAPE,
                "concat: the shapes {:?} and {:?} differ in more than axis {axis}",
                first.dims(),
                other.dims()
            );
        }
    }
    let extents: Vec<usize> = tensors.iter().map(|tensor| tensor.dims()[axis]).collect();
    let mut shape = first.dims().to_vec();
    shape[axis] = extents.iter().sum();
    let parts: Vec<&Raw> =
        tensors.iter().map(|tensor| tensor.value()).filter(|v| v.elem_count() > 0).collect();
    let y = match parts.as_slice() {
        [] => Raw::zeros(shape, first.dtype(), first.value().device())?,
        parts => Raw::cat(parts, axis)?,
    };
    Ok(record1("concat", tensors, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let mut start = 0;
        for (index, &extent) in extents.iter().enumerate() {
            if pass.wants(index) {
                pass.give(index, grad.narrow(axis, start, extent)?)?;
            }
            start += extent;
        }
        Ok(())
    }))
}

/// The values in another element type; the gradient is converted back.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    // What is kept in the wanted type already is taken as it is.
    let y = match x.stored() {
        half if half.dtype() == dtype => half.clone(),
        _ => {
            x.widen()?;
            device::at_home(x.value().to_dtype(dtype)?)?
        }
    };
    if !dtype.is_float() {
        return Ok(Tensor::new(y));
    }
    let back = x.dtype();
    Ok(record1("cast", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        pass.give(0, Value::new(device::at_home(grad.to_dtype(back)?)?))
    }))
}
