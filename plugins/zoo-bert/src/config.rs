//! Configurations as Hugging Face writes them, and what they have in common.

use super::family::Family;
use super::keys;
use easytransfer_plugin::{Activation, Error, LogLevel, Result, log};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The most passes through a layer. No published encoder has half as many; a number beyond is a mistake, and each
/// layer costs time and memory before the first weight is read.
const MOST_LAYERS: usize = 1024;

/// How layers share parameters.
pub struct Sharing {
    /// Groups of layers with parameters of their own.
    pub groups: usize,
    /// Layers in a group.
    pub inner: usize,
}

/// What all configurations say.
pub struct Shape {
    pub vocab_size: usize,
    pub embedding_size: usize,
    pub hidden_size: usize,
    /// `num_hidden_layers`; with sharing each is one pass through all layers of a group.
    pub layers: usize,
    /// Nothing when each layer has parameters of its own.
    pub sharing: Option<Sharing>,
    pub heads: usize,
    pub intermediate_size: usize,
    pub activation: Activation,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub classifier_dropout: f64,
    pub positions: usize,
    pub segments: usize,
    pub initializer_range: f64,
    pub epsilon: f64,
    /// The first position of a text, less one.
    pub pad_token_id: i64,
    /// Whether positions start as sines.
    pub sinusoidal: bool,
}

impl Shape {
    /// Reads config.json. Errors: values of other types, and those that the encoder cannot do, by the names that
    /// config.json uses.
    pub fn read(config: &Map<String, Value>, family: &Family) -> Result<Self> {
        let reader = Reader::new(config, family)?;
        reader.check_keys()?;
        let hidden_size = reader.whole("hidden_size")?;
        let dropout = reader.number("hidden_dropout_prob")?;
        let has = |key: &'static str| reader.is_honoured(key);
        let sharing = if has("num_hidden_groups") {
            let (groups, inner) =
                (reader.whole("num_hidden_groups")?, reader.whole("inner_group_num")?);
            Some(Sharing { groups, inner })
        } else {
            None
        };
        let shape = Self {
            vocab_size: reader.whole("vocab_size")?,
            embedding_size: if has("embedding_size") {
                reader.whole("embedding_size")?
            } else {
                hidden_size
            },
            hidden_size,
            layers: reader.whole("num_hidden_layers")?,
            sharing,
            heads: reader.whole("num_attention_heads")?,
            intermediate_size: reader.whole("intermediate_size")?,
            activation: reader.activation("hidden_act")?,
            dropout,
            attention_dropout: reader.number("attention_probs_dropout_prob")?,
            classifier_dropout: reader.number_or("classifier_dropout", dropout)?,
            positions: reader.whole("max_position_embeddings")?,
            segments: if has("type_vocab_size") { reader.whole("type_vocab_size")? } else { 0 },
            initializer_range: reader.number("initializer_range")?,
            epsilon: if has("layer_norm_eps") { reader.number("layer_norm_eps")? } else { 1e-12 },
            pad_token_id: if has("pad_token_id") {
                reader.whole("pad_token_id")? as i64
            } else {
                0
            },
            sinusoidal: has("sinusoidal_pos_embds") && reader.flag("sinusoidal_pos_embds")?,
        };
        shape.check(family)?;
        Ok(shape)
    }

    /// Refuses what the encoder cannot do, by the names that config.json uses.
    fn check(&self, family: &Family) -> Result<()> {
        let own = |key: &'static str| family.own(key);
        let wrong = |key: &'static str, expected: String| {
            Err(Error::bad_input(format!("config.json: {}: expected {expected}", own(key))))
        };
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("embedding_size", self.embedding_size),
            ("num_attention_heads", self.heads),
            ("intermediate_size", self.intermediate_size),
        ] {
            if value == 0 {
                return wrong(key, "at least 1, found 0".to_owned());
            }
        }
        if !self.hidden_size.is_multiple_of(self.heads) {
            return wrong(
                "num_attention_heads",
                format!(
                    "a divisor of {} {}, found {}",
                    own("hidden_size"),
                    self.hidden_size,
                    self.heads
                ),
            );
        }
        if let Some(Sharing { groups, inner }) = self.sharing {
            // A group that no layer belongs to would hold parameters that never train.
            if !(1..=self.layers).contains(&groups) {
                return wrong(
                    "num_hidden_groups",
                    format!("from 1 to num_hidden_layers {}, found {groups}", self.layers),
                );
            }
            if inner == 0 {
                return wrong("inner_group_num", "at least 1, found 0".to_owned());
            }
        }
        let inner = self.sharing.as_ref().map_or(1, |sharing| sharing.inner);
        if self.layers.saturating_mul(inner) > MOST_LAYERS {
            let times =
                if inner == 1 { String::new() } else { format!(" times inner_group_num {inner}") };
            return wrong(
                "num_hidden_layers",
                format!("at most {MOST_LAYERS} layers, found {}{times}", self.layers),
            );
        }
        if family.positions_after_padding {
            let (pad, rows) = (self.pad_token_id, self.vocab_size.min(self.positions) as i64);
            if !(0..rows).contains(&pad) {
                return wrong(
                    "pad_token_id",
                    format!("a token that has a row among words and positions, found {pad}"),
                );
            }
        }
        for (key, value) in
            [("initializer_range", self.initializer_range), ("layer_norm_eps", self.epsilon)]
        {
            if value < 0.0 {
                return wrong(key, format!("at least 0, found {value}"));
            }
        }
        for (key, p) in [
            ("hidden_dropout_prob", self.dropout),
            ("attention_probs_dropout_prob", self.attention_dropout),
            ("classifier_dropout", self.classifier_dropout),
        ] {
            if !(0.0..1.0).contains(&p) {
                return wrong(key, format!("0 <= p < 1, found {p}"));
            }
        }
        Ok(())
    }

    /// The scope of each layer, lowest first. Layers with the same scope are the same parameters.
    pub fn layer_scopes(&self, family: &Family) -> Vec<String> {
        let layers = family.layers;
        match self.sharing {
            None => (0..self.layers).map(|i| format!("{layers}.{i}")).collect(),
            Some(Sharing { groups, inner }) => (0..self.layers)
                .flat_map(|i| {
                    // In floating point, because transformers rounds so too.
                    let group = (i as f64 / (self.layers as f64 / groups as f64)) as usize;
                    (0..inner).map(move |k| format!("{layers}.{group}.albert_layers.{k}"))
                })
                .collect(),
        }
    }
}

