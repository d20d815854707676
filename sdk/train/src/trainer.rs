//! The training loop: batch, forward, losses, one backward, gradient hooks, clip, optimizer, schedule, evaluation, checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use easytransfer_plugin::{
    Buffer, Call, Choice, LoadedLoss, LoadedOptimizer, LoadedStrategy, Map, Phases, Rng, Row,
    Tensor, profile, step,
};
use serde_json::{Map as Json, Value, json};

use crate::batching::plan_batches;
use crate::bundle;
use crate::checkpoint::{self, Best, Parts, Progress};
use crate::components::Components;
use crate::config::TrainConfig;
use crate::dataset::{DataOptions, Dataset};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::figures::{Figures, MOST_UNREAD, Unread};
use crate::fit::{Fit, Source, batch_options};
use crate::network::{AppStage, Network, Start};
use crate::prefetch::Prefetch;
use crate::progress::{self, ProgressMode};
use crate::run_log::RunLog;

/// What to train, on what, and where the result goes.
pub struct TrainJob {
    /// Name of the app.
    pub app: String,
    /// Directory of the encoder.
    pub encoder: PathBuf,
    /// How its weights start.
    pub start: Start,
    /// Training data.
    pub train: PathBuf,
    /// Validation data.
    pub valid: Option<PathBuf>,
    /// Directory of the bundle.
    pub output: PathBuf,
    /// How to read the training data.
    pub train_data: DataOptions,
    /// How to read the validation data.
    pub valid_data: DataOptions,
    /// Options.
    pub config: TrainConfig,
    /// Go on from the last checkpoint in the output directory, if there is one.
    pub resume: bool,
    /// How to show progress.
    pub progress: ProgressMode,
    /// Called after every step.
    pub on_step: Option<OnStep>,
    /// Set from elsewhere to cancel.
    pub cancel: Arc<AtomicBool>,
}

/// A callback after every step; answering false ends the run as a cancellation.
pub type OnStep = Box<dyn FnMut(&StepInfo) -> bool + Send>;

