//! XLNet (Yang et al. 2019, "Generalized Autoregressive Pretraining for Language Understanding"), over runs of tokens.
//!
//! A post-norm Transformer whose scores of attention depend on the distance of two tokens (Dai et al. 2019,
//! Transformer-XL) and on whether they are of one segment. It may read on where it stopped, by a memory of the hidden
//! states so far, and it predicts tokens in the order of a permutation, by a second stream of queries that know where
//! they stand but not what stands there. Parameter names are those of Hugging Face checkpoints without the base
//! prefix.
#![forbid(unsafe_code)]

mod blind;
mod config;
mod heads;
mod layer;
mod network;
mod surroundings;

use config::Shape;
use easytransfer_plugin::{Call, Map, Model, ModelInfo, Result, Scope};
use network::Network;
use serde_json::Value;
use std::ffi::CStr;

/// XLNet.
pub struct XlNet(Network);

impl Model for XlNet {
    const NAME: &'static CStr = c"xlnet";
    const SCHEMA: &'static CStr = config::SCHEMA;
    type Config = serde_json::Map<String, Value>;

    fn new(config: Self::Config, scope: &Scope) -> Result<Self> {
        Ok(Self(Network::new(Shape::read(&config)?, scope)?))
    }

    fn info(&self) -> ModelInfo {
        self.0.info()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        self.0.forward(call, batch, outputs)
    }
}

easytransfer_plugin::export! {
    id: "zoo-xlnet",
    models: [XlNet],
}