/// A config.json with the schema of its family.
struct Reader<'a> {
    config: &'a Map<String, Value>,
    family: &'a Family,
    /// Properties of the schema.
    honoured: Map<String, Value>,
}

impl<'a> Reader<'a> {
    fn new(config: &'a Map<String, Value>, family: &'a Family) -> Result<Self> {
        let mut schema: Value = serde_json::from_slice(family.schema.to_bytes())?;
        let honoured = match schema["properties"].take() {
            Value::Object(honoured) => honoured,
            _ => Map::new(),
        };
        Ok(Self { config, family, honoured })
    }

    fn is_honoured(&self, key: &'static str) -> bool {
        self.honoured.contains_key(self.family.own(key))
    }

    /// Refuses keys that would change what is computed, and warns of those that nothing reads.
    fn check_keys(&self) -> Result<()> {
        let mut unread = Vec::new();
        for (key, value) in self.config {
            if self.honoured.contains_key(key) || keys::IDLE.contains(&key.as_str()) {
                continue;
            }
            if self.family.aliases.contains(&key.as_str()) {
                continue;
            }
            if let Some((_, harmless)) = keys::FIXED.iter().find(|(fixed, _)| fixed == key) {
                let text = value.to_string();
                if !value.is_null() && !harmless.contains(&text.as_str()) {
                    let expected = harmless.first().unwrap_or(&"null");
                    return Err(wrong(
                        key,
                        &format!("{expected}, which is all that this encoder does"),
                        value,
                    ));
                }
            } else if key == "auto_map" {
                let models =
                    |map: &Map<String, Value>| map.keys().any(|key| key.starts_with("AutoModel"));
                if value.as_object().is_some_and(models) {
                    return Err(wrong(key, "a model without code of its own", value));
                }
            } else {
                unread.push(format!("`{key}`"));
            }
        }
        if !unread.is_empty() {
            let message =
                format!("config.json: keys that nothing here reads: {}", unread.join(", "));
            log(LogLevel::Warn, "zoo-bert", &message);
        }
        Ok(())
    }

    /// The value of a key, by BERT's name, and the name under which it stands.
    fn value(&self, key: &'static str) -> Result<(&'static str, Value)> {
        let own = self.family.own(key);
        let alias =
            self.config.get(key).filter(|_| own != key && self.family.aliases.contains(&key));
        let (name, found) = match (self.config.get(own), alias) {
            (Some(found), Some(other)) if found != other => {
                return Err(wrong(key, &format!("the same as {own}, {found}"), other));
            }
            (None, Some(found)) => (key, Some(found)),
            (found, _) => (own, found),
        };
        let default = || self.honoured.get(own).map(|property| &property["default"]);
        Ok((name, found.or_else(default).cloned().unwrap_or(Value::Null)))
    }

    fn minimum(&self, key: &'static str) -> f64 {
        let property = self.honoured.get(self.family.own(key));
        property.and_then(|property| property["minimum"].as_f64()).unwrap_or(0.0)
    }

    fn whole(&self, key: &'static str) -> Result<usize> {
        let (name, value) = self.value(key)?;
        let minimum = self.minimum(key);
        match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
            Some(whole) if whole as f64 >= minimum => Ok(whole),
            _ => Err(wrong(name, &format!("a whole number of at least {minimum}"), &value)),
        }
    }

    fn number(&self, key: &'static str) -> Result<f64> {
        let (name, value) = self.value(key)?;
        value.as_f64().ok_or_else(|| wrong(name, "a number", &value))
    }

    fn number_or(&self, key: &'static str, default: f64) -> Result<f64> {
        if self.value(key)?.1.is_null() { Ok(default) } else { self.number(key) }
    }

    fn flag(&self, key: &'static str) -> Result<bool> {
        let (name, value) = self.value(key)?;
        value.as_bool().ok_or_else(|| wrong(name, "true or false", &value))
    }

    fn activation(&self, key: &'static str) -> Result<Activation> {
        let (name, value) = self.value(key)?;
        Activation::deserialize(&value)
            .map_err(|error| Error::bad_input(format!("config.json: {name}: {error}")))
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    Error::bad_input(format!("config.json: {key}: expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests;
