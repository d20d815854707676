//! Operations that take elements by number.

use candle_core::{DType, Tensor as Raw};

use super::check_same_dtype;
use crate::device;
use crate::error::{Result, fail};
use crate::storage::{self, Value};
use crate::tape::record1;
use crate::tensor::{Tensor, axis_of};

/// Fails unless `index` is I64 and all its values lie in `0..extent`; the contiguous index otherwise.
fn check_index(op: &str, index: &Tensor, extent: usize) -> Result<Value> {
    if index.dtype() != DType::I64 {
        fail!(
            ET_ERR_DTYPE,
            "{op}: the index must be of type i64, found {}",
            index.dtype().as_str()
        );
    }
    let value = Value::new(index.value().contiguous()?);
    {
        let index = storage::read::<i64>(&value)?;
        let bad = index.iter().position(|&i| i < 0 || i as u64 >= extent as u64);
        if let Some(position) = bad {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "{op}: index {} at position {position} is out of range, the axis has {extent} entries",
                index[position]
            );
        }
    }
    Ok(value)
}

fn check_flat(op: &str, index: &Tensor) -> Result<()> {
    if index.dims().len() != 1 {
        fail!(
            ET_ERR_SHAPE,
            "{op}: the index must have one axis, found the shape {:?}",
            index.dims()
        );
    }
    Ok(())
}

/// Entries `index` (I64, rank 1) of one axis. Errors: `INVALID_ARGUMENT` naming an index out of range.
pub fn index_select(x: &Tensor, axis: i64, index: &Tensor) -> Result<Tensor> {
    const OP: &str = "index_select";
    let axis = axis_of(OP, axis, x.dims().len())?;
    check_flat(OP, index)?;
    let index = check_index(OP, index, x.dims()[axis])?;
    let index = Value::new(device::beside(&index, x.value())?);
    let mut shape = x.dims().to_vec();
    shape[axis] = index.elem_count();
    let y = if shape.contains(&0) {
        Raw::zeros(shape, x.dtype(), x.value().device())?
    } else {
        x.value().contiguous()?.index_select(&index, axis)?
    };
    let back = x.dims().to_vec();
    Ok(record1(OP, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let zeros = Raw::zeros(back, grad.dtype(), grad.device())?;
        if grad.elem_count() == 0 {
            return pass.give(0, zeros);
        }
        pass.give(0, zeros.index_add(&index, &grad.contiguous()?, axis)?)
    }))
}

/// `out[i][j] = x[i][index[i][j]]` on one axis. Errors as for [`index_select`], `SHAPE`.
pub fn gather(x: &Tensor, axis: i64, index: &Tensor) -> Result<Tensor> {
    const OP: &str = "gather";
    let rank = x.dims().len();
    let axis = axis_of(OP, axis, rank)?;
    let fits = index.dims().len() == rank
        && (0..rank).all(|i| i == axis || index.dims()[i] <= x.dims()[i]);
    if !fits {
        fail!(
            ET_ERR_SHAPE,
            "gather: the index must have the rank of {:?} and not exceed it outside axis {axis}, found {:?}",
            x.dims(),
            index.dims()
        );
    }
    let index = check_index(OP, index, x.dims()[axis])?;
    let index = Value::new(device::beside(&index, x.value())?);
    let y = if index.elem_count() == 0 {
        Raw::zeros(index.dims().to_vec(), x.dtype(), x.value().device())?
    } else {
        x.value().contiguous()?.gather(&index, axis)?
    };
    let back = x.dims().to_vec();
    Ok(record1(OP, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let zeros = Raw::zeros(back, grad.dtype(), grad.device())?;
        if grad.elem_count() == 0 {
            return pass.give(0, zeros);
        }
        pass.give(0, zeros.scatter_add(&index, &grad.contiguous()?, axis)?)
    }))
}

/// `x` with entry `i` of `source` added at `index[i]` (I64, rank 1) on one axis. Errors as for [`index_select`],
/// `SHAPE`, `DTYPE`.
pub fn index_add(x: &Tensor, axis: i64, index: &Tensor, source: &Tensor) -> Result<Tensor> {
    const OP: &str = "index_add";
    let rank = x.dims().len();
    let axis = axis_of(OP, axis, rank)?;
    check_flat(OP, index)?;
    check_same_dtype(OP, x.dtype(), source.dtype())?;
    let mut expected = x.dims().to_vec();
    expected[axis] = index.dims()[0];
    if source.dims() != expected {
        fail!(
            ET_ERR_SHAPE,
            "index_add: the source must have the shape {expected:?}, found {:?}",
            source.dims()
        );
    }
    let index = check_index(OP, index, x.dims()[axis])?;
    let index = Value::new(device::beside(&index, x.value())?);
    let y = if source.value().elem_count() == 0 {
        x.value().clone()
    } else {
        x.value().contiguous()?.index_add(&index, &source.value().contiguous()?, axis)?
    };
    Ok(record1(OP, &[x, source], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        if pass.wants(1) {
            let dsource = if expected.contains(&0) {
                Raw::zeros(expected, grad.dtype(), grad.device())?
            } else {
                grad.contiguous()?.index_select(&index, axis)?
            };
            pass.give(1, dsource)?;
        }
        pass.give(0, grad)
    }))
}
