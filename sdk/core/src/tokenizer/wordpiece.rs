//! BERT's `vocab.txt`.

use serde_json::{Value, json};
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use super::load::{configured_bool, configured_token};
use super::{Loaded, failed, json::part};
use crate::error::{Result, fail};

/// Words with more characters become the unknown token.
const MAX_WORD: usize = 100;

/// A tokenizer of a vocabulary, one token per line. How text is normalised is read from the configuration; without one, the
/// vocabulary tells whether it was made from lower-case text.
pub fn load(vocab: &str, config: Option<Value>) -> Result<Loaded> {
    let lines = vocab.strip_suffix('\n').unwrap_or(vocab).split('\n');
    let tokens: Vec<&str> = lines.map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let ids: Vocab = tokens.iter().zip(0u32..).map(|(token, id)| (token.to_string(), id)).collect();

    let given = config.as_ref();
    let named =
        |key: &str, default: &str| configured_token(given, key).unwrap_or_else(|| default.into());
    let unknown = named("unk_token", "[UNK]");
    if !ids.contains_key(&unknown) {
        fail!(
            ET_ERR_BAD_INPUT,
            "the vocabulary of {} lines has no token {unknown:?}",
            tokens.len()
        );
    }
    let lower =
        configured_bool(given, "do_lower_case").unwrap_or_else(|| looks_lower_case(&tokens));
    let chinese = configured_bool(given, "tokenize_chinese_chars").unwrap_or(true);
    let accents = configured_bool(given, "strip_accents");

    let names = [
        named("pad_token", "[PAD]"),
        unknown.clone(),
        named("cls_token", "[CLS]"),
        named("sep_token", "[SEP]"),
        named("mask_token", "[MASK]"),
    ];
    let special: Vec<AddedToken> = names
        .iter()
        .filter(|name| ids.contains_key(*name))
        .map(|name| AddedToken::from(name.as_str(), true))
        .collect();
    let ends = ids.get(&names[2]).copied().zip(ids.get(&names[3]).copied());

    let model = WordPiece::builder()
        .vocab(ids)
        .unk_token(unknown)
        .continuing_subword_prefix("##".into())
        .max_input_chars_per_word(MAX_WORD)
        .build()
        .map_err(|error| failed("the vocabulary is malformed", error))?;
    let mut pipeline = Tokenizer::new(model);
    pipeline
        .with_normalizer(Some(BertNormalizer::new(true, chinese, accents, lower)))
        .map_err(|error| failed("cannot set the normalizer", error))?;
    pipeline.with_pre_tokenizer(Some(BertPreTokenizer));
    pipeline.with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
    pipeline.add_special_tokens(special).map_err(|error| failed("cannot add tokens", error))?;
    let special = match ends {
        Some((cls_id, sep_id)) => {
            let (cls, sep) = (&names[2], &names[3]);
            Some(part(json!({
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": cls, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": sep, "type_id": 0}}
                ],
                "pair": [
                    {"SpecialToken": {"id": cls, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": sep, "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                    {"SpecialToken": {"id": sep, "type_id": 1}}
                ],
                "special_tokens": {
                    cls: {"id": cls, "ids": [cls_id], "tokens": [cls]},
                    sep: {"id": sep, "ids": [sep_id], "tokens": [sep]}
                }
            }))?)
        }
        None => None,
    };
    let config = config.unwrap_or_else(|| {
        json!({
            "tokenizer_class": "BertTokenizer", "do_lower_case": lower,
            "tokenize_chinese_chars": chinese, "strip_accents": accents,
            "pad_token": names[0], "unk_token": names[1], "cls_token": names[2],
            "sep_token": names[3], "mask_token": names[4]
        })
    });
    Ok(Loaded { pipeline, special, config: Some(config) })
}

/// True unless words with capital letters are in the vocabulary. Single letters do not count: some vocabularies of lower-case
/// text hold them, and tokens in brackets (`[CLS]`, `<T>`) are special.
fn looks_lower_case(tokens: &[&str]) -> bool {
    !tokens.iter().any(|token| {
        let word = token.strip_prefix("##").unwrap_or(token);
        !word.starts_with(['[', '<'])
            && word.chars().count() > 1
            && word.chars().any(char::is_uppercase)
    })
}
