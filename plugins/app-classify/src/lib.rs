//! Text classification: single and pair text; multi-class, multi-label and regression, with the metrics for each.
#![forbid(unsafe_code)]

mod cells;
mod head;
mod labels;
mod metrics;

use easytransfer_plugin::{
    App, AppInfo, Call, Choice, Column, Context, Error, Map, ModelInfo, Record, Result, Rows,
    Scope, Tokenizer, Vocabulary, VocabularyOptions, WordCounts, abi, nn, out_of_range, text_of,
};
use head::{Head, Pooling};
use labels::{Labels, Problem};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::CStr;

/// Options of [`Classify`].
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    problem: Problem,
    labels: Vec<String>,
    separator: String,
    max_length: usize,
    pooling: Pooling,
    dropout: Option<f64>,
    threshold: f64,
    vocabulary: Option<VocabularyOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            problem: Problem::MultiClass,
            labels: Vec::new(),
            separator: ",".to_owned(),
            max_length: 128,
            pooling: Pooling::Model,
            dropout: None,
            threshold: 0.5,
            vocabulary: None,
        }
    }
}

/// A classification head over an encoder: in the form that Hugging Face's sequence classification has for the
/// encoder's family, or over the tokens' mean, first or maximum.
///
/// Predictions: multi-class {"label", "score", "probabilities"}; multi-label {"labels", "probabilities"}; regression
/// {"value"}.
pub struct Classify {
    options: Options,
    labels: Labels,
    max_length: usize,
    head: Option<Head>,
    /// Whether a training record had a text that is not empty.
    has_text: bool,
    /// Counts the words of the training data, for a model without a tokenizer.
    words: Option<WordCounts>,
    vocabulary: Option<Vocabulary>,
}

