//! The keys of the files beside a vocabulary: those that are honoured and those that change no token. Any other key is
//! warned about by name. The parts of `tokenizer.json` are listed in `limits`, the fields of a SentencePiece model in
//! `sentencepiece/model.rs`.

use serde_json::{Map, Value};

/// Keys of `special_tokens_map.json` that are honoured, beside every key that ends in "_token"; there are no others.
pub const SPECIAL_TOKENS_MAP: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// Keys of an added token in any of the files; others are refused.
pub const ADDED_TOKEN: [&str; 8] =
    ["content", "single_word", "lstrip", "rstrip", "normalized", "special", "__type", "id"];

/// Keys of `tokenizer_config.json` that are honoured, beside every key that ends in "_token".
pub const HONOURED: [&str; 18] = [
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "added_tokens_decoder",
    "additional_special_tokens",
    "do_lower_case",
    "extra_ids",
    "extra_special_tokens",
    "keep_accents",
    "model_specific_special_tokens",
    "remove_space",
    "split_by_punct",
    "split_special_tokens",
    "strip_accents",
    "tokenize_chinese_chars",
    "tokenizer_class",
    "trim_offsets",
    "truncation_side",
];

/// Keys of `tokenizer_config.json` that change no token of a text: how `transformers` finds, pads, saves and prints
/// things, and what it does when it is told no length.
pub const WITHOUT_EFFECT: [&str; 47] = [
    "_commit_hash",
    "auto_map",
    "backend",
    "chat_control_tokens",
    "chat_template",
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    "device_map",
    "do_basic_tokenize",
    "errors",
    "fast_tokenizer_files",
    "files_loaded",
    "from_slow",
    "full_tokenizer_file",
    "init_inputs",
    "is_fast",
    "is_local",
    "legacy",
    "local_files_only",
    "max_len",
    "max_length",
    "merges_file",
    "model_input_names",
    "model_max_length",
    "model_type",
    "name_or_path",
    "never_split",
    "pad_to_multiple_of",
    "pad_token_id",
    "pad_token_type_id",
    "padding",
    "padding_side",
    "processor_class",
    "response_schema",
    "response_template",
    "return_tensors",
    "return_token_type_ids",
    "slow_tokenizer_class",
    "sp_model_kwargs",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    "transformers_version",
    "truncation_strategy",
    "use_fast",
    "verbose",
    "vocab_file",
];

/// What a class makes of a vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// WordPiece between "[CLS]" and "[SEP]".
    Bert,
    /// WordPiece between "<s>" and "</s>".
    Mpnet,
    /// Byte-level BPE between "<s>" and "</s>".
    Roberta,
    /// Byte-level BPE alone.
    Gpt2,
    /// ALBERT's Unigram.
    Albert,
    /// XLNet's Unigram.
    Xlnet,
}

/// The classes that build their tokenizer from the vocabulary and the settings, and the types of models (`model_type`
/// of `config.json`) that have them when no class is named.
pub const FAMILIES: [(Family, &[&str], &[&str]); 6] = [
    (
        Family::Bert,
        &[
            "BertTokenizer",
            "DistilBertTokenizer",
            "ElectraTokenizer",
            "MobileBertTokenizer",
            "ConvBertTokenizer",
            "SqueezeBertTokenizer",
            "LayoutLMTokenizer",
            "LxmertTokenizer",
            "DPRQuestionEncoderTokenizer",
            "DPRContextEncoderTokenizer",
            "DPRReaderTokenizer",
        ],
        &[
            "bert",
            "distilbert",
            "electra",
            "mobilebert",
            "convbert",
            "squeezebert",
            "layoutlm",
            "lxmert",
            "dpr",
            "ernie",
            "megatron-bert",
            "nezha",
            "nomic_bert",
            "qdqbert",
            "visual_bert",
        ],
    ),
    (Family::Mpnet, &["MPNetTokenizer"], &["mpnet"]),
    (
        Family::Roberta,
        &["RobertaTokenizer", "BartTokenizer", "LongformerTokenizer"],
        &["roberta", "roberta-prelayernorm", "bart", "longformer", "data2vec-text", "ibert", "mra"],
    ),
    (Family::Gpt2, &["GPT2Tokenizer"], &["gpt2", "gpt_neo", "gptj", "opt"]),
    (Family::Albert, &["AlbertTokenizer"], &["albert"]),
    (Family::Xlnet, &["XLNetTokenizer"], &["xlnet"]),
];

/// Classes that take `tokenizer.json` as it is.
const GENERIC: [&str; 3] = ["PreTrainedTokenizer", "TokenizersBackend", "PythonBackend"];

/// Whether a class takes `tokenizer.json` as it is because it says so.
pub fn is_generic(class: &str) -> bool {
    GENERIC.contains(&class)
}

/// Keys that are in no list.
pub fn unknown_keys(config: &Map<String, Value>) -> Vec<&str> {
    let known = |key: &&str| {
        key.ends_with("_token") || HONOURED.contains(key) || WITHOUT_EFFECT.contains(key)
    };
    config.keys().map(String::as_str).filter(|key| !known(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_one_list_only() {
        let mut all: Vec<&str> = HONOURED.iter().chain(&WITHOUT_EFFECT).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(HONOURED.is_sorted() && WITHOUT_EFFECT.is_sorted());
    }

    #[test]
    fn a_key_in_no_list_is_named() {
        let config = serde_json::json!({"do_lower_case": true, "image_token": "<i>", "backend": "x", "do_sing": 1});
        assert_eq!(unknown_keys(config.as_object().unwrap()), ["do_sing"]);
    }
}
