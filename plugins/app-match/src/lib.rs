//! Matching by two towers: a text and its pair become vectors by encoders with the same weights or with their own,
//! and texts that belong together become neighbours (Reimers and Gurevych 2019; Henderson et al. 2017 for negatives
//! from the batch).
#![forbid(unsafe_code)]

mod loss;
mod metric;

use easytransfer_plugin::{
    App, AppInfo, Call, Choice, Column, Context, Error, Map, ModelInfo, Module, Net, Pool, Record,
    Result, Row, Rows, Scope, Tensor, Tokenizer, nn, out_of_range,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::CStr;

/// How a tower's token vectors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over all tokens, special tokens included.
    Mean,
    /// The first token.
    Cls,
    /// Elementwise maximum.
    Max,
}

/// Options of [`Match`].
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pooling: Pooling,
    max_length: usize,
    shared: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, max_length: 128, shared: true }
    }
}

/// The second tower, where it has weights of its own.
const SECOND: &str = "pair_encoder";

/// Two towers. "vectors" [B, h] and "pair_vectors" [B, h], of Euclidean length 1, so that their inner product is the
/// cosine.
///
/// Predictions: {"score"}, the cosine of the pair, where the record has both texts; {"vector"} where it has one of
/// them.
pub struct Match {
    options: Options,
    max_length: usize,
}

impl Match {
    /// Vectors of one side: the tokens under `space`, through the tower `module`.
    fn tower(
        &self,
        module: &str,
        space: &str,
        call: &Call<'_>,
        net: &mut Net<'_>,
        batch: &Map,
    ) -> Result<Tensor> {
        let side = batch.below(space)?;
        let mut outputs = Map::new()?;
        net.run(module, call, &side, &mut outputs)?;
        let kind = match self.options.pooling {
            Pooling::Mean => Pool::Mean,
            Pooling::Cls => Pool::First,
            Pooling::Max => Pool::Max,
        };
        let vectors = nn::pool(&outputs.get("last")?, &side.get("starts")?, kind)?;
        let norms = vectors.sqr()?.sum(&[-1], true)?.sqrt()?.clamp(1e-12, f64::MAX)?;
        vectors.div(&norms)
    }

    fn put(&self, tokenizer: &Tokenizer, text: &str, space: &str, row: &mut Row) -> Result<()> {
        let encoding = tokenizer.encode(text, None, self.max_length)?;
        row.put_tokens(&format!("{space}ids"), encoding.ids())?;
        row.put_tokens(&format!("{space}segments"), encoding.segments())
    }
}

impl App for Match {
    const NAME: &'static CStr = c"text-match";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"pooling":{"type":"string","enum":["mean","cls","max"],"default":"mean","description":"vector of a text: the mean of its tokens, the first or the maximum"},
"max_length":{"type":"integer","minimum":3,"default":128,"description":"tokens of a text, special tokens included; longer texts are cut"},
"shared":{"type":"boolean","default":true,"description":"whether both towers have the same weights"}}}"#;
    type Options = Options;

    fn new(options: Options, _: Option<Value>) -> Result<Self> {
        if options.max_length < 3 {
            return Err(out_of_range("max_length", "at least 3", options.max_length));
        }
        Ok(Self { max_length: options.max_length, options })
    }

    fn columns(&self) -> Vec<Column> {
        let column = |role: &str, names: &[&str], required| Column {
            role: role.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            required,
            target: false,
        };
        vec![
            column("text", &["text", "query", "question", "sentence1", "text1", "anchor"], true),
            column(
                "text_pair",
                &["text_pair", "passage", "answer", "sentence2", "text2", "positive"],
                true,
            ),
        ]
    }

    fn observe(&mut self, record: &Record) -> Result<()> {
        text_of(record, "text")?;
        match text_of(record, "text_pair")? {
            Some(_) => Ok(()),
            None => Err(Error::record("text_pair", "a text in a training record", "nothing")),
        }
    }

    fn observed(&mut self) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(json!({}))
    }

    fn info(&self) -> AppInfo {
        let second = Module { name: SECOND.to_owned() };
        AppInfo {
            loss: Some(Choice::new("in-batch-negatives")),
            metrics: vec![Choice::new("in-batch-recall")],
            best: "recall@1".to_owned(),
            best_is: "max".to_owned(),
            modules: if self.options.shared { Vec::new() } else { vec![second] },
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
        let mut row = rows.add()?;
        let (text, pair) = (text_of(record, "text")?, text_of(record, "text_pair")?);
        if text.is_none() && pair.is_none() {
            return Err(Error::record("text", "a text", "nothing"));
        }
        if let Some(text) = text {
            self.put(tokenizer, text, "text/", &mut row)?;
        }
        if let Some(pair) = pair {
            self.put(tokenizer, pair, "pair/", &mut row)?;
        }
        Ok(())
    }

    fn build(&mut self, _: &Scope, model: &ModelInfo) -> Result<()> {
        self.max_length = self.options.max_length.min(model.max_positions);
        Ok(())
    }

    fn forward(
        &self,
        call: &Call<'_>,
        net: &mut Net<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> Result<()> {
        let second = if self.options.shared { "" } else { SECOND };
        for (module, space, name) in [("", "text/", "vectors"), (second, "pair/", "pair_vectors")] {
            if batch.has(&format!("{space}ids")) {
                outputs.put(name, &self.tower(module, space, call, net, batch)?)?;
            }
        }
        Ok(())
    }

    fn decode(&self, _: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let single = |name: &str, value: Value| Record::from_iter([(name.to_owned(), value)]);
        match (outputs.find("vectors")?, outputs.find("pair_vectors")?) {
            (Some(text), Some(pair)) => {
                let cosines = text.mul(&pair)?.sum(&[-1], false)?.to_vec::<f32>()?;
                Ok(cosines.into_iter().map(|cosine| single("score", json!(cosine))).collect())
            }
            (Some(one), None) | (None, Some(one)) => {
                let width = one.extent(1)?;
                let values = one.to_vec::<f32>()?;
                Ok(values.chunks_exact(width).map(|one| single("vector", json!(one))).collect())
            }
            (None, None) => Err(Error::invalid("text-match: neither side was computed")),
        }
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
    id: "app-match",
    losses: [loss::InBatchNegatives],
    apps: [Match],
    metrics: [metric::InBatchRecall],
}
