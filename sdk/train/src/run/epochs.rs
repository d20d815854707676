//! The loop: epochs of steps, evaluations, checkpoints, and the bundle at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use easytransfer_plugin::{Buffer, LoadedOptimizer, LoadedStrategy, Phases, profile, step};
use serde_json::{Map as Json, Value, json};

use crate::data::batches::{self, Batches};
use crate::data::features::Features;
use crate::error::{Error, Result};
use crate::model::bundle;
use crate::model::components::UsedComponent;
use crate::report::progress::ProgressLine;
use crate::report::run_log::RunLog;
use crate::run::checkpoint::{self, AfterStep, Best, Parts, Progress};
use crate::run::evaluate;
use crate::run::events::{Control, Event, StepInfo};
use crate::run::figures::{MOST_UNREAD, Unread};
use crate::run::fit::Fit;
use crate::run::job::{TrainJob, TrainResult};
use crate::run::step::Micros;

/// Runs of this process that are between their first step and the end of their bundle.
static AT_STEPS: AtomicUsize = AtomicUsize::new(0);

/// Whether a run of this process has begun with its steps: from then on, cancelling it leaves a checkpoint.
pub fn is_at_steps() -> bool {
    AT_STEPS.load(Ordering::Relaxed) > 0
}

/// Counts a run as one that is at its steps.
struct AtSteps;

impl AtSteps {
    fn begin() -> AtSteps {
        AT_STEPS.fetch_add(1, Ordering::Relaxed);
        AtSteps
    }
}

