//! Operations: the right gradient, the same bits every time, strided inputs as contiguous ones, no rows.

use easytransfer::plugin::{self, ComponentRef, DType, LoadedOp, Tensor};

use crate::checks::Checks;
use crate::inputs::{apart, compare_gradient, is_fault, no_panic, number, tensor, values};
use crate::memory;
use crate::report::{Outcome, failed, skipped};

const SHAPES: [&[usize]; 4] = [&[3, 4], &[4, 4], &[6], &[2, 3, 4]];

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let mut found = None;
    checks.check("infer", "takes floating point tensors of one shape", || {
        let op = LoadedOp::create(component)?;
        let mut refusal = String::new();
        for dtype in [DType::F64, DType::F32] {
            for shape in SHAPES {
                match op.apply(&refs(&inputs(&op, shape, dtype)?)) {
                    Ok(_) => {
                        found = Some((shape, dtype));
                        return Ok(());
                    }
                    Err(error) if is_fault(&error.to_string()) => return failed(error.to_string()),
                    Err(error) => refusal = error.to_string(),
                }
            }
        }
        skipped(format!("its inputs are others: {refusal}"))
    });
    let Some((shape, dtype)) = found else { return };
    let name = |what: &str| format!("{shape:?} {dtype:?}: {what}");
    checks.check("forward", &name("same inputs give the same bits"), || {
        let op = LoadedOp::create(component)?;
        let inputs = inputs(&op, shape, dtype)?;
        let (a, b) = (op.apply(&refs(&inputs))?, op.apply(&refs(&inputs))?);
        if all_values(&a)? == all_values(&b)? { Ok(()) } else { failed("the outputs differ") }
    });
    checks.check("backward", &name("gradient equals finite differences"), || {
        let op = LoadedOp::create(component)?;
        if !op.has_backward() {
            return skipped("it has no backward");
        }
        let inputs = inputs(&op, shape, dtype)?;
        for at in 0..inputs.len() {
            let mut given = inputs.iter().map(Tensor::leaf).collect::<plugin::Result<Vec<_>>>()?;
            weighted_sum(&op.apply(&refs(&given))?)?.backward()?;
            let start = values(&inputs[at])?;
            let gradient = match given[at].leaf_grad()? {
                Some(gradient) => values(&gradient)?,
                None => vec![0.0; start.len()],
            };
            compare_gradient(&start, &gradient, dtype, |point| {
                given[at] = tensor(point, shape, dtype)?;
                Ok(values(&weighted_sum(&op.apply(&refs(&given))?)?)?[0])
            })?;
        }
        Ok(())
    });
    checks.check("forward", &name("a strided input is as good as a contiguous one"), || {
        let op = LoadedOp::create(component)?;
        if shape.len() != 2 {
            return skipped("only matrices are tried");
        }
        let plain = inputs(&op, shape, dtype)?;
        let mut strided = Vec::new();
        for input in &plain {
            // The same matrix over transposed memory.
            strided.push(input.transpose()?.contiguous()?.transpose()?);
        }
        let (a, b) = (op.apply(&refs(&plain))?, op.apply(&refs(&strided))?);
        if all_values(&a)? == all_values(&b)? { Ok(()) } else { failed("the outputs differ") }
    });
    checks.check("forward", "no rows and another number of inputs are no panic", || {
        let op = LoadedOp::create(component)?;
        let mut empty = shape.to_vec();
        empty[0] = 0;
        let usual = op.apply(&refs(&inputs(&op, shape, dtype)?))?;
        match op.apply(&refs(&inputs(&op, &empty, dtype)?)) {
            Ok(outputs) => {
                for (output, full) in outputs.iter().zip(&usual) {
                    if full.shape() == shape && output.shape() != empty {
                        return failed(format!(
                            "no rows: expected shape {empty:?}, found {:?}",
                            output.shape()
                        ));
                    }
                }
            }
            Err(error) => no_panic::<()>(Err(error))?,
        }
        let many = inputs(&op, shape, dtype)?;
        let more: Vec<&Tensor> = many.iter().chain(&many).collect();
        match op.apply(&more) {
            Ok(_) => failed("twice the number of inputs was accepted"),
            result => no_panic(result),
        }
    });
    checks.check("forward", &name("inputs are left as they are"), || {
        let op = LoadedOp::create(component)?;
        let inputs = inputs(&op, shape, dtype)?;
        let before = all_values(&inputs)?;
        let given = inputs.iter().map(Tensor::leaf).collect::<plugin::Result<Vec<_>>>()?;
        let outputs = op.apply(&refs(&given))?;
        if all_values(&given)? != before {
            return failed("forward changed its inputs");
        }
        if !op.has_backward() {
            return Ok(());
        }
        let (out, sum) = (all_values(&outputs)?, weighted_sum(&outputs)?);
        sum.backward()?;
        match all_values(&given)? == before && all_values(&outputs)? == out {
            true => Ok(()),
            false => failed("backward changed the inputs or the outputs"),
        }
    });
    checks.check("forward", &name("single precision is close to double"), || {
        let op = LoadedOp::create(component)?;
        let both = [DType::F32, DType::F64].map(|dtype| -> Outcome<Vec<Vec<f64>>> {
            let outputs = op.apply(&refs(&inputs(&op, shape, dtype)?))?;
            Ok(all_values(&outputs)?)
        });
        let [Ok(single), Ok(double)] = both else { return skipped("it takes one of them") };
        let worst = single.iter().zip(&double).map(|(a, b)| apart(a, b)).fold(0.0, f64::max);
        if worst > 1e-4 { failed(format!("outputs differ by {worst:.1e}")) } else { Ok(()) }
    });
    checks.check("forward", &name("any number of rows has outputs"), || rows(component, dtype));
    let op = LoadedOp::create(component).ok();
    memory::check(checks, "forward", &name("calls need no more and more memory"), || {
        let Some(op) = &op else { return skipped("it cannot be made") };
        let given = inputs(op, shape, dtype)?;
        let given = given.iter().map(Tensor::leaf).collect::<plugin::Result<Vec<_>>>()?;
        let sum = weighted_sum(&op.apply(&refs(&given))?)?;
        if op.has_backward() { Ok(sum.backward()?) } else { Ok(()) }
    });
}

