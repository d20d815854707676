//! T5 ("Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", Raffel et al. 2020), its
//! versions 1.0 and 1.1 (Shazeer 2020 for gated layers), and mT5 (Xue et al. 2021), over runs of tokens.
//!
//! Pre-norm Transformers whose only notion of place is a bias on attention scores that depends on a bucket of
//! distances and is shared by the layers of a stack. Parameter names are those of Hugging Face checkpoints.
#![forbid(unsafe_code)]

mod buckets;
mod config;
mod family;
mod layer;
mod network;

use config::Shape;
use easytransfer_plugin::{Call, Map, Model, ModelInfo, Result, Scope};
use family::Family;
use network::EncoderDecoder;
use serde_json::Value;
use std::ffi::CStr;

macro_rules! models {
    ($($(#[$meta:meta])* $name:ident = $text:literal, $family:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name(EncoderDecoder);

        impl Model for $name {
            const NAME: &'static CStr = $text;
            const SCHEMA: &'static CStr = $family.schema;
            type Config = serde_json::Map<String, Value>;

            fn new(config: Self::Config, scope: &Scope) -> Result<Self> {
                Ok(Self(EncoderDecoder::new(Shape::read(&config, &$family)?, $family, scope)?))
            }

            fn info(&self) -> ModelInfo {
                self.0.info()
            }

            fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
                self.0.forward(call, batch, outputs)
            }
        }
    )*};
}

models! {
    /// T5 1.0, whose head is the word embedding, and T5 1.1, which has a head of its own.
    T5 = c"t5", Family::T5;
    /// mT5: as T5 1.1 over a vocabulary of many languages.
    Mt5 = c"mt5", Family::MT5;
}

easytransfer_plugin::export! {
    id: "zoo-t5",
    models: [T5, Mt5],
}
