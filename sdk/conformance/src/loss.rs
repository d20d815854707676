//! Losses: a finite scalar with the right gradient, the same every time, also for no rows.

mod many;
mod trial;

use easytransfer::plugin::{ComponentRef, DType};
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::inputs::{FORMS, Form, ROWS, compare_gradient, is_fault};
use crate::options;
use crate::report::{Outcome, Stop, failed, skipped};
use trial::{Trial, WEIGHTS};

const ALL: [usize; ROWS] = [0, 1, 2, 3];

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let mut accepted = Vec::new();
    checks.check("forward", "takes logits and labels of a usual form", || {
        let mut refusals = Vec::new();
        for form in FORMS {
            // Double precision shows errors of a gradient best; not every loss has it.
            let found = [DType::F64, DType::F32].into_iter().find(|dtype| {
                match Trial::new(component, form, *dtype).and_then(|mut t| t.value()) {
                    Ok(_) => true,
                    Err(Stop::Failed(text) | Stop::Skipped(text)) => {
                        refusals.push(text);
                        false
                    }
                }
            });
            accepted.extend(found.map(|dtype| (form, dtype)));
        }
        match (refusals.iter().find(|text| is_fault(text)), refusals.last()) {
            (Some(text), _) if accepted.is_empty() => failed(text),
            (_, Some(text)) if accepted.is_empty() => {
                skipped(format!("its inputs are others: {text}"))
            }
            _ => Ok(()),
        }
    });
    checks.check("create", "another instance does the same", || options::repeats(component));
    for (form, dtype) in accepted {
        check_form(component, form, dtype, checks);
        many::check(component, form, dtype, checks);
    }
}

/// Value and gradient on all forms, with and without weights.
pub fn effect(component: &ComponentRef, options: &str) -> Outcome<Value> {
    let mut all = Vec::new();
    for form in FORMS {
        let mut trial = Trial::with(component, options, form, DType::F32)?;
        let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        let numbers = |result: Outcome<Vec<f64>>| result.map(bits).ok();
        if trial.value().is_err() {
            all.push(Value::Null);
            continue;
        }
        all.push(json!([
            numbers(trial.value().map(|value| vec![value])),
            numbers(trial.gradient(None)),
            numbers(trial.gradient(Some(&WEIGHTS))),
            numbers(trial.rows(&ALL, None)),
            numbers(trial.weight(&ALL, Some(&WEIGHTS)).map(|weight| vec![weight])),
        ]));
    }
    Ok(Value::Array(all))
}

/// The value of the first form that is taken.
pub fn later(component: &ComponentRef, options: &str) -> Outcome<options::Later> {
    let make = |form| Trial::with(component, options, form, DType::F32);
    let mut trials = FORMS.into_iter().map(make).collect::<Outcome<Vec<_>>>()?;
    Ok(Box::new(move || {
        let values = trials.iter_mut().map(|trial| trial.value().ok().map(f64::to_bits));
        Ok(json!(values.collect::<Vec<_>>()))
    }))
}

fn check_form(component: &ComponentRef, form: Form, dtype: DType, checks: &mut Checks<'_>) {
    let name = |what: &str| format!("{} ({dtype:?}): {what}", form.name);
    let trial = || Trial::new(component, form, dtype);
    checks.check("forward", &name("value is a finite scalar"), || {
        let value = trial()?.value()?;
        if value.is_finite() { Ok(()) } else { failed(format!("found {value}")) }
    });
    checks.check("forward", &name("gradient equals finite differences"), || {
        let mut trial = trial()?;
        let at = form.logits(ROWS);
        let gradient = trial.gradient(None)?;
        compare_gradient(&at, &gradient, dtype, |point| trial.value_at(point))
    });
    checks.check("forward", &name("same inputs give the same bits"), || {
        let (mut one, mut two) = (trial()?, trial()?);
        let (a, b, c) = (one.value()?, one.value()?, two.value()?);
        if a.to_bits() == b.to_bits() && a.to_bits() == c.to_bits() {
            Ok(())
        } else {
            failed(format!("found {a}, {b} and {c}"))
        }
    });
    checks.check("forward", &name("a row of weight 0 has no gradient"), || {
        let mut weights = vec![1.0; ROWS];
        weights[1] = 0.0;
        let gradient = trial()?.gradient(Some(&weights))?;
        let row = &gradient[form.width..2 * form.width];
        if row.iter().all(|g| *g == 0.0) {
            Ok(())
        } else if gradient == trial()?.gradient(None)? {
            skipped("it reads no row weights")
        } else {
            failed(format!("found {row:?}"))
        }
    });
    checks.check("rows", &name("the value is the mean of its rows"), || {
        for weights in [None, Some(&WEIGHTS[..])] {
            let mut trial = trial()?;
            let value = trial.value_of(&ALL, weights)?;
            // A loss that reads no weights is the plain mean, whatever they are.
            let read = value != trial.value_of(&ALL, None)?;
            let rows = trial.rows(&ALL, weights)?;
            let weight = |at: usize| weights.filter(|_| read).map_or(1.0, |weights| weights[at]);
            let total: f64 = (0..ROWS).map(weight).sum();
            let mean =
                rows.iter().enumerate().map(|(at, row)| row * weight(at)).sum::<f64>() / total;
            expect_close(mean, value, dtype, "mean of `rows`")?;
        }
        Ok(())
    });
    checks.check("weight", &name("parts weighed by `weight` are the whole"), || {
        for weights in [None, Some(&WEIGHTS[..])] {
            let mut trial = trial()?;
            let (whole, weight) = (trial.value_of(&ALL, weights)?, trial.weight(&ALL, weights)?);
            if !(weight.is_finite() && weight > 0.0) {
                return failed(format!("the weight of {ROWS} rows is {weight}"));
            }
            // Rows that have no loss of their own depend on the batch that they are in.
            trial.rows(&ALL, weights)?;
            let (mut sum, mut total) = (0.0, 0.0);
            for rows in [&ALL[..1], &ALL[1..]] {
                let part = trial.weight(rows, weights)?;
                sum += part * trial.value_of(rows, weights)?;
                total += part;
            }
            expect_close(total, weight, dtype, "weight of the parts")?;
            let read = whole != trial.value_of(&ALL, None)?;
            if weights.is_none() || read {
                expect_close(sum / total, whole, dtype, "mean of the parts")?;
            }
        }
        Ok(())
    });
}

fn expect_close(found: f64, expected: f64, dtype: DType, what: &str) -> Outcome {
    let tolerance = if dtype == DType::F64 { 1e-9 } else { 1e-5 };
    if (found - expected).abs() <= tolerance * (1.0 + expected.abs()) {
        return Ok(());
    }
    failed(format!("{what}: expected {expected}, found {found}"))
}
