//! From the vectors of a text's tokens to one.

use easytransfer_plugin::{Error, Map, Pool, Result, Tensor, nn};
use serde::Deserialize;

/// How token vectors become one. The names are those of sentence-transformers, but for the model's own pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean over all tokens, special tokens included.
    Mean,
    /// The first token.
    Cls,
    /// The model's own pooler.
    Pooled,
    /// Elementwise maximum.
    Max,
    /// Sum over all tokens, divided by the square root of their number.
    MeanSqrtLenTokens,
    /// Mean in which the token at place k counts k times, from 1.
    #[serde(rename = "weightedmean")]
    WeightedMean,
    /// The last token.
    #[serde(rename = "lasttoken")]
    LastToken,
}

/// The tokens of a batch that are pooled.
pub struct Tokens {
    /// Vectors [T, h].
    values: Tensor,
    /// First token of each text, and the end [B + 1].
    starts: Tensor,
    /// Place of each token in its text, from 0 [T].
    positions: Tensor,
}

impl Tokens {
    /// All tokens of the batch, or those behind each text's first `field "prompt"` tokens. Errors: nothing is left of
    /// a text.
    pub fn of(batch: &Map, values: Tensor) -> Result<Self> {
        let (starts, positions) = (batch.get("starts")?, batch.get("positions")?);
        let Some(prompts) = batch.find("prompt")? else {
            return Ok(Self { values, starts, positions });
        };
        let bounds = starts.to_vec::<i64>()?;
        let (mut kept, mut begins) = (Vec::new(), vec![0i64]);
        for (bounds, prompt) in bounds.windows(2).zip(prompts.to_vec::<i64>()?) {
            if bounds[0] + prompt >= bounds[1] {
                return Err(Error::bad_input(
                    "prompt: it leaves no token of a text for the pooling; use a shorter one",
                ));
            }
            kept.extend(bounds[0] + prompt..bounds[1]);
            begins.push(kept.len() as i64);
        }
        let kept = Tensor::from_slice(&kept, &[kept.len()])?;
        Ok(Self {
            values: values.index_select(0, &kept)?,
            starts: Tensor::from_slice(&begins, &[begins.len()])?,
            positions: positions.index_select(0, &kept)?,
        })
    }

    /// Vectors [B, h]. `pooled` is asked for the output of the model's own pooler.
    pub fn pool(&self, kind: Pooling, pooled: impl Fn() -> Result<Tensor>) -> Result<Tensor> {
        let pool = |values: &Tensor, kind| nn::pool(values, &self.starts, kind);
        match kind {
            Pooling::Mean => pool(&self.values, Pool::Mean),
            Pooling::Cls => pool(&self.values, Pool::First),
            Pooling::Max => pool(&self.values, Pool::Max),
            Pooling::Pooled => pooled(),
            Pooling::MeanSqrtLenTokens => {
                let bounds = self.starts.to_vec::<i64>()?;
                let roots: Vec<f32> =
                    bounds.windows(2).map(|two| ((two[1] - two[0]) as f32).sqrt()).collect();
                let roots = Tensor::from_slice(&roots, &[roots.len(), 1])?;
                pool(&self.values, Pool::Mean)?.mul(&roots)
            }
            Pooling::WeightedMean => {
                let places = self.positions.to_vec::<i64>()?;
                let weights: Vec<f32> = places.iter().map(|&place| (place + 1) as f32).collect();
                let weights = Tensor::from_slice(&weights, &[weights.len(), 1])?;
                let sums = pool(&self.values.mul(&weights)?, Pool::Mean)?;
                sums.div(&pool(&weights, Pool::Mean)?)
            }
            Pooling::LastToken => {
                let bounds = self.starts.to_vec::<i64>()?;
                let last: Vec<i64> = bounds[1..].iter().map(|end| end - 1).collect();
                self.values.index_select(0, &Tensor::from_slice(&last, &[last.len()])?)
            }
        }
    }
}
