//! FashionBERT ("FashionBERT: Text and Image Matching with Adaptive Loss for Cross-modal Retrieval", Gao et al. 2020),
//! which EasyTransfer calls ImageBERT: BERT over one run of words and image patches, with heads that tell what a
//! hidden patch was and whether text and image belong together. A patch is a vector that some network of images has
//! computed, or its raw pixels.
#![forbid(unsafe_code)]

mod config;
mod images;
mod layer;
mod network;

use config::ImageBertConfig;
use easytransfer_plugin::{Call, Map, Model, ModelInfo, Result, Scope};
use network::Network;
use std::ffi::CStr;

/// One stream of words and patches. Beyond what every model reads it reads "patches" or "pixels", "patch_mask" and
/// "masked_patches"; beyond what every model writes it writes "patch_last" and "patch_starts", "patch_logits" and
/// "patch_targets", and "alignment_logits" (`docs/families/imagebert.md`). Without an image it is BERT.
pub struct ImageBert(Network);

impl Model for ImageBert {
    const NAME: &'static CStr = c"imagebert";
    const SCHEMA: &'static CStr = config::SCHEMA;
    type Config = ImageBertConfig;

    fn new(config: ImageBertConfig, scope: &Scope) -> Result<Self> {
        config.check()?;
        Ok(Self(Network::new(config, scope)?))
    }

    fn info(&self) -> ModelInfo {
        self.0.info()
    }

    fn forward(&mut self, call: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        self.0.forward(call, batch, outputs)
    }
}

easytransfer_plugin::export! {
    id: "zoo-imagebert",
    models: [ImageBert],
}
