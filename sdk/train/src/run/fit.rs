//! The state of a running fit, and what it answers to strategies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use easytransfer_plugin as plugin;
use easytransfer_plugin::{
    Call, LoadedLoss, LoadedOptimizer, MODEL, Map, Params, Rng, SessionHost, Stream, Tensor,
    no_grad,
};
use serde_json::{Map as Json, Value};

use crate::data::batches::{Position, Source, must_measure};
use crate::data::dataset::DataOptions;
use crate::data::features::{Features, Featurizer, Purpose};
use crate::data::records::OnBadRow;
use crate::data::store::{RecordStore, Storage};
use crate::error::{Error, Result};
use crate::model::bundle;
use crate::model::components::Components;
use crate::model::network::Network;
use crate::nearest::nearest;
use crate::options::config::TrainConfig;
use crate::run::checkpoint::SessionState;
use crate::run::evaluate;

/// What a fit consists of while it runs. Strategies reach it through [`SessionHost`].
pub struct Fit<'a> {
    /// Where components come from.
    pub components: &'a dyn Components,
    /// Options.
    pub config: &'a TrainConfig,
    /// The network under training.
    pub network: Network,
    /// The run's own loss.
    pub loss: LoadedLoss,
    /// Source of dropout's numbers.
    pub rng: Rng,
    /// Models that strategies loaded, by name.
    pub companions: BTreeMap<String, Network>,
    /// Training rows, for strategies that draw batches themselves.
    pub train: Option<Source>,
    /// Validation rows.
    pub valid: Option<Arc<Features>>,
    /// How the training file was read, for more files of its kind.
    pub data: DataOptions,
    /// Where data waits.
    pub storage: Storage,
    /// Further sources: a file until setup is over, rows afterwards.
    pub sources: BTreeMap<String, Source>,
    /// Files that `open_source` named, in order.
    pub pending_sources: Vec<(String, PathBuf)>,
    /// Optimizers that strategies opened.
    pub optimizers: Vec<(LoadedOptimizer, u64, String)>,
    /// States that optimizers take over when a strategy opens them again after a resume, by their order.
    pub saved_optimizers: BTreeMap<usize, (u64, Vec<u8>)>,
    /// Losses of the present step: name, value, weight.
    pub losses: Vec<(String, Tensor, f64)>,
    /// Weight of the run's own loss in the present step.
    pub loss_weight: f64,
    /// Outputs that strategies asked for.
    pub want: u32,
    /// Numbers that strategies logged since the last line of metrics.
    pub scalars: Json<String, Value>,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Set by the user to stop.
    pub cancel: Arc<AtomicBool>,
    /// Whether strategies may still load models and open sources.
    pub in_setup: bool,
}

