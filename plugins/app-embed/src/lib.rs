//! Text vectors from an encoder: one vector per text, for search, clustering and as features.
#![forbid(unsafe_code)]

use easytransfer_plugin::{
    App, AppInfo, Call, Column, Error, Map, ModelInfo, Pool, Record, Result, Row, Scope, Tensor,
    Tokenizer, abi, nn, out_of_range,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::CStr;

/// How token vectors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over all tokens, special tokens included.
    Mean,
    /// The first token.
    Cls,
    /// The model's own pooler.
    Pooled,
    /// Elementwise maximum.
    Max,
}

/// Options of [`Embed`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pooling: Pooling,
    normalize: bool,
    max_length: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalize: true, max_length: 256 }
    }
}

/// Vectors [B, h] in the output "vectors"; normalised to Euclidean length 1 unless switched off.
pub struct Embed {
    options: Options,
    max_length: usize,
}

impl App for Embed {
    const NAME: &'static CStr = c"text-embed";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"pooling":{"type":"string","enum":["mean","cls","pooled","max"],"default":"mean"},
"normalize":{"type":"boolean","default":true,"description":"Euclidean length 1"},
"max_length":{"type":"integer","minimum":1,"default":256,"description":"tokens, special tokens included; longer texts are cut"}}}"#;
    type Options = Options;

    fn new(options: Options, _: Option<Value>) -> Result<Self> {
        if options.max_length == 0 {
            return Err(out_of_range("max_length", "at least 1", 0));
        }
        Ok(Self { max_length: options.max_length, options })
    }

    fn columns(&self) -> Vec<Column> {
        let names = ["text", "sentence", "content", "review", "query", "question", "title"];
        vec![Column {
            role: "text".to_owned(),
            names: names.map(str::to_owned).to_vec(),
            required: true,
            target: false,
        }]
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
        let pooled = self.options.pooling == Pooling::Pooled;
        AppInfo { want: if pooled { abi::ET_WANT_POOLED } else { 0 }, ..AppInfo::default() }
    }

    fn features(&self, tokenizer: &Tokenizer, record: &Record, row: &mut Row) -> Result<()> {
        let text = match record.get("text") {
            Some(Value::String(text)) => text.clone(),
            // Numbers are texts too.
            Some(Value::Number(number)) => number.to_string(),
            Some(other) => return Err(Error::record("text", "a string", other.to_string())),
            None => return Err(Error::record("text", "a string", "nothing")),
        };
        let encoding = tokenizer.encode(&text, None, self.max_length)?;
        row.put_tokens("ids", encoding.ids())?;
        row.put_tokens("segments", encoding.segments())
    }

    fn build(&mut self, _: &Scope, model: &ModelInfo) -> Result<()> {
        if self.options.pooling == Pooling::Pooled && !model.pooled {
            return Err(Error::bad_input(
                "pooling: this model has no pooler; use \"mean\" or \"cls\"",
            ));
        }
        self.max_length = self.options.max_length.min(model.max_positions);
        Ok(())
    }

    fn forward(&self, _: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let pooled = |kind| -> Result<Tensor> {
            nn::pool(&outputs.get("last")?, &batch.get("starts")?, kind)
        };
        let vectors = match self.options.pooling {
            Pooling::Mean => pooled(Pool::Mean)?,
            Pooling::Cls => pooled(Pool::First)?,
            Pooling::Max => pooled(Pool::Max)?,
            Pooling::Pooled => outputs.get("pooled")?,
        };
        let vectors = if self.options.normalize {
            let norms = vectors.sqr()?.sum(&[-1], true)?.sqrt()?.clamp(1e-12, f64::MAX)?;
            vectors.div(&norms)?
        } else {
            vectors
        };
        outputs.put("vectors", &vectors)
    }

    fn decode(&self, _: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let vectors = outputs.get("vectors")?;
        let width = vectors.extent(1)?;
        let values = vectors.to_vec::<f32>()?;
        Ok(values
            .chunks_exact(width)
            .map(|vector| {
                let mut record = Record::new();
                record.insert("vector".to_owned(), json!(vector));
                record
            })
            .collect())
    }
}

easytransfer_plugin::export! {
    id: "app-embed",
    apps: [Embed],
}
