//! Tokenizers: loading every usual file format, encoding with offsets, decoding, saving.
//!
//! The algorithms are those of the crate `tokenizers`, except for SentencePiece's own files (`sentencepiece`); `load`
//! and its neighbours turn files into them. Texts are read part by part (`stream`), no further than the tokens that
//! are asked for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use easytransfer_abi::{ET_ERR_BAD_INPUT, ET_ERR_NOT_FOUND, et_encoding, et_tokenizer};
use serde_json::Value;
use tokenizers::{PostProcessor, PostProcessorWrapper};

use crate::error::{Error, Result, fail};
use crate::handle::{Handle, tag};

mod assemble;
mod byte_level;
mod json;
mod keys;
mod limits;
mod load;
mod pattern;
mod pipeline;
mod save;
mod sentencepiece;
mod settings;
mod stream;
mod template;
mod unigram;
mod wordpiece;

use pipeline::Pipeline;
use sentencepiece::SentencePiece;
use settings::Settings;
use stream::{Reader, Tokens};

/// Most special tokens that a template adds.
const MOST_SPECIAL: usize = 1024;

/// A loaded tokenizer; clones are the same one.
#[derive(Clone)]
pub struct Tokenizer(Arc<Loaded>);

/// What the loaders make.
struct Loaded {
    engine: Engine,
    /// Adds special tokens, after texts were cut.
    special: Option<PostProcessorWrapper>,
    settings: Settings,
    /// Texts lose tokens at their beginning when they are cut.
    left: bool,
}

/// What makes tokens of a text.
enum Engine {
    Pipeline(Box<Pipeline>),
    SentencePiece(Box<SentencePiece>),
}

impl From<tokenizers::Tokenizer> for Engine {
    fn from(tokenizer: tokenizers::Tokenizer) -> Self {
        Self::Pipeline(Box::new(tokenizer.into()))
    }
}

impl From<SentencePiece> for Engine {
    fn from(model: SentencePiece) -> Self {
        Self::SentencePiece(Box::new(model))
    }
}

impl Loaded {
    /// A tokenizer. Errors: a template that adds far too many tokens, settings of another type.
    fn new(
        engine: Engine,
        special: Option<PostProcessorWrapper>,
        settings: Settings,
    ) -> Result<Self> {
        let added = special
            .as_ref()
            .map_or(0, |special| special.added_tokens(false).max(special.added_tokens(true)));
        if added > MOST_SPECIAL {
            fail!(
                ET_ERR_BAD_INPUT,
                "post_processor: it adds {added} special tokens to a text, the limit is {MOST_SPECIAL}"
            );
        }
        let left = settings.truncates_left()?;
        let mut loaded = Self { engine, special, settings, left };
        if let Engine::Pipeline(pipeline) = &mut loaded.engine {
            let split = loaded.settings.split_special_tokens()?;
            pipeline.tokenizer.set_encode_special_tokens(split);
            let tokenizer = &pipeline.tokenizer;
            loaded.settings.check_ids(|token| tokenizer.token_to_id(token));
        }
        Ok(loaded)
    }

    /// Lets fewer bytes be tokenised at once.
    fn limit_stretch(&mut self, stretch: usize) {
        if let Engine::Pipeline(pipeline) = &mut self.engine {
            pipeline.stretch = pipeline.stretch.min(stretch);
        }
    }

    /// Tells when the class's normalizer is not that of the file.
    fn tell_of_replaced(&self, of_file: Option<Value>) {
        let Engine::Pipeline(pipeline) = &self.engine else { return };
        let of_file =
            of_file.and_then(|value| json::part::<tokenizers::NormalizerWrapper>(value).ok());
        let form = |step: Option<&tokenizers::NormalizerWrapper>| {
            step.and_then(|step| serde_json::to_value(step).ok())
        };
        let class = self.settings.class.as_deref().unwrap_or("");
        let (now, before) = (form(pipeline.tokenizer.get_normalizer()), form(of_file.as_ref()));
        // The rules of SentencePiece are long.
        let brief = |value: Option<Value>| -> String {
            value.map_or("none".into(), |value| value.to_string().chars().take(200).collect())
        };
        if now != before && class != "AlbertTokenizer" {
            crate::log::warn(&format!(
                "the class {class} and its settings decide how text is normalised, not tokenizer.json: {} instead of {}",
                brief(now),
                brief(before)
            ));
        }
    }

    fn reader<'a>(&'a self, text: &'a str) -> Reader<'a> {
        match &self.engine {
            Engine::Pipeline(pipeline) => Reader::new(pipeline.read(text)),
            Engine::SentencePiece(model) => {
                Reader::new(sentencepiece::TextReader::new(model, text))
            }
        }
    }

    fn token_text(&self, id: u32) -> Option<String> {
        match &self.engine {
            Engine::Pipeline(pipeline) => pipeline.tokenizer.id_to_token(id),
            Engine::SentencePiece(model) => model.get_text(id).map(str::to_string),
        }
    }

