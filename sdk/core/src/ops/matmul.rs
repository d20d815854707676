//! Matrix products.

use candle_core::{DType, Tensor as Raw};

use super::{broadcast_shape, check_float, check_same_dtype, reduce_to};
use crate::device;
use crate::error::{Result, fail};
use crate::kernels::gemm::{Matrices, gemm_batch};
use crate::storage::{self, Real};
use crate::tape::record1;
use crate::tensor::Tensor;

/// Product of matrices whose leading axes are the same or broadcast, of any strides.
fn product(a: &Raw, b: &Raw) -> Result<Raw> {
    if !device::is_host(a) {
        // Candle refuses some strides; those are copied.
        return match a.broadcast_matmul(b) {
            Ok(y) => Ok(y),
            Err(_) => Ok(a.contiguous()?.broadcast_matmul(&b.contiguous()?)?),
        };
    }
    match a.dtype() {
        DType::F32 => typed::<f32>(a, b),
        DType::F64 => typed::<f64>(a, b),
        narrow => {
            let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
            Ok(typed::<f32>(&a, &b)?.to_dtype(narrow)?)
        }
    }
}

/// Where the matrices of `x` begin, for every index of the leading axes `lead`, which `x` may lack or have once.
fn starts(x: &Raw, lead: &[usize]) -> Vec<usize> {
    let (dims, strides) = (x.dims(), x.stride());
    let own = dims.len() - 2;
    let mut starts = vec![0];
    for (axis, &len) in lead.iter().enumerate() {
        // Axes that `x` lacks come first.
        let step = match (axis + own).checked_sub(lead.len()) {
            Some(at) if dims[at] != 1 => strides[at],
            _ => 0,
        };
        starts = starts.iter().flat_map(|&start| (0..len).map(move |i| start + i * step)).collect();
    }
    starts
}

fn typed<F: Real>(a: &Raw, b: &Raw) -> Result<Raw> {
    let (rank_a, rank_b) = (a.rank(), b.rank());
    let lead = broadcast_shape("matmul", &a.dims()[..rank_a - 2], &b.dims()[..rank_b - 2])?;
    let matrix = |x: &Raw| {
        let at = x.rank() - 2;
        ([x.dims()[at], x.dims()[at + 1]], [x.stride()[at], x.stride()[at + 1]])
    };
    let ((mut shape_a, strides_a), (shape_b, strides_b)) = (matrix(a), matrix(b));
    let (mut starts_a, mut starts_b) = (starts(a, &lead), starts(b, &lead));
    let mut dims = lead;
    dims.extend([shape_a[0], shape_b[1]]);
    let mut y = storage::take::<F>(dims.iter().product());
    // One matrix on the right for rows on the left that lie at one distance: one product.
    let span = shape_a[0] * strides_a[0];
    if starts_b.iter().all(|&start| start == 0)
        && starts_a.iter().enumerate().all(|(i, &start)| start == i * span)
    {
        shape_a[0] *= starts_a.len();
        starts_a.truncate(1);
        starts_b.truncate(1);
    }
    {
        let (data_a, data_b) = (storage::read_span::<F>(a)?, storage::read_span::<F>(b)?);
        let left =
            Matrices { data: &data_a, starts: &starts_a, shape: shape_a, strides: strides_a };
        let right =
            Matrices { data: &data_b, starts: &starts_b, shape: shape_b, strides: strides_b };
        gemm_batch(left, right, &mut y)?;
    }
    storage::tensor_from_vec(y, dims)
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
