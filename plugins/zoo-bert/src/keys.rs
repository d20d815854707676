//! The keys of config.json, as data: those that are honoured, those that are honoured only as they stand here, and
//! those that change nothing. The encoder warns of all others by name. A test compares the lists with the
//! configuration classes of transformers (`tests/parity/config.json`).

use std::ffi::CStr;

/// The text as the boundary wants it.
const fn text(with_nul: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_nul.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a schema ends with its only zero"),
    }
}

/// Keys that BERT, RoBERTa, ELECTRA and ALBERT share, with the defaults of transformers, and `$more` keys.
macro_rules! schema {
    ($vocab:literal, $hidden:literal, $layers:literal, $heads:literal, $inner:literal, $act:literal, $dropout:literal, $more:literal) => {
        text(concat!(
            r#"{"type":"object","properties":{"#,
            r#""vocab_size":{"type":"integer","minimum":1,"default":"#, $vocab,
            r#"},"hidden_size":{"type":"integer","minimum":1,"default":"#, $hidden,
            r#"},"num_hidden_layers":{"type":"integer","minimum":0,"default":"#, $layers,
            r#"},"num_attention_heads":{"type":"integer","minimum":1,"default":"#, $heads,
            r#"},"intermediate_size":{"type":"integer","minimum":1,"default":"#, $inner,
            r#"},"hidden_act":{"type":"string","default":""#, $act,
            r#""},"hidden_dropout_prob":{"type":"number","minimum":0,"default":"#, $dropout,
            r#"},"attention_probs_dropout_prob":{"type":"number","minimum":0,"default":"#, $dropout,
            r#"},"max_position_embeddings":{"type":"integer","minimum":1,"default":512},"type_vocab_size":{"type":"integer","minimum":0,"default":2},"#,
            r#""initializer_range":{"type":"number","minimum":0,"default":0.02},"layer_norm_eps":{"type":"number","minimum":0,"default":1e-12},"#,
            $more,
            "}}\0"
        ))
    };
}

/// Schema of BERT's config.json.
pub const BERT_SCHEMA: &CStr = schema!(
    30522,
    768,
    12,
    12,
    3072,
    "gelu",
    0.1,
    r#""classifier_dropout":{"default":null,"description":"null: hidden_dropout_prob"}"#
);

/// Schema of RoBERTa's config.json.
pub const ROBERTA_SCHEMA: &CStr = schema!(
    50265,
    768,
    12,
    12,
    3072,
    "gelu",
    0.1,
    r#""classifier_dropout":{"default":null,"description":"null: hidden_dropout_prob"},"pad_token_id":{"type":"integer","minimum":0,"default":1,"description":"positions start behind it"}"#
);

/// Schema of ELECTRA's config.json.
pub const ELECTRA_SCHEMA: &CStr = schema!(
    30522,
    256,
    12,
    4,
    1024,
    "gelu",
    0.1,
    r#""classifier_dropout":{"default":null,"description":"null: hidden_dropout_prob"},"embedding_size":{"type":"integer","minimum":1,"default":128}"#
);

/// Schema of ALBERT's config.json.
pub const ALBERT_SCHEMA: &CStr = schema!(
    30000,
    4096,
    12,
    64,
    16384,
    "gelu_new",
    0.0,
    r#""embedding_size":{"type":"integer","minimum":1,"default":128},"num_hidden_groups":{"type":"integer","default":1,"description":"groups of layers with parameters of their own, at most num_hidden_layers"},"inner_group_num":{"type":"integer","minimum":1,"default":1,"description":"layers in a group, which all run for each of num_hidden_layers"},"classifier_dropout_prob":{"type":"number","minimum":0,"default":0.1}"#
);

/// Schema of DistilBERT's config.json.
pub const DISTILBERT_SCHEMA: &CStr = cr#"{"type":"object","properties":{
"vocab_size":{"type":"integer","minimum":1,"default":30522},"dim":{"type":"integer","minimum":1,"default":768},
"n_layers":{"type":"integer","minimum":0,"default":6},"n_heads":{"type":"integer","minimum":1,"default":12},
"hidden_dim":{"type":"integer","minimum":1,"default":3072},"activation":{"type":"string","default":"gelu"},
"dropout":{"type":"number","minimum":0,"default":0.1},"attention_dropout":{"type":"number","minimum":0,"default":0.1},
"seq_classif_dropout":{"type":"number","minimum":0,"default":0.2},
"max_position_embeddings":{"type":"integer","minimum":1,"default":512},
"initializer_range":{"type":"number","minimum":0,"default":0.02},
"sinusoidal_pos_embds":{"type":"boolean","default":false,"description":"positions start as sines, and are trained like others"}}}"#;

/// Keys that would change what is computed, each with the values besides null, as JSON, with which nothing changes.
pub const FIXED: &[(&str, &[&str])] = &[
    ("is_decoder", &["false"]),
    ("is_encoder_decoder", &["false"]),
    ("add_cross_attention", &["false"]),
    ("position_embedding_type", &["\"absolute\""]),
    ("pruned_heads", &["{}", "[]"]),
    ("quantization_config", &[]),
    ("pre_norm", &["false"]),
    ("rms_norm", &["false"]),
    ("rotary_value", &["false"]),
    ("rope_theta", &[]),
    ("rope_scaling", &[]),
    ("rope_parameters", &[]),
    ("alibi", &["false"]),
    ("sinusoidal_pos_embds", &["false"]),
    ("attention_type", &["\"original_full\""]),
    ("attention_gate", &["false"]),
    ("num_experts", &["0"]),
    // The authors' ALBERT had these; no released model uses them.
    ("down_scale_factor", &["1"]),
    ("gap_size", &["0"]),
    ("net_structure_type", &["0"]),
    ("num_memory_blocks", &["0"]),
];

/// Keys that change nothing here: they concern other tasks, how transformers trains, generates and keeps books.
pub const IDLE: &[&str] = &[
    // Books.
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "dtype",
    "finetuning_task",
    "is_composition",
    "language",
    "model_type",
    "name",
    "sentence_transformers",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_bfloat16",
    // What transformers returns, and how it computes the same.
    "chunk_size_feed_forward",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "return_dict",
    "torchscript",
    "use_cache",
    // Labels and losses: the app has its own.
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "tf_legacy_loss",
    // Training.
    "gradient_checkpointing",
    "layerdrop",
    // Other heads than those here.
    "cross_attention_hidden_size",
    "qa_dropout",
    "summary_activation",
    "summary_first_dropout",
    "summary_last_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "tie_encoder_decoder",
    "tie_weights_",
    "tie_word_embeddings",
    // Those of BERT's authors, which their code does not read either.
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    // Tokens; the tokenizer knows them. RoBERTa, whose positions depend on the padding, honours its own.
    "bos_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "mask_token_id",
    "pad_token_id",
    "sep_token_id",
    "unk_token_id",
    // Generation of text.
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];
