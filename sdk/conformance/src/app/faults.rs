//! Records that are wrong: the app refuses them with the column's role, or makes something of them; and what
//! `features` refuses, `observe` has refused before.

use easytransfer::plugin::{Asked, ComponentRef, Record};
use serde_json::json;

use super::net::FakeNet;
use super::records::{TEXTS, learned, tokenizer};
use super::{answer, new_app};
use crate::checks::Checks;
use crate::inputs::no_panic;
use crate::report::{Outcome, failed, skipped};

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("features", "a record without its columns is refused", || {
        let (app, ..) = learned(component)?;
        if !app.columns()?.iter().any(|column| column.required && !column.target) {
            return skipped("no column must be there");
        }
        match app.features(&mut Asked::new(0), tokenizer()?, &Record::new()) {
            Ok(_) => failed("it was accepted"),
            Err(error) => no_panic::<()>(Err(error)),
        }
    });
    let promise = "a refused record names a column and what was expected and found";
    checks.check("features", promise, || {
        let (app, ..) = learned(component)?;
        let result = app.features(&mut Asked::new(0), tokenizer()?, &Record::new());
        let Err(error) = result else {
            return skipped("no record is refused");
        };
        let Some(fault) = error.record_fault() else {
            return failed(format!("the error has no details: {error}"));
        };
        if app.columns()?.iter().any(|column| column.role == fault.role) {
            Ok(())
        } else {
            failed(format!("{:?} is the role of no column", fault.role))
        }
    });
    checks.check("features", "values of any kind are no crash", || values(component));
    checks.check("observe", "refuses what features would refuse", || observed(component));
    checks.check("observe", "text that is no record is refused", || {
        for text in ["", "[]", "null", "{", "7", "{\"text\": "] {
            let result = new_app(component, "")?.observe_json(text);
            if result.is_ok() && ["", "{", "{\"text\": "].contains(&text) {
                // An app that reads no records has nothing to refuse.
                continue;
            }
            answer(result)?;
        }
        Ok(())
    });
    checks.check("create", "a state that is none is no crash", || {
        for state in ["{}", "[]", "null", "{", "7", "{\"labels\": 3}", "\u{fffd}"] {
            match crate::schema::defaults(component).map(|options| {
                easytransfer::plugin::LoadedApp::create(component, &options, state)
            })? {
                Ok(app) => answer(app.info())?,
                Err(error) => no_panic::<()>(Err(error))?,
            }
        }
        Ok(())
    });
}

/// Values that a file may hold in any column.
fn odd() -> Vec<serde_json::Value> {
    vec![
        json!(null),
        json!(""),
        json!(" "),
        json!(-1),
        json!(1e300),
        json!(true),
        json!([]),
        json!([null]),
        json!(["a", 1, []]),
        json!({}),
        json!({"text": 1}),
        json!("\u{1f600} \u{e9}\u{301} \0 end"),
        json!("word ".repeat(3000)),
    ]
}

fn values(component: &ComponentRef) -> Outcome {
    let (app, recipe, _) = learned(component)?;
    for (role, _) in recipe.roles() {
        for value in odd() {
            let mut record = recipe.record(0, true);
            record.insert(role.clone(), value);
            answer(app.features(&mut Asked::new(0), tokenizer()?, &record))?;
        }
    }
    Ok(())
}

fn observed(component: &ComponentRef) -> Outcome {
    let (app, recipe, _) = learned(component)?;
    if app.info()?.loss.is_none() {
        return skipped("it is not trained");
    }
    for (role, _) in recipe.roles() {
        // What is absent is the host's to refuse.
        for value in odd().into_iter().filter(|value| !value.is_null()) {
            let mut odd = recipe.record(0, true);
            odd.insert(role.clone(), value.clone());
            let mut app = new_app(component, "")?;
            let mut seen = || {
                for at in 0..TEXTS.len() {
                    app.observe(&recipe.record(at, true))?;
                }
                app.observe(&odd)?;
                app.observed()
            };
            if let Err(error) = seen() {
                no_panic::<()>(Err(error))?;
                continue;
            }
            // Where it wants another model the features are tried without.
            let _ = FakeNet::new(&mut app, tokenizer()?);
            if let Err(error) = app.features(&mut Asked::new(0), tokenizer()?, &odd) {
                let value: String = value.to_string().chars().take(40).collect();
                // The run then ends at that record, later than it could, with the same message.
                return skipped(format!(
                    "it took {role} = {value}, which features refuses later: {error}"
                ));
            }
        }
    }
    Ok(())
}
