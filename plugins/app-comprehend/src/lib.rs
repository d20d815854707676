//! Extractive reading comprehension: which part of a text answers a question (Rajpurkar et al. 2016; Devlin et al.
//! 2019). Texts of any length are read in windows that overlap, and the windows' answers compete.
#![forbid(unsafe_code)]

mod loss;
mod metric;
mod record;
mod spans;
mod windows;

use easytransfer_plugin::{
    Activation, App, AppInfo, Call, Choice, Column, Context, Error, HeadLayer, Map, ModelInfo,
    Record, Result, Rows, Scope, TaskHead, Tokenizer, abi, out_of_range,
};
use record::{answers_of, text_of};
use serde::Deserialize;
use serde_json::{Value, json};
use spans::{Join, Part, Window};
use std::ffi::CStr;
use windows::Pieces;

/// Options of [`Comprehend`].
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    max_length: usize,
    stride: usize,
    max_question_length: usize,
    max_answer_length: usize,
    no_answer: bool,
    whole_words: bool,
    answers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_length: 384,
            stride: 128,
            max_question_length: 64,
            max_answer_length: 30,
            no_answer: false,
            whole_words: true,
            answers: 1,
        }
    }
}

/// A linear head over each token with the scores of being the first and the last of the answer, in the form of
/// Hugging Face's question answering ("qa_outputs").
///
/// Predictions: {"answer", "score", "start", "end"}, offsets in characters of the context; with `no_answer` also its
/// score, and an empty answer where that is the best; with `answers` above 1 the best ones under "answers".
pub struct Comprehend {
    options: Options,
    max_length: usize,
    head: Option<TaskHead>,
}

