//! What ALBERT and XLNet do to a text before SentencePiece sees it, as their tokenizers in `transformers` do.

use tokenizers::NormalizedString;
use tokenizers::normalizer::Range;
use tokenizers::normalizers::StripAccents;
use tokenizers::tokenizer::Normalizer;

use crate::error::Result;
use crate::tokenizer::failed;
use crate::tokenizer::stream::{STRETCH, check_stretch};

/// The switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preprocess {
    /// Lower-case letters.
    pub lower: bool,
    /// No decomposition, marks stay.
    pub keep_accents: bool,
    /// Any white space counts as a space.
    pub remove_space: bool,
}

/// A text after preprocessing, and for each of its bytes and for its end the place in the text before.
pub struct Preprocessed {
    /// The text.
    pub text: String,
    /// Places.
    pub origins: Vec<usize>,
}

impl Preprocess {
    /// Bytes of `text` that may be preprocessed apart from the rest: `size` and more, up to a space between two words.
    pub fn block(text: &str, size: usize) -> Result<usize> {
        let bytes = text.as_bytes();
        let middle = |at: &usize| {
            bytes[*at] == b' '
                && bytes[at - 1].is_ascii_alphanumeric()
                && bytes[at + 1].is_ascii_alphanumeric()
        };
        let from = size.max(1);
        let len = match bytes.len() {
            len if len <= from + 1 => len,
            len => (from..len - 1).find(middle).unwrap_or(len),
        };
        check_stretch(len, STRETCH + size)?;
        Ok(len)
    }

    /// Preprocesses a text that begins at `begin` of a longer one.
    pub fn run(self, text: &str, begin: usize) -> Result<Preprocessed> {
        let wrong = |error| failed("cannot normalise a text", error);
        let mut normalized = NormalizedString::from(text);
        if self.remove_space {
            normalized.map(|c| if c.is_whitespace() { ' ' } else { c });
        }
        normalized.replace("``", "\"").map_err(wrong)?;
        normalized.replace("''", "\"").map_err(wrong)?;
        if !self.keep_accents {
            normalized.nfkd();
            StripAccents.normalize(&mut normalized).map_err(wrong)?;
        }
        if self.lower {
            normalized.lowercase();
        }
        let mut origins = Vec::with_capacity(normalized.len() + 1);
        for at in 0..normalized.len() {
            let range = normalized.convert_offsets(Range::Normalized(at..at + 1));
            origins.push(begin + range.map_or(0, |range| range.start));
        }
        origins.push(begin + text.len());
        Ok(Preprocessed { text: normalized.get().into(), origins })
    }
}
