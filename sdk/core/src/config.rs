//! A parsed JSON document, read by dotted keys.

use easytransfer_abi::{ET_ERR_BAD_INPUT, et_config};
use serde_json::Value;

use crate::error::{Error, Result, fail};
use crate::handle::{Handle, tag};

/// A parsed JSON document.
#[derive(Debug)]
pub struct Config(Value);

impl Handle for Config {
    type Abi = et_config;
    const TAG: u32 = tag(b"ETcf");
    const NAME: &'static str = "config";
}

/// What JSON calls a value's type.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The value at a dotted key. A part that is a number selects an element of an array; an object's own key may contain
/// dots, and the shortest matching key is tried first.
fn lookup<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    if key.is_empty() {
        return Some(value);
    }
    let ends = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
    for end in ends {
        let found = match value {
            Value::Object(map) => map.get(&key[..end]),
            Value::Array(list) => key[..end].parse::<usize>().ok().and_then(|i| list.get(i)),
            _ => None,
        };
        let rest = key.get(end + 1..).unwrap_or("");
        if let Some(found) = found.and_then(|found| lookup(found, rest)) {
            return Some(found);
        }
    }
    None
}

impl Config {
    /// Parses JSON text. Errors: `BAD_INPUT` with line and column.
    pub fn parse(json: &str) -> Result<Self> {
        match serde_json::from_str(json) {
            Ok(value) => Ok(Self(value)),
            // The parser's message ends in "at line L column C".
            Err(error) => fail!(ET_ERR_BAD_INPUT, "the text is not JSON: {error}"),
        }
    }

    /// The whole document.
    pub fn root(&self) -> &Value {
        &self.0
    }

    /// True if the key exists and is not null. The empty key is the document itself.
    pub fn has(&self, key: &str) -> bool {
        lookup(&self.0, key).is_some_and(|value| !value.is_null())
    }

    /// The value at a key. Errors: `NOT_FOUND` when it is missing or null.
    fn at(&self, key: &str) -> Result<&Value> {
        match lookup(&self.0, key) {
            Some(Value::Null) => fail!(ET_ERR_NOT_FOUND, "key {key:?} is null, expected a value"),
            Some(value) => Ok(value),
            None => {
                let parent = key.rsplit_once('.').map_or("", |(parent, _)| parent);
                let near = match lookup(&self.0, parent) {
                    Some(Value::Object(map)) if !map.is_empty() => {
                        let keys: Vec<&str> = map.keys().take(20).map(String::as_str).collect();
                        format!("; present there: {}", keys.join(", "))
                    }
                    _ => String::new(),
                };
                fail!(ET_ERR_NOT_FOUND, "there is no key {key:?}{near}")
            }
        }
    }

    /// Reads the value at a key with `read`, which gives `None` for another type.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T> {
        let value = self.at(key)?;
        read(value).ok_or_else(|| {
            let mut shown = value.to_string();
            if shown.chars().count() > 60 {
                shown = shown.chars().take(60).collect::<String>() + " ...";
            }
            let message =
                format!("key {key:?}: expected {expected}, found {} ({shown})", kind(value));
            Error::new(ET_ERR_BAD_INPUT, message)
        })
    }

    /// A number.
    pub fn f64_at(&self, key: &str) -> Result<f64> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// An integer; numbers such as 1e3 or 2.0 count.
    pub fn i64_at(&self, key: &str) -> Result<i64> {
        self.typed(key, "an integer", |value| {
            let exact = |x: &f64| x.fract() == 0.0 && x.abs() <= (1u64 << 53) as f64;
            value.as_i64().or_else(|| {
                value.as_f64().filter(|x| !value.is_u64() && exact(x)).map(|x| x as i64)
            })
        })
    }

    /// A boolean.
    pub fn bool_at(&self, key: &str) -> Result<bool> {
        self.typed(key, "a boolean", Value::as_bool)
    }

    /// A string.
    pub fn str_at(&self, key: &str) -> Result<&str> {
        self.typed(key, "a string", Value::as_str)
    }

    /// Length of an array or object.
    pub fn len_at(&self, key: &str) -> Result<usize> {
        self.typed(key, "an array or an object", |value| match value {
            Value::Array(list) => Some(list.len()),
            Value::Object(map) => Some(map.len()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use easytransfer_abi::ET_ERR_NOT_FOUND;

    fn sample() -> Config {
        Config::parse(
            r#"{"optimizer": {"lr": 1e-3, "steps": 2e1, "on": true, "name": "adamw"}, "a.b": {"c": 1},
               "layers": [{"h": 4}, {"h": 8}], "nothing": null, "big": 18446744073709551615}"#,
        )
        .unwrap()
    }

    #[test]
    fn dotted_keys_reach_every_type() {
        let config = sample();
        assert_eq!(config.f64_at("optimizer.lr").unwrap(), 1e-3);
        assert_eq!(config.i64_at("optimizer.steps").unwrap(), 20);
        assert!(config.bool_at("optimizer.on").unwrap());
        assert_eq!(config.str_at("optimizer.name").unwrap(), "adamw");
        assert_eq!(config.i64_at("layers.1.h").unwrap(), 8);
        assert_eq!(config.len_at("layers").unwrap(), 2);
        assert_eq!(config.i64_at("a.b.c").unwrap(), 1);
        assert_eq!(config.len_at("").unwrap(), 5);
        assert!(!config.has("nothing") && config.has("a.b") && !config.has("optimizer.lrr"));
    }

    #[test]
    fn errors_name_key_type_and_place() {
        let config = sample();
        let missing = config.f64_at("optimizer.rate").unwrap_err();
        assert_eq!(missing.code, ET_ERR_NOT_FOUND);
        assert!(missing.message.contains("lr, steps"), "{missing}");
        let wrong = config.i64_at("optimizer.lr").unwrap_err();
        assert_eq!(wrong.code, ET_ERR_BAD_INPUT);
        assert!(wrong.message.contains("optimizer.lr") && wrong.message.contains("a number"));
        assert_eq!(config.i64_at("big").unwrap_err().code, ET_ERR_BAD_INPUT);
        assert_eq!(config.str_at("nothing").unwrap_err().code, ET_ERR_NOT_FOUND);
        let bad = Config::parse("{\n  \"a\": ,\n}").unwrap_err();
        assert!(bad.message.contains("line 2"), "{bad}");
    }
}
