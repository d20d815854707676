//! The single parts, for a training loop written by hand.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use easytransfer_plugin::{Call, LoadedModel, LoadedOptimizer, Map, ModelInfo, Params, Rng};
use easytransfer_train::model::bare::{self, Bare};
use easytransfer_train::model::weights::{self, Expect, LoadReport};
use easytransfer_train::{Error, Result};
use serde_json::{Value, json};

use crate::Runtime;

/// A model with its parameters. Cloning is cheap and shares them, and the random numbers of dropout.
#[derive(Clone)]
pub struct Model {
    name: String,
    model: Arc<LoadedModel>,
    params: Params,
    rng: Arc<Mutex<Rng>>,
    /// The content of config.json, and how many parameters it made.
    config: Arc<Value>,
    own: usize,
}

impl Model {
    pub(crate) fn new(runtime: &Runtime, name: &str, config: &str, seed: u64) -> Result<Model> {
        let component = runtime.components().find("et.model/1", name)?;
        let params = Params::new(seed)?;
        let model = LoadedModel::create(&component, config, &params.root()?)?;
        let (rng, own) = (Arc::new(Mutex::new(Rng::new(seed, 1)?)), params.len());
        // The model has read it, so it is JSON.
        let config = Arc::new(serde_json::from_str(config).unwrap_or_else(|_| json!({})));
        Ok(Model { name: name.to_owned(), model: Arc::new(model), params, rng, config, own })
    }

    /// What the model says of itself.
    pub fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    /// The parameters.
    pub fn params(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Loads weights from a Hugging Face directory. What one may not expect (weights that nothing uses) is among the
    /// `warnings` of the report, and in the log.
    pub fn load_weights(&self, directory: &Path) -> Result<LoadReport> {
        let mut report = weights::load(directory, &self.params, self.model.info(), Expect::All)?;
        report.warn(directory);
        Ok(report)
    }

    /// Writes `config.json` and `model.safetensors` into a directory, from which [`Model::load_weights`] and
    /// transformers read them; what was declared beside the model is written, too. Errors: see [`bare::save`].
    pub fn save(&self, directory: &Path) -> Result<()> {
        let (params, info) = (&self.params, self.model.info());
        let own = self.own;
        bare::save(
            &Bare { params, own, info, model_type: &self.name, config: &self.config },
            directory,
        )
    }

    /// Runs the model on a batch with dropout off (`training` false) or on; `want` is a set of `ET_WANT_` bits.
    pub fn forward(&self, batch: &Map, training: bool, want: u32) -> Result<Map> {
        let mut outputs = Map::new()?;
        if training {
            // A generator that a panic left is whole: it is a seed and a count.
            let rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            self.model.forward(&Call::training(want, &rng), batch, &mut outputs)?;
        } else {
            self.model.forward(&Call::inference(want), batch, &mut outputs)?;
        }
        Ok(outputs)
    }
}

/// An optimizer with its count of steps. It belongs to the model that it was made for.
pub struct Optimizer {
    name: String,
    optimizer: LoadedOptimizer,
    steps: u64,
}

impl Optimizer {
    pub(crate) fn new(
        runtime: &Runtime,
        name: &str,
        options: &str,
        model: &mut Model,
    ) -> Result<Optimizer> {
        let component = runtime.components().find("et.optimizer/1", name)?;
        model.params.seal()?;
        let optimizer = LoadedOptimizer::create(&component, options, &model.params)?;
        Ok(Optimizer { name: name.to_owned(), optimizer, steps: 0 })
    }

    /// One step of that learning rate with the gradients present, which are forgotten then. Errors: another model
    /// than the one that the optimizer was made for; then nothing changes.
    pub fn step(&mut self, model: &mut Model, lr: f64) -> Result<()> {
        if !self.optimizer.is_for(&model.params) {
            return Err(Error::user(format!(
                "optimizer {:?}: expected the model that it was made for, found another one; make an optimizer for each \
                 model",
                self.name
            )));
        }
        self.steps += 1;
        self.optimizer.step(&mut model.params, lr, self.steps)?;
        model.params.zero_grads();
        Ok(())
    }
}
