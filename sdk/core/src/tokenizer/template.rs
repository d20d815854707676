//! What a model adds around its texts, in the form of the crate `tokenizers`.

use serde_json::{Map, Value, json};
use tokenizers::PostProcessorWrapper;

use super::json::part;
use crate::error::Result;

/// A part of a template, with its segment.
#[derive(Clone)]
pub(crate) enum Part {
    /// The text.
    First(u32),
    /// The pair.
    Second(u32),
    /// A special token: text and id.
    Token(String, u32, u32),
}

/// The post-processor of a template for one text and one for a pair.
pub fn build(single: &[Part], pair: &[Part]) -> Result<PostProcessorWrapper> {
    let mut tokens = Map::new();
    let mut parts = |parts: &[Part]| -> Value {
        let part = |part: &Part| match part {
            Part::First(segment) => json!({"Sequence": {"id": "A", "type_id": segment}}),
            Part::Second(segment) => json!({"Sequence": {"id": "B", "type_id": segment}}),
            Part::Token(text, id, segment) => {
                tokens.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
                json!({"SpecialToken": {"id": text, "type_id": segment}})
            }
        };
        parts.iter().map(part).collect()
    };
    let (single, pair) = (parts(single), parts(pair));
    part(json!({
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens
    }))
}

/// BERT's "cls A sep" and "cls A sep B sep".
pub fn bert(cls: (&str, u32), sep: (&str, u32)) -> Result<PostProcessorWrapper> {
    let token = |(text, id): (&str, u32), segment| Part::Token(text.into(), id, segment);
    let single = [token(cls, 0), Part::First(0), token(sep, 0)];
    let pair = [&single[..], &[Part::Second(1), token(sep, 1)]].concat();
    build(&single, &pair)
}
