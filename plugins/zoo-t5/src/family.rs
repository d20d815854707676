//! What tells T5 and mT5 apart, and the keys of config.json as data.

use std::ffi::CStr;

/// Names and habits of a family.
#[derive(Clone, Copy)]
pub struct Family {
    /// What the names of its classes begin with.
    pub class: &'static str,
    /// The keys that are honoured, with their defaults.
    pub schema: &'static CStr,
    /// Whether the head is a weight of its own whatever the configuration says: transformers 5 writes
    /// `tie_word_embeddings: true` for mT5, though no published mT5 ties them.
    pub own_head: bool,
}

/// The text as the boundary wants it.
const fn text(with_nul: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_nul.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a schema ends with its only zero"),
    }
}

macro_rules! schema {
    ($vocab:literal, $inner:literal, $layers:literal, $heads:literal, $projection:literal) => {
        text(concat!(
            r#"{"type":"object","properties":{"#,
            r#""vocab_size":{"type":"integer","minimum":1,"default":"#, $vocab,
            r#"},"d_model":{"type":"integer","minimum":1,"default":512},"#,
            r#""d_kv":{"type":"integer","minimum":1,"default":64,"description":"width of a head"},"#,
            r#""d_ff":{"type":"integer","minimum":1,"default":"#, $inner,
            r#"},"num_layers":{"type":"integer","minimum":0,"default":"#, $layers,
            r#"},"num_decoder_layers":{"type":["integer","null"],"minimum":0,"default":null,"description":"null: num_layers"},"#,
            r#""num_heads":{"type":"integer","minimum":1,"default":"#, $heads,
            r#"},"relative_attention_num_buckets":{"type":"integer","minimum":4,"default":32},"#,
            r#""relative_attention_max_distance":{"type":"integer","minimum":1,"default":128},"#,
            r#""dropout_rate":{"type":"number","minimum":0,"default":0.1},"#,
            r#""layer_norm_epsilon":{"type":"number","minimum":0,"default":1e-6},"#,
            r#""initializer_factor":{"type":"number","minimum":0,"default":1.0},"#,
            r#""feed_forward_proj":{"type":"string","default":""#, $projection,
            r#"","description":"an activation, or gated- and an activation"},"#,
            r#""tie_word_embeddings":{"type":["boolean","null"],"default":null,"description":"whether the head is the word embedding; null: true"},"#,
            r#""scale_decoder_outputs":{"type":["boolean","null"],"default":null,"description":"null: as tie_word_embeddings"},"#,
            r#""is_encoder_decoder":{"type":"boolean","default":true,"description":"false: the encoder alone"},"#,
            r#""pad_token_id":{"type":["integer","null"],"default":0},"#,
            r#""decoder_start_token_id":{"type":["integer","null"],"default":null,"description":"null: pad_token_id"},"#,
            r#""eos_token_id":{"default":1,"description":"a token, a list of them or null"}}}"#,
            "\0"
        ))
    };
}

impl Family {
    pub const T5: Self =
        Self { class: "T5", schema: schema!(32128, 2048, 6, 8, "relu"), own_head: false };
    pub const MT5: Self =
        Self { class: "MT5", schema: schema!(250_112, 1024, 8, 6, "gated-gelu"), own_head: true };
}

/// Keys that would change what is computed, with the values for which nothing changes.
pub const FIXED: [(&str, &[&str]); 5] = [
    ("is_decoder", &["false"]),
    ("add_cross_attention", &["false"]),
    ("cross_attention_hidden_size", &["null"]),
    ("pruned_heads", &["{}"]),
    ("quantization_config", &["null"]),
];

/// Keys that change nothing here: what follows from others, labels of a head, how other programs work, and defaults of
/// generation, which are options of an app.
pub const IDLE: [&str; 52] = [
    "_name_or_path",
    "architectures",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "dense_act_fn",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "is_gated_act",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "n_positions",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
];
