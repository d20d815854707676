//! Metrics: figures over all rows, however the rows come in batches.

use easytransfer::plugin::{ComponentRef, DType, LoadedMetric, Map};
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
        let parts = figures(component, form, &[5, 1, 6])?;
        for (name, value) in whole {
            let close = parts.get(name).is_some_and(|other| is_close(value, other));
            if !close {
                return failed(format!(
                    "{name}: {value} in one batch, {:?} in three",
                    parts.get(name)
                ));
            }
        }
        Ok(())
    });
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
        let end = begin + size;
        let logits: Vec<f64> = (begin * form.width..end * form.width).map(number).collect();
        let mut outputs = Map::new()?;
        outputs.put("logits", &tensor(&logits, &[*size, form.width], DType::F32)?)?;
        metric.update(&outputs, &form.batch(begin, end, DType::F32)?)?;
        begin = end;
    }
    Ok(metric.compute()?)
}
