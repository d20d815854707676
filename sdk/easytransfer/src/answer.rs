//! What an app says of a record.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use easytransfer_plugin::Record;
use easytransfer_train::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a classifier says of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// The most probable class.
    pub label: String,
    /// Its probability.
    pub score: f64,
    /// Probability of each class; empty where the app says none.
    #[serde(default)]
    pub probabilities: BTreeMap<String, f64>,
}

/// A part of a text that an app answers with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSpan {
    /// The text.
    pub answer: String,
    /// Where it begins in the context, in characters from 0.
    pub start: u64,
    /// Where it ends, in characters from 0: the first one behind it.
    pub end: u64,
    /// How sure the app is.
    pub score: f64,
}

/// An answer: a JSON object with whatever the app says. A classifier says "label", "score" and "probabilities" (or
/// "labels", or "value"), a reader of texts "answer", "start", "end" and "score", a generator "text". It is read like
/// a map; its JSON text is made when it is printed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
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

    /// What a classifier says: label, score and the probability of each class. None where the app says no single
    /// label.
    pub fn classification(&self) -> Option<Classification> {
        self.typed().ok()
    }

    /// What a reader of texts says: an answer and where it stands. None where the app says no span.
    pub fn span(&self) -> Option<TextSpan> {
        self.typed().ok()
    }

    /// The answer as a type of the program's own, which has the fields that the app says. Errors: a field that the
    /// answer lacks, or one of another type.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        let typed = T::deserialize(Value::Object(self.0.clone()));
        typed.map_err(|error| Error::user(format!("the answer {self}: {error}")))
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
        let typed = one.classification().unwrap();
        assert_eq!(
            (typed.label.as_str(), typed.score, typed.probabilities["b"]),
            ("a", 0.75, 0.25)
        );
        assert_eq!(serde_json::to_string(&typed).unwrap(), one.to_string());
        assert_eq!(serde_json::to_string(&one).unwrap(), one.to_string());
        assert_eq!(one.span(), None);
        let many = answer(json!({"labels": ["a", "b"], "probabilities": {"a": 0.5}}));
        assert_eq!((many.label().as_deref(), many.score()), (Some("a,b"), None));
        // No label was given, which is not the same as an app without labels.
        assert_eq!(answer(json!({"labels": []})).label().as_deref(), Some(""));
        let number = answer(json!({"value": 1.5}));
        assert_eq!((number.label(), number.score()), (None, Some(1.5)));
        let span = answer(json!({"answer": "x\u{0}y", "start": 0, "end": 3, "score": 0.5}));
        assert_eq!((span.label(), span.score(), span.probability("a")), (None, Some(0.5), None));
        let typed = span.span().unwrap();
        assert_eq!((typed.answer.as_str(), typed.start, typed.end), ("x\0y", 0, 3));
        assert_eq!((span.classification(), many.classification()), (None, None));
        #[derive(serde::Deserialize)]
        struct Own {
            end: u8,
        }
        assert_eq!(span.typed::<Own>().unwrap().end, 3);
        let error = number.typed::<Own>().err().unwrap().to_string();
        assert_eq!(error, "the answer {\"value\":1.5}: missing field `end`");
        assert_eq!(span["end"], 3);
        assert_eq!(serde_json::from_str::<Value>(&span.to_string()).unwrap()["answer"], "x\u{0}y");
        assert!(!span.to_string().contains('\0'));
    }
}
