//! Sums, means, extremes and their places.

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi as abi;

use super::check_float;
use crate::device;
use crate::error::{Result, fail};
use crate::storage::Value;
use crate::tape::record1;
use crate::tensor::{Tensor, axis_of};

/// Name of an `ET_REDUCE_` operation. Errors: `INVALID_ARGUMENT` for an unknown code.
pub fn name(op: i32) -> Result<&'static str> {
    Ok(match op {
        abi::ET_REDUCE_SUM => "sum",
        abi::ET_REDUCE_MEAN => "mean",
        abi::ET_REDUCE_MAX => "max",
        abi::ET_REDUCE_MIN => "min",
        abi::ET_REDUCE_ARGMAX => "argmax",
        abi::ET_REDUCE_ARGMIN => "argmin",
        other => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "reduce: {other} is no operation, expected an ET_REDUCE_ constant"
        ),
    })
}

/// Applies an `ET_REDUCE_` operation over `axes`, over all when there are none. Errors: `INVALID_ARGUMENT` for an
/// unknown or repeated axis or no elements to choose from, `DTYPE` for the mean of integers.
pub fn reduce(op: i32, x: &Tensor, axes: &[i64], keep_axes: bool) -> Result<Tensor> {
    let name = name(op)?;
    let rank = x.dims().len();
    let mut list =
        axes.iter().map(|&axis| axis_of(name, axis, rank)).collect::<Result<Vec<_>>>()?;
    list.sort_unstable();
    if list.windows(2).any(|pair| pair[0] == pair[1]) {
        fail!(ET_ERR_INVALID_ARGUMENT, "{name}: an axis is named twice in {axes:?}");
    }
    let is_place = op == abi::ET_REDUCE_ARGMAX || op == abi::ET_REDUCE_ARGMIN;
    if is_place && list.len() != 1 {
        fail!(ET_ERR_INVALID_ARGUMENT, "{name}: expected exactly one axis, found {axes:?}");
    }
    if list.is_empty() {
        list = (0..rank).collect();
    }
    if op == abi::ET_REDUCE_MEAN {
        check_float(name, x.dtype())?;
    }
    let count: usize = list.iter().map(|&axis| x.dims()[axis]).product();
    let kept: Vec<usize> = x
        .dims()
        .iter()
        .enumerate()
        .map(|(axis, &extent)| if list.contains(&axis) { 1 } else { extent })
        .collect();
    let shape: Vec<usize> = match keep_axes {
        true => kept.clone(),
        false => (0..rank).filter(|axis| !list.contains(axis)).map(|axis| x.dims()[axis]).collect(),
    };
    let len: usize = shape.iter().product();
    if count == 0 && op != abi::ET_REDUCE_SUM {
        fail!(ET_ERR_INVALID_ARGUMENT, "{name}: no elements to reduce in the shape {:?}", x.dims());
    }
    let v = x.value();
    let y = if len == 0 || count == 0 {
        let dtype = if is_place { DType::I64 } else { v.dtype() };
        Raw::zeros(kept.clone(), dtype, v.device())?
    } else {
        match op {
            abi::ET_REDUCE_SUM => v.sum_keepdim(list.clone())?,
            abi::ET_REDUCE_MEAN => v.sum_keepdim(list.clone())?.affine(1.0 / count as f64, 0.0)?,
            abi::ET_REDUCE_ARGMAX => v.argmax_keepdim(list[0])?.to_dtype(DType::I64)?,
            abi::ET_REDUCE_ARGMIN => v.argmin_keepdim(list[0])?.to_dtype(DType::I64)?,
            _ => {
                let mut y = v.clone();
                for &axis in &list {
                    y = match op {
                        abi::ET_REDUCE_MAX => y.max_keepdim(axis)?,
                        _ => y.min_keepdim(axis)?,
                    };
                }
                y
            }
        }
    };
    if is_place {
        return Ok(Tensor::new(device::at_home(y.reshape(shape)?)?));
    }
    let is_extreme = op == abi::ET_REDUCE_MAX || op == abi::ET_REDUCE_MIN;
    let saved = is_extreme.then(|| (x.save(), Value::new(y.clone())));
    let full = x.dims().to_vec();
    let y = y.reshape(shape)?;
    Ok(record1(name, &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = grad.reshape(kept)?;
        let dx = match saved {
            None if op == abi::ET_REDUCE_MEAN => {
                grad.affine(1.0 / count as f64, 0.0)?.broadcast_as(full)?
            }
            None => grad.broadcast_as(full)?,
            Some((x, y)) => {
                let hit = x.eq(&y.broadcast_as(full.clone())?)?.to_dtype(grad.dtype())?;
                let share = grad.div(&hit.sum_keepdim(list)?)?;
                hit.mul(&share.broadcast_as(full)?)?
            }
        };
        pass.give(0, dx)
    }))
}
