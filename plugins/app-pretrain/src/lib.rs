//! Pretraining of encoders on plain text: masked language modelling with the head of the family's checkpoints, and
//! masks that are drawn anew in every epoch (Devlin et al. 2019; Liu et al. 2019 for dynamic masks).
#![forbid(unsafe_code)]

mod head;
mod masks;
mod measure;

use easytransfer_plugin::{
    App, AppInfo, Call, Choice, Column, Context, Error, Map, ModelInfo, Net, Record, Result, Rows,
    Scope, TaskHead, Tensor, Tokenizer, abi, nn, out_of_range,
};
use masks::{IGNORED, Ids, Masking};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::CStr;
use std::sync::OnceLock;

/// Options of [`MaskedLm`].
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    max_length: usize,
    probability: f64,
    whole_words: bool,
    answers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_length: 128, probability: 0.15, whole_words: false, answers: 5 }
    }
}

/// Masked language modelling. While training and evaluating tokens are hidden by random numbers that depend on the
/// seed, the epoch and the record alone.
///
/// Predictions for texts that hold the mask token: {"masked": [{"position", "tokens": [...], "probabilities":
/// [...]}]}, the likeliest tokens first, positions counted in tokens of the input.
pub struct MaskedLm {
    options: Options,
    max_length: usize,
    head: Option<TaskHead>,
    /// Known since the first features; names of tokens need the tokenizer.
    ids: OnceLock<Ids>,
    tokenizer: OnceLock<Tokenizer>,
}

impl MaskedLm {
    fn ids(&self, tokenizer: &Tokenizer) -> Result<&Ids> {
        if let Some(ids) = self.ids.get() {
            return Ok(ids);
        }
        let ids = Ids::of(tokenizer)?;
        let _ = self.tokenizer.set(tokenizer.clone());
        Ok(self.ids.get_or_init(|| ids))
    }

    /// Places of the tokens that are to be predicted: those with a label, or without labels those that are hidden.
    fn places(&self, batch: &Map) -> Result<Vec<i64>> {
        let places = |of: &[i64], counts: &dyn Fn(i64) -> bool| -> Vec<i64> {
            let places = of.iter().enumerate().filter(|&(_, &value)| counts(value));
            places.map(|(place, _)| place as i64).collect()
        };
        if let Some(labels) = batch.find("token_labels")? {
            return Ok(places(&labels.to_vec::<i64>()?, &|label| label != IGNORED));
        }
        let mask = self.ids.get().map_or(-1, |ids| ids.mask);
        Ok(places(&batch.get("ids")?.to_vec::<i64>()?, &|id| id == mask))
    }
}

