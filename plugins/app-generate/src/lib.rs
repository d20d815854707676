//! Text to text: a model with a decoder reads a text and writes another one, as in summaries, translations and answers
//! (Sutskever et al. 2014; Raffel et al. 2020).
#![forbid(unsafe_code)]

use easytransfer_plugin::{
    App, AppInfo, Call, Choice, Column, Context, Error, Map, ModelInfo, Net, Record, Result, Rows,
    Scope, Tensor, Tokenizer, abi, out_of_range,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::CStr;
use std::sync::OnceLock;

/// Options of [`Generate`].
#[derive(Deserialize)]
#[serde(default)]
pub struct Options {
    prefix: String,
    max_length: usize,
    max_target_length: usize,
    write_known: bool,
    /// What is left are the host's options of generation.
    #[serde(flatten)]
    generation: Record,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            max_length: 512,
            max_target_length: 128,
            write_known: true,
            generation: Record::new(),
        }
    }
}

/// The target's tokens, which the loss compares with the logits.
const LABELS: &str = "decoder/labels";

/// Writes a text for a text, by teacher forcing while training: the decoder reads the target's tokens, shifted right
/// by the model's start, and learns the next one.
///
/// Predictions: {"target"}, the text; with several beams also {"score"}, the sum of log probabilities by the length
/// penalty; where several texts are asked for also {"targets", "scores"}, the best first.
pub struct Generate {
    options: Options,
    start: Option<i64>,
    eos: Vec<i64>,
    /// Known since the first features.
    tokenizer: OnceLock<Tokenizer>,
}

impl Generate {
    fn number(&self, option: &str) -> usize {
        self.options.generation.get(option).and_then(Value::as_u64).unwrap_or(1) as usize
    }

    fn start(&self) -> Result<i64> {
        self.start.ok_or_else(|| {
            Error::new(abi::ET_ERR_FAILED_PRECONDITION, "text-generate: forward before build")
        })
    }

    /// The batch's texts beside targets that hold nothing yet but the start.
    fn begun(&self, batch: &Map) -> Result<Map> {
        let mut begun = Map::new()?;
        for name in batch.names().iter().filter(|name| !name.starts_with("decoder/")) {
            begun.put(name, &batch.get(name)?)?;
        }
        let runs = batch.get("starts")?.len() - 1;
        let starts: Vec<i64> = (0..=runs as i64).collect();
        begun.put("decoder/ids", &Tensor::from_slice(&vec![self.start()?; runs], &[runs])?)?;
        begun.put("decoder/positions", &Tensor::from_slice(&vec![0i64; runs], &[runs])?)?;
        begun.put("decoder/starts", &Tensor::from_slice(&starts, &[starts.len()])?)?;
        Ok(begun)
    }

    fn text(&self, ids: &[i64]) -> Result<String> {
        let Some(tokenizer) = self.tokenizer.get() else {
            return Err(Error::invalid("text-generate: decode before features"));
        };
        // A model's vocabulary may be larger than the tokenizer's.
        let known = |id: &i64| *id < tokenizer.vocab_len() as i64;
        tokenizer.decode(&ids.iter().copied().filter(known).collect::<Vec<_>>(), true)
    }
}

