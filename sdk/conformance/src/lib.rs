//! The suite that any plugin must pass: each component is made, used on small inputs of its kind, and held to what
//! the boundary promises of it.
//!
//! A plugin's own tests call [`check_record`]; `easytransfer plugin check` calls [`check_file`]. A check that a
//! component gives no hold for (a loss that wants other inputs than usual) is told as not run, and is no failure.
//!
//! What it deliberately does not do: it does not judge whether a method is good, only whether it computes what it
//! says it does.

mod app;
mod generation;
mod inputs;
mod loss;
mod metric;
mod model;
mod op;
mod optimizer;
mod report;
mod strategy;

use std::path::Path;

use easytransfer::plugin::{ComponentRef, LinkedPlugin, live_handles};
use easytransfer::train::options;
use easytransfer::{Result, Runtime, RuntimeOptions};
use serde_json::{Value, json};

pub use report::{CheckReport, Line, Verdict};
use report::{Checks, Stop, failed, skipped};

/// Loads the plugin of a manifest or folder into a runtime of its own and checks it. Errors: it cannot be loaded; the
/// message says what was required, what was found and what to do.
pub fn check_file(path: &Path) -> Result<CheckReport> {
    // Nothing else is searched, so that no other plugin of the same id answers.
    let runtime = Runtime::new(RuntimeOptions { only_these: true, ..RuntimeOptions::default() })?;
    let id = runtime.load_plugin(path)?;
    Ok(check(&runtime, &id))
}

/// Checks a plugin that is linked into the program. Errors: as for [`check_file`].
pub fn check_record(plugin: LinkedPlugin) -> Result<CheckReport> {
    let runtime = Runtime::new(RuntimeOptions { only_these: true, ..RuntimeOptions::default() })?;
    let id = runtime.register_plugin(plugin)?;
    Ok(check(&runtime, &id))
}

/// Checks a plugin that a runtime has loaded.
pub fn check(runtime: &Runtime, id: &str) -> CheckReport {
    let mut report = CheckReport::new(id);
    for plugin in runtime.plugins().into_iter().filter(|plugin| plugin.id == id) {
        report.version = plugin.version;
        for (kind, name) in &plugin.provides {
            let mut checks = Checks::new(&mut report, format!("{kind} {name}"));
            component(runtime, kind, name, &mut checks);
        }
    }
    report
}

fn component(runtime: &Runtime, kind: &str, name: &str, checks: &mut Checks<'_>) {
    let mut found = None;
    checks.check("is found by its name", || {
        found = Some(runtime.components().find(&format!("et.{kind}/1"), name)?);
        Ok(())
    });
    let Some(component) = found else { return };
    let before = live_handles();
    if kind != "op" {
        schema(&component, checks);
        checks.check("release accepts NULL", || Ok(component.release_null()?));
    }
    match kind {
        "loss" => loss::check(&component, checks),
        "optimizer" => optimizer::check(&component, checks),
        "metric" => metric::check(&component, checks),
        "model" => model::check(&component, checks),
        "app" => app::check(&component, checks),
        "strategy" => strategy::check(&component, checks),
        "op" => op::check(&component, checks),
        other => checks.check("is exercised", || skipped(format!("no checks for kind {other}"))),
    }
    checks.check("gives back every handle", || match live_handles() - before {
        0 => Ok(()),
        more => failed(format!("{more} handles are still alive")),
    });
}

/// The schema of the options: it can be read, its defaults fit it, and a misspelled option is refused.
fn schema(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("schema is a JSON Schema of an object", || {
        let schema = read_schema(component)?;
        if schema["type"] != json!("object") {
            return failed(format!("expected \"type\": \"object\", found {}", schema["type"]));
        }
        if !schema["properties"].is_object() {
            return failed("expected an object under \"properties\"");
        }
        Ok(())
    });
    checks.check("defaults of the options are valid", || {
        let schema = read_schema(component)?;
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let Some(default) = property.get("default") else { continue };
            let alone = json!({"type": "object", "properties": {key: property}});
            let mut value = json!({ key: default });
            options::validate(&alone, &mut value, "", "")?;
        }
        Ok(())
    });
    checks.check("a misspelled option is refused and the nearest is named", || {
        let schema = read_schema(component)?;
        if component.kind() == "et.model/1" {
            return skipped("other keys of config.json are left alone");
        }
        let properties = schema["properties"].as_object();
        let Some(key) = properties.and_then(|all| all.keys().max_by_key(|key| key.len())) else {
            return skipped("there are no options");
        };
        let misspelled = format!("{key}x");
        match options::validate(&schema, &mut json!({ &misspelled: 1 }), "", "") {
            Err(error) if error.to_string().contains(&format!("`{key}`")) => Ok(()),
            // A missing required option may be told first.
            Err(_) if schema.get("required").is_some() => Ok(()),
            Err(error) => failed(format!("the message does not name {key}: {error}")),
            Ok(()) => failed(format!("{misspelled} was accepted")),
        }
    });
}

/// The schema as JSON.
fn read_schema(component: &ComponentRef) -> std::result::Result<Value, Stop> {
    serde_json::from_str(&component.schema)
        .map_err(|error| Stop::Failed(format!("it is not JSON: {error}")))
}

/// Options with all defaults, as text. Skips when an option is required, for which nobody here knows a value.
fn defaults(component: &ComponentRef) -> std::result::Result<String, Stop> {
    let schema = read_schema(component)?;
    if let Some(required) = schema["required"].as_array().filter(|names| !names.is_empty()) {
        let names: Vec<String> = required.iter().map(Value::to_string).collect();
        return Err(Stop::Skipped(format!("it needs a value for {}", names.join(" and "))));
    }
    let mut value = json!({});
    options::validate(&schema, &mut value, "", "")?;
    Ok(value.to_string())
}
