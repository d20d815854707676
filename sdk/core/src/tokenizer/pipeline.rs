//! A tokenizer of the crate `tokenizers`, and the places where a text may be cut before it goes through it.
//!
//! A place is safe when everything left of it becomes the same tokens whatever stands right of it, and the other way
//! round. Such places are looked for between words ("a b", before the space) and, for BERT, between two Chinese
//! characters. Whether they are safe follows from the steps of the pipeline: normalizers that see single characters or
//! the marks after them, pre-tokenizers that always part there, and added tokens that do not reach over. Everything
//! else is not cut.

use serde_json::Value;
use tokenizers::tokenizer::Normalizer;
use tokenizers::{AddedToken, NormalizedString, Tokenizer};

use super::failed;
use super::stream::{STRETCH, Source, Tokens, check_stretch};
use crate::error::Result;

/// Where texts may be cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seams {
    /// Before a space between two words.
    spaces: bool,
    /// Before any other white space of ASCII between two words.
    white: bool,
    /// Between two Chinese characters.
    chinese: bool,
}

/// A tokenizer of the crate, without post-processor, padding and truncation.
pub struct Pipeline {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Where texts may be cut.
    pub seams: Seams,
    /// Bytes that may be tokenised at once.
    pub stretch: usize,
}

impl From<Tokenizer> for Pipeline {
    fn from(tokenizer: Tokenizer) -> Self {
        let seams = seams(&tokenizer);
        Self { tokenizer, seams, stretch: STRETCH }
    }
}

impl Pipeline {
    /// Reads a text.
    pub fn read<'a>(&'a self, text: &'a str) -> TextReader<'a> {
        TextReader { pipeline: self, text, at: 0 }
    }
}

/// Reads a text part by part.
pub struct TextReader<'a> {
    pipeline: &'a Pipeline,
    text: &'a str,
    at: usize,
}

impl Source for TextReader<'_> {
    fn next(&mut self, size: usize, tokens: &mut Tokens) -> Result<bool> {
        let rest = &self.text[self.at..];
        let len = self.pipeline.seams.first(rest, size);
        check_stretch(len, self.pipeline.stretch)?;
        let encoding = self.pipeline.tokenizer.encode(&rest[..len], false);
        let encoding = encoding.map_err(|error| failed("cannot encode a text", error))?;
        let places = encoding.get_offsets().iter();
        for ((id, text), (begin, end)) in
            encoding.get_ids().iter().zip(encoding.get_tokens()).zip(places)
        {
            tokens.push(*id, text.clone(), (self.at + begin, self.at + end));
        }
        self.at += len;
        Ok(self.at < self.text.len())
    }
}

impl Seams {
    /// The first place from `size` on, or the end of the text.
    fn first(self, text: &str, size: usize) -> usize {
        let bytes = text.as_bytes();
        if self == Self::default() || bytes.len() <= size + 1 {
            return bytes.len();
        }
        let here = |at: &usize| {
            let byte = bytes[*at];
            let white = match byte {
                b' ' => self.spaces,
                b'\n' | b'\t' | b'\r' => self.white,
                0x80.. => return self.chinese && between_chinese(text, *at),
                _ => false,
            };
            white && word_before(&text[..*at]) && text[at + 1..].chars().next().is_some_and(is_word)
        };
        (size.max(1)..bytes.len() - 1).find(here).unwrap_or(bytes.len())
    }
}

fn word_before(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

/// Letters and digits that neither join with a space into one character of a screen nor change beside one.
fn is_word(c: char) -> bool {
    let usual = c < '\u{600}' || ('\u{3040}'..'\u{d7a4}').contains(&c);
    usual && c.is_alphanumeric()
}

/// The ideographs around which BERT puts spaces.
fn is_chinese(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}')
}

fn between_chinese(text: &str, at: usize) -> bool {
    text.is_char_boundary(at)
        && text[..at].chars().next_back().is_some_and(is_chinese)
        && text[at..].chars().next().is_some_and(is_chinese)
}

