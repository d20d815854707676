//! Loss and figures of hidden tokens.

use std::ffi::CStr;

use easytransfer_plugin::{Call, Loss, Map, Metric, NoOptions, Result, Stream, Tensor, nn};
use serde_json::{Map as Json, Value, json};

use super::masks::IGNORED;

/// The labels of the tokens that were predicted, in the order of their scores.
fn labels(outputs: &Map, batch: &Map) -> Result<Tensor> {
    batch.get("token_labels")?.index_select(0, &outputs.get("masked_places")?)
}

/// Softmax cross entropy over the vocabulary, mean over the hidden tokens; 0 where a batch has none. "masked_logits"
/// [M, V], "masked_places" [M], "token_labels" [T].
pub struct MaskedTokens;

impl Loss for MaskedTokens {
    const NAME: &'static CStr = c"masked-tokens";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let logits = outputs.get("masked_logits")?;
        if logits.extent(0)? == 0 {
            // Keeps the tape: a batch without hidden tokens teaches nothing.
            return outputs.get("last")?.sum(&[], false)?.affine(0.0, 0.0);
        }
        nn::cross_entropy(&logits, &labels(outputs, batch)?, None, IGNORED, 0.0)
    }

    fn weight(&mut self, batch: &Map) -> Result<f64> {
        let labels = batch.get("token_labels")?.to_vec::<i64>()?;
        Ok(labels.iter().filter(|&&label| label != IGNORED).count() as f64)
    }
}

/// "accuracy": the share of hidden tokens whose likeliest token is the right one.
pub struct MaskedAccuracy {
    right: u64,
    count: u64,
}

impl Metric for MaskedAccuracy {
    const NAME: &'static CStr = c"masked-accuracy";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self { right: 0, count: 0 })
    }

    fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
        let logits = outputs.get("masked_logits")?;
        if logits.extent(0)? == 0 {
            return Ok(());
        }
        let found = logits.argmax(-1)?.to_vec::<i64>()?;
        let wanted = labels(outputs, batch)?.to_vec::<i64>()?;
        self.right += found.iter().zip(&wanted).filter(|(a, b)| a == b).count() as u64;
        self.count += wanted.len() as u64;
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        let accuracy = self.right as f64 / self.count as f64;
        Ok(Json::from_iter([("accuracy".to_owned(), json!(accuracy))]))
    }

    fn save(&self, stream: &mut Stream) -> Result<()> {
        stream.write_u64(self.right)?;
        stream.write_u64(self.count)
    }

    fn merge(&mut self, stream: &mut Stream) -> Result<()> {
        self.right += stream.read_u64()?;
        self.count += stream.read_u64()?;
        Ok(())
    }
}
