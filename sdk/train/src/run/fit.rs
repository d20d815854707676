//! The state of a running fit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use easytransfer_plugin as plugin;
use easytransfer_plugin::{
    Buffer, LoadedLoss, LoadedOptimizer, MODEL, Params, Rng, Stream, Tensor,
};
use serde_json::{Map as Json, Value};

use crate::data::batches::must_measure;
use crate::data::collation::Sample;
use crate::data::dataset::DataOptions;
use crate::data::extra::ExtraColumns;
use crate::data::features::{Features, Featurizer, Purpose};
use crate::data::input::Data;
use crate::data::records::OnBadRow;
use crate::data::store::{RecordStore, Storage};
use crate::error::{Error, Result};
use crate::model::components::Components;
use crate::model::network::Network;
use crate::nearest::nearest;
use crate::options::config::TrainConfig;
use crate::run::checkpoint::SessionState;
use crate::run::evaluate;
use crate::run::modules::StrategyModule;
use crate::run::sources::{SourceOptions, Sources, TRAIN, VALID};

/// What a fit consists of while it runs. Strategies reach it through
/// [`SessionHost`](easytransfer_plugin::SessionHost).
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
    /// Networks of strategies' own, in the order in which they were made.
    pub modules: Vec<StrategyModule>,
    /// The module that is the result of the run, if it is not the network under training.
    pub kept: Option<String>,
    /// Validation rows.
    pub valid: Option<Arc<Features>>,
    /// How the training file was read, for more files of its kind.
    pub data: DataOptions,
    /// Columns that strategies need.
    pub extra: Arc<ExtraColumns>,
    /// Where data waits.
    pub storage: Storage,
    /// All data by name; empty until setup is over.
    pub sources: Sources,
    /// Files that the configuration and `open_source` named, in order.
    pub pending_sources: Vec<(String, SourceOptions)>,
    /// Optimizers that strategies opened: steps done, and the parameters.
    pub optimizers: Vec<(LoadedOptimizer, u64, Params)>,
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
    /// Steps of the whole run; until setup is over those that a strategy asked for, 0 if none did.
    pub total_steps: u64,
    /// Set by the user to stop.
    pub cancel: Arc<AtomicBool>,
    /// Whether strategies may still load models and open sources.
    pub in_setup: bool,
}