impl App for Generate {
    const NAME: &'static CStr = c"text-generate";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"prefix":{"type":"string","default":"","description":"put before every text, for instance \"summarize: \""},
"max_length":{"type":"integer","minimum":1,"default":512,"description":"tokens of a text, special tokens included; longer texts are cut"},
"max_target_length":{"type":"integer","minimum":1,"default":128,"description":"the same of targets while training"},
"write_known":{"type":"boolean","default":true,"description":"whether a text is written also for records that have their target; false makes evaluation quicker, which then has the loss alone"},
"max_new_tokens":{"type":"integer","minimum":1,"default":64,"description":"tokens of a written text at most"},
"min_new_tokens":{"type":"integer","minimum":0,"default":0,"description":"tokens of a written text at least"},
"beams":{"type":"integer","minimum":1,"default":1,"description":"1: the likeliest token each time; more: beam search"},
"length_penalty":{"type":"number","default":1.0,"description":"exponent of the length that divides a beam's score; above 0 favours long texts"},
"early_stopping":{"enum":[false,true,"never"],"default":false,"description":"true: beam search ends with enough texts; never: when none can become better"},
"no_repeat_ngram":{"type":"integer","minimum":0,"default":0,"description":"tokens in a row that a text may hold only once; 0: no such rule"},
"repetition_penalty":{"type":"number","exclusiveMinimum":0,"default":1.0,"description":"above 1 makes tokens that were written less likely"},
"forced_first":{"type":["integer","null"],"minimum":0,"default":null,"description":"the first token, such as that of a language"},
"forced_last":{"type":["integer","null"],"minimum":0,"default":null,"description":"the token of a text that reaches max_new_tokens"},
"sample":{"type":"boolean","default":false,"description":"draw tokens by their probabilities"},
"temperature":{"type":"number","exclusiveMinimum":0,"default":1.0,"description":"of draws; below 1 favours likely tokens"},
"top_k":{"type":"integer","minimum":0,"default":0,"description":"draw among so many likeliest tokens; 0: all"},
"top_p":{"type":"number","exclusiveMinimum":0,"maximum":1,"default":1.0,"description":"draw among the fewest tokens with this part of the probability"},
"seed":{"type":"integer","minimum":0,"default":0,"description":"of draws"},
"return":{"type":"integer","minimum":1,"default":1,"description":"texts that are written for each text"},
"cache":{"type":"boolean","default":true,"description":"false: read everything anew for each token"}}}"#;
    type Options = Options;

    fn new(options: Options, _: Option<Value>) -> Result<Self> {
        for (name, value) in
            [("max_length", options.max_length), ("max_target_length", options.max_target_length)]
        {
            if value == 0 {
                return Err(out_of_range(name, "at least 1", value));
            }
        }
        Ok(Self { options, start: None, eos: Vec::new(), tokenizer: OnceLock::new() })
    }

    fn columns(&self) -> Vec<Column> {
        let column = |role: &str, names: &[&str], target| Column {
            role: role.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            required: true,
            target,
        };
        vec![
            column("text", &["text", "source", "input", "article", "document", "question"], false),
            column("target", &["target", "summary", "translation", "output", "answer"], true),
        ]
    }

    fn observe(&mut self, record: &Record) -> Result<()> {
        text_of(record, "target")?;
        match text_of(record, "text")? {
            Some(_) => Ok(()),
            None => Err(Error::record("text", "a text", "nothing")),
        }
    }

    fn observed(&mut self) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(json!({}))
    }

    fn info(&self) -> AppInfo {
        let mut loss = Choice::new("cross-entropy");
        loss.options.insert("labels".to_owned(), LABELS.into());
        AppInfo {
            loss: Some(loss),
            best: "loss".to_owned(),
            best_is: "min".to_owned(),
            longest: self.options.max_length + self.options.max_target_length,
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
        self.tokenizer.get_or_init(|| tokenizer.clone());
        let text = match text_of(record, "text")? {
            Some(text) => format!("{}{text}", self.options.prefix),
            None => return Err(Error::record("text", "a text", "nothing")),
        };
        let mut row = rows.add()?;
        row.put_tokens("ids", tokenizer.encode(&text, None, self.options.max_length)?.ids())?;
        if let Some(target) = text_of(record, "target")? {
            let encoding = tokenizer.encode(target, None, self.options.max_target_length)?;
            let labels = encoding.ids();
            let read: Vec<i64> =
                std::iter::once(self.start()?).chain(labels.iter().copied()).collect();
            row.put_tokens("decoder/ids", &read[..labels.len()])?;
            row.put_tokens(LABELS, labels)?;
        }
        Ok(())
    }

    fn build(&mut self, _: &Scope, model: &ModelInfo) -> Result<()> {
        self.start = model.decoder_start;
        self.eos.clone_from(&model.eos);
        match self.start {
            Some(_) => Ok(()),
            None => Err(Error::bad_input(format!(
                "text-generate: expected a model with a decoder, such as T5, found {}",
                model.class
            ))),
        }
    }

    fn forward(
        &self,
        call: &Call<'_>,
        net: &mut Net<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> Result<()> {
        if batch.has(LABELS) {
            net.run("", &call.also(abi::ET_WANT_LOGITS), batch, outputs)?;
            if call.training || !self.options.write_known {
                return Ok(());
            }
        }
        let mut options = self.options.generation.clone();
        options.insert("eos".to_owned(), json!(self.eos));
        net.generate("", &self.begun(batch)?, &options, outputs)
    }

    fn decode(&self, batch: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let Some(ids) = outputs.find("generated/ids")? else {
            return Ok(vec![Record::new(); batch.get("starts")?.len() - 1]);
        };
        let ids = ids.to_vec::<i64>()?;
        let starts = outputs.get("generated/starts")?.to_vec::<i64>()?;
        let texts = starts.windows(2).map(|run| self.text(&ids[run[0] as usize..run[1] as usize]));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let scores = outputs.get("generated/scores")?.to_vec::<f32>()?;
        let (count, has_scores) = (self.number("return"), self.number("beams") > 1);
        let record = |(texts, scores): (&[String], &[f32])| {
            let mut record = Record::from_iter([("target".to_owned(), json!(texts[0]))]);
            if has_scores {
                record.insert("score".to_owned(), json!(scores[0]));
            }
            if count > 1 {
                record.insert("targets".to_owned(), json!(texts));
            }
            if count > 1 && has_scores {
                record.insert("scores".to_owned(), json!(scores));
            }
            record
        };
        Ok(texts.chunks_exact(count).zip(scores.chunks_exact(count)).map(record).collect())
    }
}

fn text_of<'a>(record: &'a Record, role: &str) -> Result<Option<&'a str>> {
    match record.get(role) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Error::record(role, "a text", other.to_string())),
    }
}

easytransfer_plugin::export! {
    id: "app-generate",
    apps: [Generate],
}
