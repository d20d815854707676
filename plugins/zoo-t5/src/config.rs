//! Configurations as Hugging Face writes them.

use super::family::{FIXED, Family, IDLE};
use easytransfer_plugin::{Activation, Error, LogLevel, Result, log};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The most layers of a stack. A number beyond is a mistake, and each layer costs time and memory before the first
/// weight is read.
const MOST_LAYERS: usize = 1024;
/// The greatest distance that has a bucket of its own; its map of buckets has two entries for each distance.
const FURTHEST: usize = 1 << 20;

/// What a configuration says.
pub struct Shape {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub layers: usize,
    /// Layers of the decoder; nothing for the encoder alone.
    pub decoder_layers: Option<usize>,
    pub heads: usize,
    pub buckets: usize,
    pub max_distance: usize,
    pub dropout: f64,
    pub epsilon: f64,
    pub init_factor: f64,
    pub activation: Activation,
    /// Whether the activation is a gate of a second projection (Shazeer 2020).
    pub gated: bool,
    /// Whether the head is the word embedding.
    pub tied: bool,
    /// Whether the decoder's output is scaled by d_model^-0.5 below the head.
    pub scaled: bool,
    pub decoder_start: Option<i64>,
    pub eos: Vec<i64>,
}

impl Shape {
    /// Reads config.json. Errors: values of other types, and those that the layers cannot do, by the names that
    /// config.json uses.
    pub fn read(config: &Map<String, Value>, family: &Family) -> Result<Self> {
        let mut schema: Value = serde_json::from_slice(family.schema.to_bytes())?;
        let reader = Reader { config, honoured: schema["properties"].take() };
        reader.check_keys()?;
        let layers = reader.layers("num_layers")?;
        let decoder_layers =
            match (reader.flag("is_encoder_decoder")?, &reader.value("num_decoder_layers")) {
                (Some(false), _) => None,
                (_, Value::Null) => Some(layers),
                _ => Some(reader.layers("num_decoder_layers")?),
            };
        let (activation, gated) = reader.projection()?;
        let tied = reader.flag("tie_word_embeddings")?.unwrap_or(true);
        let scaled = reader.flag("scale_decoder_outputs")?.unwrap_or(tied) && !family.own_head;
        let start = reader.token("decoder_start_token_id")?;
        let shape = Self {
            vocab_size: reader.whole("vocab_size")?,
            d_model: reader.whole("d_model")?,
            d_kv: reader.whole("d_kv")?,
            d_ff: reader.whole("d_ff")?,
            layers,
            decoder_layers,
            heads: reader.whole("num_heads")?,
            buckets: reader.whole("relative_attention_num_buckets")?,
            max_distance: reader.whole("relative_attention_max_distance")?,
            dropout: reader.number("dropout_rate")?,
            epsilon: reader.number("layer_norm_epsilon")?,
            init_factor: reader.number("initializer_factor")?,
            activation,
            gated,
            // Version 1.1 is the one that does not scale, also where transformers 5 writes that it ties its head.
            tied: tied && scaled,
            scaled,
            decoder_start: start.first().or(reader.token("pad_token_id")?.first()).copied(),
            eos: reader.token("eos_token_id")?,
        };
        shape.check()?;
        Ok(shape)
    }

    fn check(&self) -> Result<()> {
        let wrong = |key: &str, expected: String, found: String| {
            Err(Error::bad_input(format!("config.json: {key}: expected {expected}, found {found}")))
        };
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("dropout_rate", "0 <= p < 1".to_owned(), self.dropout.to_string());
        }
        // Half of the buckets of one direction are for single distances, the others reach up to the greatest one.
        let exact = self.buckets / 2;
        if !(exact + 1..=FURTHEST).contains(&self.max_distance) {
            let expected = format!("from {} to {FURTHEST}", exact + 1);
            let found = self.max_distance.to_string();
            return wrong("relative_attention_max_distance", expected, found);
        }
        if let Some(token) = self
            .eos
            .iter()
            .chain(&self.decoder_start)
            .find(|&&token| usize::try_from(token).is_ok_and(|token| token >= self.vocab_size))
        {
            let expected = format!("tokens below vocab_size {}", self.vocab_size);
            return wrong("eos_token_id, decoder_start_token_id", expected, token.to_string());
        }
        if self.heads.checked_mul(self.d_kv).is_none() {
            return wrong("num_heads", "a sane number".to_owned(), self.heads.to_string());
        }
        Ok(())
    }
}

