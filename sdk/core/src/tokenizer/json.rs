//! `tokenizer.json`.
//!
//! The tokenizer crate reads the vocabulary through several intermediate forms, which takes longer than everything else that a
//! program does before its first answer. Here the vocabulary is read straight into its final form, for the three usual models;
//! whatever is unusual goes the crate's own way.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

use super::{Loaded, failed};
use crate::error::{Result, fail};

/// A part of a tokenizer from its JSON form.
pub fn part<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| failed("a part of the tokenizer", error))
}

/// An object of token ids.
pub fn vocab_from(json: &[u8]) -> serde_json::Result<Vocab> {
    match serde_json::from_slice(json)? {
        Tokens::Ids(vocab) => Ok(vocab),
        Tokens::Scores(_) => Err(serde::de::Error::custom("found a list")),
    }
}

/// Reads `tokenizer.json`; padding and truncation are left out.
pub fn load(json: &[u8], config: Option<Value>) -> Result<Loaded> {
    if let Some((pipeline, special)) = quick(json) {
        return finish(pipeline, special, config);
    }
    let mut pipeline = match Tokenizer::from_bytes(json) {
        Ok(pipeline) => pipeline,
        Err(error) => fail!(ET_ERR_BAD_INPUT, "the file is no tokenizer: {error}"),
    };
    pipeline.with_padding(None);
    pipeline
        .with_truncation(None)
        .map_err(|error| failed("cannot switch truncation off", error))?;
    let special = pipeline.get_post_processor().cloned();
    pipeline.with_post_processor(None::<PostProcessorWrapper>);
    finish(pipeline, special, config)
}

fn finish(
    pipeline: Tokenizer,
    special: Option<PostProcessorWrapper>,
    config: Option<Value>,
) -> Result<Loaded> {
    // The search for the best pieces would never end.
    if matches!(pipeline.get_model(), ModelWrapper::Unigram(_))
        && pipeline.token_to_id("").is_some()
    {
        fail!(ET_ERR_BAD_INPUT, "the vocabulary has an empty piece");
    }
    Ok(Loaded { pipeline, special, config })
}

/// The file, with the vocabulary in its final form.
#[derive(Deserialize)]
struct File {
    version: String,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Model,
}

/// The model: its large parts, and the rest as it stands.
struct Model {
    vocab: Tokens,
    merges: Option<Merges>,
    rest: Map<String, Value>,
}

