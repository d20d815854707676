//! Metrics: figures over all rows, however the rows come in batches.

mod answers;
mod many;

use easytransfer::plugin::abi::ET_ERR_UNIMPLEMENTED;
use easytransfer::plugin::{ComponentRef, Counts, DType, LoadedMetric, Stream};
use serde_json::{Map as Json, Value, json};

use crate::checks::Checks;
use crate::inputs::{FORMS, Form, is_fault, no_panic};
use crate::options;
use crate::report::{Outcome, Stop, failed, skipped};
use crate::schema::defaults;

const ROWS: usize = 12;

type Figures = Json<String, Value>;

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let mut accepted = Vec::new();
    let mut of_answers = false;
    checks.check("describe", "says what it is of", || {
        let metric = LoadedMetric::create(component, &defaults(component)?)?;
        of_answers = metric.info().of == Counts::Answers;
        let (save, merge) = (component.has_slot("state_save"), component.has_slot("state_merge"));
        if save != merge {
            let missing = if save { "state_merge" } else { "state_save" };
            return failed(format!("{missing} is NULL, and the other of the two is not"));
        }
        if of_answers && !component.has_slot("answers") {
            return failed("describe says \"of\": \"answers\", and the slot answers is NULL");
        }
        Ok(())
    });
    if of_answers {
        answers::check(component, checks);
    }
    checks.check("update", "takes logits and labels of a usual form", || {
        if of_answers {
            return skipped("it counts answers");
        }
        let mut refusal = String::new();
        for form in FORMS {
            match figures(component, form, &[ROWS]) {
                Ok(whole) => accepted.push((form, whole)),
                Err(Stop::Failed(text) | Stop::Skipped(text)) => {
                    // What it says of a form that it has counted is its fault.
                    if text.contains("compute") || is_fault(&text) {
                        return failed(text);
                    }
                    refusal = text;
                }
            }
        }
        match accepted.len() {
            0 => skipped(format!("its inputs are others: {refusal}")),
            _ => Ok(()),
        }
    });
    for (form, whole) in &accepted {
        check_form(component, *form, whole, checks);
        many::check(component, *form, checks);
    }
    checks.check("create", "another instance does the same", || options::repeats(component));
    checks.check("compute", "nothing counted is no panic, and has figures or none", || {
        let result = LoadedMetric::create(component, &defaults(component)?)?.compute();
        match result.err() {
            Some(error) if error.to_string().contains("is not the JSON that it promises") => {
                failed(error.to_string())
            }
            Some(error) => no_panic::<()>(Err(error)),
            None => Ok(()),
        }
    });
}

/// The figures of all forms.
pub fn effect(component: &ComponentRef, options: &str) -> Outcome<Value> {
    let metric = LoadedMetric::create(component, options)?;
    let mut all = vec![json!(metric.info().lower_is_better)];
    for form in FORMS {
        let mut metric = LoadedMetric::create(component, options)?;
        let counted = count(&mut metric, form, &(0..ROWS).collect::<Vec<_>>());
        all.push(json!(counted.and_then(|()| Ok(metric.compute()?)).ok()));
    }
    all.push(json!(answers::figures(component, options)));
    Ok(Value::Array(all))
}

/// The figures of the first form that is taken, where half of it is counted before.
pub fn later(component: &ComponentRef, options: &str) -> Outcome<options::Later> {
    let mut metric = LoadedMetric::create(component, options)?;
    let taken = FORMS.into_iter().find(|form| count(&mut metric, *form, &[0, 1, 2]).is_ok());
    Ok(Box::new(move || {
        if let Some(form) = taken {
            count(&mut metric, form, &[3, 4, 5, 6])?;
        }
        Ok(json!(metric.compute().ok()))
    }))
}

fn check_form(component: &ComponentRef, form: Form, whole: &Figures, checks: &mut Checks<'_>) {
    let name = |what: &str| format!("{}: {what}", form.name);
    checks.check("compute", &name("figures are numbers, or arrays of numbers"), || numbers(whole));
    checks.check("describe", &name("says which way is better of figures that it has"), || {
        better(component, whole)
    });
    checks.check("update", &name("several batches count as one"), || {
        same_figures(whole, &figures(component, form, &[5, 1, 6])?, "in three")
    });
    checks.check("state_merge", &name("parts counted apart and merged are the whole"), || {
        let mut first = counted(component, form, 0, 5)?;
        let state = saved(&mut counted(component, form, 5, ROWS)?)?;
        first.merge(&mut Stream::reader(&state)?)?;
        same_figures(whole, &first.compute()?, "of two that were merged")
    });
    checks.check("state_merge", &name("a state that was cut off is refused"), || {
        let state = saved(&mut counted(component, form, 0, 5)?)?;
        let Some(cut) = state.len().checked_sub(1) else { return failed("the state is empty") };
        let mut other = counted(component, form, 5, ROWS)?;
        match other.merge(&mut Stream::reader(&state[..cut])?) {
            Ok(()) => failed("it was merged"),
            Err(error) => no_panic::<()>(Err(error)),
        }
    });
}

fn numbers(figures: &Figures) -> Outcome {
    match figures.iter().find(|(_, value)| !is_figure(value)) {
        Some((name, value)) => failed(format!("{name} is {value}")),
        None if figures.is_empty() => failed("there are none"),
        None => Ok(()),
    }
}

fn better(component: &ComponentRef, figures: &Figures) -> Outcome {
    let metric = LoadedMetric::create(component, &defaults(component)?)?;
    let unknown = metric.info().lower_is_better.iter().find(|it| !figures.contains_key(*it));
    match unknown {
        Some(name) => {
            failed(format!("{name:?} is none of {:?}", figures.keys().collect::<Vec<_>>()))
        }
        None => Ok(()),
    }
}

/// A metric that has counted rows `begin..end`.
fn counted(
    component: &ComponentRef,
    form: Form,
    begin: usize,
    end: usize,
) -> Outcome<LoadedMetric> {
    let mut metric = LoadedMetric::create(component, &defaults(component)?)?;
    count(&mut metric, form, &(begin..end).collect::<Vec<_>>())?;
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

fn same_figures(whole: &Figures, parts: &Figures, what: &str) -> Outcome {
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
fn figures(component: &ComponentRef, form: Form, sizes: &[usize]) -> Outcome<Figures> {
    let mut metric = LoadedMetric::create(component, &defaults(component)?)?;
    let mut begin = 0;
    for size in sizes {
        count(&mut metric, form, &(begin..begin + size).collect::<Vec<_>>())?;
        begin += size;
    }
    Ok(metric.compute()?)
}

/// Counts rows in one batch.
fn count(metric: &mut LoadedMetric, form: Form, rows: &[usize]) -> Outcome {
    let outputs = form.outputs_of(rows, DType::F32)?;
    Ok(metric.update(&outputs, &form.batch_of(rows, DType::F32)?)?)
}
