//! The gated recurrent unit over runs of tokens (Cho et al., 2014, with PyTorch's place of the reset gate).
//!
//! r, z = sigmoid of `W_ih x + b_ih + W_hh h + b_hh`; n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h' = (1 - z) n + z
//! h.

use crate::activation::Activation;
use crate::gemm::{Matrix, MatrixMut, gemm_serial};
use crate::linear::{LinearShape, linear_forward};
use crate::machine::scratch::{take, with_scratch};
use crate::machine::simd::multiversion;
use crate::recurrent::rnn::{Group, RnnGradients, RnnShape, RnnWeights};
use crate::runs::{SharedRows, for_each_run_task};
use crate::{Float, Result, check_len};

multiversion! {
    /// One token: `gates` [3 h] holds the input's side and becomes the gates, `product` [3 h] holds W_hh h; `inner`
    /// [h] becomes W_hn h + b_hn, `state` [h] is stepped.
    fn forward_token<F: Float>(
        gates: &mut [F], product: &[F], bias: &[F], inner: &mut [F], state: &mut [F],
    ) {
        let h = state.len();
        let (reset, rest) = gates.split_at_mut(h);
        let (update, new) = rest.split_at_mut(h);
        let (new, inner) = (&mut new[..h], &mut inner[..h]);
        for u in 0..h {
            let r = (reset[u] + product[u] + bias[u]).sigmoid();
            let z = (update[u] + product[h + u] + bias[h + u]).sigmoid();
            let side = product[2 * h + u] + bias[2 * h + u];
            let n = (new[u] + r * side).tanh();
            (reset[u], update[u], new[u]) = (r, z, n);
            inner[u] = side;
            state[u] = (F::ONE - z) * n + z * state[u];
        }
    }

    /// One token: from the gradients of its output and of its state (`dstate`, which becomes the part that does not
    /// pass W_hh) to those of both sides of the gates, `dinput` and `dhidden` [3 h].
    fn backward_token<F: Float>(
        gates: &[F], inner: &[F], before: &[F], dy: &[F], dstate: &mut [F], dinput: &mut [F], dhidden: &mut [F],
    ) {
        let h = inner.len();
        let (reset, rest) = gates.split_at(h);
        let (update, new) = rest.split_at(h);
        for u in 0..h {
            let (r, z, n) = (reset[u], update[u], new[u]);
            let dh = dy[u] + dstate[u];
            let dn = dh * (F::ONE - z) * (F::ONE - n * n);
            let dz = dh * (before[u] - n) * z * (F::ONE - z);
            let dr = dn * inner[u] * r * (F::ONE - r);
            (dinput[u], dinput[h + u], dinput[2 * h + u]) = (dr, dz, dn);
            (dhidden[u], dhidden[h + u], dhidden[2 * h + u]) = (dr, dz, dn * r);
            dstate[u] = dh * z;
        }
    }
}

/// The states of `x` [T, inputs] in `y` [T, hidden]. `gates` [T, 3 hidden] (r, z, n) and `inner` [T, hidden] (the
/// state's side of n before the reset) are what the backward pass needs.
///
/// # Errors
/// If a slice does not fit `shape` or `starts` are no cumulative lengths.
pub fn gru_forward<F: Float>(
    shape: RnnShape<'_>,
    x: &[F],
    weights: RnnWeights<'_, F>,
    gates: &mut [F],
    inner: &mut [F],
    y: &mut [F],
) -> Result {
    const NAME: &str = "gru_forward";
    let h = shape.hidden;
    let runs = shape.check(NAME, 3, x, &weights)?;
    let rows = runs.last().map_or(0, |run| run.end);
    check_len(NAME, "gates", rows * 3 * h, gates.len())?;
    check_len(NAME, "inner", rows * h, inner.len())?;
    check_len(NAME, "y", rows * h, y.len())?;
    let linear = LinearShape { rows, inputs: shape.inputs, outputs: 3 * h, bf16: false };
    let (bias, none) = (Some(weights.input_bias), Activation::None);
    linear_forward(linear, x, weights.input, bias, none, gates, None)?;
    let weight = Matrix::new(weights.hidden, 3 * h, h)?.t();
    let gates = SharedRows::new(gates, 3 * h);
    let (inner, y) = (SharedRows::new(inner, h), SharedRows::new(y, h));
    let groups = Group::all(runs, shape.reverse);
    for_each_run_task(shape.work(3, rows), groups, |group| {
        let n = group.len();
        with_scratch::<F, _>(n * 4 * h, |mut rest| {
            rest.fill(F::ZERO);
            let (state, product) = (take(&mut rest, n * h), rest);
            for step in 0..group.steps() {
                let active = group.active(step);
                if step > 0 {
                    let left = Matrix::new(state, active, h).expect("the buffer has n rows");
                    let mut out =
                        MatrixMut::new(product, active, 3 * h).expect("the buffer has n rows");
                    gemm_serial(F::ONE, left, weight, F::ZERO, &mut out).expect("shapes fit");
                }
                for run in 0..active {
                    let row = group.row(run, step);
                    // SAFETY: each token belongs to one run and each run to one group, so no other segment shares an
                    // element.
                    let (gates, inner, y) = unsafe {
                        (
                            gates.segment(row, 0..3 * h),
                            inner.segment(row, 0..h),
                            y.segment(row, 0..h),
                        )
                    };
                    let product = &product[run * 3 * h..(run + 1) * 3 * h];
                    let state = &mut state[run * h..(run + 1) * h];
                    forward_token(gates, product, weights.hidden_bias, inner, state);
                    y.copy_from_slice(state);
                }
            }
        });
    });
    Ok(())
}

