//! Tokens of a text, made part by part, so that memory and time follow what is used of a text.

use crate::error::{Result, fail};

/// Bytes of a text without a place where it may be cut, or an error. It is far more than the tokens that a model
/// takes.
pub const STRETCH: usize = 1 << 20;

/// Bytes that are tokenised at a time at least, beside a few for every token that is still wanted.
const BLOCK: usize = 512;

/// Tokens with their places.
#[derive(Default)]
pub struct Tokens {
    /// Ids.
    pub ids: Vec<u32>,
    /// Texts, as the vocabulary has them.
    pub texts: Vec<String>,
    /// Begin and end as byte offsets into the text.
    pub offsets: Vec<(usize, usize)>,
    /// Number of the word of the text that each belongs to.
    pub words: Vec<u32>,
    /// Words begun so far.
    begun: u32,
}

impl Tokens {
    /// Appends one, with which a word begins or goes on.
    pub fn push(&mut self, id: u32, text: String, offsets: (usize, usize), begins_word: bool) {
        self.begun += u32::from(begins_word || self.begun == 0);
        self.words.push(self.begun - 1);
        self.ids.push(id);
        self.texts.push(text);
        self.offsets.push(offsets);
    }

    /// Keeps the first `len`.
    fn keep_first(&mut self, len: usize) {
        self.ids.truncate(len);
        self.texts.truncate(len);
        self.offsets.truncate(len);
        self.words.truncate(len);
    }

    /// Keeps the last `len`.
    fn keep_last(&mut self, len: usize) {
        let gone = self.ids.len().saturating_sub(len);
        self.ids.drain(..gone);
        self.texts.drain(..gone);
        self.offsets.drain(..gone);
        self.words.drain(..gone);
    }
}

/// Makes the tokens of a text from its beginning.
pub(crate) trait Source {
    /// Appends the tokens of the next part, of about `size` bytes; false when the text has ended.
    fn next(&mut self, size: usize, tokens: &mut Tokens) -> Result<bool>;
}

/// Reads a text as far as is needed.
pub(crate) struct Reader<'a> {
    source: Box<dyn Source + 'a>,
    /// Those read and kept.
    pub tokens: Tokens,
    /// How many were read.
    pub total: usize,
    /// Whether `total` is all.
    done: bool,
}

impl<'a> Reader<'a> {
    /// Before the first token.
    pub fn new(source: impl Source + 'a) -> Self {
        Self { source: Box::new(source), tokens: Tokens::default(), total: 0, done: false }
    }

    fn step(&mut self, wanted: usize) -> Result<()> {
        let before = self.tokens.ids.len();
        let size = wanted.saturating_mul(8).clamp(BLOCK, STRETCH / 16);
        self.done = !self.source.next(size, &mut self.tokens)?;
        self.total += self.tokens.ids.len() - before;
        Ok(())
    }

    /// Reads until there are `len` tokens, or all.
    fn read(&mut self, len: usize) -> Result<()> {
        while !self.done && self.total < len {
            self.step(len - self.total)?;
        }
        Ok(())
    }

    /// Reads all; keeps the last `len`.
    fn read_keeping_last(&mut self, len: usize) -> Result<()> {
        while !self.done {
            self.step(STRETCH)?;
            if self.tokens.ids.len() > len.saturating_mul(2) {
                self.tokens.keep_last(len);
            }
        }
        Ok(())
    }
}

/// Reads one or two texts, cut to `max` tokens together: of two the longer one loses tokens first, as with
/// "longest_first". With `left` the last tokens are kept, else the first. True if any were cut off.
pub fn read<'a>(
    first: &mut Reader<'a>,
    second: Option<&mut Reader<'a>>,
    max: usize,
    left: bool,
) -> Result<bool> {
    let each = |reader: &mut Reader<'_>| match left {
        true => reader.read_keeping_last(max),
        false => reader.read(max.saturating_add(1)),
    };
    each(first)?;
    let Some(second) = second else {
        let cut = first.total > max;
        keep(first, max, left);
        return Ok(cut);
    };
    each(second)?;
    if first.total.saturating_add(second.total) <= max {
        return Ok(false);
    }
    // Where both are cut and the number is odd, the longer one has one token more: they are counted until it is known.
    if first.total > max / 2 && second.total > max / 2 && max % 2 == 1 {
        loop {
            let known = match (first.done, second.done) {
                (true, true) => true,
                (true, false) => second.total >= first.total,
                (false, true) => first.total > second.total,
                (false, false) => false,
            };
            if known {
                break;
            }
            let shorter = match first.done || (!second.done && second.total <= first.total) {
                true => &mut *second,
                false => &mut *first,
            };
            shorter.step(BLOCK)?;
            shorter.tokens.keep_first(max);
        }
    }
    let (a, b) = shares(first.total, second.total, max);
    keep(first, a, left);
    keep(second, b, left);
    Ok(true)
}

fn keep(reader: &mut Reader<'_>, len: usize, left: bool) {
    match left {
        true => reader.tokens.keep_last(len),
        false => reader.tokens.keep_first(len),
    }
}

/// What two texts of `a` and `b` tokens, together more than `max`, keep.
fn shares(a: usize, b: usize, max: usize) -> (usize, usize) {
    let half = max / 2;
    let (short, long) = match a.min(b) <= half {
        true => (a.min(b), max - a.min(b)),
        false => (half, half + max % 2),
    };
    if a > b { (long, short) } else { (short, long) }
}

/// Refuses a part of a text that is too long to be tokenised at once.
pub fn check_stretch(len: usize, limit: usize) -> Result<()> {
    if len > limit {
        fail!(
            ET_ERR_BAD_INPUT,
            "a text has {len} bytes or more without a place where this tokenizer may cut it, such as a space between words; the limit is {limit}: shorten it"
        );
    }
    Ok(())
}
