//! A `config.json` as Hugging Face writes it, read by the schema of the model: a key that changes what is computed is
//! honoured or refused by name.

use crate::{Activation, Error, LogLevel, Result, log};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::ffi::CStr;

/// The most layers of a model. No published encoder has half as many; a number beyond is a mistake, and each layer
/// costs time and memory before the first weight is read.
const MOST_LAYERS: usize = 1024;

/// Keys that would change what any model computes, each with the values besides null, as JSON, that change nothing.
const FIXED: &[(&str, &[&str])] = &[
    ("add_cross_attention", &["false"]),
    ("is_decoder", &["false"]),
    ("is_encoder_decoder", &["false"]),
    ("pruned_heads", &["{}", "[]"]),
    ("quantization_config", &[]),
];

/// Keys that change nothing for any model: how `transformers` keeps books, trains, returns and generates, the labels,
/// which the app knows, and the tokens, which the tokenizer knows.
const IDLE: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cls_token_id",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "is_composition",
    "label2id",
    "language",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "min_length",
    "model_type",
    "name",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sentence_transformers",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
];

/// What a family of models knows of the keys of its `config.json`.
#[derive(Clone, Copy)]
pub struct KnownKeys {
    /// Whose keys they are, for the log.
    pub plugin: &'static str,
    /// JSON Schema whose properties are honoured, with their defaults and least values.
    pub schema: &'static CStr,
    /// Other names of honoured keys: alias and key.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Keys that would change what is computed, each with the values besides null, as JSON, that change nothing.
    pub fixed: &'static [(&'static str, &'static [&'static str])],
    /// Keys of this family that change nothing.
    pub idle: &'static [&'static str],
}

/// A `config.json` with what the model's family knows of its keys. Errors of all methods name the key, what was
/// expected and what was found.
pub struct ModelConfig<'a> {
    config: &'a Map<String, Value>,
    known: KnownKeys,
    honoured: Map<String, Value>,
}

impl<'a> ModelConfig<'a> {
    /// Refuses keys that would change what is computed, and warns of those that nothing reads.
    pub fn new(config: &'a Map<String, Value>, known: KnownKeys) -> Result<Self> {
        let mut schema: Value = serde_json::from_slice(known.schema.to_bytes())?;
        let honoured = match schema["properties"].take() {
            Value::Object(honoured) => honoured,
            _ => Map::new(),
        };
        let this = Self { config, known, honoured };
        let mut unread = Vec::new();
        for (key, value) in config {
            let is_alias = known.aliases.iter().any(|(alias, _)| alias == key);
            if is_alias || this.honoured.contains_key(key) {
                continue;
            }
            let fixed = known.fixed.iter().chain(FIXED).find(|(fixed, _)| fixed == key);
            if let Some((_, harmless)) = fixed {
                if !value.is_null() && !harmless.contains(&value.to_string().as_str()) {
                    let expected = harmless.first().unwrap_or(&"null");
                    let expected = format!("{expected}, which is all that this model does");
                    return Err(wrong(key, &expected, value));
                }
            } else if key == "auto_map" {
                let is_model = |key: &String| key.starts_with("AutoModel");
                if value.as_object().is_some_and(|map| map.keys().any(is_model)) {
                    return Err(wrong(key, "a model without code of its own", value));
                }
            } else if !IDLE.contains(&key.as_str()) && !known.idle.contains(&key.as_str()) {
                unread.push(format!("`{key}`"));
            }
        }
        if !unread.is_empty() {
            let message =
                format!("config.json: keys that nothing here reads: {}", unread.join(", "));
            log(LogLevel::Warn, known.plugin, &message);
        }
        Ok(this)
    }

    /// The value of an honoured key, or its default. Errors: two names of the key have different values.
    pub fn value(&self, key: &str) -> Result<Value> {
        let mut found = self.config.get(key);
        for (alias, _) in self.known.aliases.iter().filter(|(_, own)| *own == key) {
            match (found, self.config.get(*alias)) {
                (Some(own), Some(other)) if own != other => {
                    return Err(wrong(alias, &format!("the same as {key}, {own}"), other));
                }
                (own, other) => found = own.or(other),
            }
        }
        let default = || self.honoured.get(key).map(|property| &property["default"]);
        Ok(found.or_else(default).cloned().unwrap_or(Value::Null))
    }

