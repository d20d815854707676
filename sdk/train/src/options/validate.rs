//! Checks options against a JSON Schema, of which this subset has a meaning here: `type` (a name or a list of names),
//! `properties`, `required`, `enum`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `default`, `items`,
//! `description`, `additionalProperties`. Unlike in JSON Schema, an object with `properties` admits no other key
//! unless `additionalProperties` is true or a schema, because an option that nobody reads is a mistake.

use serde_json::{Map, Value};

use crate::error::{OptionError, Result, excerpt};
use crate::nearest::{nearest, quoted_list};

/// Checks `options` against `schema` and fills in the defaults. `origin` is the file or flag to name in messages,
/// `prefix` what precedes the keys there (`optimizer`; may be empty). Null stands for an empty object. Errors name
/// the key, what was expected and found, and for an unknown key the nearest known one.
pub fn validate(schema: &Value, options: &mut Value, origin: &str, prefix: &str) -> Result<()> {
    if options.is_null() {
        *options = Value::Object(Map::new());
    }
    check(schema, options, &Place { origin, key: prefix.to_string() })
}

struct Place<'a> {
    origin: &'a str,
    key: String,
}

impl Place<'_> {
    fn below(&self, key: &str) -> Place<'_> {
        let key = if self.key.is_empty() { key.to_string() } else { format!("{}.{key}", self.key) };
        Place { origin: self.origin, key }
    }

    fn fault(&self, expected: impl Into<String>, found: impl Into<String>) -> OptionError {
        OptionError {
            origin: self.origin.to_string(),
            key: if self.key.is_empty() { "(all)".to_string() } else { self.key.clone() },
            expected: expected.into(),
            found: found.into(),
            nearest: None,
        }
    }
}

fn check(schema: &Value, value: &mut Value, place: &Place<'_>) -> Result<()> {
    let Value::Object(schema) = schema else { return Ok(()) };
    check_type(schema, value, place)?;
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names = allowed.iter().map(display).collect::<Vec<_>>();
        let mut fault = place.fault(
            format!("one of {}", quoted_list(names.iter().map(String::as_str))),
            format!("`{}`", excerpt(&display(value))),
        );
        fault.nearest =
            nearest(&display(value), names.iter().map(String::as_str)).map(str::to_string);
        return Err(fault.into());
    }
    check_range(schema, value, place)?;
    match value {
        Value::Object(object) => check_object(schema, object, place),
        Value::Array(items) => {
            let Some(inner) = schema.get("items") else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                let key = format!("{}[{index}]", place.key);
                check(inner, item, &Place { origin: place.origin, key })?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_object(
    schema: &Map<String, Value>,
    object: &mut Map<String, Value>,
    place: &Place<'_>,
) -> Result<()> {
    let empty = Map::new();
    let declared = schema.get("properties").and_then(Value::as_object);
    let properties = declared.unwrap_or(&empty);
    let additional = schema.get("additionalProperties");
    let open = match additional {
        Some(Value::Bool(open)) => *open,
        Some(_) => true,
        None => declared.is_none(),
    };
    for (key, value) in object.iter_mut() {
        if let Some(inner) = properties.get(key) {
            check(inner, value, &place.below(key))?;
        } else if !open {
            let known = || properties.keys().map(String::as_str);
            let mut fault = place
                .below(key)
                .fault(format!("one of {}", quoted_list(known())), "an unknown key");
            fault.nearest = nearest(key, known()).map(str::to_string);
            return Err(fault.into());
        } else if let Some(inner) = additional {
            check(inner, value, &place.below(key))?;
        }
    }
    for (key, inner) in properties {
        if object.contains_key(key) {
            continue;
        }
        if let Some(default) = inner.get("default") {
            object.insert(key.clone(), default.clone());
        } else if inner.get("properties").is_some() {
            // A group of options that is absent as a whole still has the defaults of its members.
            let mut group = Value::Object(Map::new());
            let required = inner.get("required").and_then(Value::as_array);
            if required.is_none_or(Vec::is_empty) {
                check(inner, &mut group, &place.below(key))?;
                object.insert(key.clone(), group);
            }
        }
    }
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if let Some(key) = key.as_str()
            && !object.contains_key(key)
        {
            let inner = properties.get(key).and_then(Value::as_object);
            let expected = inner.map_or_else(|| "a value".to_string(), type_names);
            return Err(place.below(key).fault(expected, "nothing").into());
        }
    }
    Ok(())
}

pub(super) fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The types that a schema admits, in words.
pub(super) fn type_names(schema: &Map<String, Value>) -> String {
    let names = types(schema).into_iter().map(|name| match name {
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        "null" => "null",
        other => other,
    });
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "a value".to_string() } else { names.join(" or ") }
}

