//! The linear layer with bias and activation, forward and backward.

use super::activation::Activation;
use super::elementwise::{Store, column_sum_serial, rows_per_partial_sum, store_partial_sums};
use super::gemm::{Epilogue, Matrix, MatrixMut, gemm, gemm_fused};
use super::{Float, Result, check_len, map_tasks};

/// Sizes of a linear layer: x is [rows, inputs], weight [outputs, inputs], y [rows, outputs].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows of x and y (tokens).
    pub rows: usize,
    /// Columns of x and of the weight.
    pub inputs: usize,
    /// Columns of y, rows of the weight.
    pub outputs: usize,
    /// Whether the three products round their operands to bfloat16; the sums stay f32.
    pub bf16: bool,
}

/// y = activation(x weight^T + bias) in one pass. `pre`, if given, receives the value before the
/// activation, which the backward pass needs.
///
/// # Errors
/// If a slice does not fit `shape` (`bias` has `outputs` elements, `pre` is like y).
pub fn linear_forward<F: Float>(
    shape: LinearShape,
    x: &[F],
    weight: &[F],
    bias: Option<&[F]>,
    activation: Activation,
    y: &mut [F],
    pre: Option<&mut [F]>,
) -> Result {
    const NAME: &str = "linear_forward";
    let LinearShape { rows, inputs, outputs, bf16 } = shape;
    check_len(NAME, "x", rows * inputs, x.len())?;
    check_len(NAME, "weight", outputs * inputs, weight.len())?;
    check_len(NAME, "y", rows * outputs, y.len())?;
    if let Some(bias) = bias {
        check_len(NAME, "bias", outputs, bias.len())?;
    }
    if let Some(pre) = &pre {
        check_len(NAME, "pre", rows * outputs, pre.len())?;
    }
    let x = Matrix::new(x, rows, inputs)?.in_bf16(bf16);
    let weight = Matrix::new(weight, outputs, inputs)?.t().in_bf16(bf16);
    let (c, y) = targets(y, pre);
    let epilogue = Epilogue { bias, activation, y };
    gemm_fused(x, weight, F::ZERO, &mut MatrixMut::new(c, rows, outputs)?, epilogue)
}

/// Where the product stays and where the activation's value goes besides.
fn targets<'a, F>(y: &'a mut [F], pre: Option<&'a mut [F]>) -> (&'a mut [F], Option<&'a mut [F]>) {
    match pre {
        Some(pre) => (pre, Some(y)),
        None => (y, None),
    }
}

