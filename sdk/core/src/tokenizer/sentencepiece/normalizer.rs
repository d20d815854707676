//! SentencePiece's own normalisation (`normalizer.cc`), byte for byte.
//!
//! The crate `tokenizers` applies the compiled rules to grapheme clusters, which differs from the library on
//! decomposed text (marks, jamo) and on user-defined symbols; here the longest rule at each place wins, wherever
//! clusters begin and end.

use super::model::{Kind, Model};
use super::prefixes::Prefixes;
use crate::error::{Result, fail};

/// Most bytes that a rule may write. Those of Unicode's compatibility forms write 33.
const LONGEST_REPLACEMENT: usize = 1024;

/// The rules and switches of a model.
pub struct Normalizer {
    /// A double array (Aoe 1989) in the form of the library Darts: the keys of the rules.
    units: Vec<u32>,
    /// What the rules write, each ended by a zero byte.
    replacements: Vec<u8>,
    /// Texts that no rule touches.
    user_defined: Prefixes,
    /// What stands for a space.
    pub space: &'static str,
    /// Spaces belong to the word before them.
    pub space_is_suffix: bool,
    /// A space is put before (or after) the text.
    pub dummy_prefix: bool,
    /// Runs of spaces become one, those at the ends vanish.
    pub squeeze_spaces: bool,
}

impl Normalizer {
    /// That of a model. Errors: rules that are no double array.
    pub fn new(model: &Model) -> Result<Self> {
        let (units, replacements) = match model.rules.as_slice() {
            [] => (Vec::new(), Vec::new()),
            rules => {
                let size = rules.first_chunk().map(|size| u32::from_le_bytes(*size) as usize);
                let split = size.and_then(|size| rules[4..].split_at_checked(size));
                let Some((array, replacements)) = split.filter(|(a, _)| a.len() % 4 == 0) else {
                    fail!(ET_ERR_BAD_INPUT, "the normalisation rules are cut off or damaged");
                };
                let units = array.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit));
                (units.collect(), replacements.to_vec())
            }
        };
        let user_defined = model.pieces.iter().zip(0..);
        let user_defined = user_defined.filter(|(piece, _)| piece.kind == Kind::UserDefined);
        Ok(Self {
            units,
            replacements,
            user_defined: Prefixes::new(
                user_defined.map(|(piece, id)| (piece.text.as_bytes(), id)),
            ),
            space: if model.escape_spaces { "\u{2581}" } else { " " },
            space_is_suffix: model.space_is_suffix,
            dummy_prefix: model.dummy_prefix,
            squeeze_spaces: model.squeeze_spaces,
        })
    }

    /// The bytes that an added symbol takes from the beginning of `text`, or those of one character.
    pub fn symbol(&self, text: &[u8]) -> (usize, bool) {
        match self.user_defined.longest(text) {
            Some((len, _)) => (len, true),
            None => (char_len(text), false),
        }
    }

    /// What the beginning of `text` becomes, and how many of its bytes.
    fn prefix<'a>(&'a self, text: &'a [u8]) -> Result<(&'a [u8], usize)> {
        if let Some((len, _)) = self.user_defined.longest(text) {
            return Ok((&text[..len], len));
        }
        match self.rule(text) {
            Some((len, at)) => {
                let rest = self.replacements.get(at..).unwrap_or(&[]);
                let end = rest.iter().take(LONGEST_REPLACEMENT).position(|byte| *byte == 0);
                match end.map(|end| &rest[..end]) {
                    Some(replacement) if std::str::from_utf8(replacement).is_ok() => {
                        Ok((replacement, len))
                    }
                    _ => fail!(
                        ET_ERR_BAD_INPUT,
                        "a normalisation rule of the SentencePiece model is damaged, or writes more than {LONGEST_REPLACEMENT} bytes"
                    ),
                }
            }
            None => {
                let len = char_len(text);
                Ok((&text[..len], len))
            }
        }
    }

    /// Length and value of the longest key that `text` begins with.
    fn rule(&self, text: &[u8]) -> Option<(usize, usize)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut found = None;
        let mut node = offset(*self.units.first()?);
        for (index, &byte) in text.iter().enumerate() {
            node ^= usize::from(byte);
            let unit = *self.units.get(node)?;
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                return found;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = *self.units.get(node)? & 0x7fff_ffff;
                found = Some((index + 1, value as usize));
            }
        }
        found
    }
}

/// Bytes of the first character; the text is UTF-8 and not empty.
pub fn char_len(text: &[u8]) -> usize {
    let len = match text[0] {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    };
    len.min(text.len())
}

/// A normalisation under way: bytes are added at the end of `bytes` and taken away at its beginning by who uses them.
pub(crate) struct Progress {
    /// Normalised text.
    pub bytes: Vec<u8>,
    /// For each byte of it, where it comes from.
    pub origins: Vec<usize>,
    /// Where what comes next comes from.
    pub consumed: usize,
    after_space: bool,
    /// Nothing but spaces so far.
    heading: bool,
    /// Whether the text gets a space of its own.
    dummy: bool,
}

impl Progress {
    /// Before the first byte of a text that begins at `origin`. With `dummy` false no space is put before or after it.
    pub fn new(normalizer: &Normalizer, origin: usize, dummy: bool) -> Self {
        Self {
            bytes: Vec::new(),
            origins: Vec::new(),
            consumed: origin,
            after_space: normalizer.squeeze_spaces,
            heading: true,
            dummy: dummy && normalizer.dummy_prefix,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.origins.resize(self.bytes.len(), self.consumed);
    }

    /// Takes the beginning of `text`, which is not empty; says how many bytes. `origin` gives the place of a byte of
    /// `text`.
    pub fn step(
        &mut self,
        normalizer: &Normalizer,
        text: &[u8],
        origin: impl Fn(usize) -> usize,
    ) -> Result<usize> {
        let (mut written, len) = normalizer.prefix(text)?;
        if self.heading {
            if normalizer.squeeze_spaces && written == b" " {
                self.consumed = origin(len);
                return Ok(len);
            }
            self.heading = false;
            if self.dummy && !normalizer.space_is_suffix {
                self.push(normalizer.space.as_bytes());
            }
        }
        if self.after_space {
            while let Some(rest) = written.strip_prefix(b" ") {
                written = rest;
            }
        }
        if !written.is_empty() {
            for part in written.split_inclusive(|byte| *byte == b' ') {
                match part.strip_suffix(b" ") {
                    Some(word) => {
                        self.push(word);
                        self.push(normalizer.space.as_bytes());
                    }
                    None => self.push(part),
                }
            }
            self.after_space = written.ends_with(b" ");
        }
        self.consumed = origin(len);
        self.after_space &= normalizer.squeeze_spaces;
        Ok(len)
    }

    /// Ends the text.
    pub fn end(&mut self, normalizer: &Normalizer) {
        if self.heading {
            return;
        }
        let space = normalizer.space.as_bytes();
        if normalizer.squeeze_spaces {
            while self.bytes.ends_with(space) {
                let len = self.bytes.len() - space.len();
                self.consumed = self.origins[len];
                self.bytes.truncate(len);
                self.origins.truncate(len);
            }
        }
        if self.dummy && normalizer.space_is_suffix {
            self.push(space);
        }
    }
}