/// A config.json with the properties of its family's schema.
struct Reader<'a> {
    config: &'a Map<String, Value>,
    honoured: Value,
}

impl Reader<'_> {
    /// Refuses keys that would change what is computed, and warns of those that nothing reads.
    fn check_keys(&self) -> Result<()> {
        let mut unread = Vec::new();
        for (key, value) in self.config {
            if self.honoured.get(key).is_some() || IDLE.contains(&key.as_str()) {
                continue;
            }
            match FIXED.iter().find(|(fixed, _)| fixed == key) {
                Some((_, harmless)) if !value.is_null() => {
                    if !harmless.contains(&value.to_string().as_str()) {
                        let expected = format!("{}, which is all that is done here", harmless[0]);
                        return Err(wrong(key, &expected, value));
                    }
                }
                Some(_) => {}
                None => unread.push(format!("`{key}`")),
            }
        }
        if !unread.is_empty() {
            let message =
                format!("config.json: keys that nothing here reads: {}", unread.join(", "));
            log(LogLevel::Warn, "zoo-t5", &message);
        }
        Ok(())
    }

    fn value(&self, key: &str) -> Value {
        self.config.get(key).unwrap_or(&self.honoured[key]["default"]).clone()
    }

    fn whole(&self, key: &str) -> Result<usize> {
        let value = self.value(key);
        let minimum = self.honoured[key]["minimum"].as_u64().unwrap_or(0);
        match value.as_u64().filter(|&whole| whole >= minimum).map(usize::try_from) {
            Some(Ok(whole)) => Ok(whole),
            _ => Err(wrong(key, &format!("a whole number of at least {minimum}"), &value)),
        }
    }

    fn layers(&self, key: &str) -> Result<usize> {
        let layers = self.whole(key)?;
        if layers > MOST_LAYERS {
            return Err(wrong(key, &format!("at most {MOST_LAYERS} layers"), &self.value(key)));
        }
        Ok(layers)
    }

    fn number(&self, key: &str) -> Result<f64> {
        let value = self.value(key);
        let number = value.as_f64().filter(|&number| number >= 0.0);
        number.ok_or_else(|| wrong(key, "a number of at least 0", &value))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.value(key) {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(flag)),
            other => Err(wrong(key, "true, false or null", &other)),
        }
    }

    /// A token, several or none.
    fn token(&self, key: &str) -> Result<Vec<i64>> {
        let value = self.value(key);
        let tokens = match &value {
            Value::Null => Some(Vec::new()),
            Value::Array(tokens) => tokens.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|one| vec![one]),
        };
        let tokens = tokens.filter(|tokens| tokens.iter().all(|&token| token >= 0));
        tokens.ok_or_else(|| wrong(key, "a token, a list of them or null", &value))
    }

    /// The activation of the feed forward layer, and whether it is a gate.
    fn projection(&self) -> Result<(Activation, bool)> {
        const KEY: &str = "feed_forward_proj";
        let value = self.value(KEY);
        let name = value.as_str().ok_or_else(|| wrong(KEY, "a text", &value))?;
        let (name, gated) = match name.strip_prefix("gated-") {
            // The authors' "gelu" is the one by tanh.
            Some("gelu") => ("gelu_new", true),
            Some(inner) => (inner, true),
            None => (name, false),
        };
        let activation = Activation::deserialize(Value::from(name))
            .map_err(|error| Error::bad_input(format!("config.json: {KEY}: {error}")))?;
        Ok((activation, gated))
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    Error::bad_input(format!("config.json: {key}: expected {expected}, found {found}"))
}
