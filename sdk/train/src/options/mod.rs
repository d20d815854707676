//! Options as data: a TOML file and settings `a.b=value` merge into one JSON value, which is then checked against the
//! JSON Schema that each component publishes ([`validate`], [`help`]). [`config`] holds those of a run, [`schedule`]
//! its learning rates.

#[cfg(feature = "train")]
pub mod config;
mod help;
#[cfg(feature = "train")]
pub mod schedule;
mod validate;

use std::path::Path;

use easytransfer_loader::read_regular;
use serde_json::{Map, Number, Value};

use crate::error::{Error, OptionError, Result, excerpt};
pub use help::help;
pub use validate::validate;

/// Bytes of the longest file of options.
const LONGEST: u64 = 16 << 20;
/// The deepest nesting of a dotted key.
const DEEPEST: usize = 32;

/// Reads a TOML file (or a JSON file, by the ending `.json`) into a JSON object. Dates become strings. Errors name the
/// file and the line.
pub fn load(path: &Path) -> Result<Value> {
    let bytes = read_regular(path, LONGEST).map_err(|error| Error::io("read", path, error))?;
    let text = String::from_utf8(bytes).map_err(|error| Error::Config {
        origin: path.display().to_string(),
        message: format!(
            "expected text in UTF-8, found another byte at offset {}",
            error.utf8_error().valid_up_to()
        ),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let origin = path.display().to_string();
    if path.extension().is_some_and(|ending| ending == "json") {
        return match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Ok(Value::Object(object)),
            Ok(_) => {
                let message = "expected a JSON object, found another JSON value".to_string();
                Err(Error::Config { origin, message })
            }
            Err(error) => Err(Error::Config { origin, message: error.to_string() }),
        };
    }
    parse_toml(text, &origin)
}

/// Parses TOML text, which messages call `origin`, into a JSON object.
pub fn parse_toml(text: &str, origin: &str) -> Result<Value> {
    let fault = |message: String| Error::Config { origin: origin.to_string(), message };
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| {
            text.as_bytes()[..span.start.min(text.len())].iter().filter(|&&b| b == b'\n').count()
                + 1
        });
        let message = error.message().replace('\n', ", ");
        fault(match line {
            Some(line) => format!("line {line}: {message}"),
            None => message,
        })
    })?;
    let mut object = Map::new();
    for (key, value) in table {
        let value = to_json(value).map_err(|message| fault(format!("key `{key}`: {message}")))?;
        object.insert(key, value);
    }
    Ok(Value::Object(object))
}

fn to_json(value: toml::Value) -> std::result::Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::Number(
            Number::from_f64(number)
                .ok_or_else(|| format!("expected a finite number, found `{number}`"))?,
        ),
        toml::Value::Boolean(truth) => Value::Bool(truth),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => {
            Value::Array(items.into_iter().map(to_json).collect::<std::result::Result<_, _>>()?)
        }
        toml::Value::Table(table) => {
            let mut object = Map::new();
            for (key, value) in table {
                object.insert(key, to_json(value)?);
            }
            Value::Object(object)
        }
    })
}

