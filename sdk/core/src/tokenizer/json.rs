//! `tokenizer.json`.
//!
//! The tokenizer crate reads the vocabulary through several intermediate forms, which takes longer than everything
//! else that a program does before its first answer. Here the vocabulary is read straight into its final form, for the
//! three usual models; whatever is unusual goes the crate's own way, after its parts were checked (`limits`).

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

use super::keys::Family;
use super::limits::Found;
use super::settings::{self, Settings};
use super::{Loaded, byte_level, failed, limits, unigram, wordpiece};
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

/// Reads `tokenizer.json`. How a batch is padded is left out, and how a text is cut except for the side.
pub fn load(json: &[u8], mut settings: Settings) -> Result<Loaded> {
    let mut file = match serde_json::from_slice::<File>(json) {
        Ok(file) => file,
        Err(error) => fail!(ET_ERR_BAD_INPUT, "the file is no tokenizer: {error}"),
    };
    for key in &file.unknown {
        crate::log::warn(&format!("tokenizer.json: the key {key:?} is not known and ignored"));
    }
    let mut found = Found::default();
    let parts = [
        ("normalizer", &file.normalizer),
        ("pre_tokenizer", &file.pre_tokenizer),
        ("post_processor", &file.post_processor),
        ("decoder", &file.decoder),
    ];
    for (section, value) in parts {
        limits::part(section, value.as_ref(), &mut found)?;
    }
    limits::model(&file.model.rest)?;
    match &file.model.vocab {
        Tokens::Ids(ids) => limits::vocabulary(ids)?,
        Tokens::Scores(scores) => limits::scores(scores)?,
    }
    let tokens: Vec<_> =
        file.added_tokens.iter().map(settings::file_token).collect::<Result<_>>()?;
    settings.take_file_tokens(tokens.clone())?;
    let side = file.truncation.as_ref().and_then(|truncation| truncation["direction"].as_str());
    if side == Some("Left") && !settings.config.contains_key("truncation_side") {
        settings.config.insert("truncation_side".into(), "left".into());
    }
    let kind = file.model.kind();
    match (settings.family(), kind.as_deref(), file.model.vocab, file.model.merges) {
        (
            Some(family @ (Family::Bert | Family::Mpnet)),
            Some("WordPiece"),
            Tokens::Ids(ids),
            None,
        ) => {
            let loaded = wordpiece::load(ids, family, settings)?;
            loaded.tell_of_replaced(file.normalizer);
            Ok(loaded)
        }
        (
            Some(family @ (Family::Roberta | Family::Gpt2)),
            Some("BPE"),
            Tokens::Ids(ids),
            Some(merges),
        ) => {
            let mut loaded = byte_level::load(ids, merges, family, settings)?;
            if family == Family::Gpt2 && file.post_processor.is_some() {
                loaded.special = file.post_processor.map(part).transpose()?;
            }
            Ok(loaded)
        }
        (
            Some(family @ (Family::Albert | Family::Xlnet)),
            Some("Unigram"),
            Tokens::Scores(scores),
            None,
        ) => {
            let charsmap = file.normalizer.as_ref().and_then(charsmap);
            let loaded = unigram::load(scores, charsmap, family, settings)?;
            loaded.tell_of_replaced(file.normalizer);
            Ok(loaded)
        }
        (family, _, vocab, merges) => {
            tell_of_ignored(family, &settings);
            file.model.vocab = vocab;
            file.model.merges = merges;
            generic(file, json, tokens, settings, found)
        }
    }
}

/// The tokenizer as the file has it, with the tokens that the other files add.
fn generic(
    file: File,
    json: &[u8],
    tokens: Vec<(u64, AddedToken)>,
    settings: Settings,
    found: Found,
) -> Result<Loaded> {
    let known: Vec<String> = tokens.into_iter().map(|(_, token)| token.content).collect();
    let (mut pipeline, special) = match quick(file) {
        Some(parts) => parts,
        None => slow(json)?,
    };
    let tokens = settings.tokens_to_add(&known, |_| ());
    pipeline.add_tokens(tokens).map_err(|error| failed("cannot add tokens", error))?;
    let mut loaded = Loaded::new(pipeline.into(), special, settings)?;
    loaded.limit_stretch(found.stretch);
    Ok(loaded)
}

/// The crate's own way to read a file.
fn slow(json: &[u8]) -> Result<(Tokenizer, Option<PostProcessorWrapper>)> {
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
    Ok((pipeline, special))
}

/// The step of a normalizer that holds SentencePiece's rules.
fn charsmap(normalizer: &Value) -> Option<Value> {
    let steps = normalizer["normalizers"].as_array();
    let mut steps = steps.map_or(std::slice::from_ref(normalizer), Vec::as_slice).iter();
    steps.find(|step| step["type"] == "Precompiled").cloned()
}

