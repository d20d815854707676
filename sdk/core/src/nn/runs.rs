//! Operations on runs of tokens: pooling, padding and convolution.

use easytransfer_abi as abi;

use super::{Direct, by_dtype, check_shape, dense, give_vec, given, run_starts, wanted};
use crate::device::{self, Padding};
use crate::error::{Result, fail};
use crate::kernels::conv1d::{
    Border, Conv1dGradients, Conv1dShape, conv1d_backward, conv1d_forward,
};
use crate::kernels::elementwise::Store;
use crate::kernels::padding::{self, Pool, pool_backward, pool_forward};
use crate::storage::{self, Real, Value};
use crate::tape::record1;
use crate::tensor::Tensor;

/// The pooling of an `ET_POOL_` constant. Errors: `INVALID_ARGUMENT`.
pub fn pool_from_code(code: i32) -> Result<Pool> {
    Ok(match code {
        abi::ET_POOL_MEAN => Pool::Mean,
        abi::ET_POOL_FIRST => Pool::First,
        abi::ET_POOL_MAX => Pool::Max,
        other => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "pool: {other} is no pooling, expected an ET_POOL_ constant"
        ),
    })
}

fn matrix(op: &str, x: &Tensor) -> Result<(usize, usize)> {
    match *x.dims() {
        [rows, cols] => Ok((rows, cols)),
        _ => fail!(ET_ERR_SHAPE, "{op}: x must have the shape [T, h], found {:?}", x.dims()),
    }
}

/// One vector per run, x [T, h] -> [B, h]; an empty run gives zeros. Errors: `SHAPE`, `DTYPE`, `INVALID_ARGUMENT` for
/// bad starts.
pub fn pool(x: &Tensor, starts: &Tensor, kind: Pool) -> Result<Tensor> {
    let (rows, _) = matrix("pool", x)?;
    let starts = run_starts("pool", "starts", starts, rows)?;
    by_dtype("pool", &[Some(x)], |inputs, double| {
        let x = given(inputs, 0)?;
        if double { typed_pool::<f64>(x, starts, kind) } else { typed_pool::<f32>(x, starts, kind) }
    })
}

fn typed_pool<F: Direct>(x: &Tensor, starts: Value, kind: Pool) -> Result<Tensor> {
    if let Some(y) = device::offer(&[x], |device| device.pool(x, &starts, kind))? {
        return Ok(y);
    }
    let (rows, cols) = matrix("pool", x)?;
    let vx = dense(x.value())?;
    let batch = starts.elem_count() - 1;
    let mut y = storage::take::<F>(batch * cols);
    {
        let starts = storage::read::<i64>(&starts)?;
        pool_forward(kind, &storage::read::<F>(&vx)?, cols, &starts, &mut y)?;
    }
    let y = storage::tensor_from_vec(y, (batch, cols))?;
    Ok(record1("pool", &[x], y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let mut dx = storage::take::<F>(rows * cols);
        {
            let starts = storage::read::<i64>(&starts)?;
            let (x, grad) = (storage::read::<F>(&vx)?, storage::read::<F>(&grad)?);
            pool_backward(kind, &x, cols, &starts, &grad, &mut dx)?;
        }
        give_vec(pass, 0, &[rows, cols], Some(dx))
    }))
}

/// Runs padded with zeros, x [T, h] -> [B, len, h]; longer runs are cut. Errors as for [`pool`].
pub fn to_padded(x: &Tensor, starts: &Tensor, len: usize) -> Result<Tensor> {
    let (rows, cols) = matrix("to_padded", x)?;
    let starts = run_starts("to_padded", "starts", starts, rows)?;
    crate::tensor::shape_len("to_padded", &[starts.elem_count(), len, cols])?;
    by_dtype("to_padded", &[Some(x)], |inputs, double| {
        let x = given(inputs, 0)?;
        let plan = Move { starts, sizes: Padding { rows, len, cols, pad: true } };
        if double { plan.apply::<f64>(x) } else { plan.apply::<f32>(x) }
    })
}

/// The inverse of [`to_padded`], [B, len, h] -> [T, h]; tokens past `len` are zeros. Errors as for [`pool`].
pub fn from_padded(x: &Tensor, starts: &Tensor) -> Result<Tensor> {
    const OP: &str = "from_padded";
    let &[batch, len, cols] = x.dims() else {
        fail!(ET_ERR_SHAPE, "{OP}: x must have the shape [B, len, h], found {:?}", x.dims());
    };
    let starts = super::integers(OP, "starts", starts)?;
    if starts.elem_count() != batch + 1 {
        fail!(
            ET_ERR_SHAPE,
            "{OP}: starts must have {} elements for {batch} runs, found {}",
            batch + 1,
            starts.elem_count()
        );
    }
    let rows = {
        let starts = storage::read::<i64>(&starts)?;
        let rows = starts[batch].max(0) as usize;
        crate::kernels::runs::run_ranges(OP, "starts", &starts, rows)?;
        rows
    };
    crate::tensor::shape_len(OP, &[rows, cols])?;
    by_dtype(OP, &[Some(x)], |inputs, double| {
        let x = given(inputs, 0)?;
        let plan = Move { starts, sizes: Padding { rows, len, cols, pad: false } };
        if double { plan.apply::<f64>(x) } else { plan.apply::<f32>(x) }
    })
}

struct Move {
    starts: Value,
    sizes: Padding,
}

