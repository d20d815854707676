//! Options as the code of a component reads them: what the schema says is what the code does, and nothing that is
//! wrong with them ends the process.

use std::time::{Duration, Instant};

use easytransfer::plugin::{
    self, ComponentRef, LoadedApp, LoadedLoss, LoadedMetric, LoadedModel, LoadedOptimizer,
    LoadedStrategy, Params,
};
use easytransfer::train::options;
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::inputs::no_panic;
use crate::library::Library;
use crate::report::{Outcome, Stop, failed, skipped};
use crate::schema::{allowed, default_values, defaults, names, read};
use crate::{app, loss, memory, metric, model, optimizer, strategy};

/// Most time for trying names that stand in the library.
const SEARCH_LIMIT: Duration = Duration::from_millis(1500);

pub fn check(component: &ComponentRef, library: Option<&Library>, checks: &mut Checks<'_>) {
    checks.check("create", "is made and released, with the defaults of its options", || {
        Ok(make(component, &plain(component)?.to_string())?)
    });
    memory::check(checks, "release", "release gives back what create took", || {
        Ok(make(component, &plain(component)?.to_string())?)
    });
    checks.check("create", "options that are wrong are refused with an error", || bad(component));
    let promise = "every value that the schema allows is accepted";
    checks.check("create", promise, || values(component));
    let promise = "an option that is left out counts as its default in the schema";
    checks.check("create", promise, || left_out(component));
    let promise = "no option that the schema lacks has an effect";
    checks.check("create", promise, || beside_schema(component, library));
    checks.check("create", "instances with other options are independent", || {
        beside_others(component)
    });
    let promise = "every option of the schema is read";
    checks.check("create", promise, || unread(component, library));
}

/// The options that everything is tried with: the defaults, and for models sizes of small networks.
pub fn plain(component: &ComponentRef) -> Outcome<Value> {
    match component.kind {
        "et.model/1" => model::configuration(component),
        _ => default_values(component),
    }
}

/// Makes an instance and releases it.
fn make(component: &ComponentRef, options: &str) -> plugin::Result<()> {
    match component.kind {
        "et.loss/1" => LoadedLoss::create(component, options).map(drop),
        "et.metric/1" => LoadedMetric::create(component, options).map(drop),
        "et.strategy/1" => LoadedStrategy::create(component, options).map(drop),
        "et.app/1" => LoadedApp::create(component, options, "").map(drop),
        "et.optimizer/1" => {
            let params = optimizer::small_set()?;
            LoadedOptimizer::create(component, options, &params).map(drop)
        }
        _ => {
            let params = Params::new(7)?;
            LoadedModel::create(component, options, &params.root()?).map(drop)
        }
    }
}

/// Everything that can be seen of a component with these options, as one value.
fn effect(component: &ComponentRef, options: &str) -> Outcome<Value> {
    match component.kind {
        "et.loss/1" => loss::effect(component, options),
        "et.metric/1" => metric::effect(component, options),
        "et.optimizer/1" => optimizer::effect(component, options),
        "et.strategy/1" => strategy::effect(component, options),
        "et.app/1" => app::effect(component, options),
        _ => model::effect(component, options),
    }
}

fn bad(component: &ComponentRef) -> Outcome {
    let schema = read(component)?;
    let plain = plain(component).unwrap_or_else(|_| json!({}));
    let mut texts: Vec<String> =
        ["", "null", "[]", "{", "no JSON", "\"text\"", "7", "{\"a\":", "{\"no_such_option\": 1}"]
            .map(str::to_owned)
            .to_vec();
    texts.push("[".repeat(2000));
    texts.push(json!({ "no_such_option": "x".repeat(100_000) }).to_string());
    for key in schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
        let wrong = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(-7.5),
            json!(1e300),
            json!(""),
            json!("no such value"),
            json!("x".repeat(5000)),
            json!([]),
            json!([[]]),
            json!({}),
        ];
        for value in wrong {
            // Sizes that are too large fail by the memory that they need, which is no fault of the plugin.
            if component.kind == "et.model/1" && value.as_f64().is_some_and(|size| size > 100.0) {
                continue;
            }
            let mut options = plain.clone();
            options[key] = value;
            texts.push(options.to_string());
        }
    }
    for text in texts {
        let Err(error) = make(component, &text) else { continue };
        let told = error.to_string();
        no_panic::<()>(Err(error))?;
        if told.trim_end().ends_with(':') || told.contains("(no message)") {
            let text: String = text.chars().take(60).collect();
            return failed(format!("the error for `{text}` has no message: {told:?}"));
        }
    }
    Ok(())
}

fn values(component: &ComponentRef) -> Outcome {
    let (schema, plain) = (read(component)?, plain(component)?);
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        for value in allowed(property) {
            // Sizes of a network depend on each other.
            if component.kind == "et.model/1" && value.is_number() {
                continue;
            }
            let mut options = plain.clone();
            options[key] = value.clone();
            if let Err(error) = make(component, &options.to_string()) {
                let value: String = value.to_string().chars().take(60).collect();
                return failed(format!("{key} = {value}, which the schema allows: {error}"));
            }
        }
    }
    Ok(())
}

