//! Heads of checkpoints: an app that says so begins with them, another one with values of its own. The goldens are
//! those of transformers.

use std::ffi::CStr;
use std::path::Path;

use easytransfer::Runtime;
use easytransfer::plugin::{
    Activation, App, AppInfo, Call, Column, Context, Error, Linear, LinearConfig, Map, ModelInfo,
    Record, Result, Rows, Scope, Tokenizer, Vocabulary, abi,
};
use easytransfer_tests::{linked, places};
use easytransfer_train::model::network::{AppStage, Network, Start};
use serde::Deserialize;
use serde_json::{Map as Json, Value, json};

/// Options of [`Head`].
#[derive(Deserialize)]
pub struct HeadOptions {
    pretrained: bool,
    per_token: bool,
    outputs: usize,
    words: usize,
}

/// A linear "classifier" over texts or over their tokens. The word of an id is "w" and the id.
struct Head {
    options: HeadOptions,
    classifier: Option<Linear>,
}

impl App for Head {
    const NAME: &'static CStr = c"borrowed-head";
    const SCHEMA: &'static CStr = cr#"{"type":"object"}"#;
    type Options = HeadOptions;

    fn new(options: HeadOptions, _: Option<Value>) -> Result<Self> {
        Ok(Self { options, classifier: None })
    }

    fn columns(&self) -> Vec<Column> {
        Vec::new()
    }

    fn observe(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }

    fn observed(&mut self) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(json!({}))
    }

    fn info(&self) -> AppInfo {
        let words = Vocabulary {
            tokens: (0..self.options.words).map(|id| format!("w{id}")).collect(),
            unknown: "w1".to_owned(),
            padding: "w0".to_owned(),
            lower: false,
        };
        AppInfo {
            pretrained_head: self.options.pretrained,
            want: if self.options.per_token { 0 } else { abi::ET_WANT_POOLED },
            vocabulary: Some(words),
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
        let text = record["text"].as_str().ok_or_else(|| Error::bad_input("text"))?;
        let encoding = tokenizer.encode(text, None, 0)?;
        let mut row = rows.add()?;
        row.put_tokens("ids", encoding.ids())?;
        let segments = record.get("segments").map(|list| serde_json::from_value(list.clone()));
        let segments: Vec<i64> = segments.unwrap_or_else(|| Ok(vec![0; encoding.len()]))?;
        row.put_tokens("segments", &segments)
    }

    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        let head = LinearConfig::new(model.hidden_size, self.options.outputs);
        self.classifier = Some(head.init(&scope.child("classifier")?)?);
        Ok(())
    }

    fn head(&self, _: &Call<'_>, _: &Map, outputs: &mut Map) -> Result<()> {
        let head = self.classifier.as_ref().ok_or_else(|| Error::bad_input("no head"))?;
        let from = if self.options.per_token { "last" } else { "pooled" };
        let logits = head.forward(&outputs.get(from)?, Activation::None)?;
        outputs.put("logits", &logits)
    }

    fn decode(&self, _: &Map, _: &Map) -> Result<Vec<Record>> {
        Ok(Vec::new())
    }
}

easytransfer::plugin::export! { id: "app-heads", apps: [Head] }

fn runtime() -> Runtime {
    let runtime = linked::runtime();
    runtime.register_plugin(PluginRecord::get()).unwrap();
    runtime
}

fn golden(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn network(directory: &Path, options: Value, start: Start) -> easytransfer::Result<Network> {
    let runtime = runtime();
    let stage = AppStage::new(runtime.components(), "borrowed-head", options, None)?;
    Network::new(runtime.components(), stage, directory, &Json::new(), start, 3)
}

/// The logits of runs of ids, row after row.
fn logits(network: &mut Network, ids: &Value, segments: Option<&Value>) -> Vec<f32> {
    let words = |ids: &Value| -> String {
        let words = ids.as_array().unwrap().iter().map(|id| format!("w{id}"));
        words.collect::<Vec<_>>().join(" ")
    };
    let record = |(index, ids): (usize, &Value)| {
        let mut record = json!({ "text": words(ids) });
        if let Some(segments) = segments {
            record["segments"] = segments[index].clone();
        }
        record.as_object().unwrap().clone()
    };
    let records: Vec<Record> = ids.as_array().unwrap().iter().enumerate().map(record).collect();
    let (_, outputs) = network.infer(&records, 0).unwrap();
    outputs.get("logits").unwrap().to_vec().unwrap()
}

fn flat(value: &Value, into: &mut Vec<f64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flat(item, into)),
        number => into.push(number.as_f64().unwrap()),
    }
}