fn check_type(schema: &Map<String, Value>, value: &mut Value, place: &Place<'_>) -> Result<()> {
    let names = types(schema);
    if names.is_empty() {
        return Ok(());
    }
    let fits = names.iter().any(|&name| match name {
        "integer" => match &*value {
            Value::Number(number) => number.as_f64().is_some_and(|number| number.fract() == 0.0),
            _ => false,
        },
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    });
    if !fits {
        let found = format!("`{}`", excerpt(&display(value)));
        return Err(place.fault(type_names(schema), found).into());
    }
    // 3.0 is an integer in JSON Schema; readers of the options want it as one.
    if names.contains(&"integer")
        && !names.contains(&"number")
        && value.is_f64()
        && let Some(number) = value.as_f64()
        && number.abs() < 9e15
    {
        *value = Value::from(number as i64);
    }
    Ok(())
}

fn check_range(schema: &Map<String, Value>, value: &Value, place: &Place<'_>) -> Result<()> {
    let Some(number) = value.as_f64() else { return Ok(()) };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let fits = bound("minimum").is_none_or(|bound| number >= bound)
        && bound("maximum").is_none_or(|bound| number <= bound)
        && bound("exclusiveMinimum").is_none_or(|bound| number > bound)
        && bound("exclusiveMaximum").is_none_or(|bound| number < bound);
    if fits {
        return Ok(());
    }
    let expected = format!("{} {}", type_names(schema), range(schema).unwrap_or_default());
    Err(place.fault(expected, format!("`{value}`")).into())
}

/// The bounds of a number in words: `of at least 0 and below 1`.
pub(super) fn range(schema: &Map<String, Value>) -> Option<String> {
    let words = [
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    ];
    let parts: Vec<String> = words
        .iter()
        .filter_map(|(key, word)| Some(format!("{word} {}", schema.get(*key)?.as_number()?)))
        .collect();
    if parts.is_empty() { None } else { Some(parts.join(" and ")) }
}

/// A value as a user would type it.
pub(super) fn display(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "lr": {"type": "number", "exclusiveMinimum": 0, "default": 5e-5},
                "epochs": {"type": "integer", "minimum": 1, "maximum": 100, "default": 3},
                "pooling": {"type": "string", "enum": ["mean", "cls"], "default": "mean"},
                "teacher": {"type": "string"},
                "layers": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "stop": {"type": ["integer", "null"]},
                "lora": {"type": "object", "properties": {"rank": {"type": "integer", "default": 8}}},
                "rates": {"type": "object", "additionalProperties": {"type": "number"}}
            },
            "required": ["teacher"],
            "additionalProperties": false
        })
    }

    fn message(mut options: Value) -> String {
        validate(&schema(), &mut options, "run.toml", "train").unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_filled() {
        let mut options = json!({"teacher": "x", "epochs": 2.0, "rates": {"a": 1}});
        validate(&schema(), &mut options, "run.toml", "train").unwrap();
        let expected = json!({"teacher": "x", "epochs": 2, "rates": {"a": 1}, "lr": 5e-5,
            "pooling": "mean", "lora": {"rank": 8}});
        assert_eq!(options, expected);
    }

    #[test]
    fn faults_name_file_key_and_nearest() {
        for (options, needle) in [
            (
                json!({"teacher": "x", "epoch": 1}),
                "`run.toml`: option `train.epoch`: expected one of",
            ),
            (json!({"teacher": "x", "epoch": 1}), "did you mean `epochs`?"),
            (json!({"teacher": "x", "lr": 0}), "`train.lr`: expected a number above 0, found `0`"),
            (json!({"teacher": "x", "epochs": 1.5}), "expected an integer, found `1.5`"),
            (json!({"teacher": "x", "epochs": 101}), "an integer at least 1 and at most 100"),
            (json!({"teacher": "x", "pooling": "maen"}), "did you mean `mean`?"),
            (json!({"teacher": "x", "layers": [0, -1]}), "`train.layers[1]`"),
            (json!({"teacher": "x", "lora": {"rang": 1}}), "`train.lora.rang`"),
            (json!({"teacher": "x", "rates": {"a": "b"}}), "`train.rates.a`: expected a number"),
            (json!({"teacher": "x", "stop": "no"}), "an integer or null, found `no`"),
            (json!({}), "`train.teacher`: expected a string, found nothing"),
            (json!([]), "`train`: expected a table"),
        ] {
            let message = message(options);
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
    }

    #[test]
    fn null_means_all_defaults() {
        let mut options = Value::Null;
        let schema = json!({"type": "object", "properties": {"a": {"default": 1}}});
        validate(&schema, &mut options, "", "").unwrap();
        assert_eq!(options, json!({"a": 1}));
    }
}