impl Drop for AtSteps {
    fn drop(&mut self) {
        AT_STEPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A run on its way.
pub(crate) struct Run<'r, 'f> {
    pub fit: &'r mut Fit<'f>,
    pub job: &'r mut TrainJob,
    features: Arc<Features>,
    pub strategies: Vec<LoadedStrategy>,
    pub optimizer: LoadedOptimizer,
    fingerprint: Value,
    pub progress: Progress,
    best_params: Option<Buffer>,
    /// Names of the figures of which less is better.
    lower_is_better: Vec<String>,
    pub log: RunLog,
    /// Whether reading a number waits for the engine.
    pub(crate) defers: bool,
    pub unread: Vec<Unread>,
    /// The last loss that was read.
    pub last_loss: f64,
    pub tokens: u64,
    started: Instant,
    /// Time of evaluations and checkpoints.
    aside: Duration,
    pub stopped_early: bool,
    bar: ProgressLine,
    /// Whether the user has ended the run.
    pub cancelled: bool,
    /// The place of the strategy that drives the fit, while it does.
    pub driver: Option<usize>,
}

/// What one step has read.
pub(crate) struct Size {
    pub rows: u64,
    pub tokens: u64,
}

/// What is to be done after a step.
pub(crate) struct Due {
    pub epoch_ends: bool,
    pub run_ends: bool,
    pub evaluation: bool,
    pub checkpoint: bool,
}

impl Due {
    fn anything(&self) -> bool {
        self.epoch_ends || self.run_ends || self.evaluation || self.checkpoint
    }
}

/// Whose each component is: a checkpoint holds states that only the plugin that wrote them can read.
fn plugins_of(used: &[UsedComponent]) -> Value {
    let entry = |UsedComponent { kind, origin }: &UsedComponent| {
        (format!("{kind} {}", origin.name), Value::from(origin.plugin.as_str()))
    };
    used.iter().map(entry).collect()
}

impl<'r, 'f> Run<'r, 'f> {
    /// Sets a run up, and goes back to the last checkpoint when the job says so. Errors: a checkpoint of another run.
    pub fn new(
        fit: &'r mut Fit<'f>,
        job: &'r mut TrainJob,
        features: Arc<Features>,
        mut strategies: Vec<LoadedStrategy>,
        mut optimizer: LoadedOptimizer,
    ) -> Result<Self> {
        let config = fit.config;
        let steps = match fit.total_steps {
            0 => batches::batch_counts(&features, config)
                .map(|batches| batches.div_ceil(config.accumulate))
                .sum(),
            asked_for => asked_for,
        };
        fit.total_steps = if config.max_steps > 0 { steps.min(config.max_steps) } else { steps };
        let fingerprint = json!({
            "config": config.deciding(fit.lr)?,
            "precision": fit.components.precision(),
            "rows": features.len(),
            "data": fit.sources.digests(),
            "app": job.app,
            "plugins": plugins_of(&fit.components.used()),
            "labels": fit.network.app_info.labels,
        });
        let mut best_params = None;
        let mut progress = Progress::default();
        let target = checkpoint::path(&job.output);
        let resumed = job.resume && checkpoint::exists(&target)?;
        if resumed {
            let (found, rng, session) = checkpoint::load(
                &target,
                &mut strategies,
                &mut Parts {
                    fingerprint: &fingerprint,
                    params: &mut fit.network.params,
                    optimizer: &mut optimizer,
                    best: &mut best_params,
                },
            )?;
            fit.resume(session)?;
            progress = found;
            fit.rng.set_state(rng);
            fit.step = progress.step;
        }
        let lower_is_better =
            evaluate::lower_is_better(fit.components, &fit.network, &config.metrics)?;
        let log = RunLog::open(&job.output.join("logs"), resumed.then_some(progress.step))?;
        let schedule = config.schedule()?;
        let mut warnings = std::mem::take(&mut fit.network.load_report.warnings);
        if schedule.trains_nothing(fit.total_steps) {
            let message = format!(
                "nothing is trained: the learning rate is 0 in all steps of the run ({}), since schedule.warmup = {} comes to {} of them and begins at 0; set schedule.warmup=0, or make more steps (more epochs, fewer batch.rows, smaller accumulate)",
                fit.total_steps,
                config.schedule.warmup,
                schedule.warmup_steps(fit.total_steps)
            );
            log.warn(&message);
            warnings.push(message);
        }
        let mut bar =
            ProgressLine::new("train", fit.total_steps, job.progress, Duration::from_secs(10));
        bar.resume_at(progress.step);
        let mut run = Run {
            fit,
            job,
            features,
            strategies,
            optimizer,
            fingerprint,
            progress,
            best_params,
            lower_is_better,
            log,
            defers: step::defers(),
            unread: Vec::new(),
            last_loss: f64::NAN,
            tokens: 0,
            started: Instant::now(),
            aside: Duration::ZERO,
            stopped_early: false,
            bar,
            cancelled: false,
            driver: None,
        };
        for message in warnings {
            run.tell(|_| Event::Warning { message });
        }
        run.tell(|run| Event::Start {
            step: run.progress.step,
            total_steps: run.fit.total_steps,
            epochs: run.fit.config.epochs,
            rows: run.features.len() as u64,
        });
        if run.cancelled { Err(Error::Cancelled) } else { Ok(run) }
    }

    /// Tells the caller of an event; it may end the run.
    pub(crate) fn tell(&mut self, event: impl FnOnce(&Self) -> Event) {
        if self.job.on_event.is_some() {
            let event = event(self);
            let answer = self.job.on_event.as_mut().map(|on_event| on_event(&event));
            self.cancelled |= answer == Some(Control::Stop);
        }
    }

    /// Trains to the end and writes the bundle. Errors: cancelled, after a checkpoint; everything that can go wrong
    /// in a step.
    pub fn go(mut self) -> Result<TrainResult> {
        let _at_steps = AtSteps::begin();
        self.catch_up()?;
        let driver = self.strategies.iter().position(|s| s.phases().has(Phases::FIT));
        if let Some(place) = driver {
            self.drive(place)?;
        }
        while !self.progress.finished && self.progress.epoch < self.fit.config.epochs {
            self.epoch()?;
        }
        self.bar.finish();
        self.progress.finished = true;
        self.write()
    }

    /// Does what a cancelled evaluation has left. Errors: cancelled again, with the checkpoint as it is.
    fn catch_up(&mut self) -> Result<()> {
        let Some(AfterStep { epoch_ends, run_ends }) = self.progress.after_step.take() else {
            return Ok(());
        };
        let aside =
            self.after_step(&Due { epoch_ends, run_ends, evaluation: true, checkpoint: false })?;
        self.leave_out(aside);
        if self.cancelled { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Trains from the present batch to the end of the epoch or of the run.
    fn epoch(&mut self) -> Result<()> {
        let config = self.fit.config;
        let schedule = config.schedule()?;
        let plan = batches::epoch(&self.features, config, 0, self.progress.epoch);
        let mut batches =
            Batches::start(&self.features, &plan, self.progress.batch, config.workers);
        while self.progress.batch < plan.batches() {
            let micros = (plan.batches() - self.progress.batch).min(config.accumulate as usize);
            let lr = self.fit.lr * schedule.factor(self.progress.step, self.fit.total_steps);
            let size = self.step(&mut batches, micros, lr)?;
            let due = self.advance(micros, plan.batches());
            self.show(size, &due)?;
            self.tell_step(lr);
            let mut aside = self.after_step(&due)?;
            self.cancelled |= self.fit.is_asked_to_stop();
            aside += self.save_if_due(&due)?;
            self.leave_out(aside);
            if self.cancelled && !self.progress.finished {
                return Err(Error::Cancelled);
            }
            if due.epoch_ends || self.progress.finished {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One step of the optimizer over the gradients of `micros` batches. Its losses wait in `unread`.
    fn step(&mut self, batches: &mut Batches, micros: usize, lr: f64) -> Result<Size> {
        let span = profile::span("train", "step");
        span.note("step", (self.progress.step + 1) as f64);
        self.zero_grads();
        let batches = self.gather(batches, micros)?;
        let Micros { losses, parts, rows, tokens } = self.micros(batches)?;
        let size = Size { rows, tokens };
        let norm = self.update(lr)?;
        self.count();
        span.note("rows", size.rows as f64);
        span.note("tokens", size.tokens as f64);
        self.tokens += size.tokens;
        self.unread.push(Unread { step: self.progress.step, lr, losses, norm, parts });
        Ok(size)
    }

    /// Forgets the gradients of the network and of all modules.
    pub(crate) fn zero_grads(&mut self) {
        self.fit.network.params.zero_grads();
        for module in &mut self.fit.modules {
            module.params().zero_grads();
        }
    }

    /// Counts a step.
    pub(crate) fn count(&mut self) {
        self.progress.step += 1;
        self.fit.step = self.progress.step;
    }

    /// Shows a loss on the line of progress.
    pub(crate) fn note(&mut self, loss: f64, lr: f64) {
        self.bar.note(format!("loss {loss:.4} lr {lr:.2e}"));
    }

    /// Counts time that is none of training.
    pub(crate) fn leave_out(&mut self, aside: Duration) {
        self.aside += aside;
        self.bar.leave_out(aside);
    }

    /// Moves on by the batches of a step, of `batches` in the epoch, and says what follows from that.
    fn advance(&mut self, micros: usize, batches: usize) -> Due {
        self.progress.batch += micros;
        let epoch_ends = self.progress.batch == batches;
        let run_ends = self.progress.step >= self.fit.total_steps;
        if epoch_ends {
            self.progress.epoch += 1;
            self.progress.batch = 0;
        }
        let due = |every: u64| {
            let here =
                if every == 0 { epoch_ends } else { self.progress.step.is_multiple_of(every) };
            here || run_ends
        };
        let config = self.fit.config;
        Due {
            epoch_ends,
            run_ends,
            evaluation: due(config.evaluate_every),
            checkpoint: due(config.checkpoint_every),
        }
    }

    /// Shows a step, and reads the losses so far where somebody asks for them now.
    pub(crate) fn show(&mut self, size: Size, due: &Due) -> Result<()> {
        let asked = !self.defers
            || self.job.on_event.is_some()
            || self.log_is_due()
            || due.anything()
            || self.unread.len() >= MOST_UNREAD;
        let read = if asked { self.read_figures()? } else { Vec::new() };
        if let Some(last) = read.last() {
            self.note(last.loss, last.lr);
        }
        self.bar.step(size.rows, size.tokens);
        self.log_figures(read)
    }

    /// The evaluation and the end of an epoch, where they are due; answers with the time that is none of training.
    pub(crate) fn after_step(&mut self, due: &Due) -> Result<Duration> {
        let before = Instant::now();
        if due.evaluation {
            match self.after_evaluation() {
                // Made again when the run goes on.
                Err(Error::Cancelled) => {
                    let Due { epoch_ends, run_ends, .. } = *due;
                    self.progress.after_step = Some(AfterStep { epoch_ends, run_ends });
                    self.cancelled = true;
                    return Ok(before.elapsed());
                }
                evaluated => evaluated?,
            }
        }
        let aside = before.elapsed();
        if due.epoch_ends && self.driver.is_none() {
            self.after_epoch()?;
        }
        self.progress.finished = due.run_ends || self.stopped_early;
        Ok(aside)
    }

    /// Tells the caller of the step.
    pub(crate) fn tell_step(&mut self, lr: f64) {
        self.tell(|run| {
            Event::Step(StepInfo {
                step: run.progress.step,
                total_steps: run.fit.total_steps,
                loss: run.last_loss,
                lr,
            })
        });
    }

    /// Writes a checkpoint when one is due and before the loop is left; answers with the time that took.
    fn save_if_due(&mut self, due: &Due) -> Result<Duration> {
        let before = Instant::now();
        if due.checkpoint || self.progress.finished || self.cancelled {
            let read = self.read_figures()?;
            self.log_figures(read)?;
            self.checkpoint(None)?;
        }
        Ok(before.elapsed())
    }

    /// Evaluates on the validation data, keeps the best parameters, and decides whether to stop early.
    pub(crate) fn after_evaluation(&mut self) -> Result<()> {
        if self.fit.valid.is_none() {
            return Ok(());
        }
        let span = profile::span("train", "evaluate");
        let figures = self.fit.evaluate_valid()?;
        self.progress.evaluated = self.progress.step;
        drop(span);
        let mut values = Json::new();
        for (name, value) in figures.iter().filter(|(_, value)| value.is_number()) {
            values.insert(format!("valid/{name}"), value.clone());
        }
        self.log.write(self.progress.step, &values)?;
        let info = &self.fit.result().app_info;
        let best = info.best.clone();
        let name = self.fit.config.best.clone().unwrap_or(best);
        let value = figures.get(&name).and_then(Value::as_f64).ok_or_else(|| {
            let known: Vec<&str> = figures.keys().map(String::as_str).collect();
            Error::user(format!("best: expected one of {known:?}, found {name:?}"))
        })?;
        let lower = self.lower_is_better.contains(&name);
        let better = self
            .progress
            .best
            .as_ref()
            .is_none_or(|best| if lower { value < best.value } else { value > best.value });
        self.bar.print(&format!(
            "step {}: {name} {value:.4}{}",
            self.progress.step,
            if better { " (best so far)" } else { "" }
        ));
        self.tell(|run| Event::Evaluation {
            step: run.progress.step,
            metrics: figures.clone(),
            is_best: better,
        });
        if better {
            self.progress.best = Some(Best { step: self.progress.step, value, metrics: figures });
            self.progress.evaluations_since_best = 0;
            self.best_params = Some(self.fit.result().params.snapshot()?);
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
        self.tell(|run| Event::Epoch {
            epoch,
            epochs: run.fit.config.epochs,
            step: run.progress.step,
        });
        Ok(())
    }

    /// Writes a checkpoint; `driver` is the state of the strategy that drives the fit.
    pub(crate) fn checkpoint(&mut self, driver: Option<(usize, Vec<u8>)>) -> Result<()> {
        let _span = profile::span("train", "checkpoint");
        self.log.flush()?;
        let session = self.fit.session()?;
        let states = checkpoint::states(&mut self.strategies, driver)?;
        let path = checkpoint::path(&self.job.output);
        checkpoint::save(
            &path,
            &self.progress,
            self.fit.rng.state(),
            &session,
            &states,
            &mut Parts {
                fingerprint: &self.fingerprint,
                params: &mut self.fit.network.params,
                optimizer: &mut self.optimizer,
                best: &mut self.best_params,
            },
        )?;
        self.tell(|run| Event::Checkpoint { step: run.progress.step, path });
        Ok(())
    }

    /// Writes the bundle with the best parameters.
    fn write(mut self) -> Result<TrainResult> {
        let elapsed = self.started.elapsed();
        let step_seconds = elapsed.saturating_sub(self.aside).as_secs_f64();
        let seconds = elapsed.as_secs_f64();
        if let Some(best) = &self.best_params {
            self.fit.result().params.restore(best)?;
        }
        let _span = profile::span("train", "write bundle");
        let best = self.progress.best.clone();
        let metrics = best.as_ref().map(|best| best.metrics.clone()).unwrap_or_default();
        let config = self.fit.config.resolved(self.fit.lr)?;
        let modules: Json<String, Value> = self
            .fit
            .modules
            .iter_mut()
            .map(|module| (module.name.clone(), module.describe()["parameters"].clone()))
            .collect();
        let used = self.fit.components.used();
        let network = self.fit.result();
        network.made_with = used;
        let labels = network.app_info.labels.clone();
        bundle::save(
            network,
            &self.job.output,
            self.features.records().columns().clone(),
            config.clone(),
            metrics.clone(),
        )?;
        self.log.flush()?;
        let mut shown = config;
        if !modules.is_empty() {
            shown["parameters of modules"] = Value::Object(modules);
        }
        self.log.report(
            &self.job.output.join("report.html"),
            &format!("{} on {}", self.job.app, self.job.train),
            &labels,
            &metrics,
            shown,
        )?;
        let target = checkpoint::path(&self.job.output);
        if target.exists() {
            std::fs::remove_dir_all(&target)
                .map_err(|error| Error::io("remove", &target, error))?;
        }
        Ok(TrainResult {
            metrics,
            best_step: best.map_or(self.progress.step, |best| best.step),
            steps: self.progress.step,
            mean_loss: self.progress.loss_sum / self.progress.loss_count.max(1) as f64,
            skipped_rows: self.fit.skipped_rows(&self.features),
            seconds,
            step_seconds,
            tokens: self.tokens,
        })
    }
}
