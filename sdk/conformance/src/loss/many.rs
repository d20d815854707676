//! Losses on inputs that are unlike the usual: extreme, of many rows, of none, in another order; and what they do to
//! their inputs.

use easytransfer::plugin::{Call, ComponentRef, DType, Map, Rng, Tensor};

use crate::checks::Checks;
use crate::inputs::{
    COUNTS, EXTREMES, Form, ROWS, apart, extreme, no_panic, shuffled, snapshot, unchanged, values,
};
use crate::loss::trial::{Trial, WEIGHTS};
use crate::memory;
use crate::report::{Outcome, Stop, failed, skipped};

pub fn check(component: &ComponentRef, form: Form, dtype: DType, checks: &mut Checks<'_>) {
    let name = |what: &str| format!("{} ({dtype:?}): {what}", form.name);
    let trial = || Trial::new(component, form, dtype);
    checks.check("forward", &name("extreme logits have a finite value and gradient"), || {
        extremes(component, form)
    });
    checks.check("forward", &name("any number of rows has a finite value and gradient"), || {
        counts(trial()?)
    });
    checks.check(
        "rows",
        &name("any number of rows has a loss for each, of which it is the mean"),
        || {
            let mut trial = trial()?;
            for count in COUNTS {
                let all: Vec<usize> = (0..count).collect();
                let rows = trial.rows(&all, None)?;
                let (mean, value) =
                    (rows.iter().sum::<f64>() / count as f64, trial.value_of(&all, None)?);
                let tolerance = if dtype == DType::F64 { 1e-9 } else { 1e-4 };
                // Labels that are ignored are counted by `weight`, and are not of these forms.
                if apart(&[mean], &[value]) > tolerance {
                    return failed(format!(
                        "{count} rows: the mean of `rows` is {mean}, `forward` gives {value}"
                    ));
                }
            }
            Ok(())
        },
    );
    checks.check("forward", &name("rows in another order are the same rows"), || order(trial()?));
    checks.check("forward", &name("inputs are left as they are"), || reads_only(trial()?));
    checks.check("forward", &name("weights of rows are counted"), || weights(trial()?));
    checks.check("forward", &name("a call leaves nothing for the next"), || {
        let mut trial = trial()?;
        let first = trial.value()?;
        trial.value_of(&[3, 1], None)?;
        let (outputs, batch) = trial.part(&[0], Some(&WEIGHTS))?;
        // A refusal is an answer, after which the next call must be as good as before.
        let _ = trial.loss.forward(&Call::inference(0), &Map::new()?, &batch);
        let _ = trial.loss.forward(&Call::inference(0), &outputs, &Map::new()?);
        let again = trial.value()?;
        match first.to_bits() == again.to_bits() {
            true => Ok(()),
            false => failed(format!("{first} before other calls, {again} after them")),
        }
    });
    checks.check("forward", &name("a call of training is answered, and repeats"), || {
        training(trial()?)
    });
    checks.check("forward", &name("no rows are no panic"), || empty(trial()?));
    checks.check(
        "forward",
        &name("rows of other counts in labels and logits are no panic"),
        || {
            let mut trial = trial()?;
            let (outputs, _) = trial.part(&[0, 1, 2], None)?;
            for count in [1, 2, 5, 40] {
                let (_, batch) = trial.part(&(0..count).collect::<Vec<_>>(), None)?;
                no_panic(trial.loss.forward(&Call::inference(0), &outputs, &batch))?;
            }
            Ok(())
        },
    );
    let mut trial = trial().ok();
    let rows: Vec<usize> = (0..ROWS).collect();
    memory::check(checks, "forward", &name("calls need no more and more memory"), || {
        match &mut trial {
            Some(trial) => {
                // Refused calls are calls, too.
                let (outputs, batch) = trial.part(&rows, Some(&WEIGHTS))?;
                trial.gradient(None)?;
                let _ = trial.loss.rows(&Call::inference(0), &outputs, &batch);
                let _ = trial.loss.weight(&batch);
                let _ = trial.loss.forward(&Call::inference(0), &Map::new()?, &batch);
                Ok(())
            }
            None => skipped("it cannot be made"),
        }
    });
    drop(trial);
}

/// A call with a generator of random numbers; from the same state of it the value is the same.
fn training(mut trial: Trial) -> Outcome {
    let (outputs, batch) = trial.part(&[0, 1, 2, 3], None)?;
    let mut value = || -> Outcome<f64> {
        let rng = Rng::new(9, 1)?;
        Ok(values(&trial.loss.forward(&Call::training(0, &rng), &outputs, &batch)?)?[0])
    };
    let (first, second) = (value()?, value()?);
    if first.to_bits() == second.to_bits() && first.is_finite() {
        return Ok(());
    }
    failed(format!("found {first} and {second}"))
}

fn extremes(component: &ComponentRef, form: Form) -> Outcome {
    // Training computes in single precision.
    let mut trial = Trial::new(component, form, DType::F32)?;
    if let Err(Stop::Failed(text)) = trial.value() {
        return skipped(format!("it does not compute in single precision: {text}"));
    }
    for size in EXTREMES {
        let logits = extreme(form, 5, size);
        let value = trial.value_at(&logits)?;
        let gradient = trial.gradient_at(&logits, None)?;
        let is_wrong = |number: &f64| {
            // A loss may grow without bounds, as an exponential does.
            if size > 100.0 { number.is_nan() } else { !number.is_finite() }
        };
        if is_wrong(&value) {
            return failed(format!("logits of ±{size}: the value is {value}"));
        }
        if let Some(number) = gradient.iter().find(|number| is_wrong(number)) {
            return failed(format!("logits of ±{size}: a gradient is {number}"));
        }
    }
    Ok(())
}