    fn vocab_len(&self) -> usize {
        match &self.engine {
            Engine::Pipeline(pipeline) => pipeline.tokenizer.get_vocab_size(true),
            Engine::SentencePiece(model) => model.vocab_len(),
        }
    }

    /// Ids of a text without special tokens.
    #[cfg(test)]
    fn ids(&self, text: &str) -> Vec<u32> {
        let mut reader = self.reader(text);
        stream::read(&mut reader, None, usize::MAX - 1, false).unwrap();
        reader.tokens.ids
    }
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
    /// Loads from a directory or a file: `tokenizer.json`, else `vocab.txt`, else `vocab.json` with `merges.txt`, else
    /// a SentencePiece model, with what the files beside say about it (`settings`). Errors: `NOT_FOUND` naming the
    /// files looked for, `BAD_INPUT`, `UNIMPLEMENTED` naming a class or setting that is not supported.
    pub fn load(path: &Path) -> Result<Self> {
        load::load(path).map(|loaded| Self(Arc::new(loaded)))
    }

    /// Reads the text of a `tokenizer.json`. Errors: as [`Tokenizer::load`] of such a file.
    pub fn from_json(json: &str) -> Result<Self> {
        load::from_json(json).map(|loaded| Self(Arc::new(loaded)))
    }

    /// Number of tokens, added tokens included.
    pub fn vocab_len(&self) -> usize {
        self.0.vocab_len()
    }

    /// Id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        match &self.0.engine {
            Engine::Pipeline(pipeline) => pipeline.tokenizer.token_to_id(token),
            Engine::SentencePiece(model) => model.id(token),
        }
    }

    /// Text of a token. Errors: `NOT_FOUND`.
    pub fn token_text(&self, id: i64) -> Result<String> {
        let text = u32::try_from(id).ok().and_then(|id| self.0.token_text(id));
        text.ok_or_else(|| {
            let message =
                format!("there is no token {id}, the vocabulary has {}", self.vocab_len());
            Error::new(ET_ERR_NOT_FOUND, message)
        })
    }

    /// Encodes a text or a pair. Pairs lose tokens from the longer side ("longest_first"). Errors: `INVALID_ARGUMENT`
    /// when `max_len` leaves no room for the special tokens.
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        options: EncodeOptions,
    ) -> Result<Encoding> {
        let loaded = &*self.0;
        let mut max = usize::MAX - 1;
        if options.max_len > 0 {
            let added = match &loaded.special {
                Some(special) if options.add_special_tokens => special.added_tokens(pair.is_some()),
                _ => 0,
            };
            let Some(left) = options.max_len.checked_sub(added) else {
                fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "max_len is {}, but the special tokens alone are {added}",
                    options.max_len
                );
            };
            max = left;
        }
        let mut first = loaded.reader(text);
        let mut second = pair.map(|pair| loaded.reader(pair));
        // A rule or an expression of the file may make the crate panic when it meets a certain text.
        let read = catch_unwind(AssertUnwindSafe(|| {
            stream::read(&mut first, second.as_mut(), max, loaded.left)
        }));
        let truncated = match read {
            Ok(truncated) => truncated?,
            Err(_) => fail!(
                ET_ERR_BAD_INPUT,
                "cannot encode a text: a rule of the tokenizer's file fails on it, or takes too long"
            ),
        };
        let encoding = |reader: Reader<'_>| {
            let Tokens { ids, texts, offsets, words, .. } = reader.tokens;
            let len = ids.len();
            let words = words.into_iter().map(Some).collect();
            let (segments, special, attention) = (vec![0; len], vec![0; len], vec![1; len]);
            let (more, ranges) = (Vec::new(), Default::default());
            tokenizers::Encoding::new(
                ids, segments, texts, words, offsets, special, attention, more, ranges,
            )
        };
        let (mut first, second) = (encoding(first), second.map(encoding));
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
                Ok(id) if self.0.token_text(id).is_some() => narrow.push(id),
                _ => fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "cannot decode id {id} at position {position}: the vocabulary has {} tokens",
                    self.vocab_len()
                ),
            }
        }
        match &self.0.engine {
            Engine::Pipeline(pipeline) => {
                let text = pipeline.tokenizer.decode(&narrow, skip_special_tokens);
                text.map_err(|error| failed("cannot decode", error))
            }
            Engine::SentencePiece(model) => model.decode(&narrow, skip_special_tokens),
        }
    }

    /// Writes `tokenizer.json` (for WordPiece also `vocab.txt`) or `spiece.model`, and `tokenizer_config.json`, into
    /// an existing directory. Errors: `IO`, `NOT_FOUND` without the directory.
    pub fn save(&self, directory: &Path) -> Result<()> {
        save::save(&self.0, directory)
    }
}
