//! The tokens of a text, part by part.

use std::borrow::Cow;

use super::SentencePiece;
use super::normalizer::Progress;
use crate::error::Result;
use crate::tokenizer::stream::{STRETCH, Source, Tokens, check_stretch};

/// A rule or an added symbol reaches no further than this.
const LOOK_AHEAD: usize = 4096;

/// Where normalised text may be cut so that no piece reaches over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seam {
    /// Before a run of spaces.
    BeforeSpaces,
    /// After a run of spaces.
    AfterSpaces,
    /// Nowhere that could be told.
    Nowhere,
}

impl Seam {
    /// The seam of some pieces.
    pub fn of<'a>(pieces: impl Iterator<Item = &'a [u8]> + Clone, space: &[u8]) -> Self {
        let has = |before: bool| {
            pieces.clone().any(|piece| {
                (1..piece.len()).any(|at| match before {
                    true => piece[at..].starts_with(space) && !piece[..at].ends_with(space),
                    false => !piece[at..].starts_with(space) && piece[..at].ends_with(space),
                })
            })
        };
        // Within the three bytes of U+2581 neither side is a space, so only whole ones count above.
        if !has(true) {
            Self::BeforeSpaces
        } else if !has(false) {
            Self::AfterSpaces
        } else {
            Self::Nowhere
        }
    }

    /// The last place in `text`.
    fn last(self, text: &[u8], space: &[u8]) -> Option<usize> {
        let at = |at: &usize| match self {
            Self::BeforeSpaces => text[*at..].starts_with(space) && !text[..*at].ends_with(space),
            Self::AfterSpaces => !text[*at..].starts_with(space) && text[..*at].ends_with(space),
            Self::Nowhere => false,
        };
        (1..text.len()).rev().find(at)
    }
}

/// Reads a text.
pub struct TextReader<'a> {
    model: &'a SentencePiece,
    text: &'a str,
    at: usize,
    /// An added token that comes next: its number in the vocabulary and its place.
    pending: Option<(u32, (usize, usize))>,
    run: Option<Run<'a>>,
    first: bool,
}

impl<'a> TextReader<'a> {
    /// At the beginning of a text.
    pub fn new(model: &'a SentencePiece, text: &'a str) -> Self {
        Self { model, text, at: 0, pending: None, run: None, first: true }
    }
}

impl Source for TextReader<'_> {
    fn next(&mut self, size: usize, tokens: &mut Tokens) -> Result<bool> {
        loop {
            if let Some(run) = &mut self.run {
                if run.advance(size, tokens)? {
                    return Ok(true);
                }
                self.run = None;
            }
            if let Some((id, place)) = self.pending.take() {
                tokens.push(id, self.model.text(id).into(), place, true);
            }
            if self.at == self.text.len() {
                return Ok(false);
            }
            let found = self.model.added.find(self.text, self.at);
            let end = found.map_or(self.text.len(), |(_, (begin, _))| begin);
            if self.at < end {
                // Where spaces are not squeezed, only the text's own beginning gets a space.
                let dummy = self.first || self.model.normalizer.squeeze_spaces;
                self.run = Some(Run::new(self.model, &self.text[self.at..end], self.at, dummy));
            }
            self.first = false;
            self.pending = found;
            self.at = found.map_or(end, |(_, (_, end))| end);
        }
    }
}

/// A text between added tokens.
struct Run<'a> {
    model: &'a SentencePiece,
    /// What is not preprocessed yet, and where it begins.
    rest: &'a str,
    rest_at: usize,
    /// What is not normalised yet begins at `used`.
    window: Cow<'a, [u8]>,
    /// Places of the window's bytes and of its end; without them the window begins at `rest_at`.
    origins: Option<Vec<usize>>,
    used: usize,
    progress: Progress,
    score: f32,
    after_unknown: bool,
}

