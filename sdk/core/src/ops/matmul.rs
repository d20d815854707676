//! Matrix products.

use candle_core::Tensor as Raw;

use super::{broadcast_shape, check_float, check_same_dtype, reduce_to};
use crate::error::{Result, fail};
use crate::tape::record1;
use crate::tensor::Tensor;

/// Product of matrices whose leading axes are the same or broadcast. Candle refuses some strides; those are copied.
fn product(a: &Raw, b: &Raw) -> Result<Raw> {
    match a.broadcast_matmul(b) {
        Ok(y) => Ok(y),
        Err(_) => Ok(a.contiguous()?.broadcast_matmul(&b.contiguous()?)?),
    }
}

/// Matrix product over the last two axes. Errors: `SHAPE`, `DTYPE`.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_same_dtype("matmul", a.dtype(), b.dtype())?;
    check_float("matmul", a.dtype())?;
    let (da, db) = (a.dims(), b.dims());
    let ([lead_a @ .., _, inner_a], [lead_b @ .., inner_b, _]) = (da, db) else {
        fail!(ET_ERR_SHAPE, "matmul: both sides need two axes or more, found {da:?} and {db:?}");
    };
    if inner_a != inner_b {
        fail!(
            ET_ERR_SHAPE,
            "matmul: the last axis of {da:?} must equal the last but one of {db:?}, found {inner_a} and {inner_b}"
        );
    }
    broadcast_shape("matmul", lead_a, lead_b)?;
    let y = product(a.value(), b.value())?;
    let (va, vb) = (a.save(), b.save());
    Ok(record1("matmul", &[a, b], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let last = grad.rank() - 1;
        if pass.wants(0) {
            let rank = vb.rank();
            let da = product(&grad, &vb.transpose(rank - 2, rank - 1)?)?;
            pass.give(0, reduce_to(&da, va.dims())?)?;
        }
        if pass.wants(1) {
            // A plain weight on the right: fold the rows, one product instead of one per leading index and a sum.
            let db = if vb.rank() == 2 && va.rank() > 2 {
                let (k, n) = (va.dims()[va.rank() - 1], grad.dims()[last]);
                let rows = va.elem_count() / k.max(1);
                if rows * n == grad.elem_count() {
                    let (x, g) = (va.reshape((rows, k))?, grad.reshape((rows, n))?);
                    product(&x.t()?, &g)?
                } else {
                    let rank = va.rank();
                    product(&va.transpose(rank - 2, rank - 1)?, &grad)?
                }
            } else {
                let rank = va.rank();
                product(&va.transpose(rank - 2, rank - 1)?, &grad)?
            };
            pass.give(1, reduce_to(&db, vb.dims())?)?;
        }
        Ok(())
    }))
}
