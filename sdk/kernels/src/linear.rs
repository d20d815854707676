//! The linear layer with bias and activation, forward and backward.

use crate::activation::{Activation, KeptMut, KeptRef};
use crate::elementwise::{Store, column_sum_serial, rows_per_partial_sum, store_partial_sums};
use crate::gemm::{Epilogue, Matrix, MatrixMut, gemm, gemm_fused};
use crate::{Float, Result, check_len, map_tasks};

/// Sizes of a linear layer: x is [rows, inputs], weight [outputs, inputs], y [rows, outputs].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows of x and y (tokens).
    pub rows: usize,
    /// Columns of x and of the weight.
    pub inputs: usize,
    /// Columns of y, rows of the weight.
    pub outputs: usize,
    /// Whether the operands of the three products and the derivative of the activation are rounded to bfloat16; the
    /// sums stay f32.
    pub bf16: bool,
}

/// y = activation(x weight^T + bias) in one pass. `keep`, if given, receives what the backward pass of the activation
/// needs.
///
/// # Errors
/// If a slice does not fit `shape` (`bias` has `outputs` elements, `keep` is like y).
pub fn linear_forward<F: Float>(
    shape: LinearShape,
    x: &[F],
    weight: &[F],
    bias: Option<&[F]>,
    activation: Activation,
    y: &mut [F],
    keep: Option<KeptMut<'_, F>>,
) -> Result {
    const NAME: &str = "linear_forward";
    let LinearShape { rows, inputs, outputs, bf16 } = shape;
    check_len(NAME, "x", rows * inputs, x.len())?;
    check_len(NAME, "weight", outputs * inputs, weight.len())?;
    check_len(NAME, "y", rows * outputs, y.len())?;
    if let Some(bias) = bias {
        check_len(NAME, "bias", outputs, bias.len())?;
    }
    let x = Matrix::new(x, rows, inputs)?.in_bf16(bf16);
    let weight = Matrix::new(weight, outputs, inputs)?.t().in_bf16(bf16);
    let epilogue = Epilogue { bias, activation, keep };
    gemm_fused(x, weight, F::ZERO, &mut MatrixMut::new(y, rows, outputs)?, epilogue)
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

/// Backward of the activation and of the bias of [`linear_forward`], in one pass over `dy` [rows, outputs]: dy *=
/// activation', and `dbias` `[outputs]` receives the sums of the columns of the result.
///
/// # Errors
/// If a slice does not fit `shape`.
pub fn linear_backward_activation<F: Float>(
    shape: LinearShape,
    activation: Activation,
    kept: KeptRef<'_, F>,
    dy: &mut [F],
    dbias: Option<(Store, &mut [F])>,
) -> Result {
    const NAME: &str = "linear_backward";
    let outputs = shape.outputs;
    check_len(NAME, "dy", shape.rows * outputs, dy.len())?;
    check_len(NAME, "what the activation kept", dy.len(), kept.len())?;
    if let Some((_, dbias)) = &dbias {
        check_len(NAME, "dbias", outputs, dbias.len())?;
    }
    if dy.is_empty() {
        if let Some((Store::Write, dbias)) = dbias {
            dbias.fill(F::ZERO);
        }
        return Ok(());
    }
    let block = rows_per_partial_sum(outputs) * outputs;
    let wanted = dbias.is_some();
    let tasks = dy.chunks_mut(block).enumerate().map(|(i, dy)| {
        let part = i * block..i * block + dy.len();
        (kept.map(|kept| &kept[part.clone()], |kept| &kept[part.clone()]), dy)
    });
    let partials = map_tasks(tasks.collect(), |(kept, dy)| {
        activation.backward_serial(kept, shape.bf16, dy);
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
    use half::bf16;

    use super::*;
    use crate::activation::Kept;
    use crate::testing::{
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
        let keep = Some(Kept::Input(pre.as_mut_slice()));
        linear_forward(shape, &x, &w, Some(&b), Activation::Tanh, &mut again, keep).unwrap();
        assert_close(&y, &expected, 1e-5);
        assert_same_bits(&y, &again);
        assert_close(&pre.iter().map(|v| Float::tanh(*v)).collect::<Vec<_>>(), &expected, 1e-5);
    }

    /// Gradients of x, weight and bias, the latter two added to ones.
    fn gradients<F: Float>(
        [x, w, dy]: [&[F]; 3],
        activation: Activation,
        kept: KeptRef<'_, F>,
    ) -> [Vec<F>; 3] {
        let nan = F::from_f64(f64::NAN);
        let (mut dx, mut dw, mut db) = (vec![nan; 30], vec![F::ONE; 20], vec![F::ONE; 4]);
        let mut dy = dy.to_vec();
        let slot = Some((Store::Add, db.as_mut_slice()));
        linear_backward_activation(SHAPE, activation, kept, &mut dy, slot).unwrap();
        let (dx_slot, dw_slot) = ((Store::Write, &mut dx[..]), (Store::Add, &mut dw[..]));
        linear_backward_products(SHAPE, x, w, &dy, Some(dx_slot), Some(dw_slot)).unwrap();
        [dx, dw, db]
    }

    #[test]
    fn gradients_match_differences() {
        let (x, w): (Vec<f64>, Vec<f64>) = (random(30, 1), random(20, 2));
        let (b, g): (Vec<f64>, Vec<f64>) = (random(4, 3), random(24, 4));
        for activation in [Activation::None, Activation::Gelu, Activation::Silu] {
            let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&forward(x, w, b, activation), &g);
            let (mut y, mut input, mut slope) = (vec![0.0; 24], vec![0.0; 24], vec![0.0; 24]);
            let mut rounded = vec![bf16::ZERO; 24];
            let mut run = |keep| {
                linear_forward(SHAPE, &x, &w, Some(&b), activation, &mut y, Some(keep)).unwrap();
            };
            run(Kept::Input(&mut input));
            run(Kept::Slope(&mut slope));
            run(Kept::RoundedSlope(&mut rounded));
            let found = gradients([&x, &w, &g], activation, Kept::Input(&input));
            let plus_one = |v: Vec<f64>| v.iter().map(|v| v + 1.0).collect::<Vec<_>>();
            assert_close(&found[0], &numeric_gradient(&x, |x| loss(x, &w, &b)), 1e-8);
            assert_close(&found[1], &plus_one(numeric_gradient(&w, |w| loss(&x, w, &b))), 1e-8);
            assert_close(&found[2], &plus_one(numeric_gradient(&b, |b| loss(&x, &w, b))), 1e-8);
            assert_eq!(gradients([&x, &w, &g], activation, Kept::Slope(&slope)), found);
            for (rounded, slope) in rounded.iter().zip(&slope) {
                let error = (rounded.to_f64() - slope).abs();
                assert!(error <= slope.abs() / 256.0, "{rounded} for {slope}");
            }
            let widened: Vec<f64> = rounded.iter().map(|slope| slope.to_f64()).collect();
            let from_rounded = gradients([&x, &w, &g], activation, Kept::RoundedSlope(&rounded));
            assert_eq!(gradients([&x, &w, &g], activation, Kept::Slope(&widened)), from_rounded);
            // Computed again from the input, the rounded derivative has the same bits.
            let (mut dy, mut again) = (g.clone(), g.clone());
            activation.backward_serial(Kept::RoundedSlope(&rounded), true, &mut dy);
            activation.backward_serial(Kept::Input(&input), true, &mut again);
            assert_eq!(dy, again);
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
            let mut slope = y.clone();
            let keep = Some(Kept::Slope(slope.as_mut_slice()));
            linear_forward(shape, &x, &w, Some(&b), Activation::Gelu, &mut y, keep).unwrap();
            let (mut dx, mut dw, mut db) =
                (vec![0f32; x.len()], vec![0f32; w.len()], vec![0f32; b.len()]);
            let mut dy = g.clone();
            let (slope, slot) = (Kept::Slope(slope.as_slice()), Some((Store::Write, &mut db[..])));
            linear_backward_activation(shape, Activation::Gelu, slope, &mut dy, slot).unwrap();
            let (dx_slot, dw_slot) = ((Store::Write, &mut dx[..]), (Store::Write, &mut dw[..]));
            linear_backward_products(shape, &x, &w, &dy, Some(dx_slot), Some(dw_slot)).unwrap();
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
        let slot = Some((Store::Write, &mut db[..]));
        linear_backward_activation(shape, Activation::Gelu, Kept::Slope(&[]), &mut [], slot)
            .unwrap();
        linear_backward_products(shape, &[], &w, &[], None, Some((Store::Write, &mut dw))).unwrap();
        assert_eq!((dw, db), ([0.0; 20], [0.0; 4]));
        let text = linear_forward(SHAPE, &w, &w, None, Activation::None, &mut [], None)
            .unwrap_err()
            .to_string();
        assert_eq!(text, "linear_forward: x must have 30 elements, found 20");
    }
}
