//! The loss of spans.

use std::ffi::CStr;

use easytransfer_plugin::{Call, DType, Loss, Map, NoOptions, Result, Tensor, nn};

/// Mean of two softmax cross entropies over the tokens of each row: of the first token of the answer and of the last
/// (Devlin et al. 2019). "span_logits" [T, 2], "starts" [B + 1], "first_token" and "last_token" [B] I64, places in
/// their rows; rows weighted by "weights".
pub struct SpanLoss;

/// A score that no softmax notices.
const LOWEST: f64 = -1e9;

impl SpanLoss {
    /// Scores [B, L] of one column, with [`LOWEST`] behind the end of each row.
    fn scores(outputs: &Map, batch: &Map) -> Result<[Tensor; 2]> {
        let logits = outputs.get("span_logits")?;
        let starts = batch.get("starts")?;
        let ends = starts.to_vec::<i64>()?;
        let longest = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as usize;
        let padded = nn::to_padded(&logits, &starts, longest)?;
        let ones = Tensor::full(1.0, logits.dtype(), &[logits.extent(0)?, 1])?;
        let there = nn::to_padded(&ones, &starts, longest)?;
        let rows = padded.extent(0)?;
        let hidden = there.affine(-LOWEST, LOWEST)?.reshape(&[rows, longest])?;
        let column =
            |at| padded.narrow(2, at, 1)?.contiguous()?.reshape(&[rows, longest])?.add(&hidden);
        Ok([column(0)?, column(1)?])
    }
}

impl Loss for SpanLoss {
    const NAME: &'static CStr = c"span";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let weights = batch.find("weights")?;
        let [first, last] = Self::scores(outputs, batch)?;
        let entropy = |scores: &Tensor, targets| {
            nn::cross_entropy(scores, &batch.get(targets)?, weights.as_ref(), -100, 0.0)
        };
        entropy(&first, "first_token")?.add(&entropy(&last, "last_token")?)?.affine(0.5, 0.0)
    }

    fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let [first, last] = Self::scores(outputs, batch)?;
        let entropy = |scores: &Tensor, targets| -> Result<Tensor> {
            let targets = batch.get(targets)?.cast(DType::I64)?;
            let rows = targets.len();
            let picked = nn::log_softmax(scores)?.gather(1, &targets.reshape(&[rows, 1])?)?;
            picked.reshape(&[rows])?.affine(-0.5, 0.0)
        };
        entropy(&first, "first_token")?.add(&entropy(&last, "last_token")?)
    }
}
