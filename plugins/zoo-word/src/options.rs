//! What the configurations of all models here have in common.

use easytransfer_plugin::{Error, ModelInfo, Result, abi, out_of_range};
use serde::Deserialize;
use serde_json::Value;

/// The schema of a model: the properties that all have, and its own.
macro_rules! schema {
    ($($own:expr),+ $(,)?) => {
        match std::ffi::CStr::from_bytes_with_nul(
            concat!(
                r#"{"type":"object","required":["vocab_size"],"properties":{"#,
                r#""vocab_size":{"type":"integer","minimum":1,"description":"words; those of the training data where it is left out"},"#,
                r#""embedding_size":{"type":"integer","minimum":1,"default":300,"description":"numbers of a word's vector"},"#,
                r#""word_vectors":{"type":["string","null"],"default":null,"writeOnly":true,"description":"file of word vectors to begin with, seen from the working directory: word2vec's binary format where its name ends in .bin, else text (word2vec, GloVe, fastText's .vec)"},"#,
                r#""words":{"type":"array","items":{"type":"string"},"default":[],"writeOnly":true,"description":"the words of the vocabulary, which are filled in for a model that begins"},"#,
                r#""freeze_words":{"type":"boolean","default":false,"description":"whether the words' vectors stay as they begin"}"#,
                ",",
                $($own,)*
                "}}\0"
            )
            .as_bytes(),
        ) {
            Ok(text) => text,
            Err(_) => panic!("a schema ends with its only zero"),
        }
    };
}
pub(super) use schema;

/// Options of the words, which all models have.
#[derive(Deserialize)]
pub struct WordOptions {
    /// Rows of the table.
    pub vocab_size: usize,
    /// Width of a word's vector.
    #[serde(default = "three_hundred")]
    pub embedding_size: usize,
    /// File of vectors for a model that begins.
    #[serde(default)]
    pub word_vectors: Option<String>,
    /// The words by id, for a model that begins.
    #[serde(default)]
    pub words: Vec<String>,
    /// Whether training leaves the table as it is.
    #[serde(default)]
    pub freeze_words: bool,
}

fn three_hundred() -> usize {
    300
}

/// Longest text in words. Nothing here limits it but memory.
const LONGEST: usize = 1 << 24;

impl WordOptions {
    /// What a model says of itself whose outputs have `width` numbers. `scopes` are those of its parameters besides
    /// the words.
    pub fn info(&self, width: usize, dropout: f64, scopes: &[&str]) -> ModelInfo {
        ModelInfo {
            hidden_size: width,
            vocab_size: self.vocab_size,
            embedding_size: self.embedding_size,
            max_positions: LONGEST,
            classifier_dropout: dropout,
            initializer_range: 0.02,
            pooled: true,
            depth: vec!["embeddings".to_owned()],
            beside: scopes.iter().map(|scope| ((*scope).to_owned(), 1)).collect(),
            ..ModelInfo::default()
        }
    }
}

/// Refuses sizes below 1, by the names of their options.
pub fn check_sizes(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, size)) => Err(out_of_range(name, "at least 1", size)),
        None => Ok(()),
    }
}

/// Refuses a probability of dropout that is none, by the name of its option.
pub fn check_dropout(name: &str, p: f64) -> Result<()> {
    if (0.0..1.0).contains(&p) { Ok(()) } else { Err(out_of_range(name, "0 <= p < 1", p)) }
}

/// A list of whole numbers, or one number that stands for `len` of them. Errors name the option.
pub fn numbers(name: &str, value: &Value, len: usize) -> Result<Vec<usize>> {
    let one =
        |value: &Value| value.as_u64().filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
    let list = match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => one(value).map(|number| vec![number; len]),
    };
    match list {
        Some(list) if list.len() == len => Ok(list),
        Some(list) => {
            Err(out_of_range(name, &format!("one number or {len}, one for each width"), list.len()))
        }
        None => Err(Error::new(
            abi::ET_ERR_INVALID_ARGUMENT,
            format!("{name}: expected whole numbers of at least 1, found {value}"),
        )),
    }
}
