//! From a job to a bundle: data, network and strategies are set up, then the loop runs.

use std::path::Path;
use std::sync::Arc;

use easytransfer_plugin::{
    Choice, ComponentRef, LoadedLoss, LoadedOptimizer, LoadedStrategy, Phases, RecomputeScope, Rng,
};
use serde_json::{Map as Json, Value};

use crate::data::dataset::DataOptions;
use crate::data::extra::ExtraColumns;
use crate::data::input::Data;
use crate::data::store::{RecordStore, Storage};
use crate::error::{Error, Result, place_name};
use crate::files::lock::FolderLock;
use crate::model::bundle;
use crate::model::components::{Components, Recorder};
use crate::model::configuration;
use crate::model::network::{AppStage, Network, ask_for_words, schema_of};
use crate::options::config::TrainConfig;
use crate::run::checkpoint;
use crate::run::epochs::Run;
use crate::run::fit::Fit;
use crate::run::job::{TrainJob, TrainResult};
use crate::run::sources::{SourceOptions, Sources};

/// Trains and writes the bundle. Errors, beside everything that can go wrong: an option that is not allowed; another run is writing into the output
/// directory; it holds a bundle, another model or the checkpoint of an unfinished run, and neither `overwrite` nor
/// `resume` says what to do with it.
pub fn train(components: &dyn Components, mut job: TrainJob) -> Result<TrainResult> {
    job.validate()?;
    let components: &dyn Components = &Recorder::new(components);
    let config = job.config.clone();
    let _lock = FolderLock::take(&job.output)?;
    let _recompute = RecomputeScope::new(config.recompute.into())?;
    check_output(&job)?;
    configuration::check(&job.encoder, &config.encoder)?;
    let mut app_options = config.app.clone();
    ask_for_words(components, &job.app, &mut app_options, &job.encoder, job.start)?;
    let mut stage = AppStage::new(components, &job.app, Value::Object(app_options), None)?;
    // What can be wrong with the options is found before the data is read.
    let optimizer = components.find("et.optimizer/1", &config.optimizer.name)?;
    let (optimizer_schema, optimizer_options) =
        checked(&optimizer, Value::Object(config.optimizer.options.clone()), "optimizer")?;
    let mut strategies = make_strategies(components, &config)?;
    let more_sources = SourceOptions::of_config(&config)?;
    let mut columns = stage.app.columns()?;
    let mut extra = Vec::new();
    for strategy in &mut strategies {
        extra.extend(strategy.columns()?);
    }
    let mut extra = ExtraColumns::new(extra, &columns)?;
    columns.extend(extra.columns());
    let storage = Storage {
        memory: config.data_memory << 20,
        directory: job.output.clone(),
        progress: job.progress,
        cancel: job.cancel.clone(),
    };
    storage.check_cancel()?;
    let records = RecordStore::read(&job.train, &columns, &job.train_data, &storage, |record| {
        stage.app.observe_json(record)?;
        extra.observe(record)
    })?;
    // What the training data had not, the validation data must not have, or the figures would be of something else.
    let valid_data = DataOptions { trained: records.columns().clone(), ..job.valid_data.clone() };
    let read = |data: &Data| {
        RecordStore::read(data, &columns, &valid_data, &storage, |record| extra.observe(record))
    };
    let valid = job.valid.as_ref().map(read).transpose()?;
    stage.app.observed().map_err(|error| in_data(error, &job.train))?;
    storage.check_cancel()?;
    let network =
        Network::new(components, stage, &job.encoder, &config.encoder, job.start, config.seed)?;
    storage.check_cancel()?;
    let loss = make_loss(components, &config, &network)?;
    let mut fit = Fit {
        components,
        config: &config,
        rng: Rng::new(config.seed, DROPOUT_STREAM)?,
        network,
        loss,
        companions: Default::default(),
        modules: Vec::new(),
        kept: None,
        valid: None,
        data: job.train_data.clone(),
        extra: Default::default(),
        storage,
        sources: Sources::new(config.seed)?,
        saved_optimizers: Default::default(),
        pending_sources: more_sources,
        optimizers: Vec::new(),
        losses: Vec::new(),
        loss_weight: 1.0,
        want: 0,
        scalars: Json::new(),
        lr: config.peak_lr(&optimizer_schema),
        step: 0,
        total_steps: 0,
        cancel: job.cancel.clone(),
        in_setup: true,
    };
    for strategy in &mut strategies {
        if strategy.phases().has(Phases::SETUP) {
            strategy.on_setup(&mut fit)?;
        }
        fit.storage.check_cancel()?;
    }
    let others = fit.read_pending(&mut extra)?;
    fit.extra = Arc::new(extra);
    let features = fit.open_sources(records, valid, others)?;
    fit.in_setup = false;
    fit.storage.check_cancel()?;
    let optimizer = LoadedOptimizer::create(&optimizer, &optimizer_options, &fit.network.params)?;
    Run::new(&mut fit, &mut job, features, strategies, optimizer)?.go()
}

