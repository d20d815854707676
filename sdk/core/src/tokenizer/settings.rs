//! What the files beside a vocabulary say about it, merged as the `AutoTokenizer` of `transformers` 5 merges them.
//!
//! `tokenizer_config.json` (or else the model's `config.json`) names a class. The classes in `keys::FAMILIES` build
//! their tokenizer anew from the vocabulary and the settings, with the class's defaults for what is not said; all
//! others take `tokenizer.json` as it is. Added tokens come from `added_tokens_decoder` of `tokenizer_config.json`;
//! only without it from `special_tokens_map.json`, `added_tokens.json` and `tokenizer.json`.

use serde_json::{Map, Value};
use tokenizers::{AddedToken, PostProcessorWrapper};

use super::keys::{ADDED_TOKEN, FAMILIES, Family, SPECIAL_TOKENS_MAP, unknown_keys};
use super::template::{self, Part};
use crate::error::{Result, fail};

/// Most added tokens; a few hundred are usual.
pub const MOST_ADDED: usize = 20_000;
/// Bytes of an added token.
pub const LONGEST_ADDED: usize = 1024;

/// The named special tokens, in the order in which they are added.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The merged settings.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The class, without "Fast" at its end.
    pub class: Option<String>,
    /// Whether there is a `tokenizer_config.json`.
    pub configured: bool,
    /// `tokenizer_config.json`, with the special tokens of `special_tokens_map.json`.
    pub config: Map<String, Value>,
    /// Added tokens with the ids that their files give them.
    added: Vec<(u64, AddedToken)>,
    /// Added tokens come from `added_tokens_decoder`, so those of `tokenizer.json` do not count.
    decided: bool,
}

/// The contents of the files, as JSON objects.
#[derive(Default)]
pub struct Files {
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Map<String, Value>>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<Map<String, Value>>,
    /// `added_tokens.json`.
    pub added_tokens: Option<Map<String, Value>>,
    /// `config.json` of the model.
    pub model: Option<Map<String, Value>>,
}

