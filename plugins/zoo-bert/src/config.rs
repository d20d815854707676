//! Configurations as Hugging Face writes them, and what they have in common.

use easytransfer_plugin::{Activation, Error, Result};
use serde::Deserialize;
use std::ffi::CStr;

/// Schema of [`BertConfig`]; other keys of config.json are ignored.
pub const BERT_SCHEMA: &CStr = cr#"{"type":"object","required":["vocab_size","hidden_size","num_hidden_layers","num_attention_heads","intermediate_size"],"properties":{
"vocab_size":{"type":"integer","minimum":1},"hidden_size":{"type":"integer","minimum":1},
"num_hidden_layers":{"type":"integer","minimum":0},"num_attention_heads":{"type":"integer","minimum":1},
"intermediate_size":{"type":"integer","minimum":1},"hidden_act":{"type":"string","default":"gelu"},
"hidden_dropout_prob":{"type":"number","minimum":0,"default":0.1},"attention_probs_dropout_prob":{"type":"number","minimum":0,"default":0.1},
"classifier_dropout":{"description":"default: hidden_dropout_prob"},
"max_position_embeddings":{"type":"integer","default":512},"type_vocab_size":{"type":"integer","default":2},
"initializer_range":{"type":"number","default":0.02},"layer_norm_eps":{"type":"number","default":1e-12},
"pad_token_id":{"type":"integer","default":0},"embedding_size":{"type":"integer","description":"ELECTRA; default: hidden_size"}}}"#;

/// Schema of [`DistilBertConfig`]; other keys of config.json are ignored.
pub const DISTILBERT_SCHEMA: &CStr = cr#"{"type":"object","required":["vocab_size"],"properties":{
"vocab_size":{"type":"integer","minimum":1},"dim":{"type":"integer","default":768},
"n_layers":{"type":"integer","default":6},"n_heads":{"type":"integer","default":12},"hidden_dim":{"type":"integer","default":3072},
"activation":{"type":"string","default":"gelu"},"dropout":{"type":"number","default":0.1},"attention_dropout":{"type":"number","default":0.1},
"seq_classif_dropout":{"type":"number","default":0.2},"max_position_embeddings":{"type":"integer","default":512},
"initializer_range":{"type":"number","default":0.02}}}"#;

/// Schema of [`AlbertConfig`]; other keys of config.json are ignored.
pub const ALBERT_SCHEMA: &CStr = cr#"{"type":"object","required":["vocab_size","hidden_size","num_hidden_layers","num_attention_heads","intermediate_size"],"properties":{
"vocab_size":{"type":"integer","minimum":1},"embedding_size":{"type":"integer","minimum":1,"default":128},
"hidden_size":{"type":"integer","minimum":1},"num_hidden_layers":{"type":"integer","minimum":1},
"num_hidden_groups":{"type":"integer","minimum":1,"default":1,"description":"groups of layers with parameters of their own, at most num_hidden_layers"},
"inner_group_num":{"type":"integer","minimum":1,"default":1,"description":"layers in a group, which all run for each of num_hidden_layers"},
"num_attention_heads":{"type":"integer","minimum":1},"intermediate_size":{"type":"integer","minimum":1},
"hidden_act":{"type":"string","default":"gelu_new"},
"hidden_dropout_prob":{"type":"number","minimum":0,"default":0},"attention_probs_dropout_prob":{"type":"number","minimum":0,"default":0},
"classifier_dropout_prob":{"type":"number","minimum":0,"default":0.1},
"max_position_embeddings":{"type":"integer","default":512},"type_vocab_size":{"type":"integer","default":2},
"initializer_range":{"type":"number","default":0.02},"layer_norm_eps":{"type":"number","default":1e-12}}}"#;

/// config.json of BERT, RoBERTa and ELECTRA.
#[derive(Deserialize)]
pub struct BertConfig {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    #[serde(default = "gelu")]
    hidden_act: Activation,
    #[serde(default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    attention_probs_dropout_prob: f64,
    classifier_dropout: Option<f64>,
    #[serde(default = "positions")]
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "fiftieth")]
    initializer_range: f64,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    pad_token_id: Option<i64>,
    embedding_size: Option<usize>,
    position_embedding_type: Option<String>,
}