impl Fit<'_> {
    /// The makers of features of the network, and with `companions` of the models that strategies loaded.
    fn featurizers(&self, companions: bool) -> Vec<Featurizer> {
        let of = |prefix: String, network: &Network| Featurizer {
            prefix,
            app: network.app.clone(),
            tokenizer: network.tokenizer.clone(),
            longest: u32::try_from(network.app_info.longest).unwrap_or(u32::MAX),
            fresh: network.app_info.fresh,
        };
        let mut all = vec![of(String::new(), &self.network)];
        if companions {
            all.extend(self.companions.iter().map(|(name, other)| of(format!("{name}/"), other)));
        }
        all
    }

    /// What features of a source are made for, unless they are for training.
    pub fn purpose(&self, source: u64) -> Purpose {
        Purpose { training: false, seed: self.config.seed, source }
    }

    /// Features of the training data. They are made when their turn comes, unless their lengths are needed to count
    /// the steps or bad ones are to be left out.
    pub fn training_features(&self, records: RecordStore) -> Result<Features> {
        let skips = records.on_bad_row() == OnBadRow::Skip;
        let makers = self.featurizers(true);
        let purpose = Purpose { training: true, ..self.purpose(0) };
        let mut features = Features::new(records, makers, purpose, self.storage.memory);
        if skips || must_measure(self.config, &features) {
            features.measure(self.config.workers, &self.storage)?;
        } else if self.config.epochs == 1 {
            // Each row's turn comes once.
            features = features.keep_none();
        }
        Ok(features)
    }

    /// Features of other data, all of which are made once, so that bad rows are known before the first step.
    pub fn checked_features(
        &self,
        records: RecordStore,
        companions: bool,
        purpose: Purpose,
    ) -> Result<Arc<Features>> {
        let makers = self.featurizers(companions);
        let mut features = Features::new(records, makers, purpose, self.storage.memory);
        features.measure(self.config.workers, &self.storage)?;
        Ok(Arc::new(features))
    }

    /// Rows of the training and validation data that were left out.
    pub fn skipped_rows(&self, training: &Features) -> u64 {
        let valid = self.valid.as_ref().map_or(0, |valid| valid.records().skipped());
        training.records().skipped() + valid
    }

    /// Reads the files that strategies opened.
    pub fn open_pending(&mut self) -> Result<()> {
        let columns = self.network.app.columns()?;
        for (name, path) in std::mem::take(&mut self.pending_sources) {
            let records =
                RecordStore::read(&path, &columns, &self.data, &self.storage, |_| Ok(()))?;
            let source = self.sources.len() as u64 + 1;
            let purpose = Purpose { training: true, ..self.purpose(source) };
            let features = self.checked_features(records, true, purpose)?;
            self.sources.insert(name, Source::new(features));
        }
        Ok(())
    }

    /// Makes sure that the figure under `best` exists, before hours are spent on it. Errors: an unknown name, naming
    /// the known ones; no validation data.
    pub fn check_best(&mut self) -> Result<()> {
        let Some(best) = &self.config.best else { return Ok(()) };
        let Some(valid) = &self.valid else {
            return Err(Error::user(format!(
                "best: expected validation data to compute {best:?} on, found none; give it with --valid"
            )));
        };
        // A few rows tell the names, whatever the values are.
        let few = valid.samples(0..valid.len().min(32) as u32, 0);
        let figures = evaluate::evaluate(
            self.components,
            &mut self.network,
            [few],
            |index| valid.record(index),
            self.config.batch.tokens,
            Some(&mut self.loss),
        )?;
        // Over few rows a figure may be undefined, which JSON writes as null.
        let known: Vec<&str> = figures
            .iter()
            .filter(|(_, value)| value.is_number() || value.is_null())
            .map(|(name, _)| name.as_str())
            .collect();
        if known.contains(&best.as_str()) {
            return Ok(());
        }
        let hint = nearest(best, known.iter().copied())
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        Err(Error::user(format!("best: expected one of {known:?}, found {best:?}{hint}")))
    }

    /// What a checkpoint must hold of the session.
    pub fn session(&mut self) -> Result<SessionState> {
        let mut sources: BTreeMap<String, Position> =
            self.sources.iter().map(|(name, source)| (name.clone(), source.position())).collect();
        if let Some(train) = &self.train {
            sources.insert("train".to_owned(), train.position());
        }
        let mut optimizers = Vec::new();
        for (optimizer, steps, _) in &mut self.optimizers {
            let mut stream = Stream::writer()?;
            optimizer.save(&mut stream)?;
            optimizers.push((*steps, stream.bytes()?.as_slice().to_vec()));
        }
        Ok(SessionState { sources, optimizers })
    }

    /// Takes over what [`Fit::session`] answered in the interrupted run. Optimizers that are not open yet get theirs
    /// when they are.
    pub fn resume(&mut self, state: SessionState) -> Result<()> {
        for (name, position) in state.sources {
            let stream = self.stream_of(&name);
            let config = self.config;
            let source =
                if name == "train" { self.train.as_mut() } else { self.sources.get_mut(&name) };
            let Some(source) = source else {
                return Err(Error::user(format!(
                    "source {name:?} of the interrupted run was not opened again"
                )));
            };
            source
                .resume(config, stream, position)
                .map_err(|error| Error::user(format!("source {name:?}: {error}")))?;
        }
        self.saved_optimizers = state.optimizers.into_iter().enumerate().collect();
        for index in 0..self.optimizers.len() {
            self.resume_optimizer(index)?;
        }
        Ok(())
    }

    fn resume_optimizer(&mut self, index: usize) -> plugin::Result<()> {
        let Some((steps, bytes)) = self.saved_optimizers.remove(&index) else { return Ok(()) };
        let (optimizer, done, _) = &mut self.optimizers[index];
        *done = steps;
        optimizer.load(&mut Stream::reader(&bytes)?)
    }

    /// Number of a source's order: sources differ in it, so that two of one file do not come in the same order.
    fn stream_of(&self, source: &str) -> u64 {
        self.sources.keys().position(|name| name == source).map_or(0, |at| at as u64 + 1)
    }

    /// Figures on the validation rows.
    pub fn evaluate_valid(&mut self) -> Result<Json<String, Value>> {
        let Some(valid) = &self.valid else {
            return Err(Error::user("evaluate: there is no validation data; give it with --valid"));
        };
        evaluate::evaluate(
            self.components,
            &mut self.network,
            valid.windows(self.config.workers),
            |index| valid.record(index),
            self.config.batch.tokens,
            Some(&mut self.loss),
        )
    }

    fn setup_only(&self, what: &str) -> plugin::Result<()> {
        if self.in_setup {
            return Ok(());
        }
        Err(plugin::Error::new(
            plugin::abi::ET_ERR_FAILED_PRECONDITION,
            format!("{what}: only in on_setup"),
        ))
    }

    fn unknown_model(&self, name: &str) -> plugin::Error {
        let known: Vec<&str> =
            std::iter::once(MODEL).chain(self.companions.keys().map(String::as_str)).collect();
        plugin::Error::new(
            plugin::abi::ET_ERR_NOT_FOUND,
            format!("model {name:?}: expected one of {known:?}"),
        )
    }
}