impl Settings {
    /// Merges files.
    pub fn merge(files: Files) -> Result<Self> {
        let class = class(&files);
        let configured = files.tokenizer_config.is_some();
        let mut config = files.tokenizer_config.unwrap_or_default();
        warn_of_unknown_keys(&config);
        // The list had another name before. That of the other file does not replace it.
        let empty = |value: Option<&Value>| match value {
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(named)) => named.is_empty(),
            _ => true,
        };
        if empty(config.get("extra_special_tokens"))
            && let Some(list) = config.remove("additional_special_tokens")
        {
            config.insert("extra_special_tokens".into(), list);
        }
        let mut settings = Self { class, configured, ..Self::default() };
        match config.remove("added_tokens_decoder") {
            Some(Value::Object(tokens)) => {
                settings.decided = true;
                for (id, token) in tokens {
                    let Ok(number) = id.parse() else {
                        fail!(
                            ET_ERR_BAD_INPUT,
                            "tokenizer_config.json: added_tokens_decoder: expected ids as keys, found {id:?}"
                        );
                    };
                    let token = token_from(&token, "added_tokens_decoder", false)?;
                    settings.added.push((number, token));
                }
            }
            Some(Value::Null) | None => {}
            Some(_) => fail!(
                ET_ERR_BAD_INPUT,
                "tokenizer_config.json: added_tokens_decoder: expected an object of tokens by id"
            ),
        }
        if !settings.decided {
            for (key, value) in files.special_tokens_map.unwrap_or_default() {
                if !key.ends_with("_token") && !SPECIAL_TOKENS_MAP.contains(&key.as_str()) {
                    crate::log::warn(&format!(
                        "special_tokens_map.json: {key:?} is not known and ignored"
                    ));
                    continue;
                }
                let mut value = special(value);
                if key == "extra_special_tokens"
                    && let (Some(Value::Array(known)), Value::Array(list)) =
                        (config.get(&key), &value)
                {
                    let new = list.iter().filter(|token| !known.contains(token));
                    value = known.iter().chain(new).cloned().collect();
                }
                config.insert(key, value);
            }
            settings.config = config;
            let names = settings.named_tokens()?;
            for (content, id) in files.added_tokens.unwrap_or_default() {
                let Some(id) = id.as_u64() else {
                    fail!(
                        ET_ERR_BAD_INPUT,
                        "added_tokens.json: {content:?}: expected an id, found {id}"
                    );
                };
                let special = names.iter().any(|name| name.content == content);
                settings.added.push((id, AddedToken::from(content, special)));
            }
        } else {
            settings.config = config;
        }
        settings.check()?;
        Ok(settings)
    }

    /// Takes the added tokens of `tokenizer.json`, unless `tokenizer_config.json` decides on them.
    pub fn take_file_tokens(&mut self, tokens: Vec<(u64, AddedToken)>) -> Result<()> {
        if !self.decided {
            for (id, token) in tokens {
                self.added.retain(|(known, _)| *known != id);
                self.added.push((id, token));
            }
        }
        self.check()
    }

    fn check(&mut self) -> Result<()> {
        self.added.sort_by_key(|(id, _)| *id);
        if self.added.len() > MOST_ADDED {
            fail!(
                ET_ERR_BAD_INPUT,
                "there are {} added tokens, more than {MOST_ADDED}",
                self.added.len()
            );
        }
        for (id, token) in &self.added {
            if token.content.len() > LONGEST_ADDED {
                fail!(
                    ET_ERR_BAD_INPUT,
                    "the added token {id} has {} bytes, more than {LONGEST_ADDED}",
                    token.content.len()
                );
            }
        }
        Ok(())
    }

    /// The family of the class.
    pub fn family(&self) -> Option<Family> {
        let class = self.class.as_deref()?;
        FAMILIES.iter().find(|(_, classes, _)| classes.contains(&class)).map(|(family, ..)| *family)
    }

    /// A boolean; null counts as not given. Errors: another type.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => fail!(
                ET_ERR_BAD_INPUT,
                "tokenizer_config.json: {key}: expected true, false or null, found {other}"
            ),
        }
    }

    /// A boolean or its default, which is then part of the settings.
    pub fn bool_or(&mut self, key: &str, default: bool) -> Result<bool> {
        let value = self.get_bool(key)?.unwrap_or(default);
        self.config.insert(key.into(), value.into());
        Ok(value)
    }

    /// Whether texts lose tokens at their beginning when they are cut.
    pub fn truncates_left(&self) -> Result<bool> {
        match self.config.get("truncation_side").map(|side| side.as_str()) {
            None | Some(Some("right")) => Ok(false),
            Some(Some("left")) => Ok(true),
            Some(_) => fail!(
                ET_ERR_BAD_INPUT,
                "tokenizer_config.json: truncation_side: expected \"left\" or \"right\""
            ),
        }
    }

    /// Whether special tokens are not found in text.
    pub fn split_special_tokens(&self) -> Result<bool> {
        Ok(self.get_bool("split_special_tokens")?.unwrap_or(false))
    }

    /// A named special token. Where an added token has its text, that one says how it is found.
    pub fn token(&self, key: &str) -> Option<AddedToken> {
        let token = token_from(self.config.get(key)?, key, true).ok()?;
        let mut added = self.added.iter().map(|(_, token)| token);
        Some(added.find(|added| added.content == token.content).cloned().unwrap_or(token))
    }

    /// The named special token, or the class's default, which is then part of the settings.
    pub fn token_or(&mut self, key: &str, default: &str) -> String {
        match self.token(key) {
            Some(token) => token.content,
            None => {
                self.config.insert(key.into(), default.into());
                default.into()
            }
        }
    }

    /// All special tokens that have a name or stand in a list.
    fn named_tokens(&self) -> Result<Vec<AddedToken>> {
        let mut tokens: Vec<AddedToken> =
            SPECIAL.iter().filter_map(|key| self.token(key)).collect();
        for (key, value) in &self.config {
            let named = key.ends_with("_token") && (value.is_string() || value.is_object());
            // Switches such as add_bos_token are no tokens.
            if named && !SPECIAL.contains(&key.as_str()) {
                tokens.push(token_from(value, key, true)?);
            }
        }
        for key in ["model_specific_special_tokens", "extra_special_tokens"] {
            if let Some(Value::Object(named)) = self.config.get(key) {
                for value in named.values() {
                    tokens.push(token_from(value, key, true)?);
                }
            }
        }
        let lists =
            ["extra_special_tokens", "additional_special_tokens"].map(|key| self.config.get(key));
        let list =
            lists.into_iter().flatten().filter_map(Value::as_array).find(|list| !list.is_empty());
        for value in list.into_iter().flatten() {
            tokens.push(token_from(value, "extra_special_tokens", true)?);
        }
        Ok(tokens)
    }

    /// Appends to the list of special tokens without a name.
    pub fn add_special_tokens(&mut self, names: Vec<String>) {
        let lists = ["extra_special_tokens", "additional_special_tokens"];
        let list = lists.iter().find_map(|key| self.config.remove(*key)?.as_array().cloned());
        let list = list.unwrap_or_default().into_iter().chain(names.into_iter().map(Value::from));
        self.config.insert("extra_special_tokens".into(), list.collect());
    }

    /// The tokens to add to a vocabulary, in their order: the added tokens by id, then special tokens that are neither
    /// among them nor `known`, first by `order`.
    pub fn tokens_to_add<K: Ord>(
        &self,
        known: &[String],
        order: impl Fn(&AddedToken) -> K,
    ) -> Vec<AddedToken> {
        // Errors of the tokens were told by `merge`.
        let mut named = self.named_tokens().unwrap_or_default();
        let mut tokens: Vec<AddedToken> =
            self.added.iter().map(|(_, token)| token.clone()).collect();
        for token in &mut tokens {
            token.special |= named.iter().any(|name| name.content == token.content);
        }
        named.sort_by_key(order);
        for token in named {
            let there = tokens.iter().any(|known| known.content == token.content);
            if !there && !known.contains(&token.content) && !token.content.is_empty() {
                tokens.push(token);
            }
        }
        tokens
    }

    /// The template that `add_bos_token` and `add_eos_token` ask for, if they ask for one.
    pub fn bos_eos(
        &self,
        id: impl Fn(&str) -> Option<u32>,
    ) -> Result<Option<PostProcessorWrapper>> {
        let (bos, eos) = (self.get_bool("add_bos_token")?, self.get_bool("add_eos_token")?);
        if bos.is_none() && eos.is_none() {
            return Ok(None);
        }
        let token = |key: &str| {
            let content = self.token(key)?.content;
            id(&content).map(|id| (content, id))
        };
        let bos = token("bos_token").filter(|_| bos == Some(true));
        let eos = token("eos_token").filter(|_| eos == Some(true));
        let end = |token: &Option<(String, u32)>, segment| {
            token.as_ref().map(|(text, id)| Part::Token(text.clone(), *id, segment))
        };
        let around = |text: Part, segment| -> Vec<Part> {
            end(&bos, segment).into_iter().chain([text]).chain(end(&eos, segment)).collect()
        };
        let single = around(Part::First(0), 0);
        let pair = [single.clone(), around(Part::Second(1), 1)].concat();
        template::build(&single, &pair).map(Some)
    }

    /// Warns of added tokens that got another id than their file says, because the vocabulary has another size.
    pub fn check_ids(&self, id: impl Fn(&str) -> Option<u32>) {
        for (said, token) in &self.added {
            if let Some(found) = id(&token.content)
                && u64::from(found) != *said
            {
                crate::log::warn(&format!(
                    "the added token {:?} has the id {found}, not {said} as its file says: the vocabulary has another size",
                    token.content
                ));
            }
        }
    }
}