fn left_out(component: &ComponentRef) -> Outcome {
    let (schema, plain) = (read(component)?, plain(component)?);
    let whole = effect(component, &plain.to_string())?;
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        if property.get("default").is_none() {
            continue;
        }
        let mut without = plain.clone();
        without.as_object_mut().into_iter().for_each(|options| drop(options.remove(key)));
        if make(component, &without.to_string()).is_err() {
            // The host fills in what is left out, so an author may rely on that.
            continue;
        }
        if effect(component, &without.to_string())? != whole {
            return failed(format!(
                "{key}: without it the component does something else than with its default {}",
                property["default"]
            ));
        }
    }
    Ok(())
}

fn beside_schema(component: &ComponentRef, library: Option<&Library>) -> Outcome {
    let Some(library) = library else { return skipped("there is no library to look into") };
    if component.kind == "et.model/1" {
        return skipped("other keys of config.json are left alone");
    }
    let (schema, plain) = (read(component)?, plain(component)?);
    let is_refused =
        |options: &Value| options::validate(&schema, &mut options.clone(), "", "").is_err();
    let whole = effect(component, &plain.to_string())?;
    let begin = Instant::now();
    for name in library.names(&names(&schema)) {
        for value in [json!(3), json!(true), json!(0.25), json!("x")] {
            if begin.elapsed() > SEARCH_LIMIT {
                return Ok(());
            }
            let mut options = plain.clone();
            options[&name] = value.clone();
            let text = options.to_string();
            if make(component, &text).is_err() {
                break;
            }
            match effect(component, &text) {
                Ok(other) if other == whole => {}
                // Where the schema has no properties the host lets everything through.
                _ => {
                    let host = if is_refused(&options) { "refuses" } else { "knows nothing of" };
                    return failed(format!(
                        "{name} = {value} changes what the component does, and the host {host} it"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// An option is unread where no value of it changes anything, and its name stands nowhere in the library but in the
/// schema.
fn unread(component: &ComponentRef, library: Option<&Library>) -> Outcome {
    let Some(library) = library else { return skipped("there is no library to look into") };
    let (schema, plain) = (read(component)?, plain(component)?);
    let mut whole = None;
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let in_schema = component.schema.matches(key.as_str()).count();
        if library.count(key) > in_schema {
            continue;
        }
        let values = allowed(property);
        let mut tried = 0;
        let mut is_read = false;
        for value in values.iter().filter(|value| **value != plain[key]) {
            if whole.is_none() {
                whole = Some(effect(component, &plain.to_string())?);
            }
            let mut options = plain.clone();
            options[key] = value.clone();
            tried += 1;
            is_read |= effect(component, &options.to_string()).ok() != whole;
        }
        if tried > 0 && !is_read {
            return failed(format!("{key} changes nothing, and the code does not mention it"));
        }
    }
    Ok(())
}

/// Something that an instance does, later.
pub type Later = Box<dyn FnMut() -> Outcome<Value>>;

/// Makes an instance, and tells by a function what it does; the function is called once.
fn later(component: &ComponentRef, options: &str) -> Outcome<Later> {
    match component.kind {
        "et.loss/1" => loss::later(component, options),
        "et.metric/1" => metric::later(component, options),
        "et.optimizer/1" => optimizer::later(component, options),
        "et.strategy/1" => strategy::later(component, options),
        "et.app/1" => app::later(component, options),
        _ => model::later(component, options),
    }
}

/// An instance that was made with other options after it changes nothing.
fn beside_others(component: &ComponentRef) -> Outcome {
    let (schema, plain) = (read(component)?, plain(component)?);
    let mut expected = None;
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let other = allowed(property).into_iter().find(|value| {
            // Sizes of a network depend on each other.
            *value != plain[key] && !(component.kind == "et.model/1" && value.is_number())
        });
        let Some(other) = other else { continue };
        if expected.is_none() {
            expected = Some(later(component, &plain.to_string())?()?);
        }
        let mut options = plain.clone();
        options[key] = other.clone();
        let mut first = later(component, &plain.to_string())?;
        let Ok(second) = later(component, &options.to_string()) else { continue };
        let found = first()?;
        drop(second);
        if Some(found) != expected {
            return failed(format!(
                "an instance with other options ({key} = {other}), made later, changes what the first does"
            ));
        }
    }
    Ok(())
}

/// Two instances with the same options do the same.
pub fn repeats(component: &ComponentRef) -> Outcome {
    let options = defaults(component)?;
    match effect(component, &options)? == effect(component, &options)? {
        true => Ok(()),
        false => Err(Stop::Failed("a second instance does something else".to_owned())),
    }
}
