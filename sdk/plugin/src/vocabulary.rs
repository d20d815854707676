//! Vocabularies of words that an app learns from its training data, for models without tokenizer files.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map as Json, Value, json};

use crate::{Error, Result, Tokenizer};

/// What the host makes a tokenizer of words from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vocabulary {
    /// Words in the order of their ids.
    pub tokens: Vec<String>,
    /// The token of all other words.
    pub unknown: String,
    /// The token of padding. It and the unknown one come first where they are not among the tokens.
    pub padding: String,
    /// Whether texts are lower-cased, character by character.
    pub lower: bool,
}

impl Default for Vocabulary {
    fn default() -> Self {
        let (unknown, padding) = ("[UNK]".to_owned(), "[PAD]".to_owned());
        Self { tokens: Vec::new(), unknown, padding, lower: false }
    }
}

impl Vocabulary {
    /// The tokenizer: words are runs of letters, marks, digits and "_", and runs of other characters but white space
    /// (`Whitespace` of the crate `tokenizers`), and no special tokens are added. Errors: a token that is empty or
    /// there twice.
    pub fn to_tokenizer(&self) -> Result<Tokenizer> {
        let special = if self.padding == self.unknown {
            vec![&self.unknown]
        } else {
            vec![&self.padding, &self.unknown]
        };
        let first = special.iter().copied().filter(|token| !self.tokens.contains(token));
        let mut ids: Json<String, Value> = Json::new();
        for (id, token) in first.chain(&self.tokens).enumerate() {
            if token.is_empty() || ids.insert(token.clone(), json!(id)).is_some() {
                return Err(Error::bad_input(format!(
                    "vocabulary: token {id}: expected a word that is not there yet, found {token:?}"
                )));
            }
        }
        let added: Vec<Value> = special
            .into_iter()
            .map(|token| {
                json!({
                    "id": ids[token.as_str()], "content": token, "special": true, "normalized": false,
                    "single_word": true, "lstrip": false, "rstrip": false,
                })
            })
            .collect();
        let lower = if self.lower { json!({"type": "Lowercase"}) } else { Value::Null };
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": lower, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": ids, "unk_token": self.unknown},
        });
        Tokenizer::from_json(&file.to_string())
    }
}

/// The option `vocabulary` of an app that learns its words where the host asks for them: which words of the training
/// data have an id of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VocabularyOptions {
    /// Most words; the most frequent ones stay.
    pub size: usize,
    /// Fewest times that a word occurs.
    pub least: u64,
    /// Whether texts are lower-cased.
    pub lower: bool,
}

impl Default for VocabularyOptions {
    fn default() -> Self {
        Self { size: 30_000, least: 1, lower: true }
    }
}

/// Counts the words of texts, for an app that learns its vocabulary in `observe`.
pub struct WordCounts {
    cutter: Tokenizer,
    lower: bool,
    counts: HashMap<String, u64>,
}

impl WordCounts {
    /// Counts of nothing. With `lower` words that differ in case are one.
    pub fn new(lower: bool) -> Result<Self> {
        Ok(Self { cutter: Vocabulary::default().to_tokenizer()?, lower, counts: HashMap::new() })
    }

    /// Counts the words of a text, as the tokenizer of a [`Vocabulary`] will see them.
    pub fn add(&mut self, text: &str) -> Result<()> {
        for place in self.cutter.encode(text, None, 0)?.offsets().chunks_exact(2) {
            let word = &text[place[0] as usize..place[1] as usize];
            let word = if self.lower {
                word.chars().flat_map(char::to_lowercase).collect()
            } else {
                word.to_owned()
            };
            *self.counts.entry(word).or_default() += 1;
        }
        Ok(())
    }

    /// The vocabulary of the words that occurred at least `least` times, the most frequent first (ties by the word),
    /// at most `most` of them.
    pub fn vocabulary(&self, least: u64, most: usize) -> Vocabulary {
        let mut vocabulary = Vocabulary { lower: self.lower, ..Vocabulary::default() };
        let special = HashSet::from([&vocabulary.unknown, &vocabulary.padding]);
        let mut words: Vec<(&String, u64)> = self
            .counts
            .iter()
            .map(|(word, count)| (word, *count))
            .filter(|(word, count)| *count >= least && !special.contains(word))
            .collect();
        words.sort_unstable_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
        vocabulary.tokens = words.into_iter().take(most).map(|(word, _)| word.clone()).collect();
        vocabulary
    }
}
