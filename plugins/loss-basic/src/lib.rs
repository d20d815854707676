//! The losses that most tasks need.
//!
//! | you have | use |
//! |---|---|
//! | one class per row | `cross-entropy` |
//! | any number of classes per row | `binary-cross-entropy` |
//! | a number per row | `mse` |
#![forbid(unsafe_code)]

use easytransfer_plugin::{
    Call, Loss, Map, NoOptions, Result, Tensor, nn, out_of_range, weight_of_labels,
};
use serde::Deserialize;
use std::ffi::CStr;

/// Softmax cross entropy: mean over rows of -log p(label), rows weighted by "weights".
///
/// logits [B, C], labels [B] I64 in [0, C). Label smoothing: Szegedy et al. 2016.
pub struct CrossEntropy {
    options: CrossEntropyOptions,
}

/// Options of [`CrossEntropy`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrossEntropyOptions {
    label_smoothing: f64,
    ignore_index: i64,
}

impl Default for CrossEntropyOptions {
    fn default() -> Self {
        Self { label_smoothing: 0.0, ignore_index: -100 }
    }
}

impl Loss for CrossEntropy {
    const NAME: &'static CStr = c"cross-entropy";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"label_smoothing":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0,"description":"mass spread evenly over all classes"},
"ignore_index":{"type":"integer","default":-100,"description":"rows with this label do not count"}}}"#;
    type Options = CrossEntropyOptions;

    fn new(options: CrossEntropyOptions) -> Result<Self> {
        if !(0.0..1.0).contains(&options.label_smoothing) {
            return Err(out_of_range("label_smoothing", "0 <= p < 1", options.label_smoothing));
        }
        Ok(Self { options })
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        nn::cross_entropy(
            &outputs.get("logits")?,
            &batch.get("labels")?,
            batch.find("weights")?.as_ref(),
            self.options.ignore_index,
            self.options.label_smoothing,
        )
    }

    fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let logits = outputs.get("logits")?;
        let labels = batch.get("labels")?.to_vec::<i64>()?;
        let counts = |label: &i64| *label != self.options.ignore_index;
        let index: Vec<i64> = labels.iter().map(|l| if counts(l) { *l } else { 0 }).collect();
        let counts: Vec<f32> = labels.iter().map(|l| f32::from(u8::from(counts(l)))).collect();
        let log_p = nn::log_softmax(&logits)?;
        let own = log_p.gather(1, &Tensor::from_slice(&index, &[labels.len(), 1])?)?;
        let smoothing = self.options.label_smoothing;
        let own = own.reshape(&[labels.len()])?.affine(smoothing - 1.0, 0.0)?;
        let loss = own.sub(&log_p.mean(&[1], false)?.affine(smoothing, 0.0)?)?;
        loss.mul(&Tensor::from_slice(&counts, &[labels.len()])?.cast(logits.dtype())?)
    }

    fn weight(&mut self, batch: &Map) -> Result<f64> {
        weight_of_labels(batch, self.options.ignore_index)
    }
}

/// Binary cross entropy with logits, mean over rows and classes. logits [B, C], labels [B, C] in [0, 1].
pub struct BinaryCrossEntropy;

impl Loss for BinaryCrossEntropy {
    const NAME: &'static CStr = c"binary-cross-entropy";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let logits = outputs.get("logits")?;
        let targets = batch.get("labels")?.cast(logits.dtype())?.reshape(logits.shape())?;
        nn::binary_cross_entropy(&logits, &targets, batch.find("weights")?.as_ref())
    }

    fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let logits = outputs.get("logits")?;
        let targets = batch.get("labels")?.cast(logits.dtype())?.reshape(logits.shape())?;
        // log(1 + e^x) - x t, written so that no power overflows.
        let soft = logits.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
        row_means(&logits.relu()?.add(&soft)?.sub(&logits.mul(&targets)?)?)
    }
}

/// Mean squared error. logits [B, 1] or [B], labels [B].
pub struct MeanSquaredError;

impl Loss for MeanSquaredError {
    const NAME: &'static CStr = c"mse";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }

    fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let logits = outputs.get("logits")?;
        let targets = batch.get("labels")?.cast(logits.dtype())?.reshape(logits.shape())?;
        row_means(&logits.sub(&targets)?.sqr()?)
    }
}

/// Means over all axes but the first.
fn row_means(values: &Tensor) -> Result<Tensor> {
    let rows = values.extent(0)?;
    values.reshape(&[rows, values.len() / rows.max(1)])?.mean(&[1], false)
}

easytransfer_plugin::export! {
    id: "loss-basic",
    losses: [CrossEntropy, BinaryCrossEntropy, MeanSquaredError],
}