/// Lays `over` on `base`: objects merge key by key, anything else replaces.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(slot) => merge(slot, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Applies one setting, `a.b=value`, to `options`; `origin` names where it comes from in messages (`--set`). The value is read as a truth value, an integer, a finite
/// number, `null`, or JSON when it starts with `[`, `{` or `"`; anything else is a string. Errors: no `=`, an empty
/// part of the key, JSON that does not parse, a key below something that is no object.
pub fn set(options: &mut Value, argument: &str, origin: &str) -> Result<()> {
    let fault = |key: &str, expected: &str, found: String| OptionError {
        origin: origin.to_string(),
        key: excerpt(key),
        expected: expected.to_string(),
        found,
        nearest: None,
    };
    let Some((key, text)) = argument.split_once('=') else {
        return Err(fault(argument, "`key=value`", "no `=`".to_string()).into());
    };
    let key = key.trim();
    let parts: Vec<&str> = key.split('.').collect();
    if parts.iter().any(|part| part.is_empty()) || parts.len() > DEEPEST {
        let found = format!("`{}`", excerpt(key));
        return Err(fault(key, "names separated by single dots", found).into());
    }
    let value = parse_value(text).map_err(|message| fault(key, "a JSON value", message))?;
    if !options.is_object() {
        *options = Value::Object(Map::new());
    }
    let mut at = options;
    for part in &parts[..parts.len() - 1] {
        let object = match at {
            Value::Object(object) => object,
            other => {
                let found = format!("`{}`", excerpt(&other.to_string()));
                return Err(fault(key, &format!("an object above `{part}`"), found).into());
            }
        };
        at = object.entry(part.to_string()).or_insert_with(|| Value::Object(Map::new()));
    }
    match at {
        Value::Object(object) => {
            object.insert(parts[parts.len() - 1].to_string(), value);
            Ok(())
        }
        other => {
            let last = parts[parts.len() - 1];
            let found = format!("`{}`", excerpt(&other.to_string()));
            Err(fault(key, &format!("an object above `{last}`"), found).into())
        }
    }
}

fn parse_value(text: &str) -> std::result::Result<Value, String> {
    let text = text.trim();
    match text {
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        "null" => return Ok(Value::Null),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Value::from(number));
    }
    // `inf` and `nan` parse as floats but stay words, and so does anything without a digit.
    if text.bytes().any(|byte| byte.is_ascii_digit())
        && let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64)
    {
        return Ok(Value::Number(number));
    }
    if text.starts_with(['[', '{', '"']) {
        return serde_json::from_str(text)
            .map_err(|error| format!("`{}` ({error})", excerpt(text)));
    }
    Ok(Value::String(text.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn toml_becomes_json() {
        let text = "seed = 7\n[optimizer]\nlr = 5e-5\nbetas = [0.9, 0.999]\nday = 2020-01-02\n";
        let options = parse_toml(text, "run.toml").unwrap();
        assert_eq!(
            options,
            json!({"seed": 7, "optimizer": {"lr": 5e-5, "betas": [0.9, 0.999], "day": "2020-01-02"}})
        );
        let message = parse_toml("a = 1\nb = = 2\n", "run.toml").unwrap_err().to_string();
        assert!(message.starts_with("`run.toml`: line 2:"), "{message}");
        assert!(parse_toml("a = nan", "x").unwrap_err().to_string().contains("finite"));
    }

    #[test]
    fn set_parses_by_type() {
        let mut options = json!({"a": {"b": 1}});
        for argument in [
            "a.b=2", "a.c=1e-3", "t=true", "n=null", "s=bert", "l=[1,2]", "q=\"5\"", "e=",
            "v=1.2.3", "u=a=b",
        ] {
            set(&mut options, argument, "--set").unwrap();
        }
        let expected = json!({"a": {"b": 2, "c": 1e-3}, "t": true, "n": null, "s": "bert",
            "l": [1, 2], "q": "5", "e": "", "v": "1.2.3", "u": "a=b"});
        assert_eq!(options, expected);
    }

    #[test]
    fn set_refuses_what_it_cannot_place() {
        let mut options = json!({"a": 1});
        for (argument, needle) in [
            ("a", "no `=`"),
            ("a.b=1", "an object above `b`, found `1`"),
            (".b=1", "single dots"),
            ("l=[1", "a JSON value"),
        ] {
            let message = set(&mut options, argument, "--set").unwrap_err().to_string();
            assert!(message.contains(needle), "{message}");
        }
        assert_eq!(options, json!({"a": 1}));
    }

    #[test]
    fn merge_keeps_what_the_upper_layer_leaves() {
        let mut base = json!({"a": {"x": 1, "y": 2}, "b": [1]});
        merge(&mut base, json!({"a": {"y": 3}, "b": [], "c": 1}));
        assert_eq!(base, json!({"a": {"x": 1, "y": 3}, "b": [], "c": 1}));
    }
}
