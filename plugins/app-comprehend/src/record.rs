//! What a record says: a question, a text, and where the answer stands in it.

use easytransfer_plugin::{Error, Record, Result};
use serde_json::Value;

/// An answer of the training data: a part of the text, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer's words.
    pub text: String,
    /// First byte of the answer in the text.
    pub begin: usize,
}

impl Answer {
    /// The byte behind the answer.
    pub fn end(&self) -> usize {
        self.begin + self.text.len()
    }
}

/// The text of a role. Errors: none, or something else than a text.
pub fn text_of<'a>(record: &'a Record, role: &str) -> Result<&'a str> {
    match record.get(role) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Error::record(role, "a text", other.to_string())),
        None => Err(Error::record(role, "a text", "nothing")),
    }
}

/// The gold answers of a record; an empty list says that the text has none. `None` where the record does not say.
///
/// Two forms are read: `{"text": ["..."], "answer_start": [3]}` and `[{"text": "...", "answer_start": 3}]`.
/// `answer_start` counts characters (Unicode code points), as SQuAD does.
pub fn answers_of(record: &Record) -> Result<Option<Vec<Answer>>> {
    let pairs: Vec<(&Value, &Value)> = match record.get("answers") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => {
            items.iter().map(|item| (&item["text"], &item["answer_start"])).collect()
        }
        Some(Value::Object(columns)) => {
            let column = |name: &str| match columns.get(name) {
                Some(Value::Array(values)) => Ok(values),
                other => Err(Error::bad_input(format!(
                    "answers: expected a list under {name:?}, found {}",
                    other.unwrap_or(&Value::Null)
                ))),
            };
            let (texts, starts) = (column("text")?, column("answer_start")?);
            if texts.len() != starts.len() {
                return Err(Error::bad_input(format!(
                    "answers: expected as many \"answer_start\" as \"text\" ({}), found {}",
                    texts.len(),
                    starts.len()
                )));
            }
            texts.iter().zip(starts).collect()
        }
        Some(other) => {
            let expected = "{\"text\": [...], \"answer_start\": [...]}";
            return Err(Error::record("answers", expected, other.to_string()));
        }
    };
    let context = text_of(record, "context")?;
    pairs
        .into_iter()
        .map(|(text, start)| answer(context, text, start))
        .collect::<Result<_>>()
        .map(Some)
}

fn answer(context: &str, text: &Value, start: &Value) -> Result<Answer> {
    let (Some(text), Some(start)) = (text.as_str(), start.as_u64()) else {
        return Err(Error::bad_input(format!(
            "answers: expected a text and its first character, found {text} and {start}"
        )));
    };
    let begin = context.char_indices().map(|(byte, _)| byte).nth(start as usize);
    match begin.filter(|&begin| context[begin..].starts_with(text)) {
        Some(begin) => Ok(Answer { text: text.to_owned(), begin }),
        None => {
            let found: String =
                context.chars().skip(start as usize).take(text.chars().count()).collect();
            Err(Error::bad_input(format!(
                "answers: expected {text:?} at character {start} of the context, found {found:?}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(answers: Value) -> Record {
        Record::from_iter([
            ("context".to_owned(), json!("Übung macht den Meister.")),
            ("answers".to_owned(), answers),
        ])
    }

    #[test]
    fn answer_start_counts_characters() {
        let both = [
            json!({"text": ["macht"], "answer_start": [6]}),
            json!([{"text": "macht", "answer_start": 6}]),
        ];
        for answers in both {
            let found = answers_of(&record(answers)).unwrap().unwrap();
            assert_eq!(found, [Answer { text: "macht".to_owned(), begin: 7 }]);
            assert_eq!(found[0].end(), 12);
        }
        assert_eq!(answers_of(&record(json!([]))).unwrap().unwrap(), []);
        assert_eq!(answers_of(&record(Value::Null)).unwrap(), None);
    }

    #[test]
    fn answer_that_is_not_there_is_an_error() {
        for (answers, said) in [
            (json!([{"text": "macht", "answer_start": 5}]), "found \" mach\""),
            (json!([{"text": "macht", "answer_start": 500}]), "found \"\""),
            (json!([{"text": 3, "answer_start": 5}]), "found 3 and 5"),
            (json!({"text": ["a", "b"], "answer_start": [1]}), "found 1"),
            (json!({"text": ["a"]}), "\"answer_start\""),
            (json!("macht"), "found \"macht\""),
        ] {
            let error = answers_of(&record(answers)).unwrap_err();
            assert!(error.message().contains(said), "{error}");
        }
    }
}