impl SessionHost for Fit<'_> {
    fn params(&mut self, model: &str) -> plugin::Result<&mut Params> {
        if model == MODEL {
            return Ok(&mut self.network.params);
        }
        if !self.companions.contains_key(model) {
            return Err(self.unknown_model(model));
        }
        // The key was just found.
        match self.companions.get_mut(model) {
            Some(network) => Ok(&mut network.params),
            None => Err(plugin::Error::invalid(model)),
        }
    }

    fn load_model(&mut self, name: &str, path: &str) -> plugin::Result<()> {
        self.setup_only("load_model")?;
        if name == MODEL || name.is_empty() || self.companions.contains_key(name) {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_ALREADY_EXISTS,
                format!("load_model: the name {name:?} is taken"),
            ));
        }
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
        let call = if training { Call::training(want, &self.rng) } else { Call::inference(want) };
        if model == MODEL {
            return Ok(self.network.forward(&call, batch)?);
        }
        if !self.companions.contains_key(model) {
            return Err(self.unknown_model(model));
        }
        let batch = batch.below(&format!("{model}/"))?;
        match self.companions.get_mut(model) {
            Some(network) => Ok(no_grad(|| network.forward(&call, &batch))?),
            None => Err(plugin::Error::invalid(model)),
        }
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
        let known: Vec<String> = self.sources.keys().cloned().collect();
        let stream = self.stream_of(source);
        let found =
            if source == "train" { self.train.as_mut() } else { self.sources.get_mut(source) };
        match found {
            Some(found) => Ok(found.next(self.config, stream)?.map),
            None => Err(plugin::Error::new(
                plugin::abi::ET_ERR_NOT_FOUND,
                format!("next_batch: source {source:?}: expected \"train\" or one of {known:?}"),
            )),
        }
    }

    fn open_source(&mut self, name: &str, path: &str, _options: &str) -> plugin::Result<()> {
        self.setup_only("open_source")?;
        if name == "train" || self.pending_sources.iter().any(|(known, _)| known == name) {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_ALREADY_EXISTS,
                format!("open_source: the name {name:?} is taken"),
            ));
        }
        self.pending_sources.push((name.to_owned(), PathBuf::from(path)));
        Ok(())
    }

    fn optimizer(&mut self, name: &str, options: &str, params: &Params) -> plugin::Result<usize> {
        let model = if params.as_raw() == self.network.params.as_raw() {
            MODEL.to_owned()
        } else {
            let found = self
                .companions
                .iter()
                .find(|(_, network)| network.params.as_raw() == params.as_raw());
            match found {
                Some((model, _)) => model.clone(),
                None => {
                    return Err(plugin::Error::invalid(
                        "optimizer: the parameters belong to no model of this session",
                    ));
                }
            }
        };
        let component = self.components.find("et.optimizer/1", name)?;
        self.params(&model)?.seal()?;
        let optimizer = LoadedOptimizer::create(&component, options, params)?;
        self.optimizers.push((optimizer, 0, model));
        let index = self.optimizers.len() - 1;
        self.resume_optimizer(index)?;
        Ok(index)
    }

    fn optimizer_step(&mut self, optimizer: usize, lr: f64) -> plugin::Result<()> {
        let Some((optimizer, steps, model)) = self.optimizers.get_mut(optimizer) else {
            return Err(plugin::Error::invalid("optimizer_step: no such optimizer"));
        };
        *steps += 1;
        let params = if model == MODEL {
            &mut self.network.params
        } else {
            match self.companions.get_mut(model.as_str()) {
                Some(network) => &mut network.params,
                None => return Err(plugin::Error::invalid(model.as_str())),
            }
        };
        optimizer.step(params, lr, *steps)?;
        params.zero_grads();
        Ok(())
    }

    fn evaluate(
        &mut self,
        _model: &str,
        split: &str,
        _rows: u64,
    ) -> plugin::Result<Json<String, Value>> {
        if split != "valid" {
            return Err(plugin::Error::new(
                plugin::abi::ET_ERR_NOT_FOUND,
                format!("evaluate: split {split:?}: expected \"valid\""),
            ));
        }
        Ok(self.evaluate_valid()?)
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
}
