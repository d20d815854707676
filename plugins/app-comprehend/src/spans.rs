//! From scores of tokens to spans: the best ones of a window, and the answer over all windows.
//!
//! As in the question answering pipeline of transformers 4: probabilities of first and last tokens are a softmax over
//! the window's text and its first token, a span's score is their product, spans of one text add theirs up, and the
//! windows' spans compete.

use easytransfer_plugin::{Record, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A possible answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Probability of the first token times that of the last.
    pub score: f64,
    /// First byte in the text.
    pub begin: usize,
    /// The byte behind the last.
    pub end: usize,
}

/// What a window says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Score of "no answer here".
    pub none: f64,
    /// Best spans, the best first.
    pub spans: Vec<Span>,
}

/// One window's scores and the bytes that its tokens stand for (-1 for none).
pub struct Window<'a> {
    pub start: &'a [f32],
    pub end: &'a [f32],
    pub begins: &'a [i64],
    pub ends: &'a [i64],
}

impl Window<'_> {
    /// The best `count` spans of at most `longest` tokens.
    pub fn part(&self, count: usize, longest: usize) -> Part {
        let starts = probabilities(self.start, self.begins);
        let ends = probabilities(self.end, self.begins);
        let none = starts.first().zip(ends.first()).map_or(0.0, |(a, b)| a * b);
        let mut spans: Vec<Span> = Vec::new();
        for (first, &begin) in self.begins.iter().enumerate() {
            let Ok(begin) = usize::try_from(begin) else { continue };
            let stop = self.begins.len().min(first + longest);
            for (&end, probability) in self.ends[first..stop].iter().zip(&ends[first..stop]) {
                let Ok(end) = usize::try_from(end) else { continue };
                let score = starts[first] * probability;
                // A full list's last is the one to beat.
                if spans.len() < count || spans.last().is_some_and(|worst| score > worst.score) {
                    let at = spans.partition_point(|span| span.score >= score);
                    spans.insert(at, Span { score, begin, end });
                    spans.truncate(count);
                }
            }
        }
        Part { none, spans }
    }
}

/// Softmax over the tokens of the text and the first token; 0 for the others.
fn probabilities(scores: &[f32], begins: &[i64]) -> Vec<f64> {
    let counts = |at: usize| at == 0 || begins[at] >= 0;
    let of = |at: usize| f64::from(scores[at]);
    let largest =
        (0..scores.len()).filter(|&at| counts(at)).map(of).fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = (0..scores.len())
        .map(|at| if counts(at) { (of(at) - largest).exp() } else { 0.0 })
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// How windows become an answer.
pub struct Join {
    /// Answers that are told, the best first.
    pub count: usize,
    /// Whether there may be no answer.
    pub none: bool,
}

impl Join {
    /// The prediction of a record: {"answer", "score", "start", "end"} with offsets in characters, "answers" with the
    /// best `count` where that is more than one, and "no_answer" with its score where there may be none.
    pub fn answer(&self, context: &str, parts: &[Part]) -> Result<Record> {
        let text = |span: &Span| context[span.begin..span.end].to_lowercase();
        let mut spans: Vec<Span> = Vec::new();
        for span in parts.iter().flat_map(|part| &part.spans) {
            // One answer that several spans say, in this window or another, has the sum of their scores.
            match spans.iter_mut().find(|known| text(known) == text(span)) {
                Some(known) => known.score += span.score,
                None => spans.push(span.clone()),
            }
        }
        // The pipeline's score of no answer: the least of all windows.
        let none = parts.iter().map(|part| part.none).fold(f64::INFINITY, f64::min);
        if self.none && none.is_finite() {
            spans.push(Span { score: none, begin: 0, end: 0 });
        }
        spans.sort_by(|a, b| b.score.total_cmp(&a.score));
        spans.truncate(self.count.max(1));
        let characters = |bytes: usize| context[..bytes].chars().count();
        let told = |span: &Span| {
            json!({
                "answer": &context[span.begin..span.end],
                "score": span.score,
                "start": characters(span.begin),
                "end": characters(span.end),
            })
        };
        let mut record = match spans.first().map(told) {
            Some(Value::Object(best)) => best,
            _ => Record::from_iter([
                ("answer".to_owned(), json!("")),
                ("score".to_owned(), json!(0.0)),
            ]),
        };
        if self.none {
            record.insert("no_answer".to_owned(), json!(none));
        }
        if self.count > 1 {
            record.insert("answers".to_owned(), spans.iter().map(told).collect());
        }
        Ok(record)
    }
}
