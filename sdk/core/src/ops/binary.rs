//! Elementwise operations on two tensors with broadcasting, comparisons and selection.

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi as abi;

use super::{broadcast_shape, check_same_dtype, pooled, reduce_to};
use crate::device;
use crate::error::{Result, fail};
use crate::storage::{self, Value};
use crate::tape::{record_narrow, record1};
use crate::tensor::Tensor;

/// Name of an `ET_BINARY_` operation. Errors: `INVALID_ARGUMENT` for an unknown code.
pub fn name(op: i32) -> Result<&'static str> {
    Ok(match op {
        abi::ET_BINARY_ADD => "add",
        abi::ET_BINARY_SUB => "sub",
        abi::ET_BINARY_MUL => "mul",
        abi::ET_BINARY_DIV => "div",
        abi::ET_BINARY_MAXIMUM => "maximum",
        abi::ET_BINARY_MINIMUM => "minimum",
        other => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "binary: {other} is no operation, expected an ET_BINARY_ constant"
        ),
    })
}

fn stretch(x: &Raw, shape: &[usize]) -> Result<Raw> {
    if x.dims() == shape { Ok(x.clone()) } else { Ok(x.broadcast_as(shape.to_vec())?) }
}

fn has_zero(x: &Raw) -> Result<bool> {
    let x = x.contiguous()?;
    Ok(match x.dtype() {
        DType::U8 => storage::read::<u8>(&x)?.contains(&0),
        DType::U32 => storage::read::<u32>(&x)?.contains(&0),
        DType::I64 => storage::read::<i64>(&x)?.contains(&0),
        _ => false,
    })
}

/// Sum or difference of two tensors of one shape that are kept in the same fewer bits, as residual connections make
/// them; it is kept so too, rounded once. `None` for anything else.
fn narrow_sum(op: i32, name: &'static str, a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    let (va, vb) = (a.stored(), b.stored());
    let fits = a.is_narrow() && b.is_narrow() && va.dtype() == vb.dtype() && a.dims() == b.dims();
    let y = match op {
        abi::ET_BINARY_ADD if fits => va.add(vb)?,
        abi::ET_BINARY_SUB if fits => va.sub(vb)?,
        _ => return Ok(None),
    };
    Ok(Some(record_narrow(name, &[a, b], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        if pass.wants(1) {
            let db = if op == abi::ET_BINARY_SUB { grad.neg()? } else { Raw::clone(&grad) };
            pass.give(1, db)?;
        }
        pass.give(0, grad)
    })))
}