impl Move {
    /// Moves elements in one direction; the gradient goes in the other.
    fn run<F: Real>(&self, pad: bool, x: &[F]) -> Result<candle_core::Tensor> {
        let Padding { rows, len, cols, .. } = self.sizes;
        let starts = storage::read::<i64>(&self.starts)?;
        let batch = starts.len() - 1;
        if pad {
            let mut out = storage::take::<F>(batch * len * cols);
            padding::to_padded(x, cols, &starts, len, &mut out)?;
            storage::tensor_from_vec(out, (batch, len, cols))
        } else {
            let mut out = storage::take::<F>(rows * cols);
            padding::from_padded(x, cols, &starts, len, &mut out)?;
            storage::tensor_from_vec(out, (rows, cols))
        }
    }

    fn apply<F: Direct>(self, x: &Tensor) -> Result<Tensor> {
        let sizes = self.sizes;
        let on_device = device::offer(&[x], |device| device.padding(x, &self.starts, sizes))?;
        if let Some(y) = on_device {
            return Ok(y);
        }
        let y = {
            let vx = dense(x.value())?;
            self.run::<F>(sizes.pad, &storage::read::<F>(&vx)?)?
        };
        let op = if sizes.pad { "to_padded" } else { "from_padded" };
        Ok(record1(op, &[x], y, move |pass| {
            let Some(grad) = pass.grad(0) else { return Ok(()) };
            let grad = dense(&grad)?;
            let dx = self.run::<F>(!sizes.pad, &storage::read::<F>(&grad)?)?;
            pass.give(0, dx)
        }))
    }
}

/// 1-D convolution within each run, zero padding that keeps lengths: x [T, i], weight [o, i, k], bias `[o]` -> [T, o].
/// Errors as for [`pool`].
pub fn conv1d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    starts: &Tensor,
    dilation: usize,
) -> Result<Tensor> {
    const OP: &str = "conv1d";
    let (rows, inputs) = matrix(OP, x)?;
    let &[outputs, found, kernel] = weight.dims() else {
        fail!(
            ET_ERR_SHAPE,
            "{OP}: the weight must have the shape [o, i, k], found {:?}",
            weight.dims()
        );
    };
    if found != inputs {
        fail!(
            ET_ERR_SHAPE,
            "{OP}: the weight {:?} must have as many inputs as x {:?} has columns",
            weight.dims(),
            x.dims()
        );
    }
    if kernel == 0 || dilation == 0 {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "{OP}: kernel and dilation must be at least 1, found {kernel} and {dilation}"
        );
    }
    if let Some(bias) = bias {
        check_shape(OP, "the bias", bias, &[outputs])?;
    }
    let starts = run_starts(OP, "starts", starts, rows)?;
    by_dtype(OP, &[Some(x), Some(weight), bias], |inputs, double| {
        if double {
            typed_conv1d::<f64>(inputs, starts, dilation)
        } else {
            typed_conv1d::<f32>(inputs, starts, dilation)
        }
    })
}

#[derive(Clone, Copy)]
struct Sizes {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    dilation: usize,
}

impl Sizes {
    fn over(self, starts: &[i64]) -> Conv1dShape<'_> {
        let Self { inputs, outputs, kernel, dilation } = self;
        Conv1dShape { starts, inputs, outputs, kernel, dilation, border: Border::Same }
    }
}

fn typed_conv1d<F: Direct>(
    inputs: &[Option<Tensor>],
    starts: Value,
    dilation: usize,
) -> Result<Tensor> {
    let (x, weight, bias) = (given(inputs, 0)?, given(inputs, 1)?, inputs[2].as_ref());
    let mut tracked = vec![x, weight];
    tracked.extend(bias);
    let on_device =
        device::offer(&tracked, |device| device.conv1d(x, weight, bias, &starts, dilation))?;
    if let Some(y) = on_device {
        return Ok(y);
    }
    let (rows, columns) = matrix("conv1d", x)?;
    let (outputs, kernel) = (weight.dims()[0], weight.dims()[2]);
    let sizes = Sizes { inputs: columns, outputs, kernel, dilation };
    let (vx, vw) = (dense(x.value())?, dense(weight.value())?);
    let mut y = storage::take::<F>(rows * outputs);
    {
        let vb = bias.map(|bias| dense(bias.value())).transpose()?;
        let bias = vb.as_deref().map(storage::read::<F>).transpose()?;
        let starts = storage::read::<i64>(&starts)?;
        let (x, weight) = (storage::read::<F>(&vx)?, storage::read::<F>(&vw)?);
        conv1d_forward(sizes.over(&starts), &x, &weight, bias.as_deref(), &mut y)?;
    }
    let y = storage::tensor_from_vec(y, (rows, outputs))?;
    Ok(record1("conv1d", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let mut dx = wanted::<F>(pass, 0, rows * columns);
        let mut dweight = wanted::<F>(pass, 1, outputs * columns * kernel);
        let mut dbias = wanted::<F>(pass, 2, outputs);
        {
            let starts = storage::read::<i64>(&starts)?;
            let (x, weight) = (storage::read::<F>(&vx)?, storage::read::<F>(&vw)?);
            let gradients = Conv1dGradients {
                x: dx.as_deref_mut().map(|d| (Store::Write, d)),
                weight: dweight.as_deref_mut().map(|d| (Store::Write, d)),
                bias: dbias.as_deref_mut().map(|d| (Store::Write, d)),
            };
            conv1d_backward(
                sizes.over(&starts),
                &x,
                &weight,
                &storage::read::<F>(&grad)?,
                gradients,
            )?;
        }
        give_vec(pass, 1, &[outputs, columns, kernel], dweight)?;
        give_vec(pass, 2, &[outputs], dbias)?;
        give_vec(pass, 0, &[rows, columns], dx)
    }))
}