/// The class that `transformers` takes.
fn class(files: &Files) -> Option<String> {
    let text = |map: &Option<Map<String, Value>>, key: &str| -> Option<String> {
        map.as_ref()?.get(key)?.as_str().map(str::to_string)
    };
    let named = text(&files.tokenizer_config, "tokenizer_class")
        .or_else(|| text(&files.model, "tokenizer_class"))
        .map(|class| class.strip_suffix("Fast").unwrap_or(&class).to_string());
    if named.is_some() {
        return named;
    }
    let model_type = text(&files.model, "model_type")?;
    let family = FAMILIES.iter().find(|(.., types)| types.contains(&model_type.as_str()))?;
    Some(family.1[0].into())
}

fn warn_of_unknown_keys(config: &Map<String, Value>) {
    for key in unknown_keys(config) {
        crate::log::warn(&format!("tokenizer_config.json: {key:?} is not known and ignored"));
    }
    // They change tokens of the tokenizers that were written in Python, and none of those that transformers 5 has.
    let inert = [
        ("do_basic_tokenize", config.get("do_basic_tokenize") == Some(&Value::Bool(false))),
        (
            "never_split",
            config.get("never_split").and_then(Value::as_array).is_some_and(|l| !l.is_empty()),
        ),
        (
            "sp_model_kwargs",
            config.get("sp_model_kwargs").and_then(Value::as_object).is_some_and(|m| !m.is_empty()),
        ),
    ];
    for (key, _) in inert.iter().filter(|(_, given)| *given) {
        crate::log::warn(&format!("tokenizer_config.json: {key} is ignored, as by transformers 5"));
    }
}