/// The places that the steps of a tokenizer allow.
fn seams(tokenizer: &Tokenizer) -> Seams {
    let normalizer = tokenizer.get_normalizer().map(serde_json::to_value);
    let pre_tokenizer = tokenizer.get_pre_tokenizer().map(serde_json::to_value);
    let (Ok(normalizer), Ok(pre_tokenizer)) = (normalizer.transpose(), pre_tokenizer.transpose())
    else {
        return Seams::default();
    };
    if !normalizer.as_ref().is_none_or(is_local) {
        return Seams::default();
    }
    let mut seams = pre_tokenizer.as_ref().map_or(Seams::default(), parts_at);
    seams.chinese &= normalizer.is_some_and(|normalizer| {
        normalizer["type"] == "BertNormalizer" && normalizer["handle_chinese_chars"] == true
    });
    let decoder = tokenizer.get_added_tokens_decoder();
    for token in decoder.values() {
        let mut forms = vec![token.content.clone()];
        if let Some(normalizer) = tokenizer.get_normalizer() {
            let mut form = NormalizedString::from(token.content.as_str());
            if normalizer.normalize(&mut form).is_err() {
                return Seams::default();
            }
            forms.push(form.get().into());
        }
        for form in forms {
            if reaches_over_a_space(&form, token) {
                return Seams::default();
            }
            let chars: Vec<char> = form.chars().filter(|c| *c != ' ').collect();
            seams.chinese &= !chars.windows(2).any(|pair| pair.iter().all(|c| is_chinese(*c)));
            seams.chinese &= !(token.rstrip || token.lstrip || token.single_word);
        }
    }
    seams
}

/// Whether a token may be found on both sides of a space between words, or takes a space after a word along.
fn reaches_over_a_space(form: &str, token: &AddedToken) -> bool {
    let chars: Vec<char> = form.chars().collect();
    let inside = chars.windows(2).any(|pair| pair[0].is_alphanumeric() && pair[1].is_whitespace());
    inside || (token.rstrip && chars.last().is_some_and(|c| c.is_alphanumeric()))
}

/// Whether a normalizer writes the same for what is left and right of a space between words, together or apart.
fn is_local(step: &Value) -> bool {
    let local = [
        "BertNormalizer",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "StripAccents",
    ];
    match step["type"].as_str() {
        Some("Sequence") => {
            step["normalizers"].as_array().is_some_and(|steps| steps.iter().all(is_local))
        }
        // Takes spaces at the end, where there is none.
        Some("Strip") => step["strip_left"] == false,
        // One space stays one.
        Some("Replace") if step["pattern"]["Regex"] == " {2,}" => true,
        // Found between words only if it holds none.
        Some("Replace") => {
            let pattern = step["pattern"]["String"].as_str();
            let content = step["content"].as_str();
            let marks =
                |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_punctuation());
            pattern.is_some_and(marks) && content.is_some_and(marks)
        }
        Some(kind) => local.contains(&kind),
        None => false,
    }
}

/// Where a pre-tokenizer always parts a text.
fn parts_at(step: &Value) -> Seams {
    let spaces = Seams { spaces: true, ..Seams::default() };
    match step["type"].as_str() {
        Some("BertPreTokenizer") => Seams { spaces: true, white: true, chinese: true },
        Some("WhitespaceSplit" | "Whitespace") => Seams { white: true, ..spaces },
        // With a space at its beginning a part gets no other one.
        Some("ByteLevel") if step["use_regex"] != false => spaces,
        Some("Metaspace") if step["split"] == true => spaces,
        // A first step that parts a text there: what follows sees the same words, and whether they begin the text.
        Some("Sequence") => {
            let steps = step["pretokenizers"].as_array();
            let first = steps.and_then(|steps| steps.first()).map_or(Seams::default(), parts_at);
            Seams { chinese: false, ..first }
        }
        _ => Seams::default(),
    }
}