/// Tells of settings that a class which takes the file as it is does not look at.
fn tell_of_ignored(family: Option<Family>, settings: &Settings) {
    let keys = [
        "do_lower_case",
        "strip_accents",
        "tokenize_chinese_chars",
        "keep_accents",
        "add_prefix_space",
    ];
    let given = |key: &&str| settings.config.get(*key).is_some_and(|value| !value.is_null());
    let class = settings.class.as_deref().unwrap_or("of no name");
    for key in keys.iter().filter(|key| given(key)) {
        crate::log::warn(&format!(
            "tokenizer_config.json: {key} has no effect: a tokenizer of class {class} is taken from tokenizer.json as it is"
        ));
    }
    if family.is_some() {
        crate::log::warn(&format!(
            "tokenizer.json holds no model of class {class}, which tokenizer_config.json or config.json names: it is taken as it is"
        ));
    }
}

/// The file, with the vocabulary in its final form.
struct File {
    version: Option<String>,
    added_tokens: Vec<Value>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    truncation: Option<Value>,
    model: Model,
    unknown: Vec<String>,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = File;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a model")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<File, A::Error> {
                let (mut model, mut unknown, mut version) = (None, Vec::new(), None);
                let mut parts: Map<String, Value> = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "model" => model = Some(map.next_value()?),
                        "version" => version = map.next_value()?,
                        _ if limits::FILE.0.contains(&key.as_str()) => {
                            drop(parts.insert(key, map.next_value()?));
                        }
                        other => {
                            if !limits::FILE.1.contains(&other) && unknown.len() < 8 {
                                unknown.push(key);
                            }
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let mut take = |key: &str| parts.remove(key).filter(|value| !value.is_null());
                let added_tokens = match take("added_tokens") {
                    Some(Value::Array(tokens)) => tokens,
                    None => Vec::new(),
                    Some(_) => {
                        return Err(serde::de::Error::custom("added_tokens: expected a list"));
                    }
                };
                Ok(File {
                    version,
                    added_tokens,
                    normalizer: take("normalizer"),
                    pre_tokenizer: take("pre_tokenizer"),
                    post_processor: take("post_processor"),
                    decoder: take("decoder"),
                    truncation: take("truncation"),
                    model: model.ok_or_else(|| serde::de::Error::missing_field("model"))?,
                    unknown,
                })
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The model: its large parts, and the rest as it stands.
struct Model {
    vocab: Tokens,
    merges: Option<Merges>,
    rest: Map<String, Value>,
}

impl Model {
    /// The type. Files from before it was written are told by what they hold.
    fn kind(&self) -> Option<String> {
        match (self.rest.get("type"), &self.vocab, &self.merges) {
            (Some(kind), ..) => kind.as_str().map(str::to_string),
            (None, Tokens::Scores(_), None) => Some("Unigram".into()),
            (None, Tokens::Ids(_), Some(_)) => Some("BPE".into()),
            (None, Tokens::Ids(_), None) => Some("WordPiece".into()),
            (None, Tokens::Scores(_), Some(_)) => None,
        }
    }
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
fn quick(file: File) -> Option<(Tokenizer, Option<PostProcessorWrapper>)> {
    fn of<T: DeserializeOwned>(value: Option<Value>) -> Option<Option<T>> {
        value
            .map(|value| serde_json::from_value(value).ok())
            .map_or(Some(None), |part| part.map(Some))
    }
    if file.version.as_deref() != Some("1.0") {
        return None;
    }
    let tokens: Option<Vec<AddedToken>> =
        file.added_tokens.into_iter().map(|token| serde_json::from_value(token).ok()).collect();
    let mut pipeline = Tokenizer::new(model(file.model)?);
    pipeline.with_normalizer(of::<NormalizerWrapper>(file.normalizer)?).ok()?;
    pipeline.with_pre_tokenizer(of::<PreTokenizerWrapper>(file.pre_tokenizer)?);
    pipeline.with_decoder(of::<DecoderWrapper>(file.decoder)?);
    pipeline.add_tokens(tokens?).ok()?;
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
    let kind = model.kind()?;
    let Model { vocab, merges, mut rest } = model;
    rest.remove("type");
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
            let file = serde_json::from_str(&json).unwrap();
            let (quick, _) = quick(file).expect("a usual file");
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
            assert!(quick(serde_json::from_str(&file(model)).unwrap()).is_none(), "{model}");
        }
        let loaded = load(file(word_level).as_bytes(), Settings::default()).unwrap();
        assert_eq!(loaded.ids("a a a b"), [1, 1, 1, 0]);
    }
}