/// What [`gru_forward`] read and wrote.
#[derive(Debug, Clone, Copy)]
pub struct GruSaved<'a, F> {
    /// Input [T, inputs].
    pub x: &'a [F],
    /// Gates [T, 3 hidden].
    pub gates: &'a [F],
    /// The state's side of the third gate, [T, hidden].
    pub inner: &'a [F],
    /// Output [T, hidden].
    pub y: &'a [F],
}

/// Gradients of [`gru_forward`] from `dy` [T, hidden].
///
/// # Errors
/// As [`gru_forward`].
pub fn gru_backward<F: Float>(
    shape: RnnShape<'_>,
    saved: GruSaved<'_, F>,
    weights: RnnWeights<'_, F>,
    dy: &[F],
    gradients: RnnGradients<'_, F>,
) -> Result {
    const NAME: &str = "gru_backward";
    let h = shape.hidden;
    let GruSaved { x, gates, inner, y } = saved;
    let runs = shape.check(NAME, 3, x, &weights)?;
    let rows = runs.last().map_or(0, |run| run.end);
    check_len(NAME, "gates", rows * 3 * h, gates.len())?;
    check_len(NAME, "inner", rows * h, inner.len())?;
    check_len(NAME, "y", rows * h, y.len())?;
    check_len(NAME, "dy", rows * h, dy.len())?;
    let (mut dinput, mut dhidden) = (vec![F::ZERO; gates.len()], vec![F::ZERO; gates.len()]);
    let all_input = SharedRows::new(&mut dinput, 3 * h);
    let all_hidden = SharedRows::new(&mut dhidden, 3 * h);
    let weight = Matrix::new(weights.hidden, 3 * h, h)?;
    let groups = Group::all(runs.clone(), shape.reverse);
    for_each_run_task(shape.work(3, rows), groups, |group| {
        let n = group.len();
        with_scratch::<F, _>(n * 4 * h + h, |mut rest| {
            rest.fill(F::ZERO);
            let dstate = take(&mut rest, n * h);
            let (zeros, dgates) = (take(&mut rest, h), rest);
            for step in (0..group.steps()).rev() {
                let active = group.active(step);
                for run in 0..active {
                    let row = group.row(run, step);
                    let part = row * h..(row + 1) * h;
                    let before = match step {
                        0 => &*zeros,
                        _ => &y[group.row(run, step - 1) * h..][..h],
                    };
                    let dgates = &mut dgates[run * 3 * h..(run + 1) * 3 * h];
                    // SAFETY: each token belongs to one run and each run to one group, so no other segment shares an
                    // element.
                    let (dinput, dhidden) = unsafe {
                        (all_input.segment(row, 0..3 * h), all_hidden.segment(row, 0..3 * h))
                    };
                    backward_token(
                        &gates[row * 3 * h..(row + 1) * 3 * h],
                        &inner[part.clone()],
                        before,
                        &dy[part],
                        &mut dstate[run * h..(run + 1) * h],
                        dinput,
                        dgates,
                    );
                    dhidden.copy_from_slice(dgates);
                }
                let left = Matrix::new(dgates, active, 3 * h).expect("the buffer has n rows");
                let mut out = MatrixMut::new(dstate, active, h).expect("the buffer has n rows");
                gemm_serial(F::ONE, left, weight, F::ONE, &mut out).expect("shapes fit");
            }
        });
    });
    shape.products(&runs, (x, y), &weights, (&dinput, &dhidden), gradients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::Store;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    const GATES: usize = 3;

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
        gru_forward(shape, x, weights, gates, second, y).unwrap();
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
        let saved = GruSaved { x, gates: &gates, inner: &second, y: &y };
        gru_backward(shape, saved, weights, dy, gradients).unwrap();
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
                    let r = sigmoid(input(u) + side(u));
                    let z = sigmoid(input(h + u) + side(h + u));
                    let n = (input(2 * h + u) + r * side(2 * h + u)).tanh();
                    state[u] = (1.0 - z) * n + z * before[u];
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
            |shape, x: &[f32]| gru_forward(shape, x, weights, &mut gates, &mut second, &mut y);
        assert!(run(small(false), &x[1..]).is_err());
        assert!(run(RnnShape { starts: &[0, 9, 8], ..small(false) }, x).is_err());
        assert!(run(RnnShape { hidden: 3, ..small(false) }, x).is_err());
        let none = RnnShape { starts: &[0, 0], ..small(false) };
        gru_forward(none, &[], weights, &mut [], &mut [], &mut []).unwrap();
    }
}