/// config.json of DistilBERT.
#[derive(Deserialize)]
pub struct DistilBertConfig {
    vocab_size: usize,
    #[serde(default = "distil_dim")]
    dim: usize,
    #[serde(default = "distil_layers")]
    n_layers: usize,
    #[serde(default = "distil_heads")]
    n_heads: usize,
    #[serde(default = "distil_hidden")]
    hidden_dim: usize,
    #[serde(default = "gelu")]
    activation: Activation,
    #[serde(default = "tenth")]
    dropout: f64,
    #[serde(default = "tenth")]
    attention_dropout: f64,
    #[serde(default = "fifth")]
    seq_classif_dropout: f64,
    #[serde(default = "positions")]
    max_position_embeddings: usize,
    #[serde(default = "fiftieth")]
    initializer_range: f64,
}

/// config.json of ALBERT.
#[derive(Deserialize)]
pub struct AlbertConfig {
    vocab_size: usize,
    #[serde(default = "albert_embedding")]
    embedding_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    #[serde(default = "one")]
    num_hidden_groups: usize,
    #[serde(default = "one")]
    inner_group_num: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    #[serde(default = "gelu_tanh")]
    hidden_act: Activation,
    #[serde(default)]
    hidden_dropout_prob: f64,
    #[serde(default)]
    attention_probs_dropout_prob: f64,
    #[serde(default = "tenth")]
    classifier_dropout_prob: f64,
    #[serde(default = "positions")]
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "fiftieth")]
    initializer_range: f64,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    position_embedding_type: Option<String>,
}

fn gelu() -> Activation {
    Activation::Gelu
}
fn gelu_tanh() -> Activation {
    Activation::GeluTanh
}
fn tenth() -> f64 {
    0.1
}
fn fifth() -> f64 {
    0.2
}
fn fiftieth() -> f64 {
    0.02
}
fn epsilon() -> f64 {
    1e-12
}
fn positions() -> usize {
    512
}
fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn albert_embedding() -> usize {
    128
}
fn distil_dim() -> usize {
    768
}
fn distil_layers() -> usize {
    6
}
fn distil_heads() -> usize {
    12
}
fn distil_hidden() -> usize {
    3072
}

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
    pub pad_token_id: i64,
    pub position_embedding_type: Option<String>,
}

impl From<BertConfig> for Shape {
    fn from(c: BertConfig) -> Self {
        Self {
            vocab_size: c.vocab_size,
            embedding_size: c.embedding_size.unwrap_or(c.hidden_size),
            hidden_size: c.hidden_size,
            layers: c.num_hidden_layers,
            sharing: None,
            heads: c.num_attention_heads,
            intermediate_size: c.intermediate_size,
            activation: c.hidden_act,
            dropout: c.hidden_dropout_prob,
            attention_dropout: c.attention_probs_dropout_prob,
            classifier_dropout: c.classifier_dropout.unwrap_or(c.hidden_dropout_prob),
            positions: c.max_position_embeddings,
            segments: c.type_vocab_size,
            initializer_range: c.initializer_range,
            epsilon: c.layer_norm_eps,
            pad_token_id: c.pad_token_id.unwrap_or(0),
            position_embedding_type: c.position_embedding_type,
        }
    }
}

impl From<DistilBertConfig> for Shape {
    fn from(c: DistilBertConfig) -> Self {
        Self {
            vocab_size: c.vocab_size,
            embedding_size: c.dim,
            hidden_size: c.dim,
            layers: c.n_layers,
            sharing: None,
            heads: c.n_heads,
            intermediate_size: c.hidden_dim,
            activation: c.activation,
            dropout: c.dropout,
            attention_dropout: c.attention_dropout,
            classifier_dropout: c.seq_classif_dropout,
            positions: c.max_position_embeddings,
            segments: 0,
            initializer_range: c.initializer_range,
            epsilon: 1e-12,
            pad_token_id: 0,
            position_embedding_type: None,
        }
    }
}

impl From<AlbertConfig> for Shape {
    fn from(c: AlbertConfig) -> Self {
        Self {
            vocab_size: c.vocab_size,
            embedding_size: c.embedding_size,
            hidden_size: c.hidden_size,
            layers: c.num_hidden_layers,
            sharing: Some(Sharing { groups: c.num_hidden_groups, inner: c.inner_group_num }),
            heads: c.num_attention_heads,
            intermediate_size: c.intermediate_size,
            activation: c.hidden_act,
            dropout: c.hidden_dropout_prob,
            attention_dropout: c.attention_probs_dropout_prob,
            classifier_dropout: c.classifier_dropout_prob,
            positions: c.max_position_embeddings,
            segments: c.type_vocab_size,
            initializer_range: c.initializer_range,
            epsilon: c.layer_norm_eps,
            pad_token_id: 0,
            position_embedding_type: c.position_embedding_type,
        }
    }
}

