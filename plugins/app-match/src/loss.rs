//! The loss of pairs whose negatives are the other pairs of the batch.

use std::ffi::CStr;

use easytransfer_plugin::{Call, Error, Loss, Map, Result, Tensor, nn, out_of_range};
use serde::Deserialize;

/// Options of [`InBatchNegatives`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    scale: f64,
    symmetric: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { scale: 20.0, symmetric: false }
    }
}

/// Softmax cross entropy over the scaled cosines of a text with the pairs of all rows, of which its own is right
/// (Henderson et al. 2017; MultipleNegativesRankingLoss of sentence-transformers, whose scale is 20; InfoNCE with
/// temperature 1 / scale).
///
/// "vectors" and "pair_vectors" [B, h] of length 1. Symmetric: the mean with the loss of each pair over all texts.
pub struct InBatchNegatives(Options);

impl InBatchNegatives {
    /// Scaled cosines [B, B].
    fn scores(&self, outputs: &Map) -> Result<Tensor> {
        let pairs = outputs.find("pair_vectors")?.ok_or_else(|| {
            Error::bad_input(
                "in-batch-negatives: expected \"pair_vectors\"; every record needs its pair",
            )
        })?;
        outputs.get("vectors")?.matmul(&pairs.transpose()?)?.affine(self.0.scale, 0.0)
    }
}

impl Loss for InBatchNegatives {
    const NAME: &'static CStr = c"in-batch-negatives";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"scale":{"type":"number","exclusiveMinimum":0,"default":20,"description":"factor on the cosines, the inverse of the temperature"},
"symmetric":{"type":"boolean","default":false,"description":"whether pairs choose among the texts, too"}}}"#;
    type Options = Options;

    fn new(options: Options) -> Result<Self> {
        if !(options.scale > 0.0 && options.scale.is_finite()) {
            return Err(out_of_range("scale", "above 0", options.scale));
        }
        Ok(Self(options))
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let scores = self.scores(outputs)?;
        let rows: Vec<i64> = (0..scores.extent(0)? as i64).collect();
        let targets = Tensor::from_slice(&rows, &[rows.len()])?;
        let weights = batch.find("weights")?;
        let entropy =
            |scores: &Tensor| nn::cross_entropy(scores, &targets, weights.as_ref(), -100, 0.0);
        let forth = entropy(&scores)?;
        if !self.0.symmetric {
            return Ok(forth);
        }
        let back = entropy(&scores.transpose()?.contiguous()?)?;
        forth.add(&back)?.affine(0.5, 0.0)
    }
}
