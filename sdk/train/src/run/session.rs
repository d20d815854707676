//! What a running fit answers to the hooks of strategies.

use std::sync::atomic::{AtomicBool, Ordering};

use easytransfer_plugin as plugin;
use easytransfer_plugin::{
    Call, LoadedOptimizer, MODEL, Map, ModuleSpec, Params, Save, Scope, SessionHost, SourceInfo,
    Tensor, no_grad, step,
};
use serde_json::{Map as Json, Value};

use crate::model::bundle;
use crate::run::fit::Fit;
use crate::run::modules::StrategyModule;
use crate::run::sources::{self, SourceOptions, TRAIN, VALID};

impl SessionHost for Fit<'_> {
    fn params(&mut self, model: &str) -> plugin::Result<&mut Params> {
        if model == MODEL {
            return Ok(&mut self.network.params);
        }
        if !self.is_known(model) {
            return Err(self.unknown_model(model));
        }
        if let Some(place) = self.modules.iter().position(|module| module.name == model) {
            return Ok(self.modules[place].params());
        }
        let found = self.companions.get_mut(model).map(|network| &mut network.params);
        found.ok_or_else(|| plugin::Error::invalid(model))
    }

    fn load_model(&mut self, name: &str, path: &str) -> plugin::Result<()> {
        self.setup_only("load_model")?;
        self.check_name("load_model", name)?;
        let (network, _) = bundle::load(self.components, path.as_ref())
            .map_err(|error| plugin::Error::from(error).context(format!("load model {name:?}")))?;
        for param in network.params.iter() {
            param.set_trainable(false)?;
        }
        self.companions.insert(name.to_owned(), network);
        Ok(())
    }

    fn describe(&mut self, model: &str) -> plugin::Result<Value> {
        if model == MODEL {
            return Ok(self.network.describe());
        }
        if let Some(module) = self.modules.iter_mut().find(|module| module.name == model) {
            return Ok(module.describe());
        }
        match self.companions.get(model) {
            Some(network) => Ok(network.describe()),
            None => Err(self.unknown_model(model)),
        }
    }

    fn forward(
        &mut self,
        model: &str,
        batch: &Map,
        training: bool,
        want: u32,
    ) -> plugin::Result<Map> {
        if !self.is_known(model) {
            return Err(self.unknown_model(model));
        }
        let call = if training { Call::training(want, &self.rng) } else { Call::inference(want) };
        if model == MODEL {
            return Ok(self.network.forward(&call, batch)?);
        }
        if let Some(module) = self.modules.iter_mut().find(|module| module.name == model) {
            return Ok(module.forward(&call, batch)?);
        }
        let found = self.companions.get_mut(model);
        let network = found.ok_or_else(|| plugin::Error::invalid(model))?;
        let batch = batch.below(&format!("{model}/"))?;
        Ok(no_grad(|| network.forward(&call, &batch))?)
    }

    fn loss(&mut self, outputs: &Map, batch: &Map) -> plugin::Result<Tensor> {
        self.loss.forward(&Call::training(0, &self.rng), outputs, batch)
    }

    fn add_loss(&mut self, name: &str, loss: Tensor, weight: f64) -> plugin::Result<()> {
        if name == "loss" || self.losses.iter().any(|(known, _, _)| known == name) {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_ALREADY_EXISTS,
                format!("add_loss: the name {name:?} is taken in this step"),
            ));
        }
        if loss.len() != 1 {
            let found = loss.shape();
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_SHAPE,
                format!("add_loss: {name:?}: expected a scalar, found shape {found:?}"),
            ));
        }
        self.losses.push((name.to_owned(), loss, weight));
        Ok(())
    }

    fn set_loss_weight(&mut self, weight: f64) -> plugin::Result<()> {
        self.loss_weight = weight;
        Ok(())
    }

    fn want(&mut self, want: u32) -> plugin::Result<()> {
        self.setup_only("want")?;
        self.want |= want;
        Ok(())
    }

    fn next_batch(&mut self, source: &str) -> plugin::Result<Map> {
        Ok(self.sources.next("next_batch", source, self.config)?.map)
    }

    fn open_source(&mut self, name: &str, path: &str, options: &str) -> plugin::Result<()> {
        self.setup_only("open_source")?;
        let taken = |(known, _): &(String, SourceOptions)| known == name;
        if [TRAIN, VALID, ""].contains(&name) || self.pending_sources.iter().any(taken) {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_ALREADY_EXISTS,
                format!("open_source: the name {name:?} is taken"),
            ));
        }
        if self.pending_sources.len() >= sources::MOST {
            return Err(plugin::Error::invalid(format!(
                "open_source: expected at most {} sources besides the run's own",
                sources::MOST
            )));
        }
        let options: Value =
            serde_json::from_str(if options.trim().is_empty() { "{}" } else { options })?;
        let mut options = SourceOptions::from_value(&options, &format!("open_source {name:?}"))?;
        options.path = path.into();
        self.pending_sources.push((name.to_owned(), options));
        Ok(())
    }

    fn optimizer(&mut self, name: &str, options: &str, params: &Params) -> plugin::Result<usize> {
        if !params.iter().any(|param| param.is_trainable()) {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_FAILED_PRECONDITION,
                format!(
                    "optimizer {name:?}: expected parameters that can be trained, found none: models that were loaded stay as they are, and a part needs a pattern that fits"
                ),
            ));
        }
        let component = self.components.find("et.optimizer/1", name)?;
        let mut params = params.clone();
        params.seal()?;
        let optimizer = LoadedOptimizer::create(&component, options, &params)?;
        self.optimizers.push((optimizer, 0, params));
        let index = self.optimizers.len() - 1;
        self.resume_optimizer(index)?;
        Ok(index)
    }

    fn optimizer_step(&mut self, optimizer: Option<usize>, lr: f64) -> plugin::Result<()> {
        let Some(optimizer) = optimizer else { return Err(only_in_fit("optimizer_step")) };
        let Some((optimizer, steps, params)) = self.optimizers.get_mut(optimizer) else {
            return Err(plugin::Error::invalid("optimizer_step: no such optimizer"));
        };
        if self.config.clip > 0.0 {
            step::clip_grads(params, self.config.clip)?;
        }
        *steps += 1;
        optimizer.step(params, lr, *steps)?;
        params.zero_grads();
        Ok(())
    }

    fn evaluate(
        &mut self,
        model: &str,
        source: &str,
        rows: u64,
    ) -> plugin::Result<Json<String, Value>> {
        let features = self.sources.features("evaluate", source)?;
        // A strategy that is in the middle of its work asks by itself whether to stop.
        let to_the_end = AtomicBool::new(false);
        if rows == 0 {
            let windows = features.windows(self.config.workers);
            return Ok(self.evaluate_model(model, windows, &features, &to_the_end)?);
        }
        let end = u32::try_from(rows).unwrap_or(u32::MAX).min(features.len() as u32);
        Ok(self.evaluate_model(model, [features.samples(0..end, 0)], &features, &to_the_end)?)
    }

    fn log_scalar(&mut self, name: &str, value: f64) -> plugin::Result<()> {
        self.scalars.insert(name.to_owned(), Value::from(value));
        Ok(())
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn total_steps(&self) -> u64 {
        self.total_steps
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn module(&mut self, name: &str, spec: &ModuleSpec<'_>) -> plugin::Result<Scope> {
        self.setup_only("module")?;
        self.check_name("module", name)?;
        let seed = self.config.seed.wrapping_add(1 + self.modules.len() as u64);
        let mut module = StrategyModule::new(self.components, &self.network, name, spec, seed)?;
        let root = module.root()?;
        self.modules.push(module);
        Ok(root)
    }

    fn keep(&mut self, module: &str) -> plugin::Result<()> {
        if module == MODEL {
            self.kept = None;
            return Ok(());
        }
        let unknown = self.unknown_model(module);
        let found = self.modules.iter_mut().find(|known| known.name == module).ok_or(unknown)?;
        if found.network().is_none() {
            return Err(found.headless("keep").into());
        }
        self.kept = Some(module.to_owned());
        Ok(())
    }

    fn sources(&mut self) -> plugin::Result<Vec<SourceInfo>> {
        if self.in_setup {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_FAILED_PRECONDITION,
                "sources: only after on_setup, when the data has been read",
            ));
        }
        Ok(self.sources.infos(self.config, &self.extra.categories()))
    }

    fn draw_batch(&mut self, sources: &[&str], weights: Option<&[f64]>) -> plugin::Result<Map> {
        Ok(self.sources.draw(sources, weights, self.config)?.map)
    }

    fn records(&mut self, source: &str, numbers: &[u64]) -> plugin::Result<Map> {
        Ok(self.sources.records(source, numbers)?)
    }

    fn record(&mut self, source: &str, number: u64) -> plugin::Result<String> {
        Ok(self.sources.record(source, number)?)
    }

    fn loss_rows(&mut self, outputs: &Map, batch: &Map) -> plugin::Result<Tensor> {
        self.loss.rows(&Call::training(0, &self.rng), outputs, batch)
    }

    fn set_total_steps(&mut self, steps: u64) -> plugin::Result<()> {
        self.setup_only("set_total_steps")?;
        if steps == 0 {
            return Err(plugin::Error::invalid("set_total_steps: expected at least 1, found 0"));
        }
        self.total_steps = steps;
        Ok(())
    }

    fn lr(&mut self) -> f64 {
        self.present_lr().unwrap_or(0.0)
    }

    fn step_once(&mut self, _: &str) -> plugin::Result<()> {
        Err(only_in_fit("step_once"))
    }

    fn commit(&mut self, _: &Json<String, Value>, _: Save<'_>) -> plugin::Result<bool> {
        Err(only_in_fit("commit"))
    }
}

impl Fit<'_> {
    fn is_known(&self, model: &str) -> bool {
        let module = self.modules.iter().any(|module| module.name == model);
        model == MODEL || module || self.companions.contains_key(model)
    }

    /// Names of models and modules are of one space, and become prefixes of fields.
    fn check_name(&self, what: &str, name: &str) -> plugin::Result<()> {
        if self.is_known(name) {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_ALREADY_EXISTS,
                format!("{what}: the name {name:?} is taken"),
            ));
        }
        if name.is_empty() || name.contains('/') {
            return Err(plugin::Error::invalid(format!(
                "{what}: expected a name without '/', found {name:?}"
            )));
        }
        Ok(())
    }
}

fn only_in_fit(what: &str) -> plugin::Error {
    plugin::Error::new(
        plugin::abi::ET_ERR_FAILED_PRECONDITION,
        format!("{what}: only in fit, for a strategy that drives it"),
    )
}