impl Shape {
    /// Refuses what the encoder cannot do, by the names that config.json uses.
    pub fn check(&self, family: &Family) -> Result<()> {
        let own = |key: &'static str| {
            family.keys.iter().find(|(bert, _)| *bert == key).map_or(key, |(_, own)| own)
        };
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
        if let Some(kind) = &self.position_embedding_type
            && kind != "absolute"
        {
            return wrong("position_embedding_type", format!("\"absolute\", found {kind:?}"));
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

/// Names and habits of a family.
#[derive(Clone, Copy)]
pub struct Family {
    pub base_prefix: &'static str,
    /// What the names of its classes begin with, for instance "Bert" of "BertModel".
    pub class: &'static str,
    /// Form of its heads, see [`easytransfer_plugin::Task`].
    pub form: &'static str,
    /// Keys of config.json that have another name than BERT's: BERT's and the family's.
    pub keys: &'static [(&'static str, &'static str)],
    /// Scope of the layers, or of their groups.
    pub layers: &'static str,
    /// Scopes within a layer: query, key, value, attention output, its norm, first and second dense layer, their norm.
    pub parts: [&'static str; 8],
    /// Scope of the projection from the embeddings to the layers.
    pub projection: &'static str,
    /// Whether the projection is there also when both have the same width.
    pub always_projected: bool,
    /// Scope of the pooler.
    pub pooler: Option<&'static str>,
    /// Positions start at the padding id + 1.
    pub positions_after_padding: bool,
    /// Dropout between the attention output and its residual.
    pub attention_output_dropout: bool,
    /// Dropout between the output of the second dense layer and its residual.
    pub output_dropout: bool,
}

const BERT_PARTS: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];

impl Family {
    pub const BERT: Self = Self {
        base_prefix: "bert",
        class: "Bert",
        form: "bert",
        keys: &[],
        layers: "encoder.layer",
        parts: BERT_PARTS,
        projection: "embeddings_project",
        always_projected: false,
        pooler: Some("pooler.dense"),
        positions_after_padding: false,
        attention_output_dropout: true,
        output_dropout: true,
    };
    pub const ROBERTA: Self = Self {
        base_prefix: "roberta",
        class: "Roberta",
        form: "roberta",
        pooler: None,
        positions_after_padding: true,
        ..Self::BERT
    };
    pub const ELECTRA: Self = Self {
        base_prefix: "electra",
        class: "Electra",
        form: "electra",
        pooler: None,
        ..Self::BERT
    };
    pub const DISTILBERT: Self = Self {
        base_prefix: "distilbert",
        class: "DistilBert",
        form: "distilbert",
        keys: &[
            ("hidden_size", "dim"),
            ("num_attention_heads", "n_heads"),
            ("intermediate_size", "hidden_dim"),
            ("hidden_dropout_prob", "dropout"),
            ("attention_probs_dropout_prob", "attention_dropout"),
            ("classifier_dropout", "seq_classif_dropout"),
        ],
        layers: "transformer.layer",
        parts: [
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "sa_layer_norm",
            "ffn.lin1",
            "ffn.lin2",
            "output_layer_norm",
        ],
        pooler: None,
        attention_output_dropout: false,
        ..Self::BERT
    };
    pub const ALBERT: Self = Self {
        base_prefix: "albert",
        class: "Albert",
        form: "albert",
        keys: &[("classifier_dropout", "classifier_dropout_prob")],
        layers: "encoder.albert_layer_groups",
        parts: [
            "attention.query",
            "attention.key",
            "attention.value",
            "attention.dense",
            "attention.LayerNorm",
            "ffn",
            "ffn_output",
            "full_layer_layer_norm",
        ],
        projection: "encoder.embedding_hidden_mapping_in",
        always_projected: true,
        pooler: Some("pooler"),
        // The authors' code has it; transformers has not.
        output_dropout: false,
        ..Self::BERT
    };
}
