//! The loss of the outsiders in Rust: mean over all logits of squared difference to the one-hot label, written with
//! the same operations in the same order as its siblings in C and C++.
#![forbid(unsafe_code)]

use easytransfer_plugin::{Call, DType, Loss, Map, NoOptions, Result, Tensor};
use std::ffi::CStr;

struct Brier;

impl Loss for Brier {
    const NAME: &'static CStr = c"outsider-rust";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let logits = outputs.get("logits")?;
        let (rows, classes) = (logits.shape()[0], logits.shape()[1]);
        let labels = batch.get("labels")?.reshape(&[rows, 1])?;
        let index = Tensor::arange(classes, DType::I64)?;
        let target = index.eq(&labels)?.cast(DType::F32)?;
        logits.sub(&target)?.sqr()?.mean(&[], false)
    }
}

easytransfer_plugin::export! { id: "outsider-rust", losses: [Brier] }