/// Refuses an output directory in which something would be lost.
fn check_output(job: &TrainJob) -> Result<()> {
    let output = job.output.display();
    let canonical = |path: &Path| path.canonicalize().ok();
    if canonical(&job.output).is_some_and(|path| canonical(&job.encoder) == Some(path)) {
        return Err(Error::user(format!(
            "`{output}`: the output is the directory of the encoder, whose files it would replace; name another one"
        )));
    }
    let unfinished = checkpoint::exists(&checkpoint::path(&job.output))?;
    let finished = job.output.join(bundle::MANIFEST).exists();
    if job.resume && finished && !unfinished {
        return Err(Error::user(format!(
            "`{output}`: expected a checkpoint to go on from, found a finished bundle; leave `resume=true` out and say `overwrite=true` to train anew"
        )));
    }
    if job.config.overwrite || job.resume && unfinished {
        return Ok(());
    }
    let replace = "name another directory, or say `overwrite=true` to replace it";
    let found = if finished {
        format!("a finished bundle; {replace}")
    } else if unfinished {
        "the checkpoint of an unfinished run; go on with it (`resume=true`), or say `overwrite=true` to start anew"
            .to_owned()
    } else if bundle::holds_model(&job.output) {
        format!("a model of somebody else; {replace}")
    } else {
        return Ok(());
    };
    Err(Error::user(format!("`{output}`: expected a directory for a new bundle, found {found}")))
}

fn in_data(error: easytransfer_plugin::Error, data: &Data) -> Error {
    error.context(place_name(data.path())).into()
}

/// Streams of the counted generator: weights use 0.
const DROPOUT_STREAM: u64 = 1;

fn make_loss(
    components: &dyn Components,
    config: &TrainConfig,
    network: &Network,
) -> Result<LoadedLoss> {
    let (component, choice) = match (&config.loss, &network.app_info.loss) {
        (Some(named), _) => (components.find("et.loss/1", &named.name)?, Choice::from(named)),
        (None, Some(choice)) => {
            let asker = &network.app_origin.plugin;
            (components.find_for("et.loss/1", &choice.name, asker)?, choice.clone())
        }
        (None, None) => {
            return Err(Error::user(format!(
                "app {}: it has no loss, so it cannot be trained; name one under loss.name",
                network.app_origin.name
            )));
        }
    };
    let (_, options) = checked(&component, Value::Object(choice.options), "loss")?;
    Ok(LoadedLoss::create(&component, &options)?)
}

/// A component's schema, and options checked against it, as text.
fn checked(component: &ComponentRef, mut options: Value, prefix: &str) -> Result<(Value, String)> {
    let schema = schema_of(component, prefix)?;
    crate::options::validate(&schema, &mut options, "", prefix)?;
    Ok((schema, options.to_string()))
}

fn make_strategies(
    components: &dyn Components,
    config: &TrainConfig,
) -> Result<Vec<LoadedStrategy>> {
    let mut strategies = Vec::new();
    for (name, options) in &config.strategy {
        let component = components.find("et.strategy/1", name)?;
        let (_, options) = checked(&component, options.clone(), &format!("strategy.{name}"))?;
        strategies.push(LoadedStrategy::create(&component, &options)?);
    }
    for (phase, what) in [(Phases::COMBINE, "combine"), (Phases::FIT, "fit")] {
        let claimants: Vec<&str> =
            strategies.iter().filter(|s| s.phases().has(phase)).map(|s| s.name()).collect();
        if claimants.len() > 1 {
            return Err(Error::user(format!(
                "strategy: at most one may claim {what}, found {}",
                claimants.join(" and ")
            )));
        }
    }
    Ok(strategies)
}
