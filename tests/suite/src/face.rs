//! One face of the SDK: what the behaviour suite asks, whichever way the program reaches the plugins.

use std::path::Path;

use easytransfer::{EmbedOptions, Error, Event, Runtime, Start, TrainConfig, TrainJob};
use serde_json::{Value, json};

/// What a program can ask, in the terms that all languages share: JSON and paths.
pub trait Face {
    /// Trains "text-classify" from random weights and answers with the figures.
    fn fit(
        &self,
        encoder: &Path,
        train: &Path,
        valid: &Path,
        output: &Path,
        config: &Value,
    ) -> Result<Value, String>;
    /// Predictions for a JSON request.
    fn predict(&self, bundle: &Path, request: &str) -> Result<String, String>;
    /// Vectors of texts.
    fn embed(&self, encoder: &Path, texts: &[&str]) -> Result<Vec<f32>, String>;
    /// Ids of the plugins that are there.
    fn plugins(&self) -> Vec<String>;
}

/// Whether an event is of this step or a later one, for callbacks that end a run.
pub fn is_step(event: &Event, step: u64) -> bool {
    matches!(event, Event::Step(info) if info.step >= step)
}

/// The Rust facade over a runtime.
pub struct RustFace(pub Runtime);

fn text(error: Error) -> String {
    format!("{error:#}")
}

impl Face for RustFace {
    fn fit(
        &self,
        encoder: &Path,
        train: &Path,
        valid: &Path,
        output: &Path,
        config: &Value,
    ) -> Result<Value, String> {
        let config = TrainConfig::from_value(config.clone(), "").map_err(text)?;
        let job = TrainJob::new(encoder, train, output)
            .with_start(Start::Scratch)
            .with_valid(valid)
            .with_config(config);
        let result = self.0.train(job).map_err(text)?;
        Ok(json!({ "metrics": result.metrics, "steps": result.steps }))
    }

    fn predict(&self, bundle: &Path, request: &str) -> Result<String, String> {
        self.0.app(bundle).map_err(text)?.predict_json(request).map_err(text)
    }

    fn embed(&self, encoder: &Path, texts: &[&str]) -> Result<Vec<f32>, String> {
        let embedder = self.0.embedder(encoder, EmbedOptions::default()).map_err(text)?;
        embedder.embed(texts).map_err(text)
    }

    fn plugins(&self) -> Vec<String> {
        self.0.plugins().into_iter().map(|plugin| plugin.id).collect()
    }
}