fn largest_difference(found: &[f32], expected: &Value) -> f64 {
    let mut numbers = Vec::new();
    flat(expected, &mut numbers);
    assert_eq!(found.len(), numbers.len());
    found.iter().zip(numbers).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// Asserts that the head of a checkpoint counts where the app says so, and does not where it does not.
fn head_counts_where_it_is_wanted(directory: &Path, per_token: bool, outputs: usize, words: usize) {
    let golden = golden(&directory.join("golden.json"));
    // Some goldens are one object, others one per text.
    let list = |key: &str| match &golden {
        Value::Array(texts) => texts.iter().map(|text| text[key].clone()).collect(),
        object => object[key].clone(),
    };
    let segments = golden.is_array().then(|| list("segments"));
    let options = |pretrained, outputs| json!({"pretrained": pretrained, "per_token": per_token, "outputs": outputs, "words": words});
    let mut with = network(directory, options(true, outputs), Start::Encoder).unwrap();
    let missing = &with.load_report.missing;
    assert!(missing.iter().all(|name| name.starts_with("pooler") && per_token), "{missing:?}");
    let found = logits(&mut with, &list("ids"), segments.as_ref());
    let difference = largest_difference(&found, &list("logits"));
    assert!(difference < 1e-5, "{}: {difference}", directory.display());

    let mut without = network(directory, options(false, outputs), Start::Encoder).unwrap();
    let found = logits(&mut without, &list("ids"), segments.as_ref());
    assert!(largest_difference(&found, &list("logits")) > 0.01);
    let values = |network: &Network, name: &str| {
        network.params.find(name).unwrap().tensor().unwrap().to_vec::<f32>().unwrap()
    };
    assert_eq!(values(&without, "classifier.bias"), vec![0.0; outputs]);
    let word = "embeddings.word_embeddings.weight";
    assert_eq!(values(&with, word), values(&without, word));
    // From scratch there is nothing to take.
    let scratch = network(directory, options(true, outputs), Start::Scratch).unwrap();
    assert_eq!(values(&scratch, "classifier.bias"), vec![0.0; outputs]);

    // A head of another width is not this one, which matters to those alone that want it.
    let error = network(directory, options(true, outputs + 1), Start::Encoder).err().unwrap();
    assert!(error.to_string().contains("classifier."), "{error}");
    network(directory, options(false, outputs + 1), Start::Encoder).unwrap();
}

#[test]
fn head_of_sequence_classification_is_taken_over_where_the_app_says_so() {
    head_counts_where_it_is_wanted(&places::parity().join("tiny/bert"), false, 3, 100);
}

#[test]
fn head_of_token_classification_is_taken_over_where_the_app_says_so() {
    head_counts_where_it_is_wanted(&places::parity().join("apps/token-head"), true, 4, 60);
}

/// A checkpoint without the head that an app would take over: it starts at random, and the report says which.
#[test]
fn head_that_a_checkpoint_lacks_is_new_and_told() {
    let options = json!({"pretrained": true, "per_token": true, "outputs": 4, "words": 60});
    let directory = places::parity().join("apps/masked-lm-bert");
    let network = network(&directory, options, Start::Encoder).unwrap();
    let missing = &network.load_report.missing;
    for name in ["classifier.weight", "classifier.bias"] {
        assert!(missing.iter().any(|missing| missing == name), "{missing:?}");
    }
}
