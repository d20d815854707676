//! Which tokens of a text are hidden, and behind what (Devlin et al. 2019).

use easytransfer_plugin::{DType, Encoding, Error, Result, Rng, Tokenizer};

/// Label of tokens that are not to be predicted.
pub const IGNORED: i64 = -100;

/// Tokens that stand for no text, by the names that the families use.
const SPECIAL: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>",
    "<cls>", "<sep>",
];
/// Names of the token that hides others.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// How tokens are hidden.
pub struct Masking {
    /// Probability of a token (or a whole word) of being predicted.
    pub probability: f64,
    /// Whether all tokens of a word are hidden together (Cui et al. 2019).
    pub whole_words: bool,
}

/// The ids of a tokenizer that masking must know.
pub struct Ids {
    /// The token that hides others.
    pub mask: i64,
    special: Vec<i64>,
    vocab_len: usize,
}

impl Ids {
    /// Errors: a tokenizer without a mask token.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        let mask = MASKS.iter().find_map(|name| tokenizer.token_id(name)).ok_or_else(|| {
            Error::bad_input(format!(
                "masked-lm: expected one of the tokens {MASKS:?} in the tokenizer's vocabulary, found none"
            ))
        })?;
        let special = SPECIAL.iter().filter_map(|name| tokenizer.token_id(name)).collect();
        Ok(Self { mask, special, vocab_len: tokenizer.vocab_len() })
    }

    /// The token that a number in [0, 1) draws, never a special one.
    fn drawn(&self, at: f64) -> i64 {
        let mut id = (at * self.vocab_len as f64) as i64 % self.vocab_len as i64;
        // The next one that is not special; a vocabulary has others.
        for _ in 0..=self.special.len() {
            if !self.special.contains(&id) {
                break;
            }
            id = (id + 1) % self.vocab_len as i64;
        }
        id
    }
}

/// A text's input with hidden tokens, and the label of each token ([`IGNORED`] where none is to be predicted).
pub struct Masked {
    pub ids: Vec<i64>,
    pub labels: Vec<i64>,
}

impl Masking {
    /// Of the chosen tokens 80 % become the mask token, 10 % another token, and 10 % stay. All numbers come from
    /// `rng`.
    pub fn apply(&self, ids: &Ids, encoding: &Encoding, rng: &Rng) -> Result<Masked> {
        let len = encoding.len();
        // One number per token for each of: whether, how, and by what.
        let numbers = rng.uniform(DType::F32, &[3 * len], 0.0, 1.0)?.to_vec::<f32>()?;
        let number = |kind: usize, at: usize| f64::from(numbers[kind * len + at]);
        let (words, special) = (encoding.words(), encoding.special());
        let mut masked = Masked { ids: encoding.ids().to_vec(), labels: vec![IGNORED; len] };
        for (at, &is_special) in special.iter().enumerate() {
            if is_special != 0 || ids.special.contains(&masked.ids[at]) {
                continue;
            }
            // A word is decided by its first token.
            let decides = if self.whole_words { first_of_word(words, at) } else { at };
            if number(0, decides) >= self.probability {
                continue;
            }
            masked.labels[at] = masked.ids[at];
            let how = number(1, at);
            if how < 0.8 {
                masked.ids[at] = ids.mask;
            } else if how < 0.9 {
                masked.ids[at] = ids.drawn(number(2, at));
            }
        }
        Ok(masked)
    }
}

fn first_of_word(words: &[i64], at: usize) -> usize {
    (0..=at).rev().take_while(|&other| words[other] == words[at]).last().unwrap_or(at)
}
