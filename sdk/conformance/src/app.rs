//! Apps: from records to features, through the head, to one prediction per record; and their state.

mod answers;
mod faults;
mod net;
mod records;

use easytransfer::plugin::{Asked, ComponentRef, LoadedApp, Record, Row};
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::inputs::no_panic;
use crate::report::{Outcome, failed, skipped};
use crate::schema::defaults;
pub use records::tokenizer;
use records::{TEXTS, learned, learned_with};

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("columns", "names the columns of its records", || {
        let columns = new_app(component, "")?.columns()?;
        if columns.is_empty() {
            return failed("there are none");
        }
        for (at, column) in columns.iter().enumerate() {
            if column.role.is_empty() || column.names.is_empty() {
                return failed(format!("column {at} lacks a role or names"));
            }
            if columns[..at].iter().any(|other| other.role == column.role) {
                return failed(format!("two columns have the role {:?}", column.role));
            }
        }
        Ok(())
    });
    checks.check("state", "state given to a new instance is the same state", || {
        let (first, ..) = learned(component)?;
        let state = first.state()?;
        if first.state()? != state {
            return failed("a second state differs from the first");
        }
        let second = new_app(component, &state.to_string())?;
        if second.state()? != state {
            return failed(format!("expected {state}, found {}", second.state()?));
        }
        if second.info()? == first.info()? {
            Ok(())
        } else {
            failed("it describes itself otherwise")
        }
    });
    checks.check("describe", "describes itself", || describes(component));
    faults::check(component, checks);
    checks.check("decode", "answers every record with one prediction", || predictions(component));
    checks.check("finish", "joins the rows of a record into one prediction", || joined(component));
    checks.check("describe", "no record has more tokens than it says", || longest(component));
    answers::check(component, checks);
    checks.check("create", "another instance does the same", || crate::options::repeats(component));
}

/// What an app says of itself, and what it makes of records.
pub fn effect(component: &ComponentRef, options: &str) -> Outcome<Value> {
    let app = LoadedApp::create(component, options, "")?;
    let mut all = vec![json!([app.columns()?, app.info()?])];
    let Ok((app, recipe, net)) = learned_with(component, options) else {
        return Ok(Value::Array(all));
    };
    all.push(json!([app.state()?, app.info()?]));
    let tokenizer = tokenizer()?;
    if let Ok(mut net) = net {
        for at in 0..2 {
            let record = recipe.record(at, false);
            let rows = app.features(&mut Asked::new(at as u64), tokenizer, &record)?;
            let tokens: Vec<usize> = rows.iter().map(Row::tokens_len).collect();
            all.push(json!([tokens, net.parts(&app, &rows.iter().collect::<Vec<_>>())?]));
            all.push(json!(net.asked));
        }
    }
    Ok(Value::Array(all))
}

/// What an instance that has learned says of itself, and how long it makes a record.
pub fn later(component: &ComponentRef, options: &str) -> Outcome<crate::options::Later> {
    let learned = learned_with(component, options)?;
    Ok(Box::new(move || {
        let (app, recipe, _) = &learned;
        let rows = app.features(&mut Asked::new(1), tokenizer()?, &long_record(recipe))?;
        let tokens: Vec<usize> = rows.iter().map(Row::tokens_len).collect();
        Ok(json!([app.info()?, app.state()?, tokens]))
    }))
}

fn new_app(component: &ComponentRef, state: &str) -> Outcome<LoadedApp> {
    Ok(LoadedApp::create(component, &defaults(component)?, state)?)
}

fn describes(component: &ComponentRef) -> Outcome {
    let (app, ..) = learned(component)?;
    let info = app.info()?;
    if !["", "max", "min"].contains(&info.best_is.as_str()) {
        return failed(format!("best_is: expected \"max\" or \"min\", found {:?}", info.best_is));
    }
    let repeated = info.labels.iter().enumerate().find(|(at, it)| info.labels[..*at].contains(it));
    if let Some((_, label)) = repeated {
        return failed(format!("labels: {label:?} stands there twice"));
    }
    if info.finish && !component.has_slot("finish") {
        return failed("\"finish\" is true, and the slot finish is NULL");
    }
    Ok(())
}

fn predictions(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let mut records = Vec::new();
    let tokenizer = tokenizer()?;
    for (at, text) in TEXTS.iter().enumerate().take(4) {
        let rows =
            app.features(&mut Asked::new(at as u64), tokenizer, &recipe.record(at, false))?;
        if rows.iter().any(|row| row.tokens_len() == 0) {
            return failed(format!("{text:?} became a row without tokens"));
        }
        records.push(rows);
    }
    let mut net = net?;
    // Another order and another number of rows, so that a prediction that is not of its row is noticed by its count.
    for picked in [vec![0, 1, 2, 3], vec![2]] {
        let rows: Vec<&Row> = picked.iter().flat_map(|&at| &records[at]).collect();
        let parts = net.parts(&app, &rows)?;
        if parts.len() != rows.len() {
            return failed(format!("expected {}, found {}", rows.len(), parts.len()));
        }
        if parts.iter().any(Record::is_empty) {
            return failed("a prediction is empty");
        }
    }
    Ok(())
}

/// A record whose texts are longer than any limit, so that it may become several rows.
fn long_record(recipe: &records::Recipe) -> Record {
    let mut long = recipe.record(0, false);
    for value in long.values_mut() {
        match value {
            Value::String(text) => *text = "word ".repeat(1000),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                *items = vec![json!("word"); 1000];
            }
            _ => {}
        }
    }
    long
}

fn joined(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let tokenizer = tokenizer()?;
    let mut net = net?;
    let long = long_record(&recipe);
    let rows = app.features(&mut Asked::new(0), tokenizer, &long)?;
    if rows.len() == 1 && !app.info()?.finish {
        return Ok(());
    }
    let parts = net.parts(&app, &rows.iter().collect::<Vec<_>>())?;
    if !component.has_slot("finish") {
        return failed(format!(
            "a long record became {} rows, and the slot finish, which joins them, is NULL",
            rows.len()
        ));
    }
    if app.finish(&long, parts)?.is_empty() { failed("the prediction is empty") } else { Ok(()) }
}

fn longest(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let tokenizer = tokenizer()?;
    net?;
    let longest = app.info()?.longest;
    let rows = app.features(&mut Asked::new(0), tokenizer, &long_record(&recipe))?;
    let found: usize = rows.iter().map(|row| row.tokens_len()).sum();
    if longest > 0 && found > longest {
        return failed(format!(
            "expected at most {longest} (`longest` of its description), found {found}"
        ));
    }
    skipped_if(longest == 0)
}

fn skipped_if(unknown: bool) -> Outcome {
    if unknown { skipped("it does not say how many") } else { Ok(()) }
}

/// Refuses a panic, and takes any other error.
fn answer<T>(result: easytransfer::plugin::Result<T>) -> Outcome {
    no_panic(result)
}