enum Tokens {
    Ids(Vocab),
    Scores(Vec<(String, f64)>),
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Tokens;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token ids or a list of tokens with scores")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Tokens, A::Error> {
                // Room for the usual vocabularies: growing step by step costs more than the pages.
                let mut ids = Vocab::with_capacity(1 << 15);
                while let Some((token, id)) = map.next_entry()? {
                    ids.insert(token, id);
                }
                Ok(Tokens::Ids(ids))
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<Tokens, A::Error> {
                let mut scores = Vec::new();
                while let Some(entry) = list.next_element()? {
                    scores.push(entry);
                }
                Ok(Tokens::Scores(scores))
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

/// One merge: "a b" or ["a", "b"].
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two parts with a space between, or a list of two parts")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Merge, E> {
                match text.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => {
                        Ok(Merge(left.into(), right.into()))
                    }
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<Merge, A::Error> {
                let missing = |at| serde::de::Error::invalid_length(at, &"two parts");
                let left = list.next_element()?.ok_or_else(|| missing(0))?;
                let right = list.next_element()?.ok_or_else(|| missing(1))?;
                match list.next_element::<IgnoredAny>()? {
                    None => Ok(Merge(left, right)),
                    Some(_) => Err(missing(3)),
                }
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Model;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Model, A::Error> {
                let (mut vocab, mut merges, mut rest) = (None, None, Map::new());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "vocab" => vocab = Some(map.next_value()?),
                        "merges" => {
                            let list: Vec<Merge> = map.next_value()?;
                            merges = Some(list.into_iter().map(|Merge(a, b)| (a, b)).collect());
                        }
                        _ => drop(rest.insert(key, map.next_value()?)),
                    }
                }
                let vocab = vocab.ok_or_else(|| serde::de::Error::missing_field("vocab"))?;
                Ok(Model { vocab, merges, rest })
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The usual files, quickly; `None` for everything else, also for files that are wrong.
fn quick(json: &[u8]) -> Option<(Tokenizer, Option<PostProcessorWrapper>)> {
    fn of<T: DeserializeOwned>(value: Option<Value>) -> Option<Option<T>> {
        value
            .map(|value| serde_json::from_value(value).ok())
            .map_or(Some(None), |part| part.map(Some))
    }
    let file: File = serde_json::from_slice(json).ok()?;
    if file.version != "1.0" {
        return None;
    }
    let mut pipeline = Tokenizer::new(model(file.model)?);
    pipeline.with_normalizer(of::<NormalizerWrapper>(file.normalizer)?).ok()?;
    pipeline.with_pre_tokenizer(of::<PreTokenizerWrapper>(file.pre_tokenizer)?);
    pipeline.with_decoder(of::<DecoderWrapper>(file.decoder)?);
    pipeline.add_tokens(file.added_tokens).ok()?;
    Some((pipeline, of(file.post_processor)?))
}

/// Takes the string, number or boolean of a key; `None` in the outer option when it has another type.
fn take<T: DeserializeOwned>(rest: &mut Map<String, Value>, key: &str) -> Option<Option<T>> {
    match rest.remove(key) {
        None => Some(None),
        Some(value) => serde_json::from_value::<Option<T>>(value).ok(),
    }
}

fn model(model: Model) -> Option<ModelWrapper> {
    let Model { vocab, merges, mut rest } = model;
    // Files from before the type was written are told by what they hold.
    let kind = match (take::<String>(&mut rest, "type")?, &vocab, &merges) {
        (Some(kind), ..) => kind,
        (None, Tokens::Scores(_), None) => "Unigram".into(),
        (None, Tokens::Ids(_), Some(_)) => "BPE".into(),
        (None, Tokens::Ids(_), None) => "WordPiece".into(),
        (None, Tokens::Scores(_), Some(_)) => return None,
    };
    let built = match (kind.as_str(), vocab, merges) {
        ("WordPiece", Tokens::Ids(vocab), None) => {
            let builder = WordPiece::builder()
                .vocab(vocab)
                .unk_token(take(&mut rest, "unk_token")??)
                .continuing_subword_prefix(take(&mut rest, "continuing_subword_prefix")??)
                .max_input_chars_per_word(take(&mut rest, "max_input_chars_per_word")??);
            builder.build().ok()?.into()
        }
        ("Unigram", Tokens::Scores(scores), None) => {
            let unknown = take::<usize>(&mut rest, "unk_id")?;
            let bytes = take(&mut rest, "byte_fallback")?.unwrap_or(false);
            Unigram::from(scores, unknown, bytes).ok()?.into()
        }
        ("BPE", Tokens::Ids(vocab), Some(merges)) => {
            let mut builder = BPE::builder().vocab_and_merges(vocab, merges);
            if let Some(dropout) = take(&mut rest, "dropout")? {
                builder = builder.dropout(dropout);
            }
            if let Some(unknown) = take(&mut rest, "unk_token")? {
                builder = builder.unk_token(unknown);
            }
            if let Some(prefix) = take(&mut rest, "continuing_subword_prefix")? {
                builder = builder.continuing_subword_prefix(prefix);
            }
            if let Some(suffix) = take(&mut rest, "end_of_word_suffix")? {
                builder = builder.end_of_word_suffix(suffix);
            }
            builder = builder
                .fuse_unk(take(&mut rest, "fuse_unk")?.unwrap_or(false))
                .byte_fallback(take(&mut rest, "byte_fallback")?.unwrap_or(false))
                .ignore_merges(take(&mut rest, "ignore_merges")?.unwrap_or(false));
            builder.build().ok()?.into()
        }
        _ => return None,
    };
    // A setting that this does not know may change the result.
    rest.is_empty().then_some(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(model: &str) -> String {
        format!(
            r#"{{"version": "1.0", "truncation": {{"max_length": 2, "strategy": "LongestFirst", "stride": 0}},
                "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": {{"type": "Whitespace"}},
                "post_processor": null, "decoder": null, "model": {model}}}"#
        )
    }

    const MODELS: [&str; 5] = [
        r#"{"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "@",
            "max_input_chars_per_word": 9, "vocab": {"u": 0, "a": 1, "@b": 2}}"#,
        r#"{"type": "BPE", "dropout": null, "unk_token": "u", "fuse_unk": true, "vocab": {"u": 0, "a": 1, "b": 2, "ab": 3},
            "merges": ["a b"]}"#,
        r#"{"dropout": null, "unk_token": "u", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "vocab": {"u": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]}"#,
        r#"{"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], ["a", -1.0], ["ab", -1.5], ["b", -1.0]]}"#,
        r#"{"unk_id": 0, "vocab": [["u", 0.0], ["a", -1.0], ["ab", -1.5], ["b", -1.0]]}"#,
    ];

    #[test]
    fn the_quick_way_gives_what_the_crate_gives() {
        for model in MODELS {
            let json = file(model);
            let (quick, _) = quick(json.as_bytes()).expect("a usual file");
            let mut slow = Tokenizer::from_bytes(&json).unwrap();
            slow.with_truncation(None).unwrap();
            assert_eq!(quick.get_vocab(true), slow.get_vocab(true), "{model}");
            let ids = |tokenizer: &Tokenizer| {
                tokenizer.encode("ab ba abab zz a", false).unwrap().get_ids().to_vec()
            };
            assert_eq!(ids(&quick), ids(&slow), "{model}");
        }
    }

    #[test]
    fn unusual_files_go_the_crates_way() {
        let word_level = r#"{"type": "WordLevel", "unk_token": "u", "vocab": {"u": 0, "a": 1}}"#;
        let unknown_key = MODELS[3].replace("unk_id\": 0", "unk_id\": 0, \"new\": 1");
        for model in [word_level, &unknown_key] {
            assert!(quick(file(model).as_bytes()).is_none(), "{model}");
        }
        let loaded = load(file(word_level).as_bytes(), None).unwrap();
        assert_eq!(loaded.pipeline.encode("a a a b", false).unwrap().get_ids(), [1, 1, 1, 0]);
    }
}
