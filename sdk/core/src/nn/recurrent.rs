//! LSTM and GRU over runs.

use super::{Direct, by_dtype, check_shape, dense, give_vec, given, run_starts, wanted};
use crate::device::{self, Recurrent};
use crate::error::{Result, fail};
use crate::kernels::elementwise::Store;
use crate::kernels::recurrent::gru::{GruSaved, gru_backward, gru_forward};
use crate::kernels::recurrent::lstm::{LstmSaved, lstm_backward, lstm_forward};
use crate::kernels::recurrent::rnn::{RnnGradients, RnnShape, RnnWeights};
use crate::storage::{self, Real, Slice, Value};
use crate::tape::record1;
use crate::tensor::Tensor;

/// The two kinds of layer.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Lstm,
    Gru,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Lstm => "lstm",
            Self::Gru => "gru",
        }
    }

    fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// LSTM over runs (Hochreiter and Schmidhuber 1997; gates i, f, g, o): x [T, i] and the weights w_ih [4 h, i], w_hh
/// [4 h, h], b_ih [4 h], b_hh [4 h] -> [T, h]; `reverse` reads each run from its end. Errors: `SHAPE`, `DTYPE`,
/// `INVALID_ARGUMENT` for bad starts.
pub fn lstm(x: &Tensor, weights: [&Tensor; 4], starts: &Tensor, reverse: bool) -> Result<Tensor> {
    layer(Kind::Lstm, x, weights, starts, reverse)
}

/// GRU over runs (Cho et al. 2014; gates r, z, n); otherwise as [`lstm`] with 3 h rows.
pub fn gru(x: &Tensor, weights: [&Tensor; 4], starts: &Tensor, reverse: bool) -> Result<Tensor> {
    layer(Kind::Gru, x, weights, starts, reverse)
}

fn layer(
    kind: Kind,
    x: &Tensor,
    weights: [&Tensor; 4],
    starts: &Tensor,
    reverse: bool,
) -> Result<Tensor> {
    let (op, gates) = (kind.name(), kind.gates());
    let &[rows, inputs] = x.dims() else {
        fail!(ET_ERR_SHAPE, "{op}: x must have the shape [T, i], found {:?}", x.dims());
    };
    let [w_ih, w_hh, b_ih, b_hh] = weights;
    let &[_, hidden] = w_hh.dims() else {
        fail!(ET_ERR_SHAPE, "{op}: w_hh must have two axes, found {:?}", w_hh.dims());
    };
    check_shape(op, "w_hh", w_hh, &[gates * hidden, hidden])?;
    check_shape(op, "w_ih", w_ih, &[gates * hidden, inputs])?;
    check_shape(op, "b_ih", b_ih, &[gates * hidden])?;
    check_shape(op, "b_hh", b_hh, &[gates * hidden])?;
    let starts = run_starts(op, "starts", starts, rows)?;
    let plan = Plan { kind, starts, rows, inputs, hidden, reverse };
    let list = [Some(x), Some(w_ih), Some(w_hh), Some(b_ih), Some(b_hh)];
    by_dtype(
        op,
        &list,
        |list, double| {
            if double { typed::<f64>(plan, list) } else { typed::<f32>(plan, list) }
        },
    )
}

struct Plan {
    kind: Kind,
    starts: Value,
    rows: usize,
    inputs: usize,
    hidden: usize,
    reverse: bool,
}

impl Plan {
    fn shape<'a>(&self, starts: &'a [i64]) -> RnnShape<'a> {
        let Self { inputs, hidden, reverse, .. } = *self;
        RnnShape { starts, inputs, hidden, reverse }
    }
}

/// The weights of `slices`, which begin with x.
fn weights<'a, F: Real>(slices: &'a [Slice<'_, F>]) -> RnnWeights<'a, F> {
    RnnWeights {
        input: &slices[1],
        hidden: &slices[2],
        input_bias: &slices[3],
        hidden_bias: &slices[4],
    }
}

fn typed<F: Direct>(plan: Plan, list: &[Option<Tensor>]) -> Result<Tensor> {
    let Plan { kind, rows, hidden, .. } = plan;
    let at = |index| given(list, index);
    let tracked = [at(0)?, at(1)?, at(2)?, at(3)?, at(4)?];
    let Plan { inputs, reverse, .. } = plan;
    let layer = Recurrent { gates: kind.gates(), rows, inputs, hidden, reverse };
    let on_device =
        device::offer(&tracked, |device| device.recurrent(tracked, &plan.starts, layer))?;
    if let Some(y) = on_device {
        return Ok(y);
    }
    let values = tracked.iter().map(|x| dense(x.value())).collect::<Result<Vec<_>>>()?;
    let mut gates = storage::take::<F>(rows * kind.gates() * hidden);
    // Cells of an LSTM, the inner part of the third gate of a GRU.
    let mut inner = storage::take::<F>(rows * hidden);
    let mut y = storage::take::<F>(rows * hidden);
    {
        let starts = storage::read::<i64>(&plan.starts)?;
        let slices = values.iter().map(|v| storage::read::<F>(v)).collect::<Result<Vec<_>>>()?;
        let fwd = match kind {
            Kind::Lstm => lstm_forward::<F>,
            Kind::Gru => gru_forward::<F>,
        };
        fwd(plan.shape(&starts), &slices[0], weights(&slices), &mut gates, &mut inner, &mut y)?;
    }
    let gates = Value::new(storage::tensor_from_vec(gates, rows * kind.gates() * hidden)?);
    let inner = Value::new(storage::tensor_from_vec(inner, rows * hidden)?);
    let y = storage::tensor_from_vec(y, (rows, hidden))?;
    let saved_y = Value::new(y.clone());
    Ok(record1(kind.name(), &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let mut grads: Vec<Option<Vec<F>>> =
            values.iter().enumerate().map(|(i, v)| wanted(pass, i, v.elem_count())).collect();
        {
            let starts = storage::read::<i64>(&plan.starts)?;
            let shape = plan.shape(&starts);
            let slices =
                values.iter().map(|v| storage::read::<F>(v)).collect::<Result<Vec<_>>>()?;
            let (gates, inner) = (storage::read::<F>(&gates)?, storage::read::<F>(&inner)?);
            let (y, dy) = (storage::read::<F>(&saved_y)?, storage::read::<F>(&grad)?);
            let mut targets = grads.iter_mut().map(|grad| grad.as_deref_mut());
            let mut next = || targets.next().flatten().map(|target| (Store::Write, target));
            let gradients = RnnGradients {
                x: next(),
                input: next(),
                hidden: next(),
                input_bias: next(),
                hidden_bias: next(),
            };
            let x = &slices[0];
            match plan.kind {
                Kind::Lstm => {
                    let saved = LstmSaved { x, gates: &gates, cells: &inner, y: &y };
                    lstm_backward(shape, saved, weights(&slices), &dy, gradients)?;
                }
                Kind::Gru => {
                    let saved = GruSaved { x, gates: &gates, inner: &inner, y: &y };
                    gru_backward(shape, saved, weights(&slices), &dy, gradients)?;
                }
            }
        }
        for (index, (grad, value)) in grads.into_iter().zip(&values).enumerate() {
            give_vec(pass, index, value.dims(), grad)?;
        }
        Ok(())
    }))
}
