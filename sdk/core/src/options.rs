//! What an engine is told when it is opened, as JSON: read here for every device.

use crate::error::{Error, Result, fail};
use serde_json::Value;

/// How numbers are computed while training. Parameters and optimizer states are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnginePrecision {
    /// IEEE single precision everywhere.
    #[default]
    F32,
    /// Matrix products of f32 with 10 bits of mantissa.
    Tf32,
    /// Matrix products of bfloat16, sums in f32.
    Bf16,
    /// As `Bf16` in half precision.
    F16,
}

impl EnginePrecision {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::Bf16, Self::F16];

    /// Its name in options and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The one of that name. Errors: `INVALID_ARGUMENT` naming the known ones.
    pub fn from_name(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|precision| precision.name() == name) {
            Some(precision) => Ok(precision),
            None => fail!(
                ET_ERR_INVALID_ARGUMENT,
                "precision: expected one of {}, found {name:?}",
                Self::ALL.map(Self::name).join(", ")
            ),
        }
    }
}

/// The options of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// How numbers are computed while training.
    pub precision: EnginePrecision,
    /// Threads that kernels run on, if they are said.
    pub threads: Option<usize>,
}

impl EngineOptions {
    /// From a JSON object, `{"precision": "f32" | "tf32" | "bf16" | "f16", "threads": 4}`; an empty text stands for
    /// `{}`. Errors: `INVALID_ARGUMENT` for what is no object, for a key that is not known and for a value that a key
    /// does not take, each by its name.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::read(text).map_err(|error| error.context("options of the engine"))
    }

    fn read(text: &str) -> Result<Self> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        let value: Value = serde_json::from_str(text).map_err(|error| {
            Error::new(easytransfer_abi::ET_ERR_INVALID_ARGUMENT, error.to_string())
        })?;
        let Value::Object(entries) = value else {
            fail!(ET_ERR_INVALID_ARGUMENT, "expected a JSON object, found {value}");
        };
        for (key, value) in &entries {
            match (key.as_str(), value) {
                ("precision", Value::String(name)) => {
                    options.precision = EnginePrecision::from_name(name)?;
                }
                ("precision", other) => {
                    fail!(ET_ERR_INVALID_ARGUMENT, "precision: expected a text, found {other}")
                }
                ("threads", value) => {
                    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
                    let Some(number) = number else {
                        fail!(ET_ERR_INVALID_ARGUMENT, "threads: expected a number, found {value}")
                    };
                    options.threads = Some(number);
                }
                _ => fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "expected no key but \"precision\" and \"threads\", found {key:?}"
                ),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::{EngineOptions, EnginePrecision};

    #[test]
    fn options_are_read_by_key() {
        for text in ["", " ", "{}"] {
            assert_eq!(EngineOptions::from_json(text).unwrap(), EngineOptions::default());
        }
        for precision in EnginePrecision::ALL {
            let text = format!("{{ \"precision\" : \"{}\" }}", precision.name());
            assert_eq!(EngineOptions::from_json(&text).unwrap().precision, precision);
        }
        let options = EngineOptions::from_json(r#"{"threads": 3}"#).unwrap();
        assert_eq!(options, EngineOptions { threads: Some(3), ..EngineOptions::default() });
    }

    #[test]
    fn unknown_keys_and_values_are_refused_by_name() {
        for (text, needles) in [
            (r#"{"precison": "bf16"}"#, &["precison", "\"precision\""][..]),
            // A value of another key is no precision.
            (r#"{"name": "bf16"}"#, &["\"name\""]),
            (r#"{"precision": "f32", "more": 1}"#, &["\"more\""]),
            (r#"{"precision": "bf17"}"#, &["bf17", "f32, tf32, bf16, f16"]),
            (r#"{"precision": "BF16"}"#, &["BF16"]),
            (r#"{"precision": 16}"#, &["precision", "16"]),
            (r#"{"precision": null}"#, &["precision", "null"]),
            (r#"{"threads": -1}"#, &["threads", "-1"]),
            (r#"{"threads": "2"}"#, &["threads", "\"2\""]),
            (r#"["bf16"]"#, &["object", "bf16"]),
            (r#""bf16""#, &["object", "bf16"]),
            (r#"{"precision": "bf16""#, &["line 1"]),
        ] {
            let error = EngineOptions::from_json(text).unwrap_err();
            assert_eq!(error.code, easytransfer_abi::ET_ERR_INVALID_ARGUMENT, "{text}");
            assert!(error.message.starts_with("options of the engine: "), "{text}: {error}");
            for needle in needles {
                assert!(error.message.contains(needle), "{text}: {needle}: {error}");
            }
        }
    }
}
