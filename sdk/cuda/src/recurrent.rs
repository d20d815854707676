//! LSTM and GRU over runs, step by step: one product with the state of all runs that still go on, and one kernel
//! behind it. The input's side of all gates is one product over all tokens. Everything is f32.

use candle_core::{DType, Tensor as Raw};

use super::activation::column_sum;
use super::launch::{Launch, Module::Recurrent};
use super::linear::{Extents, give_written};
use super::memory::{clear, floats, table};
use super::mixed::{elements, gradient};
use easytransfer_core::device::Recurrent as Layer;
use easytransfer_core::error::Result;
use easytransfer_core::storage::{self, Value};
use easytransfer_core::tape::record1;
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::recurrent::rnn::Group;

/// Which tokens the runs read at each step, longest runs first.
struct Steps {
    /// Where the tokens of each step begin, and the end.
    first: Vec<usize>,
    /// Numbers of the tokens, u32 on the card.
    rows: Value,
    runs: usize,
}

/// The tokens of all steps, and where those of each begin.
fn tokens(group: &Group) -> (Vec<u32>, Vec<usize>) {
    let (mut rows, mut first) = (Vec::new(), vec![0]);
    for step in 0..group.steps() {
        rows.extend((0..group.active(step)).map(|run| group.row(run, step) as u32));
        first.push(rows.len());
    }
    (rows, first)
}

impl Steps {
    fn new(starts: &[i64], reverse: bool) -> Result<Self> {
        let runs = starts.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect();
        let group = Group::one(runs, reverse);
        let (rows, first) = tokens(&group);
        Ok(Self { first, rows: table(&rows)?, runs: group.len() })
    }

    fn len(&self) -> usize {
        self.first.len() - 1
    }

    fn active(&self, step: usize) -> usize {
        self.first[step + 1] - self.first[step]
    }

    /// The tokens of a step, a table of bytes.
    fn rows(&self, step: usize) -> Result<Raw> {
        Ok(self.rows.narrow(0, 4 * self.first[step], 4 * self.active(step))?)
    }

    /// Those of the step before, of which this step's runs are the first.
    fn rows_before(&self, step: usize) -> Result<Option<Raw>> {
        step.checked_sub(1).map(|before| self.rows(before)).transpose()
    }
}

/// The layer's output [T, h] for `tensors` x, w_ih, w_hh, b_ih, b_hh; `starts` are in host memory and shapes were
/// checked, none of the extents is 0.
pub(crate) fn recurrent(tensors: [&Tensor; 5], starts: &Value, layer: Layer) -> Result<Tensor> {
    let Layer { gates: count, rows, inputs, hidden, .. } = layer;
    let lstm = count == 4;
    let values = tensors.iter().map(|x| elements(x, DType::F32)).collect::<Result<Vec<_>>>()?;
    let steps = Steps::new(&storage::read::<i64>(starts)?, layer.reverse)?;
    let outputs = count * hidden;
    let gates = floats((rows, outputs))?;
    let ahead = Extents { rows, inputs, outputs };
    ahead.forward(&values[0], &values[1], Some(&values[3]), &gates)?;
    // Cells of an LSTM, the inner part of the third gate of a GRU.
    let inner = floats((rows, hidden))?;
    let y = floats((rows, hidden))?;
    let state = floats((steps.runs, hidden))?;
    let cell = if lstm { Some(floats((steps.runs, hidden))?) } else { None };
    let sides = floats((steps.runs, outputs))?;
    for step in 0..steps.len() {
        let active = steps.active(step);
        if step > 0 {
            let (state, sides) = (state.narrow(0, 0, active)?, sides.narrow(0, 0, active)?);
            let step = Extents { rows: active, inputs: hidden, outputs };
            step.forward(&state, &values[2], None, &sides)?;
        }
        let name = if lstm { "et_lstm_forward" } else { "et_gru_forward" };
        let launch = Launch::new(Recurrent, name).elements(active * hidden);
        let launch = launch.u64(active).u64(hidden).tensor(&steps.rows(step)?);
        let launch = launch.maybe((step > 0).then_some(&*sides)).tensor(&values[4]).tensor(&gates);
        let launch = if let Some(cell) = &cell { launch.tensor(cell) } else { launch };
        // SAFETY: tokens are rows of gates, inner and y; the others have a row for every run that goes on.
        unsafe { launch.tensor(&state).tensor(&inner).tensor(&y).run() }?;
    }
    let saved = Saved { layer, steps, values, gates, inner, y: y.clone() };
    Ok(record1(if lstm { "lstm" } else { "gru" }, &tensors, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dy = gradient(&grad, DType::F32)?;
        let (dinput, dhidden, before) = saved.gates(&dy)?;
        give_written(pass, 1, &[outputs, inputs], |out, add| {
            ahead.weight_gradient(&saved.values[0], &dinput, out, add)
        })?;
        let again = Extents { inputs: hidden, ..ahead };
        give_written(pass, 2, &[outputs, hidden], |out, add| {
            again.weight_gradient(&before, &dhidden, out, add)
        })?;
        for (index, sides) in [(3, &dinput), (4, &dhidden)] {
            give_written(pass, index, &[outputs], |out, add| {
                column_sum(sides, rows, outputs, add, out)
            })?;
        }
        if !pass.wants(0) {
            return Ok(());
        }
        let dx = floats((rows, inputs))?;
        ahead.input_gradient(&saved.values[1], &dinput, &dx, false)?;
        pass.give(0, dx)
    }))
}

