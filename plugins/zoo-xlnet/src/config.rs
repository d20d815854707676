//! Configurations as Hugging Face writes them.

use easytransfer_plugin::{Activation, HeadPool, KnownKeys, ModelConfig, Result};
use serde_json::{Map, Value};
use std::ffi::CStr;

/// Keys that are honoured, with the defaults of transformers.
pub const SCHEMA: &CStr = cr#"{"type":"object","properties":{
"vocab_size":{"type":"integer","minimum":1,"default":32000},
"d_model":{"type":"integer","minimum":1,"default":1024},
"n_layer":{"type":"integer","minimum":0,"default":24},
"n_head":{"type":"integer","minimum":1,"default":16},
"d_head":{"type":["integer","null"],"minimum":1,"default":null,"description":"null: d_model / n_head, which is all that fits"},
"d_inner":{"type":"integer","minimum":1,"default":4096},
"ff_activation":{"type":"string","default":"gelu"},
"attn_type":{"type":"string","enum":["bi","uni"],"default":"bi","description":"uni: a token sees those before it alone"},
"initializer_range":{"type":"number","minimum":0,"default":0.02},
"layer_norm_eps":{"type":"number","minimum":0,"default":1e-12},
"dropout":{"type":"number","minimum":0,"default":0.1},
"mem_len":{"type":["integer","null"],"default":512,"description":"tokens of its memory that a text sees; null or 0: all"},
"clamp_len":{"type":"integer","default":-1,"description":"greatest distance that is told from greater ones; below 1: none"},
"summary_type":{"type":"string","enum":["last","first","mean","cls_index"],"default":"last","description":"vector of a text for classification; cls_index: the last"},
"summary_use_proj":{"type":"boolean","default":true},
"summary_activation":{"type":["string","null"],"default":"tanh"},
"summary_first_dropout":{"type":"number","minimum":0,"default":0.0},
"summary_last_dropout":{"type":"number","minimum":0,"default":0.1},
"tie_word_embeddings":{"type":"boolean","default":true}}}"#;

const KEYS: KnownKeys = KnownKeys {
    plugin: "zoo-xlnet",
    schema: SCHEMA,
    aliases: &[
        ("n_token", "vocab_size"),
        ("hidden_size", "d_model"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
    ],
    fixed: &[
        // Half of a batch would be read backwards.
        ("bi_data", &["false"]),
        ("reuse_len", &["0"]),
        ("same_length", &["false"]),
        ("summary_proj_to_labels", &["false"]),
        ("untie_r", &["true"]),
    ],
    idle: &[
        // Whether memory is used follows from whether there is one.
        "use_mems_eval",
        "use_mems_train",
        // Beams of another head for questions than the one here.
        "start_n_top",
        "end_n_top",
        "ff_dropout",
        "init",
        "init_range",
        "init_std",
        "max_position_embeddings",
    ],
};

/// What a configuration says.
pub struct Shape {
    pub vocab_size: usize,
    pub d_model: usize,
    pub layers: usize,
    pub heads: usize,
    pub d_inner: usize,
    pub activation: Activation,
    /// Whether a token sees those before it alone.
    pub causal: bool,
    pub initializer_range: f64,
    pub epsilon: f64,
    pub dropout: f64,
    /// Tokens of its memory that a run sees; nothing for all.
    pub memory: Option<usize>,
    /// Greatest distance that is told from greater ones.
    pub furthest: Option<usize>,
    pub summary: HeadPool,
    pub summary_projects: bool,
    pub summary_activation: Activation,
    pub summary_first_dropout: f64,
    pub summary_last_dropout: f64,
    /// Whether the scores of the vocabulary are products with the words' own vectors.
    pub tied: bool,
}

impl Shape {
    /// Reads config.json. Errors: values of other types, and those that the network cannot do, by the names that
    /// config.json uses.
    pub fn read(config: &Map<String, Value>) -> Result<Self> {
        let config = &ModelConfig::new(config, KEYS)?;
        let d_model = config.whole("d_model")?;
        if !d_model.is_multiple_of(2) {
            return Err(config.refuse("d_model", "an even number, for sines and cosines"));
        }
        let heads = config.heads("n_head", "d_model", d_model)?;
        if !config.is_null("d_head")? && config.whole("d_head")? != d_model / heads {
            return Err(config.refuse("d_head", &format!("null or {}", d_model / heads)));
        }
        let positive = |key: &str| -> Result<Option<usize>> {
            Ok(config.whole_or_none(key)?.filter(|value| *value > 0))
        };
        let summary =
            match config.choice("summary_type", &["last", "first", "mean", "cls_index"])? {
                "first" => HeadPool::First,
                "mean" => HeadPool::Mean,
                // Nobody says where else the token of the class stands.
                _ => HeadPool::Last,
            };
        Ok(Self {
            vocab_size: config.whole("vocab_size")?,
            d_model,
            layers: config.layers("n_layer")?,
            heads,
            d_inner: config.whole("d_inner")?,
            activation: config.activation("ff_activation")?,
            causal: config.choice("attn_type", &["bi", "uni"])? == "uni",
            initializer_range: config.number("initializer_range")?,
            epsilon: config.number("layer_norm_eps")?,
            dropout: config.probability("dropout")?,
            memory: positive("mem_len")?,
            furthest: positive("clamp_len")?,
            summary,
            summary_projects: config.flag("summary_use_proj")?,
            summary_activation: if config.is_null("summary_activation")? {
                Activation::None
            } else {
                config.activation("summary_activation")?
            },
            summary_first_dropout: config.probability("summary_first_dropout")?,
            summary_last_dropout: config.probability("summary_last_dropout")?,
            tied: config.flag("tie_word_embeddings")?,
        })
    }
}
