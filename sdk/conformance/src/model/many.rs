//! Models on batches that are unlike the usual: many rows, long runs, the first and the last id, none at all; and what
//! they do to their inputs.

use easytransfer::plugin::abi::ET_WANT_LOGITS;
use easytransfer::plugin::{Call, ComponentRef, DType, Map, Tensor, no_grad};

use super::{LENGTHS, Trial};
use crate::checks::Checks;
use crate::inputs::{apart, no_panic, snapshot, tensor, unchanged, values};
use crate::memory;
use crate::report::{Outcome, failed, skipped};

/// Lengths of many runs.
const MANY: [usize; 33] = [
    1, 2, 3, 9, 1, 4, 16, 2, 1, 7, 5, 3, 1, 1, 12, 6, 2, 8, 1, 3, 10, 4, 2, 1, 5, 15, 1, 2, 6, 3,
    1, 11, 4,
];

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let new = || Trial::new(component, DType::F32);
    checks.check("forward", "many rows, and the longest, have finite outputs", || {
        let mut trial = new()?;
        let longest = match trial.info().max_positions {
            0 => 64,
            most => most.min(512),
        };
        for lengths in [&MANY[..], &[longest, 1], &[1]] {
            let batch = trial.batch(lengths)?;
            finite(&mut trial, &batch, &format!("{} rows", lengths.len()))?;
        }
        Ok(())
    });
    checks.check("forward", "the first and the last id have finite outputs", || {
        let mut trial = new()?;
        for id in [0, trial.info().vocab_size.max(1) - 1] {
            let batch = with_ids(&trial, id)?;
            finite(&mut trial, &batch, &format!("id {id}"))?;
        }
        Ok(())
    });
    checks.check("forward", "ids and positions beyond the last are no crash", || {
        let trial = new()?;
        let call = Call::inference(trial.want());
        for id in [trial.info().vocab_size, 1 << 40] {
            let batch = with_ids(&trial, id)?;
            let mut outputs = Map::new()?;
            no_panic(no_grad(|| trial.model.forward(&call, &batch, &mut outputs)))?;
        }
        Ok(())
    });
    checks.check("forward", "large weights have finite outputs", || {
        let mut trial = new()?;
        for param in trial.params.iter() {
            let large: Vec<f64> =
                values(&param.tensor()?.detach()?)?.iter().map(|x| 100.0 * x).collect();
            param.assign(&tensor(&large, param.shape(), DType::F32)?)?;
        }
        let batch = trial.batch(&LENGTHS)?;
        finite(&mut trial, &batch, "weights times 100")
    });
    checks.check("forward", "rows in another order are the same rows", || order(new()?));
    checks.check("forward", "a batch without segments is read", || {
        let mut trial = new()?;
        let mut batch = trial.batch(&LENGTHS)?;
        batch.remove("segments");
        finite(&mut trial, &batch, "no segments")
    });
    checks.check("forward", "inputs are left as they are", || {
        let mut trial = new()?;
        let batch = trial.batch(&LENGTHS)?;
        let before = snapshot(&[&batch])?;
        let weights = weights(&trial)?;
        let want = trial.want();
        trial.infer(&batch, want)?;
        unchanged(&before, &[&batch], "forward")?;
        match self::weights(&trial)? == weights {
            true => Ok(()),
            false => failed("forward changed its parameters"),
        }
    });
    checks.check("forward", "no more is written than is wanted", || {
        let mut trial = new()?;
        let batch = trial.batch(&LENGTHS)?;
        let few = values(&trial.infer(&batch, 0)?.get("last")?)?;
        let want = trial.want();
        let many = values(&trial.infer(&batch, want)?.get("last")?)?;
        match apart(&few, &many) {
            worst if worst <= 1e-5 => Ok(()),
            worst => failed(format!("\"last\" differs by {worst:.1e} when more is wanted")),
        }
    });
    checks.check("forward", "no rows are no panic", || empty(new()?));
    checks.check("forward", "a batch without ids is no panic", || {
        let trial = new()?;
        no_panic(no_grad(|| {
            trial.model.forward(&Call::inference(0), &Map::new()?, &mut Map::new()?)
        }))
    });
    let mut trial = new().ok();
    memory::check(checks, "forward", "calls need no more and more memory", || {
        let Some(trial) = &mut trial else { return skipped("it cannot be made") };
        let batch = trial.batch(&LENGTHS)?;
        trial.infer(&batch, 0)?;
        let _ =
            no_grad(|| trial.model.forward(&Call::inference(0), &Map::new()?, &mut Map::new()?));
        Ok(())
    });
}