/// One step, for a callback.
#[derive(Debug, Clone, PartialEq)]
pub struct StepInfo {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Loss of the step.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainResult {
    /// Figures of the kept parameters on the validation data, empty without.
    pub metrics: Json<String, Value>,
    /// Step of the kept parameters.
    pub best_step: u64,
    /// Steps done.
    pub steps: u64,
    /// Mean loss over all steps.
    pub mean_loss: f64,
    /// Rows that were left out.
    pub skipped_rows: u64,
    /// Wall-clock seconds of the loop.
    pub seconds: f64,
    /// The part of `seconds` that went into steps: without evaluations and checkpoints.
    pub step_seconds: f64,
    /// Tokens trained on by this process.
    pub tokens: u64,
}

/// What one micro-batch came to, perhaps not computed yet.
struct Micro {
    /// Divided by the number of micro-batches.
    loss: Tensor,
    parts: Vec<(String, Tensor)>,
    rows: u64,
    tokens: u64,
}

/// Trains and writes the bundle.
pub fn train(components: &dyn Components, mut job: TrainJob) -> Result<TrainResult> {
    let config = job.config.clone();
    let mut stage = AppStage::new(components, &job.app, Value::Object(config.app.clone()), None)?;
    let columns = stage.app.columns()?;
    let mut data = Dataset::load(&job.train, &columns, &job.train_data)?;
    let mut valid_data = match &job.valid {
        Some(path) => Some(Dataset::load(path, &columns, &job.valid_data)?),
        None => None,
    };
    data.observe(&mut stage.app)?;
    let network = Network::new(components, stage, &job.encoder, job.start, config.seed)?;
    let loss = make_loss(components, &config, &network)?;
    let mut strategies = make_strategies(components, &config)?;
    let mut fit = Fit {
        components,
        config: &config,
        rng: Rng::new(config.seed, DROPOUT_STREAM)?,
        network,
        loss,
        companions: Default::default(),
        train: None,
        valid: None,
        data: job.train_data.clone(),
        sources: Default::default(),
        saved_optimizers: Default::default(),
        pending_sources: Vec::new(),
        optimizers: Vec::new(),
        losses: Vec::new(),
        loss_weight: 1.0,
        want: 0,
        scalars: Json::new(),
        step: 0,
        total_steps: 0,
        cancel: job.cancel.clone(),
        in_setup: true,
    };
    for strategy in &mut strategies {
        if strategy.phases().has(Phases::SETUP) {
            strategy.on_setup(&mut fit)?;
        }
    }
    fit.in_setup = false;
    fit.open_pending()?;
    let companions = fit.featurizers();
    let (app, tokenizer) = (fit.network.app.clone(), fit.network.tokenizer.clone());
    let rows = data.featurize(&app, &tokenizer, &companions, config.workers)?;
    if let Some(valid) = &mut valid_data {
        fit.valid = Some(valid.featurize(&app, &tokenizer, &[], config.workers)?);
    }
    fit.network.params.seal()?;
    fit.check_best()?;
    let skipped_rows = data.skipped + valid_data.as_ref().map_or(0, |valid| valid.skipped);
    let columns = data.columns.clone();
    drop((data, valid_data));

    let run = Run::new(&mut fit, &mut job, rows, strategies, columns)?;
    let mut result = run.go()?;
    result.skipped_rows = skipped_rows;
    Ok(result)
}

/// Streams of the counted generator: weights use 0.
const DROPOUT_STREAM: u64 = 1;

fn make_loss(
    components: &dyn Components,
    config: &TrainConfig,
    network: &Network,
) -> Result<LoadedLoss> {
    let choice = match (&config.loss, &network.app_info.loss) {
        (Some(named), _) => Choice { name: named.name.clone(), options: named.options.clone() },
        (None, Some(choice)) => choice.clone(),
        (None, None) => {
            return Err(Error::user(format!(
                "app {}: it has no loss, so it cannot be trained; name one under loss.name",
                network.app_origin.name
            )));
        }
    };
    let component = components.find("et.loss/1", &choice.name)?;
    let options = checked(&component.schema, Value::Object(choice.options), "loss")?;
    Ok(LoadedLoss::create(&component, &options)?)
}

/// Options checked against a component's schema, as text.
fn checked(schema: &str, mut options: Value, prefix: &str) -> Result<String> {
    let schema: Value = serde_json::from_str(schema)
        .map_err(|error| Error::other(format!("{prefix}: the plugin's schema: {error}")))?;
    crate::options::validate(&schema, &mut options, "", prefix)?;
    Ok(options.to_string())
}

fn make_strategies(
    components: &dyn Components,
    config: &TrainConfig,
) -> Result<Vec<LoadedStrategy>> {
    let mut strategies = Vec::new();
    for (name, options) in &config.strategy {
        let component = components.find("et.strategy/1", name)?;
        let options = checked(&component.schema, options.clone(), &format!("strategy.{name}"))?;
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

struct Run<'r, 'f> {
    fit: &'r mut Fit<'f>,
    job: &'r mut TrainJob,
    rows: Arc<Vec<Row>>,
    lengths: Vec<u32>,
    strategies: Vec<LoadedStrategy>,
    optimizer: LoadedOptimizer,
    columns: Json<String, Value>,
    fingerprint: Value,
    progress: Progress,
    best_params: Option<Buffer>,
    log: RunLog,
    /// Whether reading a number waits for the engine.
    defers: bool,
    unread: Vec<Unread>,
    /// The last loss that was read.
    last_loss: f64,
    tokens: u64,
    started: Instant,
    /// Time of evaluations and checkpoints.
    aside: Duration,
    stopped_early: bool,
}

impl<'r, 'f> Run<'r, 'f> {
    fn new(
        fit: &'r mut Fit<'f>,
        job: &'r mut TrainJob,
        rows: Vec<Row>,
        mut strategies: Vec<LoadedStrategy>,
        columns: Json<String, Value>,
    ) -> Result<Self> {
        let config = fit.config;
        let rows = Arc::new(rows);
        let lengths = evaluate::lengths(&rows);
        fit.train = Some(Source::new(rows.clone()));
        let component = fit.components.find("et.optimizer/1", &config.optimizer.name)?;
        let options = checked(
            &component.schema,
            Value::Object(config.optimizer.options.clone()),
            "optimizer",
        )?;
        let mut optimizer = LoadedOptimizer::create(&component, &options, &fit.network.params)?;
        let batches: u64 = (0..config.epochs)
            .map(|epoch| {
                let batches = plan_batches(&lengths, &batch_options(config, epoch)).len() as u64;
                batches.div_ceil(config.accumulate)
            })
            .sum();
        fit.total_steps =
            if config.max_steps > 0 { batches.min(config.max_steps) } else { batches };
        let fingerprint = json!({
            "config": config,
            "rows": lengths.len(),
            "tokens": lengths.iter().map(|&n| u64::from(n)).sum::<u64>(),
            "app": job.app,
            "labels": fit.network.app_info.labels,
        });
        std::fs::create_dir_all(&job.output)
            .map_err(|error| Error::io("create", &job.output, error))?;
        let mut best_params = None;
        let mut progress = Progress::default();
        let target = checkpoint_path(&job.output);
        let resumed = job.resume && checkpoint::exists(&target)?;
        if resumed {
            let (found, rng, session) = checkpoint::load(
                &target,
                &mut Parts {
                    fingerprint: &fingerprint,
                    params: &mut fit.network.params,
                    optimizer: &mut optimizer,
                    strategies: &mut strategies,
                    best: &mut best_params,
                },
            )?;
            fit.resume(session)?;
            progress = found;
            fit.rng.set_state(rng);
            fit.step = progress.step;
        }
        let log = RunLog::open(&job.output.join("logs"), resumed.then_some(progress.step))?;
        Ok(Run {
            fit,
            job,
            rows,
            lengths,
            strategies,
            optimizer,
            columns,
            fingerprint,
            progress,
            best_params,
            log,
            defers: step::defers(),
            unread: Vec::new(),
            last_loss: f64::NAN,
            tokens: 0,
            started: Instant::now(),
            aside: Duration::ZERO,
            stopped_early: false,
        })
    }

    fn go(mut self) -> Result<TrainResult> {
        let config = self.fit.config;
        let mut bar = progress::Progress::new(
            "train",
            self.fit.total_steps,
            self.job.progress,
            Duration::from_secs(10),
        );
        bar.resume_at(self.progress.step);
        let whole_fit = self.strategies.iter().position(|s| s.phases().has(Phases::FIT));
        if let Some(index) = whole_fit {
            self.strategies[index].fit(self.fit)?;
            self.progress.finished = true;
            self.after_evaluation(&mut bar)?;
        }
        while !self.progress.finished && self.progress.epoch < config.epochs {
            self.epoch(&mut bar)?;
        }
        bar.finish();
        self.progress.finished = true;
        self.write()
    }

    /// Trains from the present batch to the end of the epoch or of the run.
    fn epoch(&mut self, bar: &mut progress::Progress) -> Result<()> {
        let config = self.fit.config;
        let schedule = config.schedule()?;
        let plan =
            Arc::new(plan_batches(&self.lengths, &batch_options(config, self.progress.epoch)));
        let begin = self.progress.batch;
        let mut batches = {
            let (rows, plan) = (self.rows.clone(), plan.clone());
            let count = plan.len() - begin;
            Prefetch::new(count, config.workers.min(1), 4, move |index| {
                let batch = evaluate::collate(&rows, &plan[begin + index])?;
                step::prefetch(&batch)?;
                Ok(batch)
            })
        };
        while self.progress.batch < plan.len() {
            let step_span = profile::span("train", "step");
            step_span.note("step", (self.progress.step + 1) as f64);
            let micros = (plan.len() - self.progress.batch).min(config.accumulate as usize);
            let lr = config.lr * schedule.factor(self.progress.step, self.fit.total_steps);
            self.fit.network.params.zero_grads();
            let (mut losses, mut rows, mut tokens) = (Vec::with_capacity(micros), 0, 0);
            let mut parts: Vec<(String, Tensor)> = Vec::new();
            for _ in 0..micros {
                // The plan has exactly as many batches as the prefetcher was told.
                let wait = profile::span("train", "wait for batch");
                let batch =
                    batches.next().ok_or_else(|| Error::other("the batches ended early"))??;
                drop(wait);
                let micro = self.micro(batch, micros)?;
                losses.push(micro.loss);
                rows += micro.rows;
                tokens += micro.tokens;
                parts.extend(micro.parts);
            }
            let norm = self.update(lr)?;
            step_span.note("rows", rows as f64);
            step_span.note("tokens", tokens as f64);
            drop(step_span);
            self.progress.batch += micros;
            self.tokens += tokens;
            self.unread.push(Unread { step: self.progress.step, lr, losses, norm, parts });
            let epoch_ends = self.progress.batch == plan.len();
            let run_ends = self.progress.step >= self.fit.total_steps;
            if epoch_ends {
                self.progress.epoch += 1;
                self.progress.batch = 0;
            }
            let due = |every: u64| {
                if every == 0 {
                    epoch_ends || run_ends
                } else {
                    self.progress.step.is_multiple_of(every) || run_ends
                }
            };
            let (evaluate_due, checkpoint_due) =
                (due(config.evaluate_every), due(config.checkpoint_every));
            let asked = !self.defers
                || self.job.on_step.is_some()
                || self.log_is_due()
                || evaluate_due
                || checkpoint_due
                || epoch_ends
                || run_ends
                || self.unread.len() >= MOST_UNREAD;
            let read = if asked { self.read_figures()? } else { Vec::new() };
            if let Some(last) = read.last() {
                bar.note(format!("loss {:.4} lr {:.2e}", last.loss, last.lr));
            }
            bar.step(rows, tokens);
            self.log_figures(read)?;
            let before = Instant::now();
            if evaluate_due {
                self.after_evaluation(bar)?;
            }
            let mut aside = before.elapsed();
            if epoch_ends {
                self.after_epoch()?;
            }
            self.progress.finished = run_ends || self.stopped_early;
            let info = StepInfo {
                step: self.progress.step,
                total_steps: self.fit.total_steps,
                loss: self.last_loss,
                lr,
            };
            let go_on = self.job.on_step.as_mut().is_none_or(|on_step| on_step(&info));
            let cancelled = !go_on || self.job.cancel.load(Ordering::Relaxed);
            let before = Instant::now();
            if checkpoint_due || self.progress.finished || cancelled {
                let read = self.read_figures()?;
                self.log_figures(read)?;
                self.checkpoint()?;
            }
            aside += before.elapsed();
            self.aside += aside;
            bar.leave_out(aside);
            if cancelled && !self.progress.finished {
                return Err(Error::Cancelled);
            }
            if epoch_ends || self.progress.finished {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Forward and backward of one batch; gradients are added up.
    fn micro(&mut self, mut batch: Map, micros: usize) -> Result<Micro> {
        let fit = &mut *self.fit;
        fit.losses.clear();
        fit.loss_weight = 1.0;
        for strategy in self.strategies.iter_mut().filter(|s| s.phases().has(Phases::BATCH)) {
            strategy.on_batch(fit, &mut batch)?;
        }
        let call = Call::training(fit.want, &fit.rng);
        let outputs = fit.network.forward(&call, &batch)?;
        let own = fit.loss.forward(&call, &outputs, &batch)?;
        for strategy in self.strategies.iter_mut().filter(|s| s.phases().has(Phases::OUTPUTS)) {
            strategy.on_outputs(fit, &batch, &outputs)?;
        }
        let mut losses = vec![("loss".to_owned(), own, fit.loss_weight)];
        losses.append(&mut fit.losses);
        let single = losses.len() == 1;
        let mut parts = Vec::new();
        let mut weighted: Vec<(String, Tensor)> = Vec::new();
        for (name, value, weight) in losses {
            if !single {
                parts.push((name.clone(), value.clone()));
            }
            if weight != 0.0 || single {
                let value = if weight == 1.0 { value } else { value.affine(weight, 0.0)? };
                weighted.push((name, value));
            }
        }
        let combine = self.strategies.iter_mut().find(|s| s.phases().has(Phases::COMBINE));
        let total = match combine {
            Some(strategy) => {
                let mut map = Map::new()?;
                for (name, value) in &weighted {
                    map.put(name, value)?;
                }
                strategy.combine(fit, &map)?
            }
            None => {
                let mut sum: Option<Tensor> = None;
                for (_, value) in &weighted {
                    sum = Some(match sum {
                        Some(sum) => sum.add(value)?,
                        None => value.clone(),
                    });
                }
                sum.ok_or_else(|| {
                    Error::user("strategy: all losses have weight 0; nothing is trained")
                })?
            }
        };
        drop(outputs);
        drop(weighted);
        let total = if micros > 1 { total.affine(1.0 / micros as f64, 0.0)? } else { total };
        total.backward()?;
        let rows = batch.get("starts")?.len().saturating_sub(1) as u64;
        let tokens = batch.get("ids")?.len() as u64;
        Ok(Micro { loss: total, parts, rows, tokens })
    }

    /// Gradient hooks, clipping and the optimizer; answers with the norm before clipping when it was computed.
    fn update(&mut self, lr: f64) -> Result<Option<Tensor>> {
        let config = self.fit.config;
        for strategy in self.strategies.iter_mut().filter(|s| s.phases().has(Phases::GRADIENTS)) {
            strategy.on_gradients(self.fit)?;
        }
        let params = &mut self.fit.network.params;
        let mut norm = None;
        if config.clip > 0.0 {
            norm = Some(step::clip_grads(params, config.clip)?);
        }
        self.progress.step += 1;
        self.fit.step = self.progress.step;
        if self.progress.step == 1 {
            let without: Vec<String> = params
                .iter()
                .filter(|p| p.is_trainable() && !p.has_grad())
                .map(|p| p.name())
                .collect();
            if !without.is_empty() {
                self.log.warn(&format!(
                    "no gradient reaches {} trainable parameters: {}",
                    without.len(),
                    without.iter().take(8).cloned().collect::<Vec<_>>().join(", ")
                ))?;
            }
        }
        self.optimizer.step(params, lr, self.progress.step)?;
        Ok(norm)
    }

    /// Whether the present step gets a line of metrics.
    fn log_is_due(&self) -> bool {
        self.progress.step.is_multiple_of(self.fit.config.log_every)
            || self.progress.step == self.fit.total_steps
            || !self.fit.scalars.is_empty()
    }

    /// Reads the numbers of all steps that have some; waits for a card.
    fn read_figures(&mut self) -> Result<Vec<Figures>> {
        let read: Vec<Figures> = self.unread.drain(..).map(Unread::read).collect::<Result<_>>()?;
        for figures in &read {
            self.progress.loss_sum += figures.loss;
            self.progress.loss_count += 1;
            self.last_loss = figures.loss;
        }
        Ok(read)
    }

    /// Writes the line of the present step if one is due, and refuses a loss that is no number.
    fn log_figures(&mut self, read: Vec<Figures>) -> Result<()> {
        for figures in read {
            let Figures { step, loss, .. } = figures;
            // A step with a line is read as soon as it is done.
            if step == self.progress.step && self.log_is_due() {
                self.log_step(figures)?;
            }
            if !loss.is_finite() {
                return Err(Error::other(format!(
                    "step {step}: the loss is {loss}; use a smaller learning rate (lr is {})",
                    self.fit.config.lr
                )));
            }
        }
        Ok(())
    }

    fn log_step(&mut self, figures: Figures) -> Result<()> {
        let Figures { loss, lr, norm, parts, .. } = figures;
        let scalars = std::mem::take(&mut self.fit.scalars);
        let mut values = Json::new();
        values.insert("train/loss".to_owned(), json!(loss));
        values.insert("train/lr".to_owned(), json!(lr));
        if let Some(norm) = norm {
            values.insert("train/grad_norm".to_owned(), json!(norm));
        }
        for (name, value) in parts {
            values.insert(format!("train/loss/{name}"), json!(value));
        }
        values.extend(scalars);
        self.log.write(self.progress.step, &values)
    }

    /// Evaluates on the validation data, keeps the best parameters, and decides whether to stop early.
    fn after_evaluation(&mut self, bar: &mut progress::Progress) -> Result<()> {
        if self.fit.valid.is_none() {
            return Ok(());
        }
        let span = profile::span("train", "evaluate");
        let figures = self.fit.evaluate_valid()?;
        drop(span);
        let mut values = Json::new();
        for (name, value) in figures.iter().filter(|(_, value)| value.is_number()) {
            values.insert(format!("valid/{name}"), value.clone());
        }
        self.log.write(self.progress.step, &values)?;
        let info = &self.fit.network.app_info;
        let name = self.fit.config.best.clone().unwrap_or_else(|| info.best.clone());
        let value = figures.get(&name).and_then(Value::as_f64).ok_or_else(|| {
            let known: Vec<&str> = figures.keys().map(String::as_str).collect();
            Error::user(format!("best: expected one of {known:?}, found {name:?}"))
        })?;
        let minimize =
            name == "loss" || name == "mse" || (name == info.best && info.best_is == "min");
        let better = self
            .progress
            .best
            .as_ref()
            .is_none_or(|best| if minimize { value < best.value } else { value > best.value });
        bar.print(&format!(
            "step {}: {name} {value:.4}{}",
            self.progress.step,
            if better { " (best so far)" } else { "" }
        ));
        if better {
            self.progress.best = Some(Best { step: self.progress.step, value, metrics: figures });
            self.progress.evaluations_since_best = 0;
            self.best_params = Some(self.fit.network.params.snapshot()?);
        } else {
            self.progress.evaluations_since_best += 1;
            let patience = self.fit.config.patience;
            self.stopped_early = patience > 0 && self.progress.evaluations_since_best >= patience;
        }
        Ok(())
    }

    fn after_epoch(&mut self) -> Result<()> {
        let metrics = self.progress.best.as_ref().map(|b| b.metrics.clone()).unwrap_or_default();
        let epoch = self.progress.epoch;
        for strategy in self.strategies.iter_mut().filter(|s| s.phases().has(Phases::EPOCH)) {
            strategy.on_epoch(self.fit, epoch, &metrics)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        let _span = profile::span("train", "checkpoint");
        self.log.flush()?;
        let session = self.fit.session()?;
        checkpoint::save(
            &checkpoint_path(&self.job.output),
            &self.progress,
            self.fit.rng.state(),
            &session,
            &mut Parts {
                fingerprint: &self.fingerprint,
                params: &mut self.fit.network.params,
                optimizer: &mut self.optimizer,
                strategies: &mut self.strategies,
                best: &mut self.best_params,
            },
        )
    }

    /// Writes the bundle with the best parameters.
    fn write(mut self) -> Result<TrainResult> {
        let elapsed = self.started.elapsed();
        let step_seconds = elapsed.saturating_sub(self.aside).as_secs_f64();
        let seconds = elapsed.as_secs_f64();
        if let Some(best) = &self.best_params {
            self.fit.network.params.restore(best)?;
        }
        let _span = profile::span("train", "write bundle");
        let best = self.progress.best.clone();
        let metrics = best.as_ref().map(|best| best.metrics.clone()).unwrap_or_default();
        let config = serde_json::to_value(self.fit.config)
            .map_err(|error| Error::other(format!("write the options: {error}")))?;
        bundle::save(
            &self.fit.network,
            &self.job.output,
            self.columns.clone(),
            config.clone(),
            metrics.clone(),
        )?;
        self.log.flush()?;
        self.log.report(
            &self.job.output.join("report.html"),
            &format!("{} on {}", self.job.app, self.job.train.display()),
            &self.fit.network.app_info.labels,
            &metrics,
            config,
        )?;
        let target = checkpoint_path(&self.job.output);
        if target.exists() {
            std::fs::remove_dir_all(&target)
                .map_err(|error| Error::io("remove", &target, error))?;
        }
        Ok(TrainResult {
            metrics,
            best_step: best.map_or(self.progress.step, |best| best.step),
            steps: self.progress.step,
            mean_loss: self.progress.loss_sum / self.progress.loss_count.max(1) as f64,
            skipped_rows: 0,
            seconds,
            step_seconds,
            tokens: self.tokens,
        })
    }
}

/// Where a run keeps its checkpoint.
pub fn checkpoint_path(output: &Path) -> PathBuf {
    output.join("checkpoint")
}
