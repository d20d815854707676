//! The long short-term memory over runs of tokens (Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et
//! al., 2000).
//!
//! i, f, o = sigmoid and g = tanh of `W_ih x + b_ih + W_hh h + b_hh`; c' = f c + i g; h' = o tanh(c').

use crate::activation::Activation;
use crate::gemm::{Matrix, MatrixMut, gemm_serial};
use crate::linear::{LinearShape, linear_forward};
use crate::machine::scratch::{take, with_scratch};
use crate::machine::simd::multiversion;
use crate::recurrent::rnn::{Group, RnnGradients, RnnShape, RnnWeights};
use crate::runs::{SharedRows, for_each_run_task};
use crate::{Float, Result, check_len};

multiversion! {
    /// One token: `gates` [4 h] holds the input's side and becomes the gates, `product` [4 h] holds W_hh h; `cell`
    /// [h] is stepped, `out` [h] becomes the new state.
    fn forward_token<F: Float>(
        gates: &mut [F], product: &[F], bias: &[F], cell: &mut [F], out: &mut [F],
    ) {
        let h = cell.len();
        for ((gate, &product), &bias) in gates.iter_mut().zip(product).zip(bias) {
            *gate += product + bias;
        }
        let (input, rest) = gates.split_at_mut(h);
        let (forget, rest) = rest.split_at_mut(h);
        let (new, output) = rest.split_at_mut(h);
        let (output, out) = (&mut output[..h], &mut out[..h]);
        for u in 0..h {
            let (i, f, g, o) =
                (input[u].sigmoid(), forget[u].sigmoid(), new[u].tanh(), output[u].sigmoid());
            let c = f * cell[u] + i * g;
            (input[u], forget[u], new[u], output[u]) = (i, f, g, o);
            cell[u] = c;
            out[u] = o * c.tanh();
        }
    }

    /// One token: from the gradients of its output and of its state (`dstate`, from the next step) and of its cell
    /// (`dcell`, which is stepped back) to those of the gates before their functions, `dgates` [4 h].
    fn backward_token<F: Float>(
        gates: &[F], cell: &[F], before: &[F], dy: &[F], dstate: &[F], dcell: &mut [F], dgates: &mut [F],
    ) {
        let h = cell.len();
        let (input, rest) = gates.split_at(h);
        let (forget, rest) = rest.split_at(h);
        let (new, output) = rest.split_at(h);
        let (dinput, rest) = dgates.split_at_mut(h);
        let (dforget, rest) = rest.split_at_mut(h);
        let (dnew, doutput) = rest.split_at_mut(h);
        for u in 0..h {
            let (i, f, g, o) = (input[u], forget[u], new[u], output[u]);
            let dh = dy[u] + dstate[u];
            let t = cell[u].tanh();
            let dc = dcell[u] + dh * o * (F::ONE - t * t);
            dinput[u] = dc * g * i * (F::ONE - i);
            dforget[u] = dc * before[u] * f * (F::ONE - f);
            dnew[u] = dc * i * (F::ONE - g * g);
            doutput[u] = dh * t * o * (F::ONE - o);
            dcell[u] = dc * f;
        }
    }
}