impl App for MaskedLm {
    const NAME: &'static CStr = c"masked-lm";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"max_length":{"type":"integer","minimum":3,"default":128,"description":"tokens of a text, special tokens included; longer texts are cut"},
"probability":{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1,"default":0.15,"description":"part of the tokens (or words) that are to be predicted"},
"whole_words":{"type":"boolean","default":false,"description":"whether all tokens of a word are hidden together"},
"answers":{"type":"integer","minimum":1,"default":5,"description":"tokens that a prediction names for each hidden one"}}}"#;
    type Options = Options;

    fn new(options: Options, _: Option<Value>) -> Result<Self> {
        if options.max_length < 3 {
            return Err(out_of_range("max_length", "at least 3", options.max_length));
        }
        if !(options.probability > 0.0 && options.probability < 1.0) {
            return Err(out_of_range("probability", "0 < p < 1", options.probability));
        }
        if options.answers == 0 {
            return Err(out_of_range("answers", "at least 1", 0));
        }
        Ok(Self {
            max_length: options.max_length,
            options,
            head: None,
            ids: OnceLock::new(),
            tokenizer: OnceLock::new(),
        })
    }

    fn columns(&self) -> Vec<Column> {
        let names = ["text", "sentence", "content", "paragraph", "document"];
        vec![Column {
            role: "text".to_owned(),
            names: names.map(str::to_owned).to_vec(),
            required: true,
            target: false,
        }]
    }

    fn observe(&mut self, record: &Record) -> Result<()> {
        text_of(record).map(|_| ())
    }

    fn observed(&mut self) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(json!({}))
    }

    fn info(&self) -> AppInfo {
        AppInfo {
            loss: Some(Choice::new("masked-tokens")),
            metrics: vec![Choice::new("masked-accuracy")],
            best: "loss".to_owned(),
            best_is: "min".to_owned(),
            task: "masked-lm".to_owned(),
            pretrained_head: true,
            fresh: true,
            longest: self.max_length,
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
        let ids = self.ids(tokenizer)?;
        let encoding = tokenizer.encode(text_of(record)?, None, self.max_length)?;
        let mut row = rows.add()?;
        // A text that hides a token already asks for it.
        if encoding.ids().contains(&ids.mask) && !context.is_training() {
            row.put_tokens("ids", encoding.ids())?;
        } else {
            let Options { probability, whole_words, .. } = self.options;
            let masking = Masking { probability, whole_words };
            let rng = context.rng()?;
            let masked = masking.apply(ids, &encoding, &rng)?;
            row.put_tokens("ids", &masked.ids)?;
            row.put_tokens("token_labels", &masked.labels)?;
        }
        row.put_tokens("segments", encoding.segments())
    }

    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        self.max_length = self.options.max_length.min(model.max_positions);
        self.head = Some(head::new(scope, model)?);
        Ok(())
    }

    fn forward(
        &self,
        call: &Call<'_>,
        net: &mut Net<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> Result<()> {
        let head = self.head.as_ref().ok_or_else(|| {
            Error::new(abi::ET_ERR_FAILED_PRECONDITION, "masked-lm: forward before build")
        })?;
        net.run("", call, batch, outputs)?;
        let places = self.places(batch)?;
        let places = Tensor::from_slice(&places, &[places.len()])?;
        let hidden = outputs.get("last")?.index_select(0, &places)?;
        let logits = head.forward(call, &hidden, batch, &mut |name| net.param(name))?;
        outputs.put("masked_logits", &logits)?;
        outputs.put("masked_places", &places)
    }

    fn decode(&self, batch: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let logits = outputs.get("masked_logits")?;
        let width = logits.extent(1)?;
        let probabilities = nn::softmax(&logits)?.to_vec::<f32>()?;
        let places = outputs.get("masked_places")?.to_vec::<i64>()?;
        let starts = batch.get("starts")?.to_vec::<i64>()?;
        let mut rows = probabilities.chunks_exact(width).zip(places).peekable();
        let mut records = Vec::with_capacity(starts.len());
        for run in starts.windows(2) {
            let mut masked = Vec::new();
            while let Some((scores, place)) = rows.next_if(|(_, place)| *place < run[1]) {
                masked.push(self.likeliest(scores, place - run[0])?);
            }
            records.push(Record::from_iter([("masked".to_owned(), Value::Array(masked))]));
        }
        Ok(records)
    }
}

impl MaskedLm {
    /// The likeliest tokens of a place.
    fn likeliest(&self, scores: &[f32], position: i64) -> Result<Value> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
        order.sort_unstable_by(by_score);
        order.truncate(self.options.answers);
        let token = |&id: &usize| match self.tokenizer.get() {
            // A model's vocabulary may be larger than the tokenizer's.
            Some(tokenizer) if id < tokenizer.vocab_len() => tokenizer.token_text(id as i64),
            _ => Ok(format!("{id}")),
        };
        let tokens = order.iter().map(token).collect::<Result<Vec<_>>>()?;
        let probabilities: Vec<f32> = order.iter().map(|&id| scores[id]).collect();
        Ok(json!({"position": position, "tokens": tokens, "probabilities": probabilities}))
    }
}

fn text_of(record: &Record) -> Result<&str> {
    match record.get("text") {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Error::record("text", "a text", other.to_string())),
        None => Err(Error::record("text", "a text", "nothing")),
    }
}

easytransfer_plugin::export! {
    id: "app-pretrain",
    losses: [measure::MaskedTokens],
    apps: [MaskedLm],
    metrics: [measure::MaskedAccuracy],
}
