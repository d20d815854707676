//! Configurations as Hugging Face writes them: those of `transformers` 4, with `global_attn_every_n_layers` and two
//! thetas, and those of 5, with `layer_types` and `rope_parameters`.

use easytransfer_plugin::{Activation, Error, HeadPool, KnownKeys, ModelConfig, Result};
use serde_json::{Map, Value};
use std::ffi::CStr;

/// Keys that are honoured, with the defaults of transformers.
pub const SCHEMA: &CStr = cr#"{"type":"object","properties":{
"vocab_size":{"type":"integer","minimum":1,"default":50368},
"hidden_size":{"type":"integer","minimum":1,"default":768},
"intermediate_size":{"type":"integer","minimum":1,"default":1152},
"num_hidden_layers":{"type":"integer","minimum":0,"default":22},
"num_attention_heads":{"type":"integer","minimum":1,"default":12},
"hidden_activation":{"type":"string","default":"gelu"},
"max_position_embeddings":{"type":"integer","minimum":1,"default":8192},
"initializer_range":{"type":"number","minimum":0,"default":0.02},
"norm_eps":{"type":"number","minimum":0,"default":1e-5},
"norm_bias":{"type":"boolean","default":false},
"attention_bias":{"type":"boolean","default":false},
"mlp_bias":{"type":"boolean","default":false},
"decoder_bias":{"type":"boolean","default":true},
"classifier_bias":{"type":"boolean","default":false},
"attention_dropout":{"type":"number","minimum":0,"default":0.0},
"embedding_dropout":{"type":"number","minimum":0,"default":0.0},
"mlp_dropout":{"type":"number","minimum":0,"default":0.0},
"classifier_dropout":{"type":"number","minimum":0,"default":0.0},
"classifier_activation":{"type":"string","default":"gelu"},
"classifier_pooling":{"type":"string","enum":["cls","mean"],"default":"cls"},
"global_attn_every_n_layers":{"type":"integer","minimum":1,"default":3},
"layer_types":{"type":["array","null"],"default":null,"description":"\"full_attention\" or \"sliding_attention\" for each layer; null: by global_attn_every_n_layers"},
"local_attention":{"type":"integer","minimum":2,"default":128,"description":"tokens of a window, half of them to each side"},
"global_rope_theta":{"type":"number","minimum":1,"default":160000.0},
"local_rope_theta":{"type":["number","null"],"minimum":1,"default":10000.0,"description":"null: global_rope_theta"},
"rope_parameters":{"type":["object","null"],"default":null,"description":"rope_theta, rope_type (default or linear) and factor of \"full_attention\" and \"sliding_attention\""},
"rope_scaling":{"type":["object","null"],"default":null,"description":"rope_type and factor of both"},
"tie_word_embeddings":{"type":"boolean","default":true}}}"#;

const KEYS: KnownKeys = KnownKeys {
    plugin: "zoo-modernbert",
    schema: SCHEMA,
    aliases: &[],
    fixed: &[
        ("is_causal", &["false"]),
        ("partial_rotary_factor", &["1", "1.0"]),
        ("head_dim", &[]),
    ],
    idle: &[
        // How transformers computes the same.
        "deterministic_flash_attn",
        "reference_compile",
        "repad_logits_with_grad",
        "sparse_prediction",
        "sparse_pred_ignore_index",
        // New weights are cut at two deviations, whatever it says.
        "initializer_cutoff_factor",
        // Nobody reads them: they came with the authors' configurations.
        "layer_norm_eps",
        "position_embedding_type",
    ],
};

/// Rotary embedding of a kind of layers.
pub struct Rope {
    pub theta: f64,
    /// Positions are divided by it.
    pub factor: f64,
}