/// Applies an `ET_BINARY_` operation. Errors: `DTYPE` when the types differ, `SHAPE` when the shapes do not broadcast,
/// `INVALID_ARGUMENT` for an integer division by 0.
pub fn binary(op: i32, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let name = name(op)?;
    check_same_dtype(name, a.dtype(), b.dtype())?;
    let shape = broadcast_shape(name, a.dims(), b.dims())?;
    if let Some(y) = narrow_sum(op, name, a, b)? {
        return Ok(y);
    }
    a.widen()?;
    b.widen()?;
    let (va, vb) = (stretch(a.value(), &shape)?, stretch(b.value(), &shape)?);
    if op == abi::ET_BINARY_DIV && has_zero(b.value())? {
        fail!(ET_ERR_INVALID_ARGUMENT, "div: integers cannot be divided by 0");
    }
    let y = match (pooled::binary(op, a.value(), b.value(), &shape)?, op) {
        (Some(y), _) => y,
        (None, abi::ET_BINARY_ADD) => va.add(&vb)?,
        (None, abi::ET_BINARY_SUB) => va.sub(&vb)?,
        (None, abi::ET_BINARY_MUL) => va.mul(&vb)?,
        (None, abi::ET_BINARY_DIV) => va.div(&vb)?,
        (None, abi::ET_BINARY_MAXIMUM) => va.maximum(&vb)?,
        (None, _) => va.minimum(&vb)?,
    };
    let (shape_a, shape_b) = (a.dims().to_vec(), b.dims().to_vec());
    // Sums need no values for their gradients.
    let saved = (op != abi::ET_BINARY_ADD && op != abi::ET_BINARY_SUB)
        .then(|| (Value::new(va), Value::new(vb)));
    Ok(record1(name, &[a, b], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let (want_a, want_b) = (pass.wants(0), pass.wants(1));
        let Some((va, vb)) = saved else {
            if want_a {
                pass.give(0, reduce_to(&grad, &shape_a)?)?;
            }
            if want_b {
                let db = reduce_to(&grad, &shape_b)?;
                pass.give(
                    1,
                    if op == abi::ET_BINARY_SUB { pooled::affine(&db, -1.0, -0.0)? } else { db },
                )?;
            }
            return Ok(());
        };
        let g: &Raw = &grad;
        let (va, vb): (&Raw, &Raw) = (&va, &vb);
        if op == abi::ET_BINARY_MAXIMUM || op == abi::ET_BINARY_MINIMUM {
            let first = if op == abi::ET_BINARY_MAXIMUM { va.ge(vb)? } else { va.le(vb)? };
            let zeros = g.zeros_like()?;
            if want_a {
                pass.give(0, reduce_to(&first.where_cond(g, &zeros)?, &shape_a)?)?;
            }
            if want_b {
                pass.give(1, reduce_to(&first.where_cond(&zeros, g)?, &shape_b)?)?;
            }
            return Ok(());
        }
        let is_mul = op == abi::ET_BINARY_MUL;
        if want_a {
            let da = if is_mul { pooled::mul(g, vb)? } else { pooled::div(g, vb)? };
            pass.give(0, reduce_to(&da, &shape_a)?)?;
        }
        if want_b {
            // (a / b)' by b = -a / b^2
            let db =
                if is_mul { pooled::mul(g, va)? } else { g.mul(va)?.div(&vb.sqr()?)?.neg()? };
            pass.give(1, reduce_to(&db, &shape_b)?)?;
        }
        Ok(())
    }))
}

/// Applies an `ET_COMPARE_` operation; the result is U8 and has no gradient. Errors as for [`binary`].
pub fn compare(op: i32, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !(abi::ET_COMPARE_EQ..=abi::ET_COMPARE_GE).contains(&op) {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "compare: {op} is no operation, expected an ET_COMPARE_ constant"
        );
    }
    check_same_dtype("compare", a.dtype(), b.dtype())?;
    let shape = broadcast_shape("compare", a.dims(), b.dims())?;
    let (va, vb) = (stretch(a.value(), &shape)?, stretch(b.value(), &shape)?);
    Ok(Tensor::new(device::at_home(match op {
        abi::ET_COMPARE_EQ => va.eq(&vb)?,
        abi::ET_COMPARE_NE => va.ne(&vb)?,
        abi::ET_COMPARE_LT => va.lt(&vb)?,
        abi::ET_COMPARE_LE => va.le(&vb)?,
        abi::ET_COMPARE_GT => va.gt(&vb)?,
        _ => va.ge(&vb)?,
    })?))
}

/// `a` where `condition` (U8) is not 0, else `b`, with broadcasting of all three. Errors: `DTYPE`, `SHAPE`.
pub fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if condition.dtype() != DType::U8 {
        fail!(
            ET_ERR_DTYPE,
            "select: the condition must be of type u8, found {}",
            condition.dtype().as_str()
        );
    }
    check_same_dtype("select", a.dtype(), b.dtype())?;
    let shape = broadcast_shape("select", a.dims(), b.dims())?;
    let shape = broadcast_shape("select", condition.dims(), &shape)?;
    let condition = device::beside(&stretch(condition.value(), &shape)?, a.value())?;
    let y = condition.where_cond(&stretch(a.value(), &shape)?, &stretch(b.value(), &shape)?)?;
    let (shape_a, shape_b) = (a.dims().to_vec(), b.dims().to_vec());
    let condition = Value::new(condition);
    Ok(record1("select", &[a, b], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let zeros = grad.zeros_like()?;
        if pass.wants(0) {
            pass.give(0, reduce_to(&condition.where_cond(&grad, &zeros)?, &shape_a)?)?;
        }
        if pass.wants(1) {
            pass.give(1, reduce_to(&condition.where_cond(&zeros, &grad)?, &shape_b)?)?;
        }
        Ok(())
    }))
}
