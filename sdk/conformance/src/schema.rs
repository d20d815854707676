//! The schema of a component's options by itself: it can be read, its defaults fit it, and a misspelled option is
//! refused.

use std::collections::BTreeSet;

use easytransfer::plugin::ComponentRef;
use easytransfer::train::options;
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::report::{Outcome, Stop, failed, skipped};

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("schema", "schema is a JSON Schema of an object", || {
        let schema = read(component)?;
        let Some(object) = schema.as_object() else {
            return failed(format!("expected an object, found {schema}"));
        };
        match object.get("type") {
            // "{}" stands for no options.
            None if object.is_empty() => return Ok(()),
            Some(kind) if *kind == json!("object") => {}
            other => return failed(format!("expected \"type\": \"object\", found {other:?}")),
        }
        match object.get("properties") {
            None => Ok(()),
            Some(properties) if properties.is_object() => Ok(()),
            Some(_) => failed("expected an object under \"properties\""),
        }
    });
    checks.check("schema", "defaults of the options are valid", || {
        let schema = read(component)?;
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let Some(default) = property.get("default") else { continue };
            let alone = json!({"type": "object", "properties": {key: property}});
            let mut value = json!({ key: default });
            options::validate(&alone, &mut value, "", "")?;
        }
        Ok(())
    });
    let promise = "a misspelled option is refused and the nearest is named";
    checks.check("schema", promise, || {
        let schema = read(component)?;
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
pub fn read(component: &ComponentRef) -> Outcome<Value> {
    serde_json::from_str(&component.schema)
        .map_err(|error| Stop::Failed(format!("it is not JSON: {error}")))
}

/// Options with all defaults, and with allowed values of those that are required. Skips where nobody here knows one.
pub fn default_values(component: &ComponentRef) -> Outcome<Value> {
    let schema = read(component)?;
    let (mut value, mut unknown) = (json!({}), Vec::new());
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        match allowed(&schema["properties"][name]).into_iter().next() {
            Some(known) => value[name] = known,
            None => unknown.push(format!("{name:?}")),
        }
    }
    if !unknown.is_empty() {
        return Err(Stop::Skipped(format!("it needs a value for {}", unknown.join(" and "))));
    }
    options::validate(&schema, &mut value, "", "")?;
    Ok(value)
}

/// [`default_values`] as text.
pub fn defaults(component: &ComponentRef) -> Outcome<String> {
    Ok(default_values(component)?.to_string())
}

/// Every name of the schema, of options within options too.
pub fn names(schema: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                names.insert(key.clone());
                names.extend(self::names(value));
            }
        }
        Value::Array(items) => names.extend(items.iter().flat_map(self::names)),
        Value::String(text) => drop(names.insert(text.clone())),
        _ => {}
    }
    names
}

/// Values of an option that its schema says are allowed, each certain to be: the default, all of an enumeration, both
/// truths, the bounds of a number and what lies between them.
pub fn allowed(property: &Value) -> Vec<Value> {
    let mut values: Vec<Value> = property.get("default").cloned().into_iter().collect();
    values.extend(property["enum"].as_array().into_iter().flatten().cloned());
    let kinds = match &property["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let is = |name: &str| kinds.iter().any(|kind| kind == name);
    if is("boolean") {
        values.extend([json!(false), json!(true)]);
    }
    if property.get("enum").is_none() && (is("number") || is("integer")) {
        let bound = |inclusive: &str, exclusive: &str| {
            let value = |key: &str| property[key].as_f64();
            (value(inclusive), value(inclusive).or(value(exclusive)))
        };
        let (least, low) = bound("minimum", "exclusiveMinimum");
        let (most, high) = bound("maximum", "exclusiveMaximum");
        let between = match (low, high) {
            (Some(low), Some(high)) => Some(0.5 * (low + high)),
            (Some(low), None) => Some(low + 1.0),
            (None, Some(high)) => Some(high - 1.0),
            (None, None) => None,
        };
        let numbers = [least, most, between].into_iter().flatten();
        if is("integer") {
            // Bounds of counts are often the largest numbers that there are, which no test can use.
            let whole = numbers.map(f64::round).filter(|number| number.abs() < 1e4);
            values.extend(whole.map(|number| json!(number as i64)));
        } else {
            values.extend(numbers.filter(|number| number.abs() < 1e4).map(|number| json!(number)));
        }
    }
    values.retain(|value| {
        let alone = json!({"type": "object", "properties": {"it": property}});
        options::validate(&alone, &mut json!({ "it": value }), "", "").is_ok()
    });
    let mut once: Vec<Value> = Vec::new();
    for value in values {
        // 1 and 1.0 are the same number.
        let same = |other: &Value| {
            *other == value || (value.is_number() && other.as_f64() == value.as_f64())
        };
        if !once.iter().any(same) {
            once.push(value);
        }
    }
    once
}