/// What a configuration says.
pub struct Shape {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    /// Whether each layer looks at a window only.
    pub local: Vec<bool>,
    pub heads: usize,
    pub activation: Activation,
    pub positions: usize,
    pub initializer_range: f64,
    pub epsilon: f64,
    pub norm_bias: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub decoder_bias: bool,
    pub classifier_bias: bool,
    pub attention_dropout: f64,
    pub embedding_dropout: f64,
    pub mlp_dropout: f64,
    pub classifier_dropout: f64,
    pub classifier_activation: Activation,
    pub classifier_pooling: HeadPool,
    /// Greatest distance that a local layer sees.
    pub window: usize,
    pub global_rope: Rope,
    pub local_rope: Rope,
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
        if !(hidden_size / heads).is_multiple_of(2) {
            let expected =
                format!("a number that leaves hidden_size {hidden_size} heads of even size");
            return Err(config.refuse("num_attention_heads", &expected));
        }
        let global_theta = config.number("global_rope_theta")?;
        let local_theta = if config.is_null("local_rope_theta")? {
            global_theta
        } else {
            config.number("local_rope_theta")?
        };
        let pooling = config.choice("classifier_pooling", &["cls", "mean"])?;
        Ok(Self {
            vocab_size: config.whole("vocab_size")?,
            hidden_size,
            intermediate_size: config.whole("intermediate_size")?,
            local: local_layers(config)?,
            heads,
            activation: config.activation("hidden_activation")?,
            positions: config.whole("max_position_embeddings")?,
            initializer_range: config.number("initializer_range")?,
            epsilon: config.number("norm_eps")?,
            norm_bias: config.flag("norm_bias")?,
            attention_bias: config.flag("attention_bias")?,
            mlp_bias: config.flag("mlp_bias")?,
            decoder_bias: config.flag("decoder_bias")?,
            classifier_bias: config.flag("classifier_bias")?,
            attention_dropout: config.probability("attention_dropout")?,
            embedding_dropout: config.probability("embedding_dropout")?,
            mlp_dropout: config.probability("mlp_dropout")?,
            classifier_dropout: config.probability("classifier_dropout")?,
            classifier_activation: config.activation("classifier_activation")?,
            classifier_pooling: if pooling == "cls" { HeadPool::First } else { HeadPool::Mean },
            window: config.whole("local_attention")? / 2,
            global_rope: rope(config, "full_attention", global_theta)?,
            local_rope: rope(config, "sliding_attention", local_theta)?,
            tied: config.flag("tie_word_embeddings")?,
        })
    }
}

/// Whether each layer looks at a window only.
fn local_layers(config: &ModelConfig<'_>) -> Result<Vec<bool>> {
    let layers = config.layers("num_hidden_layers")?;
    let types = config.value("layer_types")?;
    if types.is_null() {
        let every = config.whole("global_attn_every_n_layers")?;
        return Ok((0..layers).map(|layer| !layer.is_multiple_of(every)).collect());
    }
    let is_local = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    };
    let kinds = types.as_array().filter(|kinds| kinds.len() == layers);
    let kinds: Option<Vec<bool>> = kinds.and_then(|kinds| kinds.iter().map(is_local).collect());
    kinds.ok_or_else(|| {
        let expected =
            format!("\"full_attention\" or \"sliding_attention\" for each of {layers} layers");
        config.refuse("layer_types", &expected)
    })
}

/// The rotary embedding of layers of a kind: `rope_parameters`, over which `rope_scaling` counts, and for want of a
/// theta there the older key's.
fn rope(config: &ModelConfig<'_>, kind: &str, theta: f64) -> Result<Rope> {
    const ALL: &str = "rope_parameters";
    let all = config.value(ALL)?;
    let nested = match &all {
        Value::Null => Map::new(),
        Value::Object(kinds) => {
            let is_kind =
                |key: &&String| !["full_attention", "sliding_attention"].contains(&&***key);
            if kinds.keys().find(is_kind).is_some() {
                let expected = "an object of \"full_attention\" and \"sliding_attention\"";
                return Err(config.refuse(ALL, expected));
            }
            match kinds.get(kind) {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(own)) => own.clone(),
                Some(_) => return Err(config.refuse(ALL, &format!("an object for {kind:?}"))),
            }
        }
        _ => return Err(config.refuse(ALL, "an object or null")),
    };
    let scaling = match config.value("rope_scaling")? {
        Value::Null => Map::new(),
        Value::Object(scaling) => scaling,
        _ => return Err(config.refuse("rope_scaling", "an object or null")),
    };
    let mut rope = Rope { theta, factor: 1.0 };
    let (mut scales, mut factor) = (false, None);
    for (name, entries) in [(ALL, &nested), ("rope_scaling", &scaling)] {
        for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
            let number = value.as_f64().filter(|number| *number >= 1.0);
            match (key.as_str(), number) {
                ("rope_theta", Some(theta)) => rope.theta = theta,
                ("factor", Some(found)) => factor = Some(found),
                ("rope_type" | "type", _) if value == "default" => scales = false,
                ("rope_type" | "type", _) if value == "linear" => scales = true,
                ("partial_rotary_factor", Some(1.0)) => {}
                _ => {
                    return Err(Error::bad_input(format!(
                        "config.json: {name}: {key}: expected \"default\" or \"linear\" as rope_type, and numbers of at least 1 as rope_theta and factor, found {value}"
                    )));
                }
            }
        }
    }
    if scales {
        let key = if scaling.is_empty() { ALL } else { "rope_scaling" };
        rope.factor = factor.ok_or_else(|| config.refuse(key, "a factor beside \"linear\""))?;
    }
    Ok(rope)
}