impl App for Comprehend {
    const NAME: &'static CStr = c"comprehend";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"max_length":{"type":"integer","minimum":8,"default":384,"description":"tokens of a window with the question, special tokens included"},
"stride":{"type":"integer","minimum":0,"default":128,"description":"tokens of the context that neighbouring windows share"},
"max_question_length":{"type":"integer","minimum":1,"default":64,"description":"tokens of the question; longer ones are cut"},
"max_answer_length":{"type":"integer","minimum":1,"default":30,"description":"most tokens of an answer"},
"no_answer":{"type":"boolean","default":false,"description":"whether the context may lack an answer"},
"whole_words":{"type":"boolean","default":true,"description":"answers end with words, not within them"},
"answers":{"type":"integer","minimum":1,"default":1,"description":"how many answers are told, the best first"}}}"#;
    type Options = Options;

    fn new(options: Options, _: Option<Value>) -> Result<Self> {
        let Options { max_length, stride, max_question_length, max_answer_length, answers, .. } =
            options;
        for (name, value, least) in [
            ("max_length", max_length, 8),
            ("max_question_length", max_question_length, 1),
            ("max_answer_length", max_answer_length, 1),
            ("answers", answers, 1),
        ] {
            if value < least {
                return Err(out_of_range(name, &format!("at least {least}"), value));
            }
        }
        if stride >= max_length {
            return Err(out_of_range("stride", "less than max_length", stride));
        }
        Ok(Self { max_length, options, head: None })
    }

    fn columns(&self) -> Vec<Column> {
        let column = |role: &str, names: &[&str], target| Column {
            role: role.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            required: true,
            target,
        };
        vec![
            column("question", &["question", "query"], false),
            column("context", &["context", "paragraph", "passage", "document", "text"], false),
            column("answers", &["answers", "answer"], true),
        ]
    }

    fn observe(&mut self, record: &Record) -> Result<()> {
        text_of(record, "question")?;
        let found = answers_of(record)?;
        match found {
            None => Err(Error::record("answers", "answers in a training record", "nothing")),
            Some(answers) if answers.is_empty() && !self.options.no_answer => {
                Err(Error::bad_input(
                    "answers: expected at least one, found none; set app.no_answer=true for texts that may lack one",
                ))
            }
            Some(_) => Ok(()),
        }
    }

    fn observed(&mut self) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(json!({}))
    }

    fn info(&self) -> AppInfo {
        AppInfo {
            loss: Some(Choice::new("span")),
            metrics: vec![Choice::new("squad")],
            best: "f1".to_owned(),
            best_is: "max".to_owned(),
            task: "question-answering".to_owned(),
            pretrained_head: true,
            finish: true,
            ..AppInfo::default()
        }
    }

    fn features(
        &self,
        context: &mut Context<'_>,
        tokenizer: &Tokenizer,
        record: &Record,
        rows: &mut Rows,
    ) -> Result<()> {
        let Options { stride, max_question_length, whole_words, .. } = self.options;
        let (question, text) = (text_of(record, "question")?, text_of(record, "context")?);
        let pieces = Pieces::new(tokenizer, question.trim_start(), text, max_question_length)?;
        let answers = answers_of(record)?;
        for window in pieces.windows(tokenizer, self.max_length, stride)? {
            let mut row = rows.add()?;
            pieces.fill(tokenizer, &window, whole_words, &mut row)?;
            if let Some(answers) = &answers {
                let [first, last] = pieces.target(tokenizer, &window, answers.first())?;
                row.put_i64("first_token", &[first])?;
                row.put_i64("last_token", &[last])?;
            } else if context.is_training() {
                return Err(Error::record("answers", "answers in a training record", "nothing"));
            }
        }
        Ok(())
    }

    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        self.max_length = self.options.max_length.min(model.max_positions);
        if self.options.stride >= self.max_length {
            return Err(out_of_range(
                "stride",
                &format!("less than the model's {} positions", model.max_positions),
                self.options.stride,
            ));
        }
        let deviation = if model.initializer_range > 0.0 { model.initializer_range } else { 0.02 };
        let usual = [HeadLayer::Linear {
            scope: "qa_outputs".to_owned(),
            width: None,
            bias: true,
            activation: Activation::None,
            deviation,
        }];
        let task = model.tasks.get("question-answering");
        let layers = task.map(|task| &task.layers[..]).filter(|layers| !layers.is_empty());
        let (layers, h) = (layers.unwrap_or(&usual), model.hidden_size);
        self.head = Some(TaskHead::new(scope, layers, h, 2, model.vocab_size, None)?);
        Ok(())
    }

    fn head(&self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let head = self.head.as_ref().ok_or_else(|| {
            Error::new(abi::ET_ERR_FAILED_PRECONDITION, "comprehend: forward before build")
        })?;
        let logits = head.forward(call, &outputs.get("last")?, batch, &mut |name| {
            Err(Error::bad_input(format!("comprehend: a head over {name} finds no answers")))
        })?;
        outputs.put("span_logits", &logits)
    }

    fn decode(&self, batch: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let scores = outputs.get("span_logits")?.to_vec::<f32>()?;
        let (first, last): (Vec<f32>, Vec<f32>) =
            scores.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip();
        let integers = |name| batch.get(name)?.to_vec::<i64>();
        let (begins, ends, starts) = (integers("begin")?, integers("end")?, integers("starts")?);
        let part = |run: &[i64]| {
            let run = run[0] as usize..run[1] as usize;
            let window = Window {
                start: &first[run.clone()],
                end: &last[run.clone()],
                begins: &begins[run.clone()],
                ends: &ends[run],
            };
            let Options { answers, whole_words, max_answer_length, .. } = self.options;
            // Spans that become one by their words leave room for others.
            let count = if whole_words { 2 * answers + 10 } else { answers };
            let part = window.part(count, max_answer_length);
            match serde_json::to_value(part)? {
                Value::Object(part) => Ok(part),
                other => Err(Error::invalid(format!("a part is no object: {other}"))),
            }
        };
        starts.windows(2).map(part).collect()
    }

    fn finish(&self, record: &Record, parts: Vec<Record>) -> Result<Record> {
        let parts: Vec<Part> = parts
            .into_iter()
            .map(|part| Ok(serde_json::from_value(Value::Object(part))?))
            .collect::<Result<_>>()?;
        let Options { no_answer, answers, .. } = self.options;
        let join = Join { count: answers, none: no_answer };
        join.answer(text_of(record, "context")?, &parts)
    }
}

easytransfer_plugin::export! {
    id: "app-comprehend",
    losses: [loss::SpanLoss],
    apps: [Comprehend],
    metrics: [metric::Squad],
}
