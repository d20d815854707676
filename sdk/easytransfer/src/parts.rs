//! The single parts, for a training loop written by hand.

use std::path::Path;

use easytransfer_plugin::{Call, LoadedModel, LoadedOptimizer, Map, ModelInfo, Params, Rng};
use easytransfer_train::Result;
use easytransfer_train::model::weights::{self, Expect, LoadReport};

use crate::Runtime;

/// A model with its parameters.
pub struct Model {
    model: LoadedModel,
    params: Params,
    rng: Rng,
}

impl Model {
    pub(crate) fn new(runtime: &Runtime, name: &str, config: &str, seed: u64) -> Result<Model> {
        let component = runtime.components().find("et.model/1", name)?;
        let params = Params::new(seed)?;
        let model = LoadedModel::create(&component, config, &params.root()?)?;
        Ok(Model { model, params, rng: Rng::new(seed, 1)? })
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

    /// Runs the model on a batch with dropout off (`training` false) or on; `want` is a set of `ET_WANT_` bits.
    pub fn forward(&mut self, batch: &Map, training: bool, want: u32) -> Result<Map> {
        let mut outputs = Map::new()?;
        let call = if training { Call::training(want, &self.rng) } else { Call::inference(want) };
        self.model.forward(&call, batch, &mut outputs)?;
        Ok(outputs)
    }
}

/// An optimizer with its count of steps.
pub struct Optimizer {
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
        Ok(Optimizer { optimizer, steps: 0 })
    }

    /// One step of that learning rate with the gradients present, which are forgotten then.
    pub fn step(&mut self, model: &mut Model, lr: f64) -> Result<()> {
        self.steps += 1;
        self.optimizer.step(&mut model.params, lr, self.steps)?;
        model.params.zero_grads();
        Ok(())
    }
}
