//! Text vectors from an encoder.

use std::path::Path;
use std::sync::Arc;

use easytransfer_plugin::{Record, Row};
use easytransfer_train::components::Components;
use easytransfer_train::evaluate;
use easytransfer_train::network::{AppStage, Network, Start, read_json};
use easytransfer_train::{Error, Result};
use serde_json::{Value, json};

use crate::Runtime;

/// How vectors are made. What is not set comes from the directory's sentence-transformers files, then from the app's defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbedOptions {
    /// "mean", "cls", "pooled" or "max".
    pub pooling: Option<String>,
    /// Euclidean length 1.
    pub normalize: Option<bool>,
    /// Most tokens of a text.
    pub max_length: Option<u64>,
}

/// An encoder that turns texts into vectors.
pub struct Embedder {
    network: Network,
    tokens: u32,
}

impl EmbedOptions {
    /// The options of the app, completed from the files that sentence-transformers keeps beside a model.
    fn complete(&self, directory: &Path) -> Result<Value> {
        let mut options = json!({});
        let sentence = directory.join("sentence_bert_config.json");
        if sentence.exists()
            && let Some(length) = read_json(&sentence)?["max_seq_length"].as_u64()
        {
            options["max_length"] = json!(length);
        }
        let pooling = directory.join("1_Pooling").join("config.json");
        if pooling.exists() {
            let config = read_json(&pooling)?;
            for (key, name) in [
                ("pooling_mode_mean_tokens", "mean"),
                ("pooling_mode_cls_token", "cls"),
                ("pooling_mode_max_tokens", "max"),
            ] {
                if config[key] == json!(true) {
                    options["pooling"] = json!(name);
                }
            }
        }
        if let Some(pooling) = &self.pooling {
            options["pooling"] = json!(pooling);
        }
        if let Some(normalize) = self.normalize {
            options["normalize"] = json!(normalize);
        }
        if let Some(length) = self.max_length {
            options["max_length"] = json!(length);
        }
        Ok(options)
    }
}

impl Embedder {
    pub(crate) fn load(
        runtime: &Runtime,
        encoder: &Path,
        options: EmbedOptions,
    ) -> Result<Embedder> {
        let components: Arc<dyn Components> = runtime.shared();
        let options = options.complete(encoder)?;
        let stage = AppStage::new(&*components, "text-embed", options, None)?;
        let network = Network::new(&*components, stage, encoder, Start::Encoder, 0)?;
        Ok(Embedder { network, tokens: 4096 })
    }

    /// Number of values of a vector.
    pub fn width(&self) -> usize {
        self.network.model.info().hidden_size
    }

    /// The network: model, head, parameters and tokenizer.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Vectors of texts, row-major [texts, width].
    pub fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>> {
        let rows = texts
            .iter()
            .map(|text| {
                let record = Record::from_iter([("text".to_owned(), Value::from(*text))]);
                let mut row = Row::new()?;
                self.network.app.features(&self.network.tokenizer, &record, &mut row)?;
                Ok(row)
            })
            .collect::<Result<Vec<_>>>()?;
        let (vectors, width) = evaluate::vectors(&mut self.network, &rows, self.tokens)?;
        if !rows.is_empty() && width == 0 {
            return Err(Error::other("embed: the app gave no vectors"));
        }
        Ok(vectors)
    }
}
