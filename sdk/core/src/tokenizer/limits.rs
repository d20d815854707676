//! What a tokenizer file may hold: the parts of `tokenizer.json` with their keys, and limits that no honest file
//! reaches, so that no file makes a text take time or memory without bound.

use serde_json::Value;
use tokenizers::models::bpe::Vocab;

use super::pattern;
use super::settings::LONGEST_ADDED;
use super::stream::STRETCH;
use crate::error::{Result, fail};

/// Bytes of one file.
pub const FILE_SIZE: u64 = 256 << 20;
/// Ids of tokens; the largest vocabularies have a million.
const MOST_IDS: u32 = 1 << 22;
/// Bytes of a piece of a Unigram model; trainers make pieces of 16 characters. The search takes time by the longest.
const LONGEST_PIECE: usize = 1024;
/// Characters of a word that WordPiece takes apart: it takes time by their square. BERT has 100.
const LONGEST_WORD: u64 = 400;
/// Bytes of what marks the inside of a word.
const LONGEST_MARK: usize = 64;
/// Bytes that a rule of normalisation writes.
const LONGEST_RULE: usize = 1024;
/// How much longer the replacements of a file may make a text.
const MOST_GROWTH: usize = 64;
/// Parts of a template, and ids of one of its tokens.
const LONGEST_TEMPLATE: usize = 64;

/// The top level of `tokenizer.json`: keys that are honoured, and those that are left to who encodes a text.
pub const FILE: (&[&str], &[&str]) = (
    &[
        "version",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "model",
        "truncation",
    ],
    // How a batch is padded.
    &["padding"],
);

/// The parts of `tokenizer.json` that the crate reads, each with the keys that it honours beside "type".
pub const PARTS: [(&str, &str, &[&str]); 50] = [
    (
        "normalizer",
        "BertNormalizer",
        &["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"],
    ),
    ("normalizer", "ByteLevel", &[]),
    ("normalizer", "Lowercase", &[]),
    ("normalizer", "NFC", &[]),
    ("normalizer", "NFD", &[]),
    ("normalizer", "NFKC", &[]),
    ("normalizer", "NFKD", &[]),
    ("normalizer", "Nmt", &[]),
    ("normalizer", "Precompiled", &["precompiled_charsmap"]),
    ("normalizer", "Prepend", &["prepend"]),
    ("normalizer", "Replace", &["pattern", "content"]),
    ("normalizer", "Sequence", &["normalizers"]),
    ("normalizer", "Strip", &["strip_left", "strip_right"]),
    ("normalizer", "StripAccents", &[]),
    ("pre_tokenizer", "BertPreTokenizer", &[]),
    ("pre_tokenizer", "ByteLevel", &["add_prefix_space", "trim_offsets", "use_regex"]),
    ("pre_tokenizer", "CharDelimiterSplit", &["delimiter"]),
    ("pre_tokenizer", "Digits", &["individual_digits"]),
    ("pre_tokenizer", "FixedLength", &["length"]),
    (
        "pre_tokenizer",
        "Metaspace",
        &["replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"],
    ),
    ("pre_tokenizer", "Punctuation", &["behavior"]),
    ("pre_tokenizer", "Sequence", &["pretokenizers"]),
    ("pre_tokenizer", "Split", &["pattern", "behavior", "invert"]),
    ("pre_tokenizer", "UnicodeScripts", &[]),
    ("pre_tokenizer", "Whitespace", &[]),
    ("pre_tokenizer", "WhitespaceSplit", &[]),
    ("post_processor", "BertProcessing", &["sep", "cls"]),
    ("post_processor", "ByteLevel", &["add_prefix_space", "trim_offsets", "use_regex"]),
    ("post_processor", "RobertaProcessing", &["sep", "cls", "trim_offsets", "add_prefix_space"]),
    ("post_processor", "Sequence", &["processors"]),
    ("post_processor", "TemplateProcessing", &["single", "pair", "special_tokens"]),
    ("decoder", "BPEDecoder", &["suffix"]),
    ("decoder", "ByteFallback", &[]),
    ("decoder", "ByteLevel", &["add_prefix_space", "trim_offsets", "use_regex"]),
    ("decoder", "CTC", &["pad_token", "word_delimiter_token", "cleanup"]),
    ("decoder", "Fuse", &[]),
    (
        "decoder",
        "Metaspace",
        &["replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"],
    ),
    ("decoder", "Replace", &["pattern", "content"]),
    ("decoder", "Sequence", &["decoders"]),
    ("decoder", "Strip", &["content", "start", "stop"]),
    ("decoder", "WordPiece", &["prefix", "cleanup"]),
    (
        "model",
        "BPE",
        &[
            "dropout",
            "unk_token",
            "continuing_subword_prefix",
            "end_of_word_suffix",
            "fuse_unk",
            "byte_fallback",
            "ignore_merges",
        ],
    ),
    ("model", "Unigram", &["unk_id", "byte_fallback"]),
    ("model", "WordLevel", &["unk_token"]),
    ("model", "WordPiece", &["unk_token", "continuing_subword_prefix", "max_input_chars_per_word"]),
    // Parts of a template, and what a part may hold without a type.
    ("template", "SpecialToken", &["id", "type_id"]),
    ("template", "Sequence", &["id", "type_id"]),
    ("template", "special_tokens", &["id", "ids", "tokens"]),
    ("pattern", "String", &[]),
    ("pattern", "Regex", &[]),
];

