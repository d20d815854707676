//! Tokens that are found in a text before SentencePiece sees it.

use tokenizers::AddedToken;

use super::prefixes::Prefixes;

/// Added tokens with their ids.
pub struct Added {
    tokens: Vec<(AddedToken, u32)>,
    /// Found as they are written.
    exact: Prefixes,
    /// Found in either case of ASCII letters: those that are normalised, where the model lower-cases.
    folded: Prefixes,
}

impl Added {
    /// The set of some tokens. With `lower` the normalised ones are found in either case.
    pub fn new(tokens: Vec<(AddedToken, u32)>, lower: bool) -> Self {
        let texts = |folded: bool| -> Vec<(Vec<u8>, u32)> {
            let tokens = tokens.iter().zip(0..);
            let tokens = tokens.filter(|((token, _), _)| (lower && token.normalized) == folded);
            tokens
                .map(|((token, _), index)| match folded {
                    true => (token.content.to_ascii_lowercase().into_bytes(), index),
                    false => (token.content.clone().into_bytes(), index),
                })
                .collect()
        };
        let set = |folded| {
            let texts = texts(folded);
            Prefixes::new(texts.iter().map(|(text, index)| (text.as_slice(), *index)))
        };
        Self { exact: set(false), folded: set(true), tokens }
    }

    /// All tokens with their ids.
    pub fn tokens(&self) -> &[(AddedToken, u32)] {
        &self.tokens
    }

    /// The next one from `from` on: its id and its place, white space that belongs to it included.
    pub fn find(&self, text: &str, from: usize) -> Option<(u32, (usize, usize))> {
        if self.tokens.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        let longest = self.folded.texts().map(<[u8]>::len).max().unwrap_or(0);
        let mut at = from;
        while at < bytes.len() {
            let mut found = self.exact.longest(&bytes[at..]);
            if !self.folded.is_empty() {
                let end = bytes.len().min(at + longest);
                let folded = self.folded.longest(&bytes[at..end].to_ascii_lowercase());
                found = found.max(folded);
            }
            let Some((len, index)) = found else {
                at += 1;
                continue;
            };
            let (token, id) = &self.tokens[index as usize];
            let (before, after) = (&text[..at], &text[at + len..]);
            let word = |c: char| c.is_alphanumeric() || c == '_';
            if token.single_word && (before.ends_with(word) || after.starts_with(word)) {
                at += len;
                continue;
            }
            let begin = match token.lstrip {
                true => before.trim_end().len().max(from),
                false => at,
            };
            let end = match token.rstrip {
                true => text.len() - after.trim_start().len(),
                false => at + len,
            };
            return Some((*id, (begin, end)));
        }
        None
    }
}