impl Fit<'_> {
    /// Whether somebody has set the flag to stop.
    pub fn is_asked_to_stop(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

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
        let extra = self.extra.clone();
        let mut features = Features::new(records, makers, purpose, extra, self.storage.memory);
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
        let extra = self.extra.clone();
        let mut features = Features::new(records, makers, purpose, extra, self.storage.memory);
        features.measure(self.config.workers, &self.storage)?;
        Ok(Arc::new(features))
    }

    /// Rows of the training and validation data that were left out.
    pub fn skipped_rows(&self, training: &Features) -> u64 {
        let valid = self.valid.as_ref().map_or(0, |valid| valid.records().skipped());
        training.records().skipped() + valid
    }

    /// Reads the files of further sources, in order. Columns of strategies see their records.
    pub fn read_pending(&mut self, extra: &mut ExtraColumns) -> Result<Vec<RecordStore>> {
        let mut columns = self.network.app.columns()?;
        columns.extend(extra.columns());
        let mut read = Vec::new();
        for (_, options) in &self.pending_sources {
            let mut data = self.data.clone();
            data.named.extend(options.columns.clone());
            data.targets = options.labelled;
            let (from, storage) = (Data::from(&options.path), &self.storage);
            read.push(RecordStore::read(&from, &columns, &data, storage, |r| extra.observe(r))?);
        }
        Ok(read)
    }

    /// Makes features of all data and gives the sources their numbers: training, validation, then the others. Answers
    /// with those of the training data.
    pub fn open_sources(
        &mut self,
        train: RecordStore,
        valid: Option<RecordStore>,
        others: Vec<RecordStore>,
    ) -> Result<Arc<Features>> {
        let first = 1 + u64::from(valid.is_some());
        let valid_purpose = self.purpose(1);
        self.valid = valid
            .map(|records| self.checked_features(records, false, valid_purpose))
            .transpose()?;
        let mut opened = Vec::new();
        for (at, records) in others.into_iter().enumerate() {
            let training = self.pending_sources[at].1.labelled;
            let purpose = Purpose { training, ..self.purpose(first + at as u64) };
            opened.push(self.checked_features(records, true, purpose)?);
        }
        self.network.params.seal()?;
        for module in &mut self.modules {
            module.params().seal()?;
        }
        self.check_best()?;
        let features = Arc::new(self.training_features(train)?);
        self.sources.add(TRAIN, SourceOptions::default(), features.clone());
        if let Some(valid) = &self.valid {
            self.sources.add(VALID, SourceOptions::default(), valid.clone());
        }
        for ((name, options), features) in
            std::mem::take(&mut self.pending_sources).into_iter().zip(opened)
        {
            self.sources.add(&name, options, features);
        }
        Ok(features)
    }

    /// The network that is the result of the run: evaluated, kept when best, and written.
    pub fn result(&mut self) -> &mut Network {
        let Fit { modules, kept, network, .. } = self;
        let module = modules.iter_mut().find(|module| Some(&module.name) == kept.as_ref());
        // `keep` admits only modules with a network.
        module.and_then(StrategyModule::network).unwrap_or(network)
    }

    /// The learning rate of the present step.
    pub fn present_lr(&self) -> Result<f64> {
        Ok(self.lr * self.config.schedule()?.factor(self.step, self.total_steps))
    }

    /// Makes sure that the figure under `best` exists and that the metrics that the user asked for can count what the
    /// network says, before hours are spent. Errors: an unknown name, naming the known ones; no validation data.
    pub fn check_best(&mut self) -> Result<()> {
        let best = &self.config.best;
        let asked = best.as_ref().map(|best| ("best", best));
        let asked = asked.or_else(|| self.config.metrics.first().map(|m| ("metrics", &m.name)));
        let Some((option, name)) = asked else { return Ok(()) };
        let Some(valid) = &self.valid else {
            return Err(Error::user(format!(
                "{option}: expected validation data to compute {name:?} on, found none; give it (`valid=FILE`)"
            )));
        };
        // A few rows tell the names, whatever the values are.
        let few = valid.samples(0..valid.len().min(32) as u32, 0);
        let valid = valid.clone();
        let figures = self.evaluate_result([few], &valid)?;
        let Some(best) = best else { return Ok(()) };
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
        let (sources, draws) = self.sources.state();
        let mut optimizers = Vec::new();
        for (optimizer, steps, _) in &mut self.optimizers {
            let mut stream = Stream::writer()?;
            optimizer.save(&mut stream)?;
            optimizers.push((*steps, stream.bytes()?.as_slice().to_vec()));
        }
        let mut modules = Vec::new();
        for module in &mut self.modules {
            let snapshot = module.params().snapshot()?;
            modules.push((module.name.clone(), snapshot.as_slice().to_vec()));
        }
        Ok(SessionState { sources, draws, optimizers, modules, kept: self.kept.clone() })
    }

    /// Takes over what [`Fit::session`] answered in the interrupted run. Optimizers that are not open yet get theirs
    /// when they are. Errors: sources or modules that are not there again.
    pub fn resume(&mut self, state: SessionState) -> Result<()> {
        self.sources.resume(state.sources, state.draws, self.config)?;
        let names = |modules: &[StrategyModule]| -> Vec<String> {
            modules.iter().map(|module| module.name.clone()).collect()
        };
        let saved: Vec<String> = state.modules.iter().map(|(name, _)| name.clone()).collect();
        if names(&self.modules) != saved {
            return Err(Error::user(format!(
                "the interrupted run had the modules {saved:?}, found {:?}; resume with the plugins that began it",
                names(&self.modules)
            )));
        }
        for (module, (_, bytes)) in self.modules.iter_mut().zip(&state.modules) {
            module.params().restore(&Buffer::new(bytes)?)?;
        }
        if state.kept.is_some() {
            self.kept = state.kept;
        }
        self.saved_optimizers = state.optimizers.into_iter().enumerate().collect();
        for index in 0..self.optimizers.len() {
            self.resume_optimizer(index)?;
        }
        Ok(())
    }

    pub(super) fn resume_optimizer(&mut self, index: usize) -> plugin::Result<()> {
        let Some((steps, bytes)) = self.saved_optimizers.remove(&index) else { return Ok(()) };
        let (optimizer, done, _) = &mut self.optimizers[index];
        *done = steps;
        optimizer.load(&mut Stream::reader(&bytes)?)
    }

    /// Figures on the validation rows.
    pub fn evaluate_valid(&mut self) -> Result<Json<String, Value>> {
        let Some(valid) = &self.valid else {
            return Err(Error::user(
                "evaluate: there is no validation data; give it (`valid=FILE`)",
            ));
        };
        let valid = valid.clone();
        self.evaluate_result(valid.windows(self.config.workers), &valid)
    }

    /// Figures of the result on some samples of `features`.
    fn evaluate_result(
        &mut self,
        windows: impl IntoIterator<Item = Result<Vec<Arc<Sample>>>>,
        features: &Features,
    ) -> Result<Json<String, Value>> {
        let model = self.kept.clone().unwrap_or_else(|| MODEL.to_owned());
        let cancel = self.cancel.clone();
        self.evaluate_model(&model, windows, features, &cancel)
    }

    /// Figures of the network under training or a module with a head. Errors: a module without one, a loaded model.
    pub(super) fn evaluate_model(
        &mut self,
        model: &str,
        windows: impl IntoIterator<Item = Result<Vec<Arc<Sample>>>>,
        features: &Features,
        cancel: &AtomicBool,
    ) -> Result<Json<String, Value>> {
        let network = if model == MODEL {
            &mut self.network
        } else {
            let Some(module) = self.modules.iter_mut().find(|module| module.name == model) else {
                return Err(self.unknown_model(model).into());
            };
            let headless = module.headless("evaluate");
            module.network().ok_or(headless)?
        };
        evaluate::evaluate(
            self.components,
            network,
            &self.config.metrics,
            windows,
            |index| features.record(index),
            self.config.batch.tokens,
            Some(&mut self.loss),
            cancel,
        )
    }

    pub(super) fn setup_only(&self, what: &str) -> plugin::Result<()> {
        if self.in_setup {
            return Ok(());
        }
        Err(plugin::Error::new(
            plugin::abi::ET_ERR_FAILED_PRECONDITION,
            format!("{what}: only in on_setup"),
        ))
    }

    pub(super) fn unknown_model(&self, name: &str) -> plugin::Error {
        let companions = self.companions.keys().map(String::as_str);
        let modules = self.modules.iter().map(|module| module.name.as_str());
        let known: Vec<&str> = std::iter::once(MODEL).chain(companions).chain(modules).collect();
        plugin::Error::new(
            plugin::abi::ET_ERR_NOT_FOUND,
            format!("model {name:?}: expected one of {known:?}"),
        )
    }
}