impl<'a> Run<'a> {
    fn new(model: &'a SentencePiece, text: &'a str, at: usize, dummy: bool) -> Self {
        let preprocessed = model.preprocess.is_some();
        let (window, rest): (&[u8], _) = match preprocessed {
            true => (&[], text),
            false => (text.as_bytes(), ""),
        };
        Self {
            model,
            rest,
            rest_at: at,
            window: Cow::Borrowed(window),
            origins: preprocessed.then(|| vec![at]),
            used: 0,
            progress: Progress::new(&model.normalizer, at, dummy),
            score: 0.0,
            after_unknown: false,
        }
    }

    /// Preprocesses more.
    fn refill(&mut self, size: usize) -> Result<()> {
        let (Some(preprocess), Some(origins)) = (self.model.preprocess, &mut self.origins) else {
            return Ok(());
        };
        while !self.rest.is_empty() && self.window.len() - self.used < LOOK_AHEAD {
            let len = super::preprocess::Preprocess::block(self.rest, size)?;
            let (block, rest) = self.rest.split_at(len);
            let mut done = preprocess.run(block, self.rest_at)?;
            let window = self.window.to_mut();
            window.drain(..self.used);
            origins.drain(..self.used);
            self.used = 0;
            window.extend_from_slice(done.text.as_bytes());
            origins.pop();
            origins.append(&mut done.origins);
            self.rest = rest;
            self.rest_at += len;
        }
        Ok(())
    }

    /// Appends the tokens of about `size` bytes; false when nothing is left.
    fn advance(&mut self, size: usize, tokens: &mut Tokens) -> Result<bool> {
        let normalizer = &self.model.normalizer;
        let space = normalizer.space.as_bytes();
        let mut wanted = size;
        loop {
            self.refill(size)?;
            let Self { window, origins, used, progress, rest_at, .. } = self;
            let mut ended = false;
            while progress.bytes.len() < wanted {
                if *used == window.len() {
                    ended = self.rest.is_empty();
                    break;
                }
                if window.len() - *used < LOOK_AHEAD && !self.rest.is_empty() {
                    break;
                }
                let from = *used;
                *used += progress.step(normalizer, &window[from..], |len| match &*origins {
                    Some(origins) => origins[from + len],
                    None => *rest_at + from + len,
                })?;
            }
            if ended {
                progress.end(normalizer);
                let len = progress.bytes.len();
                self.cut(len, tokens);
                return Ok(false);
            }
            if progress.bytes.len() >= wanted {
                if let Some(len) = self.model.seam.last(&progress.bytes, space) {
                    self.cut(len, tokens);
                    return Ok(true);
                }
                check_stretch(progress.bytes.len(), 2 * STRETCH)?;
                wanted *= 2;
            }
        }
    }

    /// Appends the tokens of the first `len` normalised bytes, which then go.
    fn cut(&mut self, len: usize, tokens: &mut Tokens) {
        let Self { model, progress, .. } = self;
        let mut pieces = Vec::new();
        let text = &progress.bytes[..len];
        model.segmenter.cut(text, &model.normalizer, &mut self.score, &mut pieces);
        let mut at = 0;
        for (size, id) in pieces {
            let place = |at: usize| progress.origins.get(at).copied().unwrap_or(progress.consumed);
            let (begin, end) = (place(at), place(at + size));
            let piece = &text[at..at + size];
            at += size;
            let unknown = id == model.unknown;
            let begins_word = piece.starts_with(model.normalizer.space.as_bytes());
            if unknown && model.byte_fallback {
                for (index, &byte) in piece.iter().enumerate() {
                    let id = model.bytes[usize::from(byte)].unwrap_or(model.unknown);
                    // The last byte stands for the character.
                    let end = if index + 1 == size { end } else { begin };
                    tokens.push(id, model.text(id).into(), (begin, end), begins_word && index == 0);
                }
            } else if unknown && self.after_unknown {
                if let (Some(last), Some(place)) = (tokens.ids.last(), tokens.offsets.last_mut())
                    && *last == id
                    && place.1 == begin
                {
                    place.1 = end;
                }
            } else {
                tokens.push(id, model.text(id).into(), (begin, end), begins_word);
            }
            self.after_unknown = unknown;
        }
        progress.bytes.drain(..len);
        progress.origins.drain(..len);
    }
}