/// The states of `x` [T, inputs] in `y` [T, hidden]. `gates` [T, 4 hidden] (i, f, g, o) and `cells` [T, hidden] are
/// what the backward pass needs.
///
/// # Errors
/// If a slice does not fit `shape` or `starts` are no cumulative lengths.
pub fn lstm_forward<F: Float>(
    shape: RnnShape<'_>,
    x: &[F],
    weights: RnnWeights<'_, F>,
    gates: &mut [F],
    cells: &mut [F],
    y: &mut [F],
) -> Result {
    const NAME: &str = "lstm_forward";
    let h = shape.hidden;
    let runs = shape.check(NAME, 4, x, &weights)?;
    let rows = runs.last().map_or(0, |run| run.end);
    check_len(NAME, "gates", rows * 4 * h, gates.len())?;
    check_len(NAME, "cells", rows * h, cells.len())?;
    check_len(NAME, "y", rows * h, y.len())?;
    let linear = LinearShape { rows, inputs: shape.inputs, outputs: 4 * h, bf16: false };
    let (bias, none) = (Some(weights.input_bias), Activation::None);
    linear_forward(linear, x, weights.input, bias, none, gates, None)?;
    let weight = Matrix::new(weights.hidden, 4 * h, h)?.t();
    let gates = SharedRows::new(gates, 4 * h);
    let (cells, y) = (SharedRows::new(cells, h), SharedRows::new(y, h));
    let groups = Group::all(runs, shape.reverse);
    for_each_run_task(shape.work(4, rows), groups, |group| {
        let n = group.len();
        with_scratch::<F, _>(n * 6 * h, |mut rest| {
            rest.fill(F::ZERO);
            let (cell, state) = (take(&mut rest, n * h), take(&mut rest, n * h));
            let product = rest;
            for step in 0..group.steps() {
                let active = group.active(step);
                if step > 0 {
                    let left = Matrix::new(state, active, h).expect("the buffer has n rows");
                    let mut out =
                        MatrixMut::new(product, active, 4 * h).expect("the buffer has n rows");
                    gemm_serial(F::ONE, left, weight, F::ZERO, &mut out).expect("shapes fit");
                }
                for run in 0..active {
                    let row = group.row(run, step);
                    // SAFETY: each token belongs to one run and each run to one group, so no other segment shares an
                    // element.
                    let (gates, cells, y) = unsafe {
                        (
                            gates.segment(row, 0..4 * h),
                            cells.segment(row, 0..h),
                            y.segment(row, 0..h),
                        )
                    };
                    let product = &product[run * 4 * h..(run + 1) * 4 * h];
                    let cell = &mut cell[run * h..(run + 1) * h];
                    let state = &mut state[run * h..(run + 1) * h];
                    forward_token(gates, product, weights.hidden_bias, cell, state);
                    cells.copy_from_slice(cell);
                    y.copy_from_slice(state);
                }
            }
        });
    });
    Ok(())
}

/// What [`lstm_forward`] read and wrote.
#[derive(Debug, Clone, Copy)]
pub struct LstmSaved<'a, F> {
    /// Input [T, inputs].
    pub x: &'a [F],
    /// Gates [T, 4 hidden].
    pub gates: &'a [F],
    /// Cells [T, hidden].
    pub cells: &'a [F],
    /// Output [T, hidden].
    pub y: &'a [F],
}

