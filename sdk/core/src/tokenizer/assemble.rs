//! From lists of ids to a model's input: special tokens and segments as the tokenizer's template has them.

use easytransfer_abi::ET_ERR_INVALID_ARGUMENT;
use tokenizers::PostProcessor;

use super::{Encoding, Tokenizer, failed};
use crate::error::{Error, Result};

impl Tokenizer {
    /// Number of special tokens that [`Tokenizer::assemble`] adds.
    pub fn added_len(&self, pair: bool) -> usize {
        self.0.special.as_ref().map_or(0, |special| special.added_tokens(pair))
    }

    /// The input that `encode` would make of texts whose pieces these are. `words` of the result are places in the
    /// lists. Errors: `INVALID_ARGUMENT` for an id outside of the vocabulary.
    pub fn assemble(&self, first: &[i64], second: Option<&[i64]>) -> Result<Encoding> {
        let first = self.pieces(first, 0)?;
        let joined = match (&self.0.special, second) {
            (Some(special), second) => {
                let second = second.map(|second| self.pieces(second, 1)).transpose()?;
                special
                    .process(first, second, true)
                    .map_err(|error| failed("cannot add special tokens", error))?
            }
            (None, None) => first,
            (None, Some(second)) => {
                let mut joined = first;
                joined.merge_with(self.pieces(second, 1)?, false);
                joined
            }
        };
        Ok(Encoding::new(&joined, false))
    }

    fn pieces(&self, ids: &[i64], segment: u32) -> Result<tokenizers::Encoding> {
        let token = |(place, &id): (usize, &i64)| {
            let known = u32::try_from(id).ok();
            let known = known.and_then(|id| Some((id, self.0.token_text(id)?)));
            known.ok_or_else(|| {
                let message = format!(
                    "assemble: id {id} at position {place} is not in the vocabulary of {} tokens",
                    self.vocab_len()
                );
                Error::new(ET_ERR_INVALID_ARGUMENT, message)
            })
        };
        let (ids, tokens): (Vec<u32>, Vec<String>) =
            ids.iter().enumerate().map(token).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let len = ids.len();
        Ok(tokenizers::Encoding::new(
            ids,
            vec![segment; len],
            tokens,
            (0..len as u32).map(Some).collect(),
            vec![(0, 0); len],
            vec![0; len],
            vec![1; len],
            Vec::new(),
            Default::default(),
        ))
    }
}
