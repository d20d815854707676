//! Tokenizers: loading every usual file format, encoding with offsets, decoding, saving.
//!
//! The algorithms are those of the crate `tokenizers`; `load` and its neighbours turn files into them.

use std::path::Path;
use std::sync::Arc;

use easytransfer_abi::{ET_ERR_BAD_INPUT, ET_ERR_NOT_FOUND, et_encoding, et_tokenizer};
use serde_json::Value;
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{PostProcessor, PostProcessorWrapper};

use crate::error::{Error, Result, fail};
use crate::handle::{Handle, tag};

mod assemble;
mod byte_level;
mod json;
mod load;
mod save;
mod sentencepiece;
mod wordpiece;

/// A loaded tokenizer; clones are the same one.
#[derive(Clone)]
pub struct Tokenizer(Arc<Loaded>);

/// What the loaders make.
struct Loaded {
    /// Everything but the post-processor, without padding and truncation.
    pipeline: tokenizers::Tokenizer,
    /// Adds special tokens. Kept apart so that texts are cut between the two.
    special: Option<PostProcessorWrapper>,
    /// The content of `tokenizer_config.json`, where it is known.
    config: Option<Value>,
}

impl Handle for Tokenizer {
    type Abi = et_tokenizer;
    const TAG: u32 = tag(b"ETtk");
    const NAME: &'static str = "tokenizer";
}

/// The result of encoding one text or pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<i64>,
    /// 0 for the text, 1 for the pair (some models say otherwise).
    pub segments: Vec<i64>,
    /// 1 for tokens that the model's template added, else 0.
    pub special: Vec<i64>,
    /// Begin and end of each token as byte offsets into its text.
    pub offsets: Vec<i64>,
    /// Number of the word of its text that each token belongs to, -1 for special tokens.
    pub words: Vec<i64>,
    /// True if tokens were cut off.
    pub truncated: bool,
}

impl Encoding {
    fn new(encoding: &tokenizers::Encoding, truncated: bool) -> Self {
        let wide = |values: &[u32]| values.iter().map(|&value| i64::from(value)).collect();
        let ends = |&(begin, end): &(usize, usize)| [begin as i64, end as i64];
        let word = |word: &Option<u32>| word.map_or(-1, i64::from);
        Self {
            ids: wide(encoding.get_ids()),
            segments: wide(encoding.get_type_ids()),
            special: wide(encoding.get_special_tokens_mask()),
            offsets: encoding.get_offsets().iter().flat_map(ends).collect(),
            words: encoding.get_word_ids().iter().map(word).collect(),
            truncated,
        }
    }
}

impl Handle for Encoding {
    type Abi = et_encoding;
    const TAG: u32 = tag(b"ETen");
    const NAME: &'static str = "encoding";
}

/// How to encode a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Longest result in tokens, special tokens included; 0 for no limit.
    pub max_len: usize,
    /// True to add the special tokens of the model.
    pub add_special_tokens: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { max_len: 0, add_special_tokens: true }
    }
}

/// An error of the tokenizer crate while `what` was done.
fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ET_ERR_BAD_INPUT, format!("{what}: {error}"))
}

impl Tokenizer {
    /// Loads from a directory or a file: `tokenizer.json`, else `vocab.txt`, else `vocab.json` with `merges.txt`, else a
    /// SentencePiece model. Errors: `NOT_FOUND` naming the files looked for, `BAD_INPUT`.
    pub fn load(path: &Path) -> Result<Self> {
        load::load(path).map(|loaded| Self(Arc::new(loaded)))
    }

    /// Number of tokens, added tokens included.
    pub fn vocab_len(&self) -> usize {
        self.0.pipeline.get_vocab_size(true)
    }

    /// Id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.0.pipeline.token_to_id(token)
    }

    /// Text of a token. Errors: `NOT_FOUND`.
    pub fn token_text(&self, id: i64) -> Result<String> {
        let text = u32::try_from(id).ok().and_then(|id| self.0.pipeline.id_to_token(id));
        text.ok_or_else(|| {
            let message =
                format!("there is no token {id}, the vocabulary has {}", self.vocab_len());
            Error::new(ET_ERR_NOT_FOUND, message)
        })
    }

    /// Encodes a text or a pair. Pairs lose tokens from the longer side ("longest_first"). Errors: `INVALID_ARGUMENT` when
    /// `max_len` leaves no room for the special tokens.
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        options: EncodeOptions,
    ) -> Result<Encoding> {
        let loaded = &*self.0;
        let encode = |text: &str| {
            loaded
                .pipeline
                .encode(text, false)
                .map_err(|error| failed("cannot encode a text", error))
        };
        let mut first = encode(text)?;
        let mut second = pair.map(encode).transpose()?;
        let mut truncated = false;
        if options.max_len > 0 {
            let added = match &loaded.special {
                Some(special) if options.add_special_tokens => special.added_tokens(pair.is_some()),
                _ => 0,
            };
            let Some(max_length) = options.max_len.checked_sub(added) else {
                fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "max_len is {}, but the special tokens alone are {added}",
                    options.max_len
                );
            };
            truncated = first.len() + second.as_ref().map_or(0, |second| second.len()) > max_length;
            let params = TruncationParams {
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: TruncationDirection::Right,
            };
            (first, second) = truncate_encodings(first, second, &params)
                .map_err(|error| failed("cannot cut a text", error))?;
            // What was cut off would only be carried along.
            first.take_overflowing();
            if let Some(second) = &mut second {
                second.take_overflowing();
            }
        }
        let joined =
            match (&loaded.special, second) {
                (Some(special), second) => special
                    .process(first, second, options.add_special_tokens)
                    .map_err(|error| failed("cannot add special tokens", error))?,
                (None, None) => first,
                (None, Some(mut second)) => {
                    second.set_type_ids(vec![1; second.len()]);
                    first.merge_with(second, false);
                    first
                }
            };
        Ok(Encoding::new(&joined, truncated))
    }

    /// Turns ids back into text. Errors: `INVALID_ARGUMENT` naming an id outside the vocabulary and its position.
    pub fn decode(&self, ids: &[i64], skip_special_tokens: bool) -> Result<String> {
        let mut narrow = Vec::with_capacity(ids.len());
        for (position, &id) in ids.iter().enumerate() {
            match u32::try_from(id) {
                Ok(id) if self.0.pipeline.id_to_token(id).is_some() => narrow.push(id),
                _ => fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "cannot decode id {id} at position {position}: the vocabulary has {} tokens",
                    self.vocab_len()
                ),
            }
        }
        let text = self.0.pipeline.decode(&narrow, skip_special_tokens);
        text.map_err(|error| failed("cannot decode", error))
    }

    /// Writes `tokenizer.json`, for WordPiece also `vocab.txt`, and `tokenizer_config.json` where it is known, into an existing
    /// directory. Errors: `IO`, `NOT_FOUND` without the directory.
    pub fn save(&self, directory: &Path) -> Result<()> {
        save::save(&self.0, directory)
    }
}