struct Saved {
    layer: Layer,
    steps: Steps,
    values: Vec<Value>,
    gates: Value,
    inner: Value,
    y: Value,
}

impl Saved {
    /// Gradients of the gates on the input's side and on the state's, [T, gates h], and the state that each token
    /// met, [T, h].
    fn gates(&self, dy: &Raw) -> Result<(Value, Value, Value)> {
        let Layer { gates: count, rows, hidden, .. } = self.layer;
        let lstm = count == 4;
        let room = (self.steps.runs, hidden);
        let (dstate, dsides) = (floats(room)?, floats((self.steps.runs, count * hidden))?);
        let dcell = if lstm { Some(floats(room)?) } else { None };
        // Runs join from their last token on, with nothing behind it.
        clear(&dstate)?;
        dcell.as_deref().map(clear).transpose()?;
        let dinput = floats((rows, count * hidden))?;
        // Both sides of an LSTM's gates have one gradient.
        let dhidden = if lstm { dinput.clone() } else { floats((rows, count * hidden))? };
        let before = floats((rows, hidden))?;
        for step in (0..self.steps.len()).rev() {
            let active = self.steps.active(step);
            let name = if lstm { "et_lstm_backward" } else { "et_gru_backward" };
            let launch = Launch::new(Recurrent, name).elements(active * hidden);
            let launch = launch
                .u64(active)
                .u64(hidden)
                .tensor(&self.steps.rows(step)?)
                .maybe(self.steps.rows_before(step)?.as_ref())
                .tensor(&self.gates)
                .tensor(&self.inner)
                .tensor(&self.y)
                .tensor(dy)
                .tensor(&dstate);
            let launch = match &dcell {
                Some(dcell) => launch.tensor(dcell).tensor(&dsides).tensor(&dinput),
                None => launch.tensor(&dsides).tensor(&dinput).tensor(&dhidden),
            };
            // SAFETY: tokens are rows of all that is [T, ..]; the others have a row for every run that goes on.
            unsafe { launch.tensor(&before).run() }?;
            if step > 0 {
                let (dsides, dstate) = (dsides.narrow(0, 0, active)?, dstate.narrow(0, 0, active)?);
                let step = Extents { rows: active, inputs: hidden, outputs: count * hidden };
                step.input_gradient(&self.values[2], &dsides, &dstate, !lstm)?;
            }
        }
        Ok((dinput, dhidden, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_list_the_tokens_of_the_runs_that_go_on() {
        let group = Group::one(vec![0..2, 2..2, 2..5], false);
        assert_eq!(tokens(&group), (vec![2, 0, 3, 1, 4], vec![0, 2, 4, 5]));
        let group = Group::one(vec![0..2, 2..2, 2..5], true);
        assert_eq!(tokens(&group), (vec![4, 1, 3, 0, 2], vec![0, 2, 4, 5]));
        assert_eq!(tokens(&Group::one(vec![0..0], false)), (vec![], vec![0]));
    }
}