impl App for Classify {
    const NAME: &'static CStr = c"text-classify";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"problem":{"type":"string","enum":["multi-class","multi-label","regression"],"default":"multi-class"},
"labels":{"type":"array","items":{"type":"string"},"default":[],"description":"names of the classes in order; by default those of the training data, sorted"},
"separator":{"type":"string","default":",","description":"between the labels of a multi-label cell; a cell may also be a list in brackets, or a row of 0 and 1 with a place for every class"},
"max_length":{"type":"integer","minimum":3,"default":128,"description":"tokens, special tokens included; longer texts are cut"},
"pooling":{"type":"string","enum":["model","mean","cls","max"],"default":"model","description":"vector of a text before the head: as the model's family has it (a pooler or the first token), which transformers reads back with the head; or the mean, the first or the maximum of its tokens, of which the mean suits encoders of sentences"},
"dropout":{"type":"number","minimum":0,"exclusiveMaximum":1,"description":"before the head; default: what the model's configuration says"},
"threshold":{"type":"number","minimum":0,"maximum":1,"default":0.5,"description":"multi-label: probability from which a label is given"},
"vocabulary":{"type":["object","null"],"default":null,"description":"words that are learned from the training data, for a model of words without a tokenizer","properties":{
"size":{"type":"integer","minimum":1,"default":30000,"description":"most words"},
"least":{"type":"integer","minimum":1,"default":1,"description":"fewest times that a word occurs"},
"lower":{"type":"boolean","default":true,"description":"whether texts are lower-cased"}}}}}"#;
    type Options = Options;

    fn new(options: Options, state: Option<Value>) -> Result<Self> {
        if options.max_length < 3 {
            return Err(out_of_range("max_length", "at least 3", options.max_length));
        }
        let ordered = !options.labels.is_empty();
        let words = options.vocabulary.as_ref().filter(|_| state.is_none());
        let words = words.map(|words| WordCounts::new(words.lower)).transpose()?;
        let (names, multi_hot) = match state {
            Some(state) => (
                serde_json::from_value(state["labels"].clone())?,
                state["multi_hot"].as_bool().unwrap_or(false),
            ),
            None => (options.labels.clone(), false),
        };
        let labels = Labels::new(options.problem, names, &options.separator)?;
        let labels = labels.trained(multi_hot, ordered);
        Ok(Self {
            max_length: options.max_length,
            words,
            options,
            labels,
            head: None,
            has_text: false,
            vocabulary: None,
        })
    }

    fn columns(&self) -> Vec<Column> {
        let column = |role: &str, names: &[&str], required, target| Column {
            role: role.to_owned(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            required,
            target,
        };
        vec![
            column(
                "text",
                &[
                    "text",
                    "sentence",
                    "content",
                    "review",
                    "sentence1",
                    "text1",
                    "text_a",
                    "question",
                    "query",
                ],
                true,
                false,
            ),
            column("text_pair", &["text_pair", "sentence2", "text2", "text_b"], false, false),
            column("label", &["label", "labels", "class", "intent", "score", "target"], true, true),
        ]
    }

    fn observe(&mut self, record: &Record) -> Result<()> {
        let (text, pair) = texts_of(record)?;
        for text in std::iter::once(&text).chain(&pair) {
            self.has_text |= !text.trim().is_empty();
            if let Some(words) = &mut self.words {
                words.add(text)?;
            }
        }
        match record.get("label") {
            Some(value) => self.labels.observe(value),
            None => Err(Error::record("label", "a label in a training record", "nothing")),
        }
    }

    fn observed(&mut self) -> Result<()> {
        if !self.has_text {
            return Err(Error::bad_input(
                "text: all cells of the training data are empty; is this the right column?",
            ));
        }
        if let (Some(words), Some(options)) = (self.words.take(), &self.options.vocabulary) {
            self.vocabulary = Some(words.vocabulary(options.least, options.size));
        }
        self.labels.observed()
    }

    fn state(&self) -> Result<Value> {
        let mut state = json!({ "labels": self.labels.names() });
        if self.labels.is_multi_hot() {
            state["multi_hot"] = json!(true);
        }
        Ok(state)
    }

    fn info(&self) -> AppInfo {
        let problem = self.options.problem;
        let family = self.options.pooling == Pooling::Model;
        let (loss, metric, best, config_problem) = match problem {
            Problem::MultiClass => {
                ("cross-entropy", "classification", "accuracy", "single_label_classification")
            }
            Problem::MultiLabel => {
                ("binary-cross-entropy", "multi-label", "micro_f1", "multi_label_classification")
            }
            Problem::Regression => ("mse", "regression", "spearman", "regression"),
        };
        let mut metric = Choice::new(metric);
        if problem == Problem::MultiLabel {
            metric.options.insert("threshold".to_owned(), json!(self.options.threshold));
        }
        let mut config = Record::new();
        let names = self.labels.names();
        let outputs =
            if problem == Problem::Regression { vec!["value".to_owned()] } else { names.to_vec() };
        let id2label: Record =
            outputs.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
        let label2id: Record =
            outputs.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
        config.insert("id2label".to_owned(), Value::Object(id2label));
        config.insert("label2id".to_owned(), Value::Object(label2id));
        config.insert("problem_type".to_owned(), json!(config_problem));
        AppInfo {
            loss: Some(Choice::new(loss)),
            metrics: vec![metric],
            best: best.to_owned(),
            best_is: "max".to_owned(),
            want: if family { abi::ET_WANT_POOLED } else { 0 },
            labels: names.to_vec(),
            config,
            task: if family { "sequence-classification" } else { "" }.to_owned(),
            longest: self.max_length,
            vocabulary: self.vocabulary.clone(),
            ..AppInfo::default()
        }
    }

    fn features(
        &self,
        _: &mut Context<'_>,
        tokenizer: &Tokenizer,
        record: &Record,
        rows: &mut Rows,
    ) -> Result<()> {
        let (text, pair) = texts_of(record)?;
        let encoding = tokenizer.encode(&text, pair.as_deref(), self.max_length)?;
        let mut row = rows.add()?;
        row.put_tokens("ids", encoding.ids())?;
        row.put_tokens("segments", encoding.segments())?;
        match record.get("label") {
            Some(value) => self.labels.put(value, &mut row),
            None => Ok(()),
        }
    }

    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        self.max_length = self.options.max_length.min(model.max_positions);
        self.head = Some(Head::new(
            scope,
            model,
            self.options.pooling,
            self.labels.outputs(),
            self.options.dropout,
        )?);
        Ok(())
    }

    fn head(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let head = self.head.as_ref().ok_or_else(|| {
            Error::new(abi::ET_ERR_FAILED_PRECONDITION, "text-classify: forward before build")
        })?;
        let logits = head.forward(call, batch, outputs)?;
        outputs.put("logits", &logits)
    }

    fn decode(&self, _: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let logits = outputs.get("logits")?;
        let names = self.labels.names();
        let object = |row: &[f32]| -> Value {
            Value::Object(names.iter().zip(row).map(|(n, p)| (n.clone(), json!(p))).collect())
        };
        let width = logits.extent(1)?;
        let records = match self.options.problem {
            Problem::Regression => logits
                .to_vec::<f32>()?
                .into_iter()
                .map(|value| Record::from_iter([("value".to_owned(), json!(value))]))
                .collect(),
            Problem::MultiClass => nn::softmax(&logits)?
                .to_vec::<f32>()?
                .chunks_exact(width)
                .map(|row| {
                    let best = metrics::argmax(row);
                    Record::from_iter([
                        ("label".to_owned(), json!(names[best])),
                        ("score".to_owned(), json!(row[best])),
                        ("probabilities".to_owned(), object(row)),
                    ])
                })
                .collect(),
            Problem::MultiLabel => logits
                .sigmoid()?
                .to_vec::<f32>()?
                .chunks_exact(width)
                .map(|row| {
                    let chosen: Vec<&String> = names
                        .iter()
                        .zip(row)
                        .filter(|(_, p)| f64::from(**p) >= self.options.threshold)
                        .map(|(n, _)| n)
                        .collect();
                    Record::from_iter([
                        ("labels".to_owned(), json!(chosen)),
                        ("probabilities".to_owned(), object(row)),
                    ])
                })
                .collect(),
        };
        Ok(records)
    }
}

/// The text of a record and the second one of a pair.
fn texts_of(record: &Record) -> Result<(String, Option<String>)> {
    let text =
        text_of(record, "text")?.ok_or_else(|| Error::record("text", "a string", "nothing"))?;
    Ok((text, text_of(record, "text_pair")?))
}

easytransfer_plugin::export! {
    id: "app-classify",
    apps: [Classify],
    metrics: [metrics::Classification, metrics::MultiLabel, metrics::Regression],
}
