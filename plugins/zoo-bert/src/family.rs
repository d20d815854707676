//! What tells the families apart: names of parameters and keys, and where dropout stands.

use super::keys;
use std::ffi::CStr;

/// Names and habits of a family.
#[derive(Clone, Copy)]
pub struct Family {
    pub base_prefix: &'static str,
    /// What the names of its classes begin with, for instance "Bert" of "BertModel".
    pub class: &'static str,
    /// Form of its heads, see [`easytransfer_plugin::Task`].
    pub form: &'static str,
    /// The keys that are honoured, with their defaults.
    pub schema: &'static CStr,
    /// Keys of config.json that have another name than BERT's: BERT's and the family's.
    pub keys: &'static [(&'static str, &'static str)],
    /// Names of BERT that transformers takes for the family's own.
    pub aliases: &'static [&'static str],
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
    /// The family's name of a key of BERT's.
    pub fn own(&self, key: &'static str) -> &'static str {
        self.keys.iter().find(|(bert, _)| *bert == key).map_or(key, |(_, own)| own)
    }

    pub const BERT: Self = Self {
        base_prefix: "bert",
        class: "Bert",
        form: "bert",
        schema: keys::BERT_SCHEMA,
        keys: &[],
        aliases: &[],
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
        schema: keys::ROBERTA_SCHEMA,
        pooler: None,
        positions_after_padding: true,
        ..Self::BERT
    };
    pub const ELECTRA: Self = Self {
        base_prefix: "electra",
        class: "Electra",
        form: "electra",
        schema: keys::ELECTRA_SCHEMA,
        pooler: None,
        ..Self::BERT
    };
    pub const DISTILBERT: Self = Self {
        base_prefix: "distilbert",
        class: "DistilBert",
        form: "distilbert",
        schema: keys::DISTILBERT_SCHEMA,
        aliases: &["hidden_size", "num_hidden_layers", "num_attention_heads"],
        keys: &[
            ("hidden_size", "dim"),
            ("num_hidden_layers", "n_layers"),
            ("num_attention_heads", "n_heads"),
            ("intermediate_size", "hidden_dim"),
            ("hidden_dropout_prob", "dropout"),
            ("attention_probs_dropout_prob", "attention_dropout"),
            ("hidden_act", "activation"),
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
        schema: keys::ALBERT_SCHEMA,
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