/// Where [`linear_backward`] stores its results; `None` for what nobody needs.
#[derive(Debug, Default)]
pub struct LinearGradients<'a, F> {
    /// Gradient of x, [rows, inputs].
    pub x: Option<(Store, &'a mut [F])>,
    /// Gradient of the weight, [outputs, inputs].
    pub weight: Option<(Store, &'a mut [F])>,
    /// Gradient of the bias, [outputs].
    pub bias: Option<(Store, &'a mut [F])>,
}

/// Gradients of [`linear_forward`] from `dy` [rows, outputs]. With an activation, `pre` is what the
/// forward pass saved and `dy` is overwritten by the gradient before the activation; without one,
/// `pre` is ignored and `dy` only read.
///
/// # Errors
/// If a slice does not fit `shape`.
pub fn linear_backward<F: Float>(
    shape: LinearShape,
    x: &[F],
    weight: &[F],
    activation: Activation,
    pre: &[F],
    dy: &mut [F],
    gradients: LinearGradients<'_, F>,
) -> Result {
    if activation != Activation::None {
        check_len("linear_backward", "pre", dy.len(), pre.len())?;
    }
    check_len("linear_backward", "dy", shape.rows * shape.outputs, dy.len())?;
    let LinearGradients { x: dx, weight: dweight, bias: dbias } = gradients;
    activation_and_bias(shape.outputs, activation, pre, dy, dbias)?;
    linear_backward_products(shape, x, weight, dy, dx, dweight)
}

/// The two products of the backward pass: dx = dy weight and dweight = dy^T x, `dy` being the
/// gradient before the activation.
///
/// # Errors
/// If a slice does not fit `shape`.
pub fn linear_backward_products<F: Float>(
    shape: LinearShape,
    x: &[F],
    weight: &[F],
    dy: &[F],
    dx: Option<(Store, &mut [F])>,
    dweight: Option<(Store, &mut [F])>,
) -> Result {
    const NAME: &str = "linear_backward";
    let LinearShape { rows, inputs, outputs, bf16 } = shape;
    let beta = |store| if store == Store::Add { F::ONE } else { F::ZERO };
    check_len(NAME, "dy", rows * outputs, dy.len())?;
    let dy = Matrix::new(dy, rows, outputs)?.in_bf16(bf16);
    if let Some((store, dx)) = dx {
        check_len(NAME, "weight", outputs * inputs, weight.len())?;
        check_len(NAME, "dx", rows * inputs, dx.len())?;
        let weight = Matrix::new(weight, outputs, inputs)?.in_bf16(bf16);
        gemm(F::ONE, dy, weight, beta(store), &mut MatrixMut::new(dx, rows, inputs)?)?;
    }
    if let Some((store, dweight)) = dweight {
        check_len(NAME, "x", rows * inputs, x.len())?;
        check_len(NAME, "dweight", outputs * inputs, dweight.len())?;
        let x = Matrix::new(x, rows, inputs)?.in_bf16(bf16);
        gemm(F::ONE, dy.t(), x, beta(store), &mut MatrixMut::new(dweight, outputs, inputs)?)?;
    }
    Ok(())
}

/// One pass over dy: dy *= activation'(pre), and the column sums of the result.
fn activation_and_bias<F: Float>(
    outputs: usize,
    activation: Activation,
    pre: &[F],
    dy: &mut [F],
    dbias: Option<(Store, &mut [F])>,
) -> Result {
    if let Some((_, dbias)) = &dbias {
        check_len("linear_backward", "dbias", outputs, dbias.len())?;
    }
    if dy.is_empty() {
        if let Some((Store::Write, dbias)) = dbias {
            dbias.fill(F::ZERO);
        }
        return Ok(());
    }
    if dbias.is_none() && activation == Activation::None {
        return Ok(());
    }
    let block = rows_per_partial_sum(outputs) * outputs;
    let wanted = dbias.is_some();
    // Without an activation `pre` may be empty; the tasks then get empty slices of it.
    let pre_part = |start: usize, len: usize| match activation {
        Activation::None => &[][..],
        _ => &pre[start..start + len],
    };
    let tasks = dy.chunks_mut(block).enumerate().map(|(i, dy)| (pre_part(i * block, dy.len()), dy));
    let partials = map_tasks(tasks.collect(), |(pre, dy)| {
        activation.apply_derivative_serial(pre, dy);
        let mut partial = vec![F::ZERO; if wanted { outputs } else { 0 }];
        if wanted {
            column_sum_serial(dy, &mut partial);
        }
        partial
    });
    if let Some((store, dbias)) = dbias {
        store_partial_sums(&partials, store, dbias);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    const SHAPE: LinearShape = LinearShape { rows: 6, inputs: 5, outputs: 4, bf16: false };

    fn forward(x: &[f64], w: &[f64], b: &[f64], activation: Activation) -> Vec<f64> {
        let mut y = vec![0.0; SHAPE.rows * SHAPE.outputs];
        linear_forward(SHAPE, x, w, Some(b), activation, &mut y, None).unwrap();
        y
    }

    #[test]
    fn forward_matches_naive_across_tasks() {
        // Enough work for several tasks in both directions.
        let shape = LinearShape { rows: 1031, inputs: 3, outputs: 2100, bf16: false };
        let x: Vec<f32> = random(shape.rows * shape.inputs, 1);
        let w: Vec<f32> = random(shape.outputs * shape.inputs, 2);
        let b: Vec<f32> = random(shape.outputs, 3);
        let mut expected = Vec::new();
        for r in 0..shape.rows {
            for o in 0..shape.outputs {
                let sum: f64 = (0..shape.inputs)
                    .map(|i| {
                        f64::from(x[r * shape.inputs + i]) * f64::from(w[o * shape.inputs + i])
                    })
                    .sum();
                expected.push((sum + f64::from(b[o])).tanh());
            }
        }
        let n = shape.rows * shape.outputs;
        let (mut y, mut again, mut pre) = (vec![0f32; n], vec![0f32; n], vec![0f32; n]);
        linear_forward(shape, &x, &w, Some(&b), Activation::Tanh, &mut y, None).unwrap();
        linear_forward(shape, &x, &w, Some(&b), Activation::Tanh, &mut again, Some(&mut pre))
            .unwrap();
        assert_close(&y, &expected, 1e-5);
        assert_same_bits(&y, &again);
        assert_close(&pre.iter().map(|v| Float::tanh(*v)).collect::<Vec<_>>(), &expected, 1e-5);
    }

    #[test]
    fn gradients_match_differences() {
        let (x, w): (Vec<f64>, Vec<f64>) = (random(30, 1), random(20, 2));
        let (b, g): (Vec<f64>, Vec<f64>) = (random(4, 3), random(24, 4));
        for activation in [Activation::None, Activation::Gelu, Activation::Silu] {
            let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&forward(x, w, b, activation), &g);
            let mut y = vec![0.0; 24];
            let mut pre = vec![0.0; 24];
            linear_forward(SHAPE, &x, &w, Some(&b), activation, &mut y, Some(&mut pre)).unwrap();
            let (mut dx, mut dw, mut db) = (vec![f64::NAN; 30], vec![1.0; 20], vec![1.0; 4]);
            let gradients = LinearGradients {
                x: Some((Store::Write, &mut dx)),
                weight: Some((Store::Add, &mut dw)),
                bias: Some((Store::Add, &mut db)),
            };
            let mut dy = g.clone();
            linear_backward(SHAPE, &x, &w, activation, &pre, &mut dy, gradients).unwrap();
            let plus_one = |v: Vec<f64>| v.iter().map(|v| v + 1.0).collect::<Vec<_>>();
            assert_close(&dx, &numeric_gradient(&x, |x| loss(x, &w, &b)), 1e-8);
            assert_close(&dw, &plus_one(numeric_gradient(&w, |w| loss(&x, w, &b))), 1e-8);
            assert_close(&db, &plus_one(numeric_gradient(&b, |b| loss(&x, &w, b))), 1e-8);
        }
    }

    #[test]
    fn threads_do_not_change_bits() {
        let shape = LinearShape { rows: 700, inputs: 96, outputs: 160, bf16: false };
        let x: Vec<f32> = random(shape.rows * shape.inputs, 1);
        let w: Vec<f32> = random(shape.outputs * shape.inputs, 2);
        let b: Vec<f32> = random(shape.outputs, 3);
        let g: Vec<f32> = random(shape.rows * shape.outputs, 4);
        let (one, three) = with_one_and_three_threads(|| {
            let mut y = vec![0f32; g.len()];
            let mut pre = y.clone();
            linear_forward(shape, &x, &w, Some(&b), Activation::Gelu, &mut y, Some(&mut pre))
                .unwrap();
            let (mut dx, mut dw, mut db) =
                (vec![0f32; x.len()], vec![0f32; w.len()], vec![0f32; b.len()]);
            let gradients = LinearGradients {
                x: Some((Store::Write, &mut dx)),
                weight: Some((Store::Write, &mut dw)),
                bias: Some((Store::Write, &mut db)),
            };
            let mut dy = g.clone();
            linear_backward(shape, &x, &w, Activation::Gelu, &pre, &mut dy, gradients).unwrap();
            [y, dx, dw, db].concat()
        });
        assert_same_bits(&one, &three);
    }

    #[test]
    fn empty_rows_and_wrong_lengths() {
        let shape = LinearShape { rows: 0, ..SHAPE };
        let w = [0f32; 20];
        linear_forward(shape, &[], &w, None, Activation::Gelu, &mut [], None).unwrap();
        let (mut dw, mut db) = ([7f32; 20], [7f32; 4]);
        let gradients = LinearGradients {
            x: None,
            weight: Some((Store::Write, &mut dw)),
            bias: Some((Store::Write, &mut db)),
        };
        linear_backward(shape, &[], &w, Activation::Gelu, &[], &mut [], gradients).unwrap();
        assert_eq!((dw, db), ([0.0; 20], [0.0; 4]));
        let text = linear_forward(SHAPE, &w, &w, None, Activation::None, &mut [], None)
            .unwrap_err()
            .to_string();
        assert_eq!(text, "linear_forward: x must have 30 elements, found 20");
    }
}
