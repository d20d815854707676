//! TextCNN ("Convolutional Neural Networks for Sentence Classification", Kim 2014): filters over windows of several
//! widths, and the maximum of each over the text.

use super::conv::Conv;
use super::options::{WordOptions, check_dropout, check_sizes, numbers, schema};
use super::runs::Runs;
use super::words::Words;
use easytransfer_plugin::{
    Call, Error, Init, Map, Model, ModelInfo, Pool, Result, Scope, Tensor, abi, nn,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ffi::CStr;

/// Options of [`TextCnn`].
#[derive(Deserialize)]
pub struct TextCnnConfig {
    #[serde(flatten)]
    words: WordOptions,
    #[serde(default = "filter_sizes")]
    filter_sizes: Vec<usize>,
    #[serde(default = "num_filters")]
    num_filters: Value,
    #[serde(default = "half")]
    dropout: f64,
}

fn filter_sizes() -> Vec<usize> {
    vec![3, 4, 5]
}

fn num_filters() -> Value {
    json!(100)
}

fn half() -> f64 {
    0.5
}

/// Convolutions over words. "last" [T, filters] are those of the window around each word, with zeros beyond the text;
/// "pooled" [B, filters] their maxima over the windows that lie within it.
pub struct TextCnn {
    words: Words,
    convs: Vec<Conv>,
    info: ModelInfo,
}

impl Model for TextCnn {
    const NAME: &'static CStr = c"text-cnn";
    const SCHEMA: &'static CStr = schema!(
        r#""filter_sizes":{"type":"array","items":{"type":"integer","minimum":1},"default":[3,4,5],"description":"words of a window, for each kind of filters"},"#,
        r#""num_filters":{"type":["integer","array"],"default":100,"description":"filters of each width: one number, or a list of one for each"},"#,
        r#""dropout":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0.5,"description":"before the head"}"#,
    );
    type Config = TextCnnConfig;

    fn new(config: TextCnnConfig, scope: &Scope) -> Result<Self> {
        let TextCnnConfig { words: options, filter_sizes, num_filters, dropout } = config;
        check_dropout("dropout", dropout)?;
        if filter_sizes.is_empty() {
            return Err(Error::invalid("filter_sizes: expected at least one width, found none"));
        }
        let filters = numbers("num_filters", &num_filters, filter_sizes.len())?;
        let words = Words::new(&options, scope)?;
        let mut convs = Vec::new();
        for (index, (width, filters)) in filter_sizes.iter().zip(&filters).enumerate() {
            check_sizes(&[("filter_sizes", *width)])?;
            let scope = scope.child(&format!("convs.{index}"))?;
            let shape = [*filters, options.embedding_size, *width];
            let init = Init::TruncatedNormal(0.0, 0.01);
            convs.push(Conv::new(&scope, shape, init, Init::Zeros)?);
        }
        let info = options.info(filters.iter().sum(), dropout, &["convs"]);
        Ok(Self { words, convs, info })
    }

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let runs = Runs::of(batch)?;
        let x = self.words.forward(&batch.get("ids")?)?;
        let (mut last, mut pooled) = (Vec::new(), Vec::new());
        for conv in &self.convs {
            let windows = conv.windows(&x, &runs, 0, Tensor::relu)?;
            pooled.push(nn::pool(&windows.values, &windows.runs.starts, Pool::Max)?);
            last.push(windows.of_tokens);
        }
        let join = |parts: &[Tensor]| Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1);
        put(call, outputs, &join(&last)?, &join(&pooled)?)
    }
}

/// Writes the outputs of a model without layers that others could look between.
pub fn put(call: &Call<'_>, outputs: &mut Map, last: &Tensor, pooled: &Tensor) -> Result<()> {
    if call.wants(abi::ET_WANT_HIDDEN_STATES) {
        outputs.put("hidden_states/0", last)?;
    }
    outputs.put("pooled", pooled)?;
    outputs.put("last", last)
}