/// Marks a token of `special_tokens_map.json` as special.
fn special(mut value: Value) -> Value {
    match &mut value {
        Value::Object(token) if token.contains_key("content") => {
            token.insert("special".into(), true.into());
        }
        Value::Array(tokens) => {
            tokens.iter_mut().for_each(|token| *token = special(token.take()));
        }
        _ => {}
    }
    value
}

/// A token: a string, or an object with "content" and how it is found.
fn token_from(value: &Value, key: &str, special: bool) -> Result<AddedToken> {
    let token = match value {
        Value::String(text) => AddedToken::from(text.as_str(), true),
        Value::Object(fields) => {
            let Some(content) = fields.get("content").and_then(Value::as_str) else {
                fail!(ET_ERR_BAD_INPUT, "{key}: expected a token with \"content\"");
            };
            if let Some(other) = fields.keys().find(|key| !ADDED_TOKEN.contains(&key.as_str())) {
                fail!(ET_ERR_BAD_INPUT, "{key}: {content:?}: {other:?} is not known");
            }
            let flag = |key: &str| fields.get(key).and_then(Value::as_bool);
            let special = flag("special").unwrap_or(special);
            AddedToken::from(content, special)
                .single_word(flag("single_word").unwrap_or(false))
                .lstrip(flag("lstrip").unwrap_or(false))
                .rstrip(flag("rstrip").unwrap_or(false))
                .normalized(flag("normalized").unwrap_or(!flag("special").unwrap_or(false)))
        }
        other => fail!(ET_ERR_BAD_INPUT, "{key}: expected a token, found {other}"),
    };
    if token.content.len() > LONGEST_ADDED {
        fail!(
            ET_ERR_BAD_INPUT,
            "{key}: a token of {} bytes, more than {LONGEST_ADDED}",
            token.content.len()
        );
    }
    Ok(token)
}

/// An added token of `tokenizer.json`, with its id.
pub fn file_token(value: &Value) -> Result<(u64, AddedToken)> {
    let Some(id) = value.get("id").and_then(Value::as_u64) else {
        fail!(ET_ERR_BAD_INPUT, "added_tokens: expected a token with an id, found {value}");
    };
    Ok((id, token_from(value, "added_tokens", false)?))
}