/// What the checks found out about the parts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Bytes of a text that may be tokenised at once.
    pub stretch: usize,
}

impl Default for Found {
    fn default() -> Self {
        Self { stretch: STRETCH }
    }
}

/// Refuses ids that no vocabulary has.
pub fn vocabulary(ids: &Vocab) -> Result<()> {
    if let Some((token, id)) = ids.iter().find(|(_, id)| **id >= MOST_IDS) {
        fail!(
            ET_ERR_BAD_INPUT,
            "vocab: the token {token:?} has the id {id}, the limit is {MOST_IDS}"
        );
    }
    Ok(())
}

/// Refuses pieces with which the search for the best ones would not end, or not soon.
pub fn scores(scores: &[(String, f64)]) -> Result<()> {
    for (id, (piece, score)) in scores.iter().enumerate() {
        if piece.is_empty() {
            fail!(ET_ERR_BAD_INPUT, "vocab: the vocabulary has an empty piece, {id}");
        }
        if piece.len() > LONGEST_PIECE {
            fail!(
                ET_ERR_BAD_INPUT,
                "vocab: piece {id} has {} bytes, more than {LONGEST_PIECE}",
                piece.len()
            );
        }
        if !score.is_finite() {
            fail!(ET_ERR_BAD_INPUT, "vocab: piece {id} {piece:?} has the score {score}");
        }
    }
    Ok(())
}

/// Checks the settings of a model.
pub fn model(settings: &serde_json::Map<String, Value>) -> Result<()> {
    for key in ["continuing_subword_prefix", "end_of_word_suffix", "unk_token"] {
        let limit = if key == "unk_token" { LONGEST_ADDED } else { LONGEST_MARK };
        if let Some(text) = settings.get(key).and_then(Value::as_str)
            && text.len() > limit
        {
            fail!(ET_ERR_BAD_INPUT, "model: {key} has {} bytes, more than {limit}", text.len());
        }
    }
    if let Some(most) = settings.get("max_input_chars_per_word").and_then(Value::as_u64)
        && most > LONGEST_WORD
    {
        fail!(
            ET_ERR_BAD_INPUT,
            "model: max_input_chars_per_word is {most}, the limit is {LONGEST_WORD} (100 is usual)"
        );
    }
    if settings.get("dropout").and_then(Value::as_f64).is_some_and(|dropout| dropout != 0.0) {
        fail!(ET_ERR_BAD_INPUT, "model: dropout makes the tokens of a text random: set it to null");
    }
    warn_of_keys("model", settings);
    Ok(())
}

/// Warns of keys that the crate would pass over.
fn warn_of_keys(section: &str, part: &serde_json::Map<String, Value>) {
    for key in unknown_keys(section, part) {
        crate::log::warn(&format!(
            "tokenizer.json: {section}: the key {key:?} is not known and ignored"
        ));
    }
}

