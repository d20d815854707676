//! Configurations as Hugging Face writes them.

use super::distances::Distances;
use easytransfer_plugin::{Activation, KnownKeys, ModelConfig, Result};
use serde_json::{Map, Value};
use std::ffi::CStr;

/// Keys that are honoured, with the defaults of transformers.
pub const SCHEMA: &CStr = cr#"{"type":"object","properties":{
"vocab_size":{"type":"integer","minimum":1,"default":128100},
"hidden_size":{"type":"integer","minimum":1,"default":1536},
"embedding_size":{"type":["integer","null"],"minimum":1,"default":null,"description":"null: hidden_size"},
"num_hidden_layers":{"type":"integer","minimum":0,"default":24},
"num_attention_heads":{"type":"integer","minimum":1,"default":24},
"attention_head_size":{"type":["integer","null"],"minimum":1,"default":null,"description":"null: hidden_size / num_attention_heads, which is all that fits"},
"intermediate_size":{"type":"integer","minimum":1,"default":6144},
"hidden_act":{"type":"string","default":"gelu"},
"hidden_dropout_prob":{"type":"number","minimum":0,"default":0.1},
"attention_probs_dropout_prob":{"type":"number","minimum":0,"default":0.1},
"max_position_embeddings":{"type":"integer","minimum":1,"default":512},
"type_vocab_size":{"type":"integer","minimum":0,"default":0},
"initializer_range":{"type":"number","minimum":0,"default":0.02},
"layer_norm_eps":{"type":"number","minimum":0,"default":1e-7},
"relative_attention":{"type":"boolean","default":false},
"max_relative_positions":{"type":"integer","default":-1,"description":"below 1: max_position_embeddings"},
"position_buckets":{"type":"integer","default":-1,"description":"buckets of one direction; below 1: each distance has its own"},
"position_biased_input":{"type":"boolean","default":true,"description":"whether positions are added to the words"},
"pos_att_type":{"default":null,"description":"c2p, p2c or both, as a list or with | between them"},
"share_att_key":{"type":"boolean","default":false,"description":"whether positions have the projections of contents"},
"norm_rel_ebd":{"type":"string","default":"none","description":"layer_norm or none"},
"conv_kernel_size":{"type":"integer","minimum":0,"default":0,"description":"0: no convolution beside the first layer"},
"conv_groups":{"type":"integer","minimum":1,"default":1},
"conv_act":{"type":"string","default":"tanh"},
"pooler_dropout":{"type":"number","minimum":0,"default":0.0},
"pooler_hidden_act":{"type":"string","default":"gelu"},
"pooler_hidden_size":{"type":["integer","null"],"minimum":1,"default":null,"description":"null: hidden_size, which is all that fits"},
"cls_dropout":{"type":["number","null"],"minimum":0,"default":null,"description":"null: hidden_dropout_prob"},
"legacy":{"type":"boolean","default":true,"description":"which head of masked language modelling the checkpoint has: cls.predictions, or without it lm_predictions"},
"tie_word_embeddings":{"type":"boolean","default":true}}}"#;

const KEYS: KnownKeys = KnownKeys {
    plugin: "zoo-deberta",
    schema: SCHEMA,
    aliases: &[],
    fixed: &[("z_steps", &["0", "1"]), ("talking_head", &["false"])],
    // The authors' tokenizer and trainer read them.
    idle: &["padding_idx", "vocab_type", "model_name", "summary_type", "output_all_encoded_layers"],
};

/// Convolution beside the first layer.
pub struct Convolution {
    /// Tokens that an output sees; odd.
    pub kernel: usize,
    /// Parts of the columns that do not see each other.
    pub groups: usize,
    pub activation: Activation,
}

/// What a configuration says.
pub struct Shape {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub embedding_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate_size: usize,
    pub activation: Activation,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub positions: usize,
    /// Whether positions are added to the words.
    pub biased_input: bool,
    pub segments: usize,
    pub initializer_range: f64,
    pub epsilon: f64,
    /// How distances count; nothing without relative attention.
    pub distances: Option<Distances>,
    /// Whether queries meet positions of keys.
    pub content_to_position: bool,
    /// Whether keys meet positions of queries.
    pub position_to_content: bool,
    pub shared_projections: bool,
    pub norm_of_positions: bool,
    pub convolution: Option<Convolution>,
    pub pooler_dropout: f64,
    pub pooler_activation: Activation,
    pub classifier_dropout: f64,
    pub legacy: bool,
    /// Whether the scores of the vocabulary are products with the words' own vectors.
    pub tied: bool,
}