fn weights(trial: &Trial) -> Outcome<Vec<f64>> {
    let mut all = Vec::new();
    for param in trial.params.iter() {
        all.extend(values(&param.tensor()?.detach()?)?);
    }
    Ok(all)
}

/// A batch of one id alone.
fn with_ids(trial: &Trial, id: usize) -> Outcome<Map> {
    let mut batch = trial.batch(&LENGTHS)?;
    let tokens = batch.get("ids")?.len();
    let ids = vec![i64::try_from(id).unwrap_or(i64::MAX); tokens];
    batch.put("ids", &Tensor::from_slice(&ids, &[tokens])?)?;
    Ok(batch)
}

/// Outputs of the promised number of rows without a number that is not finite.
fn finite(trial: &mut Trial, batch: &Map, what: &str) -> Outcome {
    let outputs = trial.infer(batch, trial.want())?;
    let (tokens, rows) = (batch.get("ids")?.len(), batch.get("starts")?.len() - 1);
    for name in outputs.names() {
        let output = outputs.get(&name)?;
        let first = output.shape().first().copied();
        let expected = if name == "pooled" { rows } else { tokens };
        let is_known = name == "last" || name == "pooled" || name.starts_with("hidden_states/");
        if is_known && first != Some(expected) {
            return failed(format!("{what}: {name}: expected {expected} rows, found {first:?}"));
        }
        let is_float = [DType::F32, DType::F64].contains(&output.dtype());
        if is_float && values(&output)?.iter().any(|value| !value.is_finite()) {
            return failed(format!("{what}: {name} holds numbers that are not finite"));
        }
    }
    Ok(())
}

fn order(mut trial: Trial) -> Outcome {
    let h = trial.info().hidden_size;
    let lengths = trial.fitting(&LENGTHS);
    let whole = trial.batch(&LENGTHS)?;
    let plain = trial.infer(&whole, trial.want())?;
    // The rows from the last to the first, each of its own tokens.
    let mut begins = vec![0];
    lengths.iter().for_each(|length| begins.push(begins[begins.len() - 1] + length));
    let tokens: Vec<usize> =
        (0..lengths.len()).rev().flat_map(|row| begins[row]..begins[row + 1]).collect();
    let mut batch = Map::new()?;
    for name in ["ids", "positions", "segments"] {
        let all = whole.get(name)?.to_vec::<i64>()?;
        let mixed: Vec<i64> = tokens.iter().map(|at| all[*at]).collect();
        batch.put(name, &Tensor::from_slice(&mixed, &[mixed.len()])?)?;
    }
    let mut starts = vec![0i64];
    for length in lengths.iter().rev() {
        starts.push(starts[starts.len() - 1] + *length as i64);
    }
    batch.put("starts", &Tensor::from_slice(&starts, &[starts.len()])?)?;
    let mixed = trial.infer(&batch, trial.want())?;
    let rows: Vec<usize> = (0..lengths.len()).rev().collect();
    for (name, order) in [("last", &tokens), ("pooled", &rows)] {
        if !plain.has(name) {
            continue;
        }
        let all = values(&plain.get(name)?)?;
        let expected: Vec<f64> =
            order.iter().flat_map(|at| all[at * h..(at + 1) * h].to_vec()).collect();
        let worst = apart(&expected, &values(&mixed.get(name)?)?);
        if worst > 1e-5 {
            return failed(format!("{name}: rows differ by {worst:.1e} in another order"));
        }
    }
    Ok(())
}

/// No rows are refused, or have outputs of no rows.
fn empty(trial: Trial) -> Outcome {
    let (mut batch, mut outputs) = (Map::new()?, Map::new()?);
    for name in ["ids", "positions", "segments"] {
        batch.put(name, &Tensor::from_slice::<i64>(&[], &[0])?)?;
    }
    batch.put("starts", &Tensor::from_slice(&[0i64], &[1])?)?;
    let call = Call::inference(trial.want() | ET_WANT_LOGITS);
    let result = no_grad(|| trial.model.forward(&call, &batch, &mut outputs));
    let is_done = result.is_ok();
    no_panic(result)?;
    if !is_done {
        return Ok(());
    }
    for name in outputs.names() {
        let shape = outputs.get(&name)?.shape().to_vec();
        if shape.first() != Some(&0) {
            return failed(format!("{name}: expected no rows, found shape {shape:?}"));
        }
    }
    match outputs.get("last")?.shape() {
        [0, width] if *width == trial.info().hidden_size => Ok(()),
        shape => failed(format!(
            "last: expected shape [0, {}], found {shape:?}",
            trial.info().hidden_size
        )),
    }
}
