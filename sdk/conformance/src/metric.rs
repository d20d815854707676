//! Metrics: figures over all rows, however the rows come in batches.

use easytransfer::plugin::abi::ET_ERR_UNIMPLEMENTED;
use easytransfer::plugin::{ComponentRef, DType, LoadedMetric, Map, Stream};
use serde_json::{Map as Json, Value};

use crate::defaults;
use crate::inputs::{FORMS, Form, no_panic, number, tensor};
use crate::report::{Checks, Outcome, Stop, failed, skipped};

const ROWS: usize = 12;

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let mut accepted = 0;
    let mut refusal = String::new();
    for form in FORMS {
        match figures(component, form, &[ROWS]) {
            Ok(whole) => {
                accepted += 1;
                check_form(component, form, &whole, checks);
            }
            Err(Stop::Failed(text) | Stop::Skipped(text)) => refusal = text,
        }
    }
    checks.check("takes logits and labels of a usual form", || match accepted {
        0 => skipped(format!("its inputs are others: {refusal}")),
        _ => Ok(()),
    });
    checks.check("nothing counted is no panic", || {
        no_panic(LoadedMetric::create(component, &defaults(component)?)?.compute())
    });
}

fn check_form(
    component: &ComponentRef,
    form: Form,
    whole: &Json<String, Value>,
    checks: &mut Checks<'_>,
) {
    let name = |what: &str| format!("{}: {what}", form.name);
    checks.check(&name("figures are numbers, or arrays of numbers"), || {
        let wrong = whole.iter().find(|(_, value)| !is_figure(value));
        match wrong {
            Some((name, value)) => failed(format!("{name} is {value}")),
            None if whole.is_empty() => failed("there are none"),
            None => Ok(()),
        }
    });
    checks.check(&name("says which way is better of figures that it has"), || {
        let metric = LoadedMetric::create(component, &defaults(component)?)?;
        let unknown = metric.info().lower_is_better.iter().find(|it| !whole.contains_key(*it));
        match unknown {
            Some(name) => {
                failed(format!("{name:?} is none of {:?}", whole.keys().collect::<Vec<_>>()))
            }
            None => Ok(()),
        }
    });
    checks.check(&name("several batches count as one"), || {
        same_figures(whole, &figures(component, form, &[5, 1, 6])?, "in three")
    });
    checks.check(&name("parts counted apart and merged are the whole"), || {
        let mut first = counted(component, form, 0, 5)?;
        let state = saved(&mut counted(component, form, 5, ROWS)?)?;
        first.merge(&mut Stream::reader(&state)?)?;
        same_figures(whole, &first.compute()?, "of two that were merged")
    });
    checks.check(&name("a state that was cut off is refused"), || {
        let state = saved(&mut counted(component, form, 0, 5)?)?;
        let Some(cut) = state.len().checked_sub(1) else { return failed("the state is empty") };
        let mut other = counted(component, form, 5, ROWS)?;
        match other.merge(&mut Stream::reader(&state[..cut])?) {
            Ok(()) => failed("it was merged"),
            Err(error) => no_panic::<()>(Err(error)),
        }
    });
}

/// A metric that has counted rows `begin..end`.
fn counted(
    component: &ComponentRef,
    form: Form,
    begin: usize,
    end: usize,
) -> Outcome<LoadedMetric> {
    let mut metric = LoadedMetric::create(component, &defaults(component)?)?;
    count(&mut metric, form, begin, end)?;
    Ok(metric)
}

/// What a metric has counted. Skips where parts cannot be added.
fn saved(metric: &mut LoadedMetric) -> Outcome<Vec<u8>> {
    let mut stream = Stream::writer()?;
    match metric.save(&mut stream) {
        Ok(()) => Ok(stream.bytes()?.as_slice().to_vec()),
        Err(error) if error.code() == ET_ERR_UNIMPLEMENTED => {
            skipped("parts of it cannot be added")
        }
        Err(error) => failed(error.to_string()),
    }
}

fn same_figures(whole: &Json<String, Value>, parts: &Json<String, Value>, what: &str) -> Outcome {
    for (name, value) in whole {
        if !parts.get(name).is_some_and(|other| is_close(value, other)) {
            return failed(format!("{name}: {value} in one batch, {:?} {what}", parts.get(name)));
        }
    }
    Ok(())
}

fn is_figure(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().all(is_figure),
        // A figure that is undefined is written as null.
        value => value.is_number() || value.is_null(),
    }
}

fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_close(a, b))
        }
        (Value::Number(_), Value::Number(_)) => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            (a - b).abs() <= 1e-9 * (1.0 + a.abs())
        }
        (a, b) => a == b,
    }
}

/// Figures over the same rows in batches of the given sizes.
fn figures(component: &ComponentRef, form: Form, sizes: &[usize]) -> Outcome<Json<String, Value>> {
    let mut metric = LoadedMetric::create(component, &defaults(component)?)?;
    let mut begin = 0;
    for size in sizes {
        count(&mut metric, form, begin, begin + size)?;
        begin += size;
    }
    Ok(metric.compute()?)
}

/// Counts rows `begin..end` in one batch.
fn count(metric: &mut LoadedMetric, form: Form, begin: usize, end: usize) -> Outcome {
    let logits: Vec<f64> = (begin * form.width..end * form.width).map(number).collect();
    let mut outputs = Map::new()?;
    outputs.put("logits", &tensor(&logits, &[end - begin, form.width], DType::F32)?)?;
    Ok(metric.update(&outputs, &form.batch(begin, end, DType::F32)?)?)
}