    /// Whether the file itself has the key, and not as null.
    pub fn has(&self, key: &str) -> bool {
        self.config.get(key).is_some_and(|value| !value.is_null())
    }

    /// Whether the value is null.
    pub fn is_null(&self, key: &str) -> Result<bool> {
        Ok(self.value(key)?.is_null())
    }

    /// The least value of a number, as the schema says.
    fn minimum(&self, key: &str) -> f64 {
        let property = self.honoured.get(key);
        property.and_then(|property| property["minimum"].as_f64()).unwrap_or(0.0)
    }

    /// A whole number of at least the schema's minimum.
    pub fn whole(&self, key: &str) -> Result<usize> {
        let (value, minimum) = (self.value(key)?, self.minimum(key));
        match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
            Some(whole) if whole as f64 >= minimum => Ok(whole),
            _ => Err(wrong(key, &format!("a whole number of at least {minimum}"), &value)),
        }
    }

    /// A whole number, or nothing where the number is negative or null: how `transformers` says "no limit".
    pub fn whole_or_none(&self, key: &str) -> Result<Option<usize>> {
        let value = self.value(key)?;
        if value.is_null() || value.as_i64().is_some_and(|value| value < 0) {
            return Ok(None);
        }
        let whole = value.as_u64().and_then(|value| usize::try_from(value).ok());
        whole.map(Some).ok_or_else(|| wrong(key, "a whole number", &value))
    }

    /// A number of layers.
    pub fn layers(&self, key: &str) -> Result<usize> {
        let layers = self.whole(key)?;
        if layers > MOST_LAYERS {
            return Err(wrong(key, &format!("at most {MOST_LAYERS} layers"), &self.value(key)?));
        }
        Ok(layers)
    }

    /// A number of heads that divides `width`, which is the value of the key `of`.
    pub fn heads(&self, key: &str, of: &str, width: usize) -> Result<usize> {
        let heads = self.whole(key)?;
        if heads == 0 || !width.is_multiple_of(heads) {
            let expected = format!("a divisor of {of} {width}");
            return Err(wrong(key, &expected, &self.value(key)?));
        }
        Ok(heads)
    }

    /// A number of at least the schema's minimum.
    pub fn number(&self, key: &str) -> Result<f64> {
        let (value, minimum) = (self.value(key)?, self.minimum(key));
        let number = value.as_f64().filter(|number| *number >= minimum);
        number.ok_or_else(|| wrong(key, &format!("a number of at least {minimum}"), &value))
    }

    /// A probability below 1.
    pub fn probability(&self, key: &str) -> Result<f64> {
        let value = self.value(key)?;
        let p = value.as_f64().filter(|p| (0.0..1.0).contains(p));
        p.ok_or_else(|| wrong(key, "a number p with 0 <= p < 1", &value))
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<bool> {
        let value = self.value(key)?;
        value.as_bool().ok_or_else(|| wrong(key, "true or false", &value))
    }

    /// One of these texts.
    pub fn choice<'b>(&self, key: &str, choices: &[&'b str]) -> Result<&'b str> {
        let value = self.value(key)?;
        let found = choices.iter().find(|choice| value.as_str() == Some(choice));
        found.copied().ok_or_else(|| {
            let choices: Vec<String> = choices.iter().map(|choice| format!("{choice:?}")).collect();
            wrong(key, &choices.join(" or "), &value)
        })
    }

    /// An activation function by the name that `transformers` has for it.
    pub fn activation(&self, key: &str) -> Result<Activation> {
        let value = self.value(key)?;
        Activation::deserialize(&value)
            .map_err(|error| Error::bad_input(format!("config.json: {key}: {error}")))
    }

    /// The error for the value of a key: "config.json: KEY: expected WHAT, found VALUE".
    pub fn refuse(&self, key: &str, expected: &str) -> Error {
        self.value(key).map_or_else(|error| error, |value| wrong(key, expected, &value))
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    Error::bad_input(format!("config.json: {key}: expected {expected}, found {found}"))
}
