//! A text as windows that fit beside the question, and where the answer lies in each.

use std::ops::Range;

use easytransfer_plugin::{Encoding, Error, Result, Row, Tokenizer};

use super::record::Answer;

/// A question's and a text's pieces.
pub struct Pieces {
    question: Vec<i64>,
    context: Encoding,
}

impl Pieces {
    /// Cuts the question to `longest_question` pieces.
    pub fn new(
        tokenizer: &Tokenizer,
        question: &str,
        context: &str,
        longest_question: usize,
    ) -> Result<Self> {
        let pieces = tokenizer.pieces(question)?;
        let question = pieces.ids().iter().take(longest_question).copied().collect();
        Ok(Self { question, context: tokenizer.pieces(context)? })
    }

    /// Windows of the text's pieces that fill `max_length` tokens with the question and the special tokens;
    /// neighbours share `stride` pieces. Errors: no room for more than `stride` pieces.
    pub fn windows(
        &self,
        tokenizer: &Tokenizer,
        max_length: usize,
        stride: usize,
    ) -> Result<Vec<Range<usize>>> {
        let taken = self.question.len() + tokenizer.added_len(true);
        let room = max_length.saturating_sub(taken);
        if room <= stride {
            return Err(Error::bad_input(format!(
                "question: with special tokens it takes {taken} of max_length {max_length} tokens, which leaves no more for the context than the {stride} of stride"
            )));
        }
        let len = self.context.len();
        let mut windows = Vec::new();
        let mut begin = 0;
        loop {
            let end = len.min(begin + room);
            windows.push(begin..end);
            if end == len {
                return Ok(windows);
            }
            begin += room - stride;
        }
    }

    /// Fills the row of a window: "ids", "segments", and per token the bytes of the text that it stands for, or with
    /// `whole_words` those of its word ("begin", "end"; -1 for tokens of the question and special ones).
    pub fn fill(
        &self,
        tokenizer: &Tokenizer,
        window: &Range<usize>,
        whole_words: bool,
        row: &mut Row,
    ) -> Result<()> {
        let input =
            tokenizer.assemble(&self.question, Some(&self.context.ids()[window.clone()]))?;
        let places = self.places(&input, window);
        let bytes = |at| if whole_words { self.word(at, window) } else { self.piece(at) };
        let ends = |side: usize| -> Vec<i64> {
            places.iter().map(|place| place.map_or(-1, |at| bytes(at)[side])).collect()
        };
        row.put_tokens("ids", input.ids())?;
        row.put_tokens("segments", input.segments())?;
        row.put_tokens("begin", &ends(0))?;
        row.put_tokens("end", &ends(1))
    }

    /// Begin and end of a piece in the text.
    fn piece(&self, at: usize) -> [i64; 2] {
        let offsets = self.context.offsets();
        [offsets[2 * at], offsets[2 * at + 1]]
    }

    /// Begin and end of the word that a piece belongs to, as far as it lies in the window.
    fn word(&self, at: usize, window: &Range<usize>) -> [i64; 2] {
        let words = self.context.words();
        let same = |other: &usize| words[*other] == words[at];
        let first = (window.start..=at).rev().take_while(same).last();
        let last = (at..window.end).take_while(same).last();
        [self.piece(first.unwrap_or(at))[0], self.piece(last.unwrap_or(at))[1]]
    }

    /// The piece of the text that each token of a window's input is.
    fn places(&self, input: &Encoding, window: &Range<usize>) -> Vec<Option<usize>> {
        // The lists keep their order, so the first tokens that are no special ones are the question's.
        let mut before = 0;
        let place = |&word: &i64| {
            let at = usize::try_from(word).ok()?;
            before += 1;
            (before > self.question.len()).then(|| window.start + at)
        };
        input.words().iter().map(place).collect()
    }

    /// First and last token of an answer in the window's input; token 0, which stands for "no answer", where it lies
    /// outside.
    pub fn target(
        &self,
        tokenizer: &Tokenizer,
        window: &Range<usize>,
        answer: Option<&Answer>,
    ) -> Result<[i64; 2]> {
        let Some(answer) = answer else { return Ok([0, 0]) };
        let offsets = self.context.offsets();
        let reaches = |at: &usize| offsets[2 * at + 1] > answer.begin as i64;
        let (Some(first), Some(last)) = (
            window.clone().find(reaches),
            window.clone().rev().find(|at| offsets[2 * at] < answer.end() as i64),
        ) else {
            return Ok([0, 0]);
        };
        let holds = offsets[2 * first] <= answer.begin as i64
            && offsets[2 * last + 1] >= answer.end() as i64;
        if !holds || first > last {
            return Ok([0, 0]);
        }
        let input =
            tokenizer.assemble(&self.question, Some(&self.context.ids()[window.clone()]))?;
        let places = self.places(&input, window);
        let token = |piece| places.iter().position(|place| *place == Some(piece)).unwrap_or(0);
        Ok([token(first) as i64, token(last) as i64])
    }
}
