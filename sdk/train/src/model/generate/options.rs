//! What can be asked of generation.

use easytransfer_plugin::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::options::validate;

/// The options of `et_host_net.generate`, with the names and meanings that transformers has for them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct GenerateOptions {
    /// Most new tokens of a run, the one that ends it included.
    pub max_new_tokens: usize,
    /// Fewest new tokens before one that ends a run.
    pub min_new_tokens: usize,
    /// Tokens that end a run.
    pub eos: Vec<i64>,
    /// Continuations of a run that are looked at side by side; 1 takes the likeliest token each time.
    pub beams: usize,
    /// Exponent of the length by which the score of a finished beam is divided.
    pub length_penalty: f64,
    /// When beam search ends.
    pub early_stopping: EarlyStopping,
    /// Length of the token sequences that a run may hold only once; 0 for no such rule.
    pub no_repeat_ngram: usize,
    /// Divides the positive scores of tokens that the run holds, and multiplies their negative ones.
    pub repetition_penalty: f64,
    /// The first new token.
    pub forced_first: Option<i64>,
    /// The token of a run that reaches `max_new_tokens`.
    pub forced_last: Option<i64>,
    /// Whether tokens are drawn at random.
    pub sample: bool,
    /// Divides the scores before tokens are drawn.
    pub temperature: f64,
    /// Tokens among which is drawn: the likeliest ones; 0 for all.
    pub top_k: usize,
    /// Part of the probability among which is drawn: the fewest tokens that have it.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
    /// Continuations that come back for each run.
    #[serde(rename = "return")]
    pub returned: usize,
    /// Whether the module keeps what it has read; else it reads the whole runs for every token.
    pub cache: bool,
}

/// When beam search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "Value")]
pub enum EarlyStopping {
    /// When the best running beam, were it finished now, is no better than the worst finished one (false).
    Heuristic,
    /// As soon as there are as many finished beams as beams (true).
    WhenFull,
    /// When no running beam can become better than the worst finished one ("never").
    Never,
}

impl From<Value> for EarlyStopping {
    fn from(value: Value) -> Self {
        match value {
            Value::Bool(true) => Self::WhenFull,
            Value::String(_) => Self::Never,
            _ => Self::Heuristic,
        }
    }
}

const SCHEMA: &str = r#"{"type":"object","properties":{
"max_new_tokens":{"type":"integer","minimum":1,"default":64},
"min_new_tokens":{"type":"integer","minimum":0,"default":0},
"eos":{"type":"array","items":{"type":"integer","minimum":0},"default":[]},
"beams":{"type":"integer","minimum":1,"default":1},
"length_penalty":{"type":"number","default":1.0},
"early_stopping":{"enum":[false,true,"never"],"default":false},
"no_repeat_ngram":{"type":"integer","minimum":0,"default":0},
"repetition_penalty":{"type":"number","exclusiveMinimum":0,"default":1.0},
"forced_first":{"type":["integer","null"],"minimum":0,"default":null},
"forced_last":{"type":["integer","null"],"minimum":0,"default":null},
"sample":{"type":"boolean","default":false},
"temperature":{"type":"number","exclusiveMinimum":0,"default":1.0},
"top_k":{"type":"integer","minimum":0,"default":0},
"top_p":{"type":"number","exclusiveMinimum":0,"maximum":1,"default":1.0},
"seed":{"type":"integer","minimum":0,"default":0},
"return":{"type":"integer","minimum":1,"default":1},
"cache":{"type":"boolean","default":true}}}"#;

impl GenerateOptions {
    /// Reads options from JSON; what is left out has its default. Errors: `INVALID_ARGUMENT` naming an option that is
    /// unknown, out of range, or does not go with another.
    pub fn parse(json: &str) -> Result<Self> {
        let mut value: Value = if json.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(json)
                .map_err(|error| Error::invalid(format!("generate: the options: {error}")))?
        };
        let schema = serde_json::from_str(SCHEMA)?;
        validate(&schema, &mut value, "", "generate")
            .map_err(|error| Error::invalid(error.to_string()))?;
        let options = Self::deserialize(value)
            .map_err(|error| Error::invalid(format!("generate: the options: {error}")))?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        let wrong = |key: &str, expected: String, found: &dyn std::fmt::Display| {
            Err(Error::invalid(format!("generate.{key}: expected {expected}, found {found}")))
        };
        if self.sample && self.beams > 1 {
            return wrong("sample", "false with several beams".to_owned(), &"true");
        }
        if self.min_new_tokens > self.max_new_tokens {
            let expected = format!("at most max_new_tokens {}", self.max_new_tokens);
            return wrong("min_new_tokens", expected, &self.min_new_tokens);
        }
        if !self.sample && self.returned > self.beams {
            let expected = format!("at most beams {}, or sample", self.beams);
            return wrong("return", expected, &self.returned);
        }
        Ok(())
    }

    /// Whether this new token, after which the run has `new` of them, ends its run.
    pub fn ends(&self, token: i64, new: usize) -> bool {
        new >= self.max_new_tokens || self.eos.contains(&token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_contract() {
        let options = GenerateOptions::parse("").unwrap();
        assert_eq!(options, GenerateOptions::parse("{}").unwrap());
        assert_eq!((options.max_new_tokens, options.beams, options.returned), (64, 1, 1));
        assert_eq!(options.early_stopping, EarlyStopping::Heuristic);
        assert!(options.cache && !options.sample && options.eos.is_empty());
        let options =
            GenerateOptions::parse(r#"{"early_stopping": "never", "eos": [1], "return": 1.0}"#);
        assert_eq!(options.as_ref().unwrap().early_stopping, EarlyStopping::Never);
        assert!(options.as_ref().unwrap().ends(1, 1) && options.unwrap().ends(0, 64));
    }

    #[test]
    fn wrong_options_are_refused_by_name() {
        for (json, names) in [
            (r#"{"beam": 2}"#, &["generate.beam", "beams"][..]),
            (r#"{"beams": 0}"#, &["generate.beams", "at least 1"]),
            (r#"{"beams": "4"}"#, &["generate.beams", "an integer"]),
            (r#"{"early_stopping": "sometimes"}"#, &["generate.early_stopping", "never"]),
            (r#"{"temperature": 0}"#, &["generate.temperature"]),
            (r#"{"top_p": 1.5}"#, &["generate.top_p"]),
            (r#"{"repetition_penalty": 0}"#, &["generate.repetition_penalty"]),
            (r#"{"eos": [-1]}"#, &["generate.eos[0]"]),
            (r#"{"return": 2}"#, &["generate.return", "beams 1"]),
            (r#"{"return": 3, "beams": 2}"#, &["generate.return", "beams 2"]),
            (r#"{"sample": true, "beams": 2}"#, &["generate.sample"]),
            (r#"{"min_new_tokens": 9, "max_new_tokens": 4}"#, &["generate.min_new_tokens", "4"]),
            ("[1]", &["generate"]),
            ("{", &["generate"]),
        ] {
            let message = GenerateOptions::parse(json).unwrap_err().message().to_owned();
            assert!(names.iter().all(|name| message.contains(name)), "{json}: {message}");
        }
    }
}