/// Gradients of [`lstm_forward`] from `dy` [T, hidden].
///
/// # Errors
/// As [`lstm_forward`].
pub fn lstm_backward<F: Float>(
    shape: RnnShape<'_>,
    saved: LstmSaved<'_, F>,
    weights: RnnWeights<'_, F>,
    dy: &[F],
    gradients: RnnGradients<'_, F>,
) -> Result {
    const NAME: &str = "lstm_backward";
    let h = shape.hidden;
    let LstmSaved { x, gates, cells, y } = saved;
    let runs = shape.check(NAME, 4, x, &weights)?;
    let rows = runs.last().map_or(0, |run| run.end);
    check_len(NAME, "gates", rows * 4 * h, gates.len())?;
    check_len(NAME, "cells", rows * h, cells.len())?;
    check_len(NAME, "y", rows * h, y.len())?;
    check_len(NAME, "dy", rows * h, dy.len())?;
    let mut dgates = vec![F::ZERO; gates.len()];
    let all = SharedRows::new(&mut dgates, 4 * h);
    let weight = Matrix::new(weights.hidden, 4 * h, h)?;
    let groups = Group::all(runs.clone(), shape.reverse);
    for_each_run_task(shape.work(4, rows), groups, |group| {
        let n = group.len();
        with_scratch::<F, _>(n * 6 * h + h, |mut rest| {
            rest.fill(F::ZERO);
            let (dcell, dstate) = (take(&mut rest, n * h), take(&mut rest, n * h));
            let (zeros, dgates) = (take(&mut rest, h), rest);
            for step in (0..group.steps()).rev() {
                let active = group.active(step);
                for run in 0..active {
                    let row = group.row(run, step);
                    let part = row * h..(row + 1) * h;
                    let before = match step {
                        0 => &*zeros,
                        _ => &cells[group.row(run, step - 1) * h..][..h],
                    };
                    let own = run * h..(run + 1) * h;
                    let dgates = &mut dgates[run * 4 * h..(run + 1) * 4 * h];
                    backward_token(
                        &gates[row * 4 * h..(row + 1) * 4 * h],
                        &cells[part.clone()],
                        before,
                        &dy[part],
                        &dstate[own.clone()],
                        &mut dcell[own],
                        dgates,
                    );
                    // SAFETY: each token belongs to one run and each run to one group, so no other segment shares an
                    // element.
                    unsafe { all.segment(row, 0..4 * h) }.copy_from_slice(dgates);
                }
                let left = Matrix::new(dgates, active, 4 * h).expect("the buffer has n rows");
                let mut out = MatrixMut::new(dstate, active, h).expect("the buffer has n rows");
                gemm_serial(F::ONE, left, weight, F::ZERO, &mut out).expect("shapes fit");
            }
        });
    });
    shape.products(&runs, (x, y), &weights, (&dgates, &dgates), gradients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::Store;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    const GATES: usize = 4;

    /// x and the four weights, laid end to end.
    fn split<'a, F>(shape: &RnnShape<'_>, all: &'a [F]) -> (&'a [F], RnnWeights<'a, F>) {
        let rows = *shape.starts.last().unwrap() as usize;
        let outputs = GATES * shape.hidden;
        let (x, rest) = all.split_at(rows * shape.inputs);
        let (input, rest) = rest.split_at(outputs * shape.inputs);
        let (hidden, rest) = rest.split_at(outputs * shape.hidden);
        let (input_bias, hidden_bias) = rest.split_at(outputs);
        (x, RnnWeights { input, hidden, input_bias, hidden_bias })
    }

    fn len(shape: &RnnShape<'_>) -> usize {
        let rows = *shape.starts.last().unwrap() as usize;
        rows * shape.inputs + GATES * shape.hidden * (shape.inputs + shape.hidden + 2)
    }

    /// Gates, the second saved value and y.
    fn forward<F: Float>(shape: RnnShape<'_>, all: &[F]) -> [Vec<F>; 3] {
        let (x, weights) = split(&shape, all);
        let n = *shape.starts.last().unwrap() as usize * shape.hidden;
        let mut out = [vec![F::ONE; GATES * n], vec![F::ONE; n], vec![F::ONE; n]];
        let [gates, second, y] = &mut out;
        lstm_forward(shape, x, weights, gates, second, y).unwrap();
        out
    }

    fn gradient<F: Float>(shape: RnnShape<'_>, all: &[F], dy: &[F]) -> Vec<F> {
        let (x, weights) = split(&shape, all);
        let [gates, second, y] = forward(shape, all);
        let mut out = vec![F::ONE; all.len()];
        let (dx, rest) = out.split_at_mut(x.len());
        let (input, rest) = rest.split_at_mut(weights.input.len());
        let (hidden, rest) = rest.split_at_mut(weights.hidden.len());
        let (input_bias, hidden_bias) = rest.split_at_mut(weights.input_bias.len());
        let gradients = RnnGradients {
            x: Some((Store::Write, dx)),
            input: Some((Store::Write, input)),
            hidden: Some((Store::Write, hidden)),
            input_bias: Some((Store::Write, input_bias)),
            hidden_bias: Some((Store::Write, hidden_bias)),
        };
        let saved = LstmSaved { x, gates: &gates, cells: &second, y: &y };
        lstm_backward(shape, saved, weights, dy, gradients).unwrap();
        out
    }

    const STARTS: [i64; 5] = [0, 3, 3, 8, 9];

    fn small(reverse: bool) -> RnnShape<'static> {
        RnnShape { starts: &STARTS, inputs: 3, hidden: 2, reverse }
    }

    fn naive(shape: RnnShape<'_>, all: &[f64]) -> Vec<f64> {
        let (x, w) = split(&shape, all);
        let (inputs, h) = (shape.inputs, shape.hidden);
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        let mut y = vec![0.0; x.len() / inputs * h];
        for run in shape.starts.windows(2) {
            let mut rows: Vec<usize> = (run[0] as usize..run[1] as usize).collect();
            if shape.reverse {
                rows.reverse();
            }
            let mut state = vec![0.0; h];
            let mut cell = vec![0.0; h];
            for row in rows {
                let before = state.clone();
                let input = |g: usize| -> f64 {
                    let sum: f64 =
                        (0..inputs).map(|c| w.input[g * inputs + c] * x[row * inputs + c]).sum();
                    sum + w.input_bias[g]
                };
                let side = |g: usize| -> f64 {
                    (0..h).map(|c| w.hidden[g * h + c] * before[c]).sum::<f64>() + w.hidden_bias[g]
                };
                for u in 0..h {
                    let gate = |k: usize| input(k * h + u) + side(k * h + u);
                    cell[u] = sigmoid(gate(1)) * cell[u] + sigmoid(gate(0)) * gate(2).tanh();
                    state[u] = sigmoid(gate(3)) * cell[u].tanh();
                    y[row * h + u] = state[u];
                }
            }
        }
        y
    }

    #[test]
    fn values_match_plain_loops() {
        for reverse in [false, true] {
            let all: Vec<f64> = random(len(&small(reverse)), 1);
            assert_close(&forward(small(reverse), &all)[2], &naive(small(reverse), &all), 1e-13);
        }
        let starts: Vec<i64> = (0..=30).map(|run| run * (run + 1) / 2).collect();
        let shape = RnnShape { starts: &starts, inputs: 20, hidden: 33, reverse: false };
        let all: Vec<f32> = random(len(&shape), 2);
        let wide: Vec<f64> = all.iter().map(|&v| f64::from(v)).collect();
        assert_close(&forward(shape, &all)[2], &naive(shape, &wide), 3e-5);
    }

    #[test]
    fn gradients_match_differences() {
        for reverse in [false, true] {
            let all: Vec<f64> = random(len(&small(reverse)), 3);
            let dy: Vec<f64> = random(18, 4);
            let expected = numeric_gradient(&all, |all| dot(&forward(small(reverse), all)[2], &dy));
            assert_close(&gradient(small(reverse), &all, &dy), &expected, 1e-8);
        }
    }

    #[test]
    fn threads_do_not_change_bits() {
        let starts: Vec<i64> = (0..=30).map(|run| run * (run + 1) / 2).collect();
        let shape = RnnShape { starts: &starts, inputs: 24, hidden: 40, reverse: true };
        let all: Vec<f32> = random(len(&shape), 5);
        let dy: Vec<f32> = random(465 * 40, 6);
        let (one, three) = with_one_and_three_threads(|| gradient(shape, &all, &dy));
        assert_same_bits(&one, &three);
    }

    #[test]
    fn bad_sizes_are_refused_and_no_tokens_are_not() {
        let all: Vec<f32> = random(len(&small(false)), 5);
        let (x, weights) = split(&small(false), &all);
        let (mut gates, mut second, mut y) = (vec![0.0; GATES * 18], vec![0.0; 18], vec![0.0; 18]);
        let mut run =
            |shape, x: &[f32]| lstm_forward(shape, x, weights, &mut gates, &mut second, &mut y);
        assert!(run(small(false), &x[1..]).is_err());
        assert!(run(RnnShape { starts: &[0, 9, 8], ..small(false) }, x).is_err());
        assert!(run(RnnShape { hidden: 3, ..small(false) }, x).is_err());
        let none = RnnShape { starts: &[0, 0], ..small(false) };
        lstm_forward(none, &[], weights, &mut [], &mut [], &mut []).unwrap();
    }
}
