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

/// The component can be made at all, and given back.
pub fn made(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("create", "is made within a second, with the defaults of its options", || {
        let begin = Instant::now();
        make(component, &plain(component)?.to_string())?;
        let time = begin.elapsed().as_secs_f64();
        if time < 1.0 { Ok(()) } else { failed(format!("it took {time:.2} seconds")) }
    });
    memory::check(checks, "release", "release gives back what create took", || {
        Ok(make(component, &plain(component)?.to_string())?)
    });
}

/// The options do what the schema says.
pub fn check(component: &ComponentRef, library: Option<&Library>, checks: &mut Checks<'_>) {
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
    checks
        .check("create", "every option of the schema has an effect", || unread(component, library));
}

/// The options that everything is tried with: the defaults, and for models sizes of small networks.
pub fn plain(component: &ComponentRef) -> Outcome<Value> {
    match component.kind() {
        "et.model/1" => model::configuration(component),
        _ => default_values(component),
    }
}

/// Makes an instance and releases it.
fn make(component: &ComponentRef, options: &str) -> plugin::Result<()> {
    match component.kind() {
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
    match component.kind() {
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
            if component.kind() == "et.model/1" && value.as_f64().is_some_and(|size| size > 100.0) {
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
            if component.kind() == "et.model/1" && value.is_number() {
                continue;
            }
            let mut options = plain.clone();
            options[key] = value.clone();
            if let Err(error) = make(component, &options.to_string()) {
                let told = error.to_string();
                no_panic::<()>(Err(error))?;
                // What depends on another option is no matter of a schema.
                let mut others = schema["properties"].as_object().into_iter().flatten();
                if others.any(|(other, _)| other != key && told.contains(other.as_str())) {
                    continue;
                }
                let value: String = value.to_string().chars().take(60).collect();
                return failed(format!("{key} = {value}, which the schema allows: {told}"));
            }
        }
    }
    Ok(())
}

fn left_out(component: &ComponentRef) -> Outcome {
    let (schema, plain) = (read(component)?, plain(component)?);
    let whole = effect(component, &plain.to_string())?;
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        // Sizes of a small network are not the defaults.
        if property.get("default").is_none_or(|default| *default != plain[key]) {
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
    if component.kind() == "et.model/1" {
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
                // Refused, if late.
                Err(_) => break,
                // Where the schema has no properties the host lets everything through.
                Ok(_) => {
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

/// An option has no effect where no value of it changes anything, whatever the other options are. What apps,
/// strategies and models do shows in part only, so of them it is told where the code does not mention the option and
/// takes a value of any type for it, too.
fn unread(component: &ComponentRef, library: Option<&Library>) -> Outcome {
    let (schema, plain) = (read(component)?, plain(component)?);
    let shows_all = ["et.loss/1", "et.metric/1", "et.optimizer/1"].contains(&component.kind())
        && has_number(&effect(component, &plain.to_string())?);
    let mut backgrounds = vec![plain.clone()];
    let mut others = plain.clone();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = allowed(property).into_iter().rfind(|value| *value != plain[key]) {
            others[key] = value;
        }
    }
    if others != plain && make(component, &others.to_string()).is_ok() {
        backgrounds.push(others);
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let values = allowed(property);
        if values.len() < 2 || (!shows_all && is_mentioned(component, library, key, &plain)) {
            continue;
        }
        let has_effect = |background: &Value| -> Outcome<bool> {
            let mut options = background.clone();
            options[key] = plain[key].clone();
            let Ok(whole) = effect(component, &options.to_string()) else {
                // Options that do not go together show nothing.
                return Ok(background == &plain);
            };
            Ok(values.iter().any(|value| {
                options[key] = value.clone();
                effect(component, &options.to_string()).ok() != Some(whole.clone())
            }))
        };
        let mut is_read = false;
        for background in &backgrounds {
            is_read |= has_effect(background)?;
        }
        if !is_read {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            return failed(format!("{key} changes nothing, tried with {}", values.join(", ")));
        }
    }
    Ok(())
}

/// Whether anything was computed: a component that takes no usual inputs shows nothing.
fn has_number(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().any(has_number),
        Value::Object(values) => values.values().any(has_number),
        value => value.is_number(),
    }
}

/// Whether the code knows an option: its name stands in the library outside of the schema, or a value of another type
/// is refused.
fn is_mentioned(
    component: &ComponentRef,
    library: Option<&Library>,
    key: &str,
    plain: &Value,
) -> bool {
    let Some(library) = library else { return true };
    let is_refused = |value: Value| {
        let mut options = plain.clone();
        options[key] = value;
        make(component, &options.to_string()).is_err()
    };
    library.count(key) > component.schema.matches(key).count()
        || [json!({}), json!([]), json!("no such value")].into_iter().any(is_refused)
}

/// Something that an instance does, later.
pub type Later = Box<dyn FnMut() -> Outcome<Value>>;

/// Makes an instance, and tells by a function what it does; the function is called once.
fn later(component: &ComponentRef, options: &str) -> Outcome<Later> {
    match component.kind() {
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
            *value != plain[key] && !(component.kind() == "et.model/1" && value.is_number())
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