/// The keys of a part that are not in the list.
pub fn unknown_keys<'a>(section: &str, part: &'a serde_json::Map<String, Value>) -> Vec<&'a str> {
    let kind = part.get("type").and_then(Value::as_str);
    let allowed: Vec<&str> = PARTS
        .iter()
        .filter(|(of, name, _)| *of == section && kind.is_none_or(|kind| kind == *name))
        .flat_map(|(.., keys)| keys.iter().copied())
        .collect();
    let known = |key: &&str| *key == "type" || allowed.contains(key);
    part.keys().map(String::as_str).filter(|key| !known(key)).collect()
}

/// Checks a part of a file and everything inside it.
pub fn part(section: &str, value: Option<&Value>, found: &mut Found) -> Result<()> {
    let mut growth = 1usize;
    if let Some(value) = value {
        walk(section, value, &mut growth, found)?;
    }
    if growth > MOST_GROWTH {
        fail!(
            ET_ERR_BAD_INPUT,
            "{section}: its replacements make a text up to {growth} times as long, the limit is {MOST_GROWTH}"
        );
    }
    if section == "normalizer" {
        found.stretch = found.stretch.min(STRETCH / growth);
    }
    Ok(())
}

fn walk(section: &str, value: &Value, growth: &mut usize, found: &mut Found) -> Result<()> {
    let Value::Object(part) = value else { return Ok(()) };
    warn_of_keys(section, part);
    for list in ["normalizers", "pretokenizers", "processors", "decoders"] {
        for inner in part.get(list).and_then(Value::as_array).into_iter().flatten() {
            walk(section, inner, growth, found)?;
        }
    }
    let text = |key: &str| part.get(key).and_then(Value::as_str);
    // It has an expression of its own, that of GPT-2.
    if text("type") == Some("ByteLevel") && part.get("use_regex") != Some(&Value::Bool(false)) {
        found.stretch = found.stretch.min(pattern::MOST_BACK);
    }
    let grow = |by: usize, growth: &mut usize| *growth = growth.saturating_mul(by.max(1));
    if let Some(Value::Object(pattern)) = part.get("pattern") {
        if pattern.get("String").and_then(Value::as_str) == Some("") {
            fail!(ET_ERR_BAD_INPUT, "{section}: pattern: an empty text is found everywhere");
        }
        if let Some(regex) = pattern.get("Regex").and_then(Value::as_str) {
            if let Some(reason) = pattern::reason_against(regex) {
                fail!(ET_ERR_BAD_INPUT, "{section}: pattern: {regex:?} {reason}");
            }
            found.stretch = found.stretch.min(pattern::stretch(regex));
        }
        if let Some(content) = text("content") {
            let taken = pattern.get("String").and_then(Value::as_str).map_or(1, str::len);
            grow(content.len().div_ceil(taken), growth);
        }
    }
    if let Some(prepend) = text("prepend")
        && prepend.len() > LONGEST_MARK
    {
        fail!(
            ET_ERR_BAD_INPUT,
            "{section}: prepend has {} bytes, more than {LONGEST_MARK}",
            prepend.len()
        );
    }
    if let Some(rules) = text("precompiled_charsmap") {
        let longest = longest_rule(rules);
        if longest > LONGEST_RULE {
            fail!(
                ET_ERR_BAD_INPUT,
                "{section}: precompiled_charsmap: a rule writes {longest} bytes, more than {LONGEST_RULE}"
            );
        }
        // Unicode's longest compatibility form counts as no growth.
        grow(longest.div_ceil(36), growth);
    }
    template(section, part)
}

/// Bytes of the longest text that the rules of SentencePiece write: a size in four bytes, an array of that size, and
/// texts that end with a zero byte each, in Base64.
fn longest_rule(base64: &str) -> usize {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = base64.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let bytes: Vec<u8> = digits
        .chunks(4)
        .flat_map(|four| {
            let bits = four.iter().enumerate();
            let bits = bits.fold(0u32, |bits, (k, digit)| bits | u32::from(*digit) << (18 - 6 * k));
            let len = four.len().saturating_sub(1);
            bits.to_be_bytes().into_iter().skip(1).take(len)
        })
        .collect();
    let size = bytes.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let texts = bytes.get(size.saturating_add(4)..).unwrap_or(&[]);
    texts.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0)
}

