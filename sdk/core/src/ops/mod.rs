//! Fine-grained operations, each with its gradient.
//!
//! Values come from candle where candle is right, and from the kernels or from here where it is not. Every function
//! takes and returns [`Tensor`](crate::tensor::Tensor)s and records itself when an input is tracked.

pub mod binary;
pub mod create;
pub mod index;
pub mod matmul;
mod pooled;
pub mod reduce;
pub mod shape;
pub mod unary;

use candle_core::{DType, Tensor as Raw};

use crate::device;
use crate::error::{Result, fail};
use crate::kernels::elementwise::{Store, column_sum};
use crate::storage;

/// Fails unless `dtype` is a floating point type.
pub(crate) fn check_float(op: &str, dtype: DType) -> Result<()> {
    if !dtype.is_float() {
        fail!(
            ET_ERR_DTYPE,
            "{op}: expected a floating point type (bf16, f16, f32 or f64), found {}",
            dtype.as_str()
        );
    }
    Ok(())
}

/// Fails unless both types are the same.
pub(crate) fn check_same_dtype(op: &str, a: DType, b: DType) -> Result<()> {
    if a != b {
        fail!(
            ET_ERR_DTYPE,
            "{op}: both sides must have one type, found {} and {}; cast one of them",
            a.as_str(),
            b.as_str()
        );
    }
    Ok(())
}

/// The shape to which both shapes broadcast as in NumPy. Errors: `SHAPE`.
pub(crate) fn broadcast_shape(op: &str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent = |shape: &[usize], axis: usize| {
        let missing = rank - shape.len();
        if axis < missing { 1 } else { shape[axis - missing] }
    };
    let mut out = Vec::with_capacity(rank);
    for axis in 0..rank {
        match (extent(a, axis), extent(b, axis)) {
            (x, y) if x == y => out.push(x),
            (1, y) => out.push(y),
            (x, 1) => out.push(x),
            _ => fail!(
                ET_ERR_SHAPE,
                "{op}: the shapes {a:?} and {b:?} do not broadcast to one shape"
            ),
        }
    }
    Ok(out)
}

/// The gradient of a value of shape `shape` that was broadcast to the shape of `grad`: sums over the stretched axes.
pub(crate) fn reduce_to(grad: &Raw, shape: &[usize]) -> Result<Raw> {
    let found = grad.dims();
    if found == shape {
        return Ok(grad.clone());
    }
    let missing = found.len() - shape.len();
    // The common case, a bias over rows, in one pass.
    if missing > 0 && &found[missing..] == shape && grad.is_contiguous() && device::is_host(grad) {
        let len = shape.iter().product();
        if grad.dtype() == DType::F32 {
            let mut out = storage::take::<f32>(len);
            column_sum(&storage::read::<f32>(grad)?, Store::Write, &mut out)?;
            return storage::tensor_from_vec(out, shape.to_vec());
        }
    }
    let axes: Vec<usize> = (0..found.len())
        .filter(|&axis| axis < missing || (shape[axis - missing] == 1 && found[axis] != 1))
        .collect();
    if grad.elem_count() == 0 {
        return Ok(Raw::zeros(shape.to_vec(), grad.dtype(), grad.device())?);
    }
    Ok(grad.sum_keepdim(axes)?.reshape(shape.to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        assert_eq!(broadcast_shape("t", &[2, 1, 3], &[4, 1]).unwrap(), [2, 4, 3]);
        assert_eq!(broadcast_shape("t", &[], &[0, 5]).unwrap(), [0, 5]);
        assert_eq!(broadcast_shape("t", &[1], &[0]).unwrap(), [0]);
        assert!(broadcast_shape("t", &[2], &[3]).is_err());
    }
}
