//! What an app says of a record.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use easytransfer_plugin::Record;
use serde_json::Value;

/// An answer: a JSON object with whatever the app says. A classifier says "label", "score" and "probabilities" (or
/// "labels", or "value"), a reader of texts "answer", "start", "end" and "score", a generator "text". It is read like
/// a map; its JSON text is made when it is printed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer(Record);

impl Answer {
    /// The label: the most probable class, or all labels that were given, joined by commas. None where the app says
    /// no label (numbers, spans, texts).
    pub fn label(&self) -> Option<Cow<'_, str>> {
        match (self.0.get("label"), self.0.get("labels")) {
            (Some(Value::String(label)), _) => Some(Cow::Borrowed(label)),
            (_, Some(Value::Array(labels))) => {
                let labels: Option<Vec<&str>> = labels.iter().map(Value::as_str).collect();
                Some(Cow::Owned(labels?.join(",")))
            }
            _ => None,
        }
    }

    /// The number under "score" (of classes: the label's probability) or "value". None where the app says neither.
    pub fn score(&self) -> Option<f64> {
        let number = |key: &str| self.0.get(key).and_then(Value::as_f64);
        number("score").or_else(|| number("value"))
    }

    /// Probability of a class. None where the app says none.
    pub fn probability(&self, class: &str) -> Option<f64> {
        self.0.get("probabilities")?.get(class)?.as_f64()
    }

    /// The object itself.
    pub fn into_record(self) -> Record {
        self.0
    }
}

impl From<Record> for Answer {
    fn from(record: Record) -> Self {
        Self(record)
    }
}

impl Deref for Answer {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0
    }
}

impl fmt::Display for Answer {
    /// The JSON text, without line breaks.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&serde_json::to_string(&self.0).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Answer;

    fn answer(value: Value) -> Answer {
        Answer::from(value.as_object().unwrap().clone())
    }

    #[test]
    fn label_and_score_are_those_that_the_app_says() {
        let one =
            answer(json!({"label": "a", "score": 0.75, "probabilities": {"a": 0.75, "b": 0.25}}));
        assert_eq!((one.label().as_deref(), one.score()), (Some("a"), Some(0.75)));
        assert_eq!((one.probability("b"), one.probability("c")), (Some(0.25), None));
        let many = answer(json!({"labels": ["a", "b"], "probabilities": {"a": 0.5}}));
        assert_eq!((many.label().as_deref(), many.score()), (Some("a,b"), None));
        // No label was given, which is not the same as an app without labels.
        assert_eq!(answer(json!({"labels": []})).label().as_deref(), Some(""));
        let number = answer(json!({"value": 1.5}));
        assert_eq!((number.label(), number.score()), (None, Some(1.5)));
        let span = answer(json!({"answer": "x\u{0}y", "start": 0, "end": 3, "score": 0.5}));
        assert_eq!((span.label(), span.score(), span.probability("a")), (None, Some(0.5), None));
        assert_eq!(span["end"], 3);
        assert_eq!(serde_json::from_str::<Value>(&span.to_string()).unwrap()["answer"], "x\u{0}y");
        assert!(!span.to_string().contains('\0'));
    }
}
