//! DeBERTa (He et al. 2021, "Decoding-enhanced BERT with Disentangled Attention"), in its versions 2 and 3 (He et al.
//! 2023, "DeBERTaV3"), over runs of tokens.
//!
//! A post-norm Transformer encoder whose scores of attention add products of contents with positions: those of a
//! query with the distance to its key, and those of a key with the distance to its query. Parameter names are those
//! of Hugging Face checkpoints without the base prefix.
#![forbid(unsafe_code)]

mod config;
mod convolution;
mod distances;
mod encoder;
mod heads;
mod layer;

use config::Shape;
use easytransfer_plugin::{Call, Map, Model, ModelInfo, Result, Scope};
use encoder::Encoder;
use serde_json::Value;
use std::ffi::CStr;

/// DeBERTa, versions 2 and 3.
pub struct DebertaV2(Encoder);

impl Model for DebertaV2 {
    const NAME: &'static CStr = c"deberta-v2";
    const SCHEMA: &'static CStr = config::SCHEMA;
    type Config = serde_json::Map<String, Value>;

    fn new(config: Self::Config, scope: &Scope) -> Result<Self> {
        Ok(Self(Encoder::new(Shape::read(&config)?, scope)?))
    }

    fn info(&self) -> ModelInfo {
        self.0.info()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        self.0.forward(call, batch, outputs)
    }
}

easytransfer_plugin::export! {
    id: "zoo-deberta",
    models: [DebertaV2],
}