fn counts(mut trial: Trial) -> Outcome {
    for count in COUNTS {
        let logits = trial.form.logits(count);
        let value = trial.value_at(&logits)?;
        if !value.is_finite() {
            return failed(format!("{count} rows: the value is {value}"));
        }
        let gradient = trial.gradient_at(&logits, None)?;
        if gradient.len() != logits.len() || gradient.iter().any(|g| !g.is_finite()) {
            return failed(format!("{count} rows: the gradient is not finite"));
        }
    }
    Ok(())
}

fn order(mut trial: Trial) -> Outcome {
    let tolerance = if trial.dtype == DType::F64 { 1e-9 } else { 1e-4 };
    for count in [7, 30] {
        let (plain, mixed) = ((0..count).collect::<Vec<_>>(), shuffled(count));
        let (a, b) = (trial.value_of(&plain, None)?, trial.value_of(&mixed, None)?);
        if apart(&[a], &[b]) > tolerance {
            return failed(format!("{count} rows: {a} in one order, {b} in another"));
        }
        let rows = match trial.rows(&plain, None) {
            Ok(rows) => rows,
            Err(Stop::Skipped(_)) => continue,
            Err(stop) => return Err(stop),
        };
        let expected: Vec<f64> = mixed.iter().map(|row| rows[*row]).collect();
        if apart(&expected, &trial.rows(&mixed, None)?) > tolerance {
            return failed(format!("{count} rows: entry i of `rows` is not of row i"));
        }
    }
    Ok(())
}

fn reads_only(mut trial: Trial) -> Outcome {
    let (outputs, batch) = trial.part(&[0, 1, 2, 3], Some(&WEIGHTS))?;
    let maps = [&outputs, &batch];
    let before = snapshot(&maps)?;
    let _ = trial.loss.forward(&Call::inference(0), &outputs, &batch);
    unchanged(&before, &maps, "forward")?;
    let _ = trial.loss.rows(&Call::inference(0), &outputs, &batch);
    unchanged(&before, &maps, "rows")?;
    let _ = trial.loss.weight(&batch);
    unchanged(&before, &maps, "weight")?;
    // Another instance gets the same batch, and a batch without weights.
    let (outputs, batch) = trial.part(&[0, 1, 2, 3], None)?;
    let maps = [&outputs, &batch];
    let before = snapshot(&maps)?;
    let _ = trial.loss.forward(&Call::inference(0), &outputs, &batch);
    unchanged(&before, &maps, "forward")
}

fn weights(mut trial: Trial) -> Outcome {
    let all = [0, 1, 2, 3];
    let plain = trial.value_of(&all, None)?;
    let (outputs, batch) = trial.part(&all, Some(&WEIGHTS))?;
    let Ok(weighted) = trial.loss.forward(&Call::inference(0), &outputs, &batch) else {
        return skipped("it refuses rows with weights");
    };
    if values(&weighted)?[0].to_bits() == plain.to_bits() {
        return failed(format!(
            "the weights of the rows are ignored: {plain} with the weights {WEIGHTS:?} and without any; expected the \
             weighted mean"
        ));
    }
    let tolerance = if trial.dtype == DType::F64 { 1e-9 } else { 1e-4 };
    let same = trial.value_of(&all, Some(&[2.0; ROWS]))?;
    if apart(&[same], &[plain]) > tolerance {
        return failed(format!(
            "rows that all weigh 2 have a mean of {same}, without weights it is {plain}"
        ));
    }
    let alone = match trial.rows(&[0, 2, 3], None) {
        Ok(_) => trial.value_of(&[0, 2, 3], None)?,
        Err(_) => return Ok(()),
    };
    let without = trial.value_of(&all, Some(&[1.0, 0.0, 1.0, 1.0]))?;
    if apart(&[alone], &[without]) > tolerance {
        return failed(format!(
            "a row of weight 0 counts: {without} with it, {alone} without the row"
        ));
    }
    Ok(())
}

/// No rows are refused or have a scalar; each of `rows` none.
fn empty(mut trial: Trial) -> Outcome {
    let mut outputs = Map::new()?;
    outputs.put("logits", &Tensor::zeros(trial.dtype, &[0, trial.form.width])?)?;
    let batch = trial.form.batch(0, 0, trial.dtype)?;
    no_panic(trial.loss.forward(&Call::inference(0), &outputs, &batch))?;
    no_panic(trial.loss.weight(&batch))?;
    match trial.loss.rows(&Call::inference(0), &outputs, &batch) {
        Ok(rows) if rows.shape() != [0] => {
            failed(format!("`rows` of no rows: expected shape [0], found {:?}", rows.shape()))
        }
        result => no_panic(result),
    }?;
    let value = trial.loss.forward(&Call::inference(0), &outputs, &batch);
    match value.err().filter(|error| error.to_string().contains("expected a scalar")) {
        Some(error) => failed(error.to_string()),
        None => Ok(()),
    }
}
