//! The configuration: BERT's keys by the names of Hugging Face, and those of the patches by the names of EasyTransfer.

use easytransfer_plugin::{Activation, Error, Result};
use serde::Deserialize;
use std::ffi::CStr;

/// The keys with their defaults, those of the published base model.
pub const SCHEMA: &CStr = cr#"{"type":"object","properties":{
"vocab_size":{"type":"integer","minimum":1,"default":30522},
"hidden_size":{"type":"integer","minimum":1,"default":768},
"num_hidden_layers":{"type":"integer","minimum":0,"default":12},
"num_attention_heads":{"type":"integer","minimum":1,"default":12},
"intermediate_size":{"type":"integer","minimum":1,"default":3072},
"hidden_act":{"type":"string","default":"gelu_new"},
"hidden_dropout_prob":{"type":"number","minimum":0,"default":0.1},
"attention_probs_dropout_prob":{"type":"number","minimum":0,"default":0.1},
"max_position_embeddings":{"type":"integer","minimum":1,"default":512},
"type_vocab_size":{"type":"integer","minimum":1,"default":2},
"initializer_range":{"type":"number","minimum":0,"default":0.02},
"layer_norm_eps":{"type":"number","minimum":0,"default":1e-12},
"patch_feature_size":{"type":"integer","minimum":1,"default":2048,"description":"numbers of a patch; with image_size those of its pixels"},
"patch_type_vocab_size":{"type":"integer","minimum":2,"default":2,"description":"rows of the table of which patches have the second"},
"max_patch_position_embeddings":{"type":"integer","minimum":1,"default":64,"description":"most patches of an image"},
"image_size":{"type":["integer","null"],"minimum":1,"default":null,"description":"height and width of images that come as pixels; null: patches come as numbers"},
"patch_size":{"type":"integer","minimum":1,"default":16,"description":"with image_size: height and width of a patch"},
"num_channels":{"type":"integer","minimum":1,"default":3,"description":"with image_size: numbers of a pixel"}}}"#;

/// What config.json says.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct ImageBertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub patch_feature_size: usize,
    pub patch_type_vocab_size: usize,
    pub max_patch_position_embeddings: usize,
    pub image_size: Option<usize>,
    pub patch_size: usize,
    pub num_channels: usize,
}

impl Default for ImageBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::GeluTanh,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            patch_feature_size: 2048,
            patch_type_vocab_size: 2,
            max_patch_position_embeddings: 64,
            image_size: None,
            patch_size: 16,
            num_channels: 3,
        }
    }
}

/// The most layers. A number beyond is a mistake, and each costs time before the first weight is read.
const MOST_LAYERS: usize = 1024;

impl ImageBertConfig {
    /// Refuses what the network cannot do, by the names of config.json.
    pub fn check(&self) -> Result<()> {
        let wrong = |key: &str, expected: String, found: String| {
            Err(Error::bad_input(format!("config.json: {key}: expected {expected}, found {found}")))
        };
        for (key, least, value) in [
            ("vocab_size", 1, self.vocab_size),
            ("hidden_size", 1, self.hidden_size),
            ("num_attention_heads", 1, self.num_attention_heads),
            ("intermediate_size", 1, self.intermediate_size),
            ("max_position_embeddings", 1, self.max_position_embeddings),
            ("type_vocab_size", 1, self.type_vocab_size),
            ("patch_feature_size", 1, self.patch_feature_size),
            ("patch_type_vocab_size", 2, self.patch_type_vocab_size),
            ("max_patch_position_embeddings", 1, self.max_patch_position_embeddings),
            ("patch_size", 1, self.patch_size),
            ("num_channels", 1, self.num_channels),
        ] {
            if value < least {
                return wrong(key, format!("at least {least}"), value.to_string());
            }
        }
        if self.num_hidden_layers > MOST_LAYERS {
            let found = self.num_hidden_layers.to_string();
            return wrong("num_hidden_layers", format!("at most {MOST_LAYERS}"), found);
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size {}", self.hidden_size);
            return wrong("num_attention_heads", expected, self.num_attention_heads.to_string());
        }
        for (key, value) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ] {
            if !(0.0..1.0).contains(&value) {
                return wrong(key, "0 <= p < 1".to_owned(), value.to_string());
            }
        }
        let Some(size) = self.image_size else { return Ok(()) };
        if size == 0 || !size.is_multiple_of(self.patch_size) {
            let expected = format!("a multiple of patch_size {}", self.patch_size);
            return wrong("image_size", expected, size.to_string());
        }
        let numbers = self.patch_size.checked_pow(2).and_then(|n| n.checked_mul(self.num_channels));
        if numbers != Some(self.patch_feature_size) {
            let numbers = numbers.map_or("too many".to_owned(), |numbers| numbers.to_string());
            let expected = format!("the numbers of a patch of pixels, {numbers}");
            return wrong("patch_feature_size", expected, self.patch_feature_size.to_string());
        }
        let patches = (size / self.patch_size).saturating_pow(2);
        if patches > self.max_patch_position_embeddings {
            let expected = format!("at least the {patches} patches of an image");
            let found = self.max_patch_position_embeddings.to_string();
            return wrong("max_patch_position_embeddings", expected, found);
        }
        Ok(())
    }

    /// Patches of an image that comes as pixels.
    pub fn patches_of_pixels(&self) -> Option<usize> {
        self.image_size.map(|size| (size / self.patch_size).pow(2))
    }
}
