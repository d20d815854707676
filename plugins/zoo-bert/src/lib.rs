//! Encoders of the BERT family that differ by configuration and names: BERT, RoBERTa, DistilBERT, ELECTRA and ALBERT.
//!
//! All are post-norm Transformer encoders (Vaswani et al. 2017) over runs of tokens, without padding and without
//! masks: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019), ELECTRA's
//! discriminator (Clark et al. 2020), ALBERT (Lan et al. 2020). Parameter names are those of Hugging Face checkpoints
//! without the base prefix.
#![forbid(unsafe_code)]

mod config;
mod encoder;
mod family;
mod keys;

use config::Shape;
use easytransfer_plugin::{Call, Map, Model, ModelInfo, Result, Scope};
use encoder::Encoder;
use family::Family;
use serde_json::Value;
use std::ffi::CStr;

macro_rules! models {
    ($($(#[$meta:meta])* $name:ident = $text:literal, $family:expr;)*) => {$(
        $(#[$meta])*
        pub struct $name(Encoder);

        impl Model for $name {
            const NAME: &'static CStr = $text;
            const SCHEMA: &'static CStr = $family.schema;
            type Config = serde_json::Map<String, Value>;

            fn new(config: Self::Config, scope: &Scope) -> Result<Self> {
                Ok(Self(Encoder::new(Shape::read(&config, &$family)?, $family, scope)?))
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
    /// BERT: learned positions, segments, a tanh pooler over the first token.
    Bert = c"bert", Family::BERT;
    /// RoBERTa: positions start behind the padding id, no segments, no pooler.
    Roberta = c"roberta", Family::ROBERTA;
    /// ELECTRA's discriminator: embeddings may be narrower than the layers, no pooler.
    Electra = c"electra", Family::ELECTRA;
    /// DistilBERT: no segments, no pooler, no dropout behind attention.
    DistilBert = c"distilbert", Family::DISTILBERT;
    /// ALBERT ("A Lite BERT for Self-supervised Learning of Language Representations"): narrow embeddings with a
    /// projection, layers that share parameters by group, a tanh pooler over the first token. Each pass through a
    /// layer counts as a layer: `num_hidden_layers` times `inner_group_num`.
    Albert = c"albert", Family::ALBERT;
}

easytransfer_plugin::export! {
    id: "zoo-bert",
    models: [Bert, Roberta, Electra, DistilBert, Albert],
}