impl Shape {
    /// Reads config.json. Errors: values of other types, and those that the encoder cannot do, by the names that
    /// config.json uses.
    pub fn read(config: &Map<String, Value>) -> Result<Self> {
        let config = &ModelConfig::new(config, KEYS)?;
        let hidden_size = config.whole("hidden_size")?;
        let heads = config.heads("num_attention_heads", "hidden_size", hidden_size)?;
        let or = |key: &str, default: usize| {
            if config.is_null(key)? { Ok(default) } else { config.whole(key) }
        };
        for (key, value) in
            [("attention_head_size", hidden_size / heads), ("pooler_hidden_size", hidden_size)]
        {
            if or(key, value)? != value {
                return Err(config.refuse(key, &format!("null or {value}")));
            }
        }
        let positions = config.whole("max_position_embeddings")?;
        let [content_to_position, position_to_content] = pairs(config)?;
        let embedding_size = or("embedding_size", hidden_size)?;
        let (legacy, tied) = (config.flag("legacy")?, config.flag("tie_word_embeddings")?);
        let dropout = config.probability("hidden_dropout_prob")?;
        let norms = norms(config)?;
        Ok(Self {
            vocab_size: config.whole("vocab_size")?,
            hidden_size,
            embedding_size,
            layers: config.layers("num_hidden_layers")?,
            heads,
            intermediate_size: config.whole("intermediate_size")?,
            activation: config.activation("hidden_act")?,
            dropout,
            attention_dropout: config.probability("attention_probs_dropout_prob")?,
            positions,
            biased_input: config.flag("position_biased_input")?,
            segments: config.whole("type_vocab_size")?,
            initializer_range: config.number("initializer_range")?,
            epsilon: config.number("layer_norm_eps")?,
            distances: distances(config, positions)?,
            content_to_position,
            position_to_content,
            shared_projections: config.flag("share_att_key")?,
            norm_of_positions: norms,
            convolution: convolution(config, hidden_size)?,
            pooler_dropout: config.probability("pooler_dropout")?,
            pooler_activation: config.activation("pooler_hidden_act")?,
            classifier_dropout: if config.is_null("cls_dropout")? {
                dropout
            } else {
                config.probability("cls_dropout")?
            },
            legacy,
            tied,
        })
    }

    /// Factor on the scores: as many products as are added share the variance.
    pub fn scale(&self) -> f64 {
        let more = usize::from(self.content_to_position) + usize::from(self.position_to_content);
        let size = self.hidden_size / self.heads;
        ((size * (1 + more)) as f64).powf(-0.5)
    }
}

/// Whether contents meet positions, and positions contents.
fn pairs(config: &ModelConfig<'_>) -> Result<[bool; 2]> {
    const KEY: &str = "pos_att_type";
    let kinds: Vec<String> = match config.value(KEY)? {
        Value::Null => Vec::new(),
        Value::String(kinds) => {
            kinds.to_lowercase().split('|').map(|kind| kind.trim().to_owned()).collect()
        }
        Value::Array(kinds) => {
            let kinds: Option<Vec<String>> =
                kinds.iter().map(|kind| kind.as_str().map(str::to_owned)).collect();
            kinds.ok_or_else(|| config.refuse(KEY, "a list of texts"))?
        }
        _ => return Err(config.refuse(KEY, "a text, a list of texts or null")),
    };
    if kinds.iter().any(|kind| !["c2p", "p2c", "none", ""].contains(&&**kind)) {
        return Err(config.refuse(KEY, "\"c2p\", \"p2c\" or both"));
    }
    Ok(["c2p", "p2c"].map(|kind| kinds.iter().any(|own| own == kind)))
}

/// Whether a layer norm stands above the table of distances.
fn norms(config: &ModelConfig<'_>) -> Result<bool> {
    const KEY: &str = "norm_rel_ebd";
    let value = config.value(KEY)?;
    let text = value.as_str().ok_or_else(|| config.refuse(KEY, "a text"))?.to_lowercase();
    let kinds: Vec<&str> = text.split('|').map(str::trim).collect();
    if kinds.iter().any(|kind| !["layer_norm", "none", ""].contains(kind)) {
        return Err(config.refuse(KEY, "\"layer_norm\" or \"none\""));
    }
    Ok(kinds.contains(&"layer_norm"))
}

fn distances(config: &ModelConfig<'_>, positions: usize) -> Result<Option<Distances>> {
    let furthest = config.whole_or_none("max_relative_positions")?;
    let furthest = furthest.filter(|furthest| *furthest > 0).unwrap_or(positions);
    let buckets = config.whole_or_none("position_buckets")?.filter(|buckets| *buckets > 0);
    if !config.flag("relative_attention")? {
        return Ok(None);
    }
    // Half of the buckets stand for one distance each, and the rest reaches to the furthest.
    if let Some(buckets) = buckets
        && (buckets < 2 || furthest < 2 + buckets / 2)
    {
        let expected = format!("from 2 to about twice the greatest distance, {furthest}");
        return Err(config.refuse("position_buckets", &expected));
    }
    if furthest > Distances::MOST {
        let expected = format!("at most {}", Distances::MOST);
        return Err(config.refuse("max_relative_positions", &expected));
    }
    Ok(Some(Distances { buckets, furthest }))
}

fn convolution(config: &ModelConfig<'_>, hidden_size: usize) -> Result<Option<Convolution>> {
    let kernel = config.whole("conv_kernel_size")?;
    let groups = config.whole("conv_groups")?;
    if kernel == 0 {
        return Ok(None);
    }
    if kernel.is_multiple_of(2) {
        return Err(config.refuse("conv_kernel_size", "an odd number, which keeps lengths"));
    }
    if !hidden_size.is_multiple_of(groups) {
        return Err(
            config.refuse("conv_groups", &format!("a divisor of hidden_size {hidden_size}"))
        );
    }
    Ok(Some(Convolution { kernel, groups, activation: config.activation("conv_act")? }))
}
