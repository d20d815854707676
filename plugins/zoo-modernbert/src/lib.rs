//! ModernBERT (Warner et al. 2024, "Smarter, Better, Faster, Longer"), over runs of tokens.
//!
//! A pre-norm Transformer encoder with rotary positions, whose layers look at the whole text or at a window of it in
//! turn. gte-modernbert, Ettin and granite-embedding share it. Parameter names are those of Hugging Face checkpoints
//! without the base prefix.
#![forbid(unsafe_code)]

mod config;
mod encoder;
mod layer;

use config::Shape;
use easytransfer_plugin::{Call, Map, Model, ModelInfo, Result, Scope};
use encoder::Encoder;
use serde_json::Value;
use std::ffi::CStr;

/// ModernBERT.
pub struct ModernBert(Encoder);

impl Model for ModernBert {
    const NAME: &'static CStr = c"modernbert";
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
    id: "zoo-modernbert",
    models: [ModernBert],
}