/// Checks a template: each text at most once, and few tokens.
fn template(section: &str, part: &serde_json::Map<String, Value>) -> Result<()> {
    for key in ["single", "pair"] {
        let Some(parts) = part.get(key).and_then(Value::as_array) else { continue };
        if parts.len() > LONGEST_TEMPLATE {
            fail!(
                ET_ERR_BAD_INPUT,
                "{section}: {key} has {} parts, more than {LONGEST_TEMPLATE}",
                parts.len()
            );
        }
        for id in ["A", "B"] {
            let is = |part: &&Value| part["Sequence"]["id"] == id;
            if parts.iter().filter(is).count() > 1 {
                fail!(ET_ERR_BAD_INPUT, "{section}: {key} has the text {id} more than once");
            }
        }
    }
    for (name, token) in part.get("special_tokens").and_then(Value::as_object).into_iter().flatten()
    {
        let len = token.get("ids").and_then(Value::as_array).map_or(0, Vec::len);
        if len > LONGEST_TEMPLATE {
            fail!(
                ET_ERR_BAD_INPUT,
                "{section}: special_tokens: {name:?} has {len} ids, more than {LONGEST_TEMPLATE}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::{
        DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    };

    use super::*;

    /// What the crate writes for a part holds no key that is not in the list.
    #[test]
    fn the_lists_hold_every_key_that_the_crate_writes() {
        let check = |section: &str, value: Value| {
            let part = value.as_object().unwrap();
            assert_eq!(unknown_keys(section, part), Vec::<&str>::new(), "{section}: {value}");
        };
        let normalizers = [
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
            json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b"}),
            json!({"type": "Prepend", "prepend": "a"}),
            json!({"type": "Strip", "strip_left": true, "strip_right": true}),
            json!({"type": "Sequence", "normalizers": []}),
        ];
        for value in normalizers {
            let part: NormalizerWrapper = serde_json::from_value(value).unwrap();
            check("normalizer", serde_json::to_value(part).unwrap());
        }
        let pre_tokenizers = [
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": true}),
            json!({"type": "Split", "pattern": {"String": "a"}, "behavior": "Isolated", "invert": false}),
            json!({"type": "Punctuation", "behavior": "Isolated"}),
            json!({"type": "Digits", "individual_digits": true}),
            json!({"type": "CharDelimiterSplit", "delimiter": "a"}),
            json!({"type": "FixedLength", "length": 3}),
        ];
        for value in pre_tokenizers {
            let part: PreTokenizerWrapper = serde_json::from_value(value).unwrap();
            check("pre_tokenizer", serde_json::to_value(part).unwrap());
        }
        let roberta = json!({"type": "RobertaProcessing", "sep": ["a", 0], "cls": ["b", 1], "trim_offsets": true, "add_prefix_space": true});
        let part: PostProcessorWrapper = serde_json::from_value(roberta).unwrap();
        check("post_processor", serde_json::to_value(part).unwrap());
        let decoders = [
            json!({"type": "WordPiece", "prefix": "a", "cleanup": true}),
            json!({"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": true}),
            json!({"type": "Strip", "content": "a", "start": 1, "stop": 0}),
            json!({"type": "BPEDecoder", "suffix": "a"}),
        ];
        for value in decoders {
            let part: DecoderWrapper = serde_json::from_value(value).unwrap();
            check("decoder", serde_json::to_value(part).unwrap());
        }
    }

    #[test]
    fn a_key_in_no_list_is_named() {
        let part = json!({"type": "Lowercase", "locale": "tr"});
        assert_eq!(unknown_keys("normalizer", part.as_object().unwrap()), ["locale"]);
    }

    #[test]
    fn rules_that_write_much_are_measured() {
        // An empty array, and the texts "ab" and "abc".
        assert_eq!(longest_rule("AAAAAGFiAGFiYwA="), 3);
    }
}