/// Rows of many counts, also around the width of vectors, have outputs.
fn rows(component: &ComponentRef, dtype: DType) -> Outcome {
    let op = LoadedOp::create(component)?;
    for rows in [1, 3, 7, 16, 33, 257] {
        let Ok(outputs) = op.apply(&refs(&inputs(&op, &[rows, 4], dtype)?)) else {
            // Shapes that belong together are the operation's own.
            return skipped("it takes no such shapes");
        };
        let all = all_values(&outputs)?;
        if all.iter().flatten().any(|value| value.is_nan()) {
            return failed(format!("{rows} rows: an output holds NaN"));
        }
    }
    Ok(())
}

fn refs(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

fn inputs(op: &LoadedOp, shape: &[usize], dtype: DType) -> plugin::Result<Vec<Tensor>> {
    let len: usize = shape.iter().product();
    (0..op.arity().0)
        .map(|at| {
            let values: Vec<f64> = (0..len).map(|i| number(i + 31 * at)).collect();
            tensor(&values, shape, dtype)
        })
        .collect()
}

fn all_values(tensors: &[Tensor]) -> plugin::Result<Vec<Vec<f64>>> {
    tensors.iter().map(values).collect()
}

/// One number in which every element of every output counts differently.
fn weighted_sum(outputs: &[Tensor]) -> Outcome<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (at, output) in outputs.iter().enumerate() {
        let weights: Vec<f64> = (0..output.len()).map(|i| number(i + 7 * at + 3)).collect();
        let part =
            output.mul(&tensor(&weights, output.shape(), output.dtype())?)?.sum(&[], false)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&part)?,
            None => part,
        });
    }
    sum.map_or_else(|| failed("there are no outputs"), Ok)
}
