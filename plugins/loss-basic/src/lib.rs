//! The losses that most tasks need.
//!
//! | you have | use |
//! |---|---|
//! | one class per row | `cross-entropy` |
//! | any number of classes per row | `binary-cross-entropy` |
//! | a number per row | `mse` |
#![forbid(unsafe_code)]

use easytransfer_plugin::{
    Call, Error, Loss, Map, NoOptions, Result, Tensor, abi, nn, out_of_range, weight_of_labels,
};
use serde::Deserialize;
use std::ffi::CStr;

/// Softmax cross entropy: mean over rows of -log p(label), rows weighted by "weights".
///
/// logits [B, C], labels [B] I64 in [0, C). Label smoothing: Szegedy et al. 2016. Labels of another name may be those
/// of tokens, logits [T, C] and labels [T] in runs: then it is the mean over tokens, each weighted as its row.
pub struct CrossEntropy {
    options: CrossEntropyOptions,
}

/// Options of [`CrossEntropy`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrossEntropyOptions {
    label_smoothing: f64,
    ignore_index: i64,
    labels: String,
}

impl Default for CrossEntropyOptions {
    fn default() -> Self {
        Self { label_smoothing: 0.0, ignore_index: -100, labels: "labels".to_owned() }
    }
}

impl CrossEntropy {
    /// The weight of each label: that of its row.
    fn weights(&self, batch: &Map) -> Result<Option<Tensor>> {
        let (weights, labels) = (batch.find("weights")?, &self.options.labels);
        let Some(weights) = weights else { return Ok(None) };
        let Some((space, _)) = labels.rsplit_once('/') else { return Ok(Some(weights)) };
        let starts = batch.get(&format!("{space}/starts"))?.to_vec::<i64>()?;
        let runs = starts.windows(2).enumerate();
        let rows: Vec<i64> =
            runs.flat_map(|(row, run)| (run[0]..run[1]).map(move |_| row as i64)).collect();
        weights.index_select(0, &Tensor::from_slice(&rows, &[rows.len()])?).map(Some)
    }
}

impl Loss for CrossEntropy {
    const NAME: &'static CStr = c"cross-entropy";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"label_smoothing":{"type":"number","minimum":0,"exclusiveMaximum":1,"default":0,"description":"mass spread evenly over all classes"},
"ignore_index":{"type":"integer","default":-100,"description":"rows with this label do not count"},
"labels":{"type":"string","default":"labels","description":"name of the labels in the batch, for instance \"decoder/labels\""}}}"#;
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
            &batch.get(&self.options.labels)?,
            self.weights(batch)?.as_ref(),
            self.options.ignore_index,
            self.options.label_smoothing,
        )
    }

    fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let CrossEntropyOptions { label_smoothing, ignore_index, labels } = &self.options;
        if labels.contains('/') {
            let message = format!(
                "cross-entropy: labels {labels:?} are of tokens, which have no loss per row"
            );
            return Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, message));
        }
        let (logits, labels) = (outputs.get("logits")?, batch.get(labels)?);
        nn::cross_entropy_rows(&logits, &labels, *ignore_index, *label_smoothing)
    }

    fn weight(&mut self, batch: &Map) -> Result<f64> {
        let labels = batch.get(&self.options.labels)?;
        weight_of_labels(&labels, self.weights(batch)?.as_ref(), self.options.ignore_index)
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
        let (logits, targets) = inputs(outputs, batch)?;
        nn::binary_cross_entropy(&logits, &targets, batch.find("weights")?.as_ref())
    }

    fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let (logits, targets) = inputs(outputs, batch)?;
        nn::binary_cross_entropy_rows(&logits, &targets)
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
        let (logits, targets) = inputs(outputs, batch)?;
        nn::row_means(&logits.sub(&targets)?.sqr()?)
    }
}

/// The logits, and the labels in their type and shape.
fn inputs(outputs: &Map, batch: &Map) -> Result<(Tensor, Tensor)> {
    let logits = outputs.get("logits")?;
    let targets = batch.get("labels")?.cast(logits.dtype())?.reshape(logits.shape())?;
    Ok((logits, targets))
}

easytransfer_plugin::export! {
    id: "loss-basic",
    losses: [CrossEntropy, BinaryCrossEntropy, MeanSquaredError],
}
