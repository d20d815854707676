//! A fit that a strategy drives: what it may do beyond what hooks may, and how its steps are counted, logged,
//! evaluated and checkpointed.

use std::time::Instant;

use easytransfer_plugin as plugin;
use easytransfer_plugin::{
    Map, ModuleSpec, Params, Save, Scope, SessionHost, SourceInfo, Stream, Tensor, profile,
};
use serde_json::{Map as Json, Value, json};

use crate::error::{Error, Result};
use crate::run::epochs::{Due, Run, Size};
use crate::run::figures::Unread;
use crate::run::step::Micros;

impl Run<'_, '_> {
    /// Lets the strategy at `place` drive the fit to its end. Errors: what it says; cancelled.
    pub(crate) fn drive(&mut self, place: usize) -> Result<()> {
        if !self.progress.finished {
            // Out of the list, because `step_once` calls the hooks of those in it.
            let mut driver = self.strategies.remove(place);
            self.driver = Some(place);
            let driven = driver.fit(self);
            self.driver = None;
            self.strategies.insert(place, driver);
            if self.cancelled && !self.progress.finished {
                return Err(Error::Cancelled);
            }
            driven?;
            if self.progress.evaluated < self.progress.step {
                self.after_evaluation()?;
            }
            self.progress.finished = true;
        }
        Ok(())
    }

    /// What is due after a step that a strategy made: there are no epochs, so their part of the steps counts.
    fn due(&self) -> Due {
        let (step, total) = (self.progress.step, self.fit.total_steps);
        let run_ends = step >= total;
        let of_epoch = total.div_ceil(self.fit.config.epochs).max(1);
        let due = |every: u64| step.is_multiple_of(if every == 0 { of_epoch } else { every });
        let config = self.fit.config;
        Due {
            epoch_ends: false,
            run_ends,
            evaluation: due(config.evaluate_every) || run_ends,
            checkpoint: due(config.checkpoint_every) || run_ends,
        }
    }

    /// The line of metrics of a step with the figures of a strategy; its loss, where it says one or made steps of the
    /// trainer's own. Errors: a figure that is no number.
    fn log_committed(&mut self, lr: f64, figures: &Json<String, Value>) -> Result<()> {
        let read = self.read_figures()?;
        let mean = read.iter().map(|step| step.loss).sum::<f64>() / read.len() as f64;
        let said = figures.get("loss").and_then(Value::as_f64);
        if let (Some(loss), true) = (said, read.is_empty()) {
            self.progress.loss_sum += loss;
            self.progress.loss_count += 1;
        }
        let loss = said.or((!read.is_empty()).then_some(mean));
        if let Some(loss) = loss {
            self.last_loss = loss;
            self.note(loss, lr);
        }
        if self.log_is_due() {
            let mut values = Json::new();
            if let Some(loss) = loss {
                values.insert("train/loss".to_owned(), json!(loss));
            }
            values.insert("train/lr".to_owned(), json!(lr));
            for (name, value) in figures.iter().filter(|(name, _)| *name != "loss") {
                values.insert(format!("train/{name}"), value.clone());
            }
            values.extend(std::mem::take(&mut self.fit.scalars));
            self.log.write(self.progress.step, &values)?;
        }
        if let Some((name, value)) =
            figures.iter().find(|(_, value)| !value.is_number() && !value.is_null())
        {
            return Err(Error::user(format!("commit: {name}: expected a number, found {value}")));
        }
        // JSON writes what is no finite number as null.
        let bad = figures.iter().find(|(_, value)| value.is_null()).map(|(name, _)| name.as_str());
        let bad = bad.or(loss.filter(|loss| !loss.is_finite()).map(|_| "loss"));
        match bad {
            Some(name) => Err(Error::other(format!(
                "step {}: {name} is no finite number; use a smaller learning rate (lr is {})",
                self.progress.step, self.fit.lr
            ))),
            None => Ok(()),
        }
    }

    fn commit_step(&mut self, figures: &Json<String, Value>, save: Save<'_>) -> Result<bool> {
        let Some(place) = self.driver else {
            return Err(Error::other("commit: only in fit, for a strategy that drives it"));
        };
        if self.progress.finished || self.cancelled {
            return Ok(false);
        }
        let lr = self.fit.present_lr()?;
        self.count();
        self.log_committed(lr, figures)?;
        let due = self.due();
        self.show(Size { rows: 0, tokens: 0 }, &due)?;
        self.tell_step(lr);
        let mut aside = self.after_step(&due)?;
        self.cancelled |= self.fit.is_asked_to_stop();
        let before = Instant::now();
        if due.checkpoint || self.progress.finished || self.cancelled {
            let mut stream = Stream::writer()?;
            save(&mut stream)?;
            self.checkpoint(Some((place, stream.bytes()?.as_slice().to_vec())))?;
        }
        aside += before.elapsed();
        self.leave_out(aside);
        Ok(!self.progress.finished && !self.cancelled)
    }

    fn own_step(&mut self, source: &str) -> Result<()> {
        let span = profile::span("train", "step");
        let config = self.fit.config;
        let lr = self.fit.present_lr()?;
        self.zero_grads();
        let batches = (0..config.accumulate)
            .map(|_| self.fit.sources.next("step_once", source, config))
            .collect::<Result<Vec<_>>>()?;
        let Micros { losses, parts, rows, tokens } = self.micros(batches)?;
        let norm = self.update(lr)?;
        span.note("rows", rows as f64);
        self.tokens += tokens;
        self.unread.push(Unread { step: self.progress.step + 1, lr, losses, norm, parts });
        Ok(())
    }
}

/// Hands methods on to the state of the fit.
macro_rules! of_fit {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {$(
        fn $name(&mut self $(, $arg: $ty)*) -> $out {
            self.fit.$name($($arg),*)
        }
    )*};
}

type Figures = Json<String, Value>;

impl SessionHost for Run<'_, '_> {
    of_fit! {
        params(model: &str) -> plugin::Result<&mut Params>;
        load_model(name: &str, path: &str) -> plugin::Result<()>;
        describe(model: &str) -> plugin::Result<Value>;
        forward(model: &str, batch: &Map, training: bool, want: u32) -> plugin::Result<Map>;
        loss(outputs: &Map, batch: &Map) -> plugin::Result<Tensor>;
        add_loss(name: &str, loss: Tensor, weight: f64) -> plugin::Result<()>;
        set_loss_weight(weight: f64) -> plugin::Result<()>;
        want(want: u32) -> plugin::Result<()>;
        next_batch(source: &str) -> plugin::Result<Map>;
        open_source(name: &str, path: &str, options: &str) -> plugin::Result<()>;
        optimizer(name: &str, options: &str, params: &Params) -> plugin::Result<usize>;
        evaluate(model: &str, source: &str, rows: u64) -> plugin::Result<Figures>;
        log_scalar(name: &str, value: f64) -> plugin::Result<()>;
        module(name: &str, spec: &ModuleSpec<'_>) -> plugin::Result<Scope>;
        keep(module: &str) -> plugin::Result<()>;
        sources() -> plugin::Result<Vec<SourceInfo>>;
        draw_batch(sources: &[&str], weights: Option<&[f64]>) -> plugin::Result<Map>;
        records(source: &str, numbers: &[u64]) -> plugin::Result<Map>;
        record(source: &str, number: u64) -> plugin::Result<String>;
        loss_rows(outputs: &Map, batch: &Map) -> plugin::Result<Tensor>;
        set_total_steps(steps: u64) -> plugin::Result<()>;
        lr() -> f64;
    }

    fn step(&self) -> u64 {
        self.fit.step()
    }

    fn total_steps(&self) -> u64 {
        self.fit.total_steps()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled || self.fit.is_cancelled()
    }

    fn optimizer_step(&mut self, optimizer: Option<usize>, lr: f64) -> plugin::Result<()> {
        if optimizer.is_some() {
            return self.fit.optimizer_step(optimizer, lr);
        }
        self.update(lr)?;
        self.fit.network.params.zero_grads();
        Ok(())
    }

    fn step_once(&mut self, source: &str) -> plugin::Result<()> {
        Ok(self.own_step(source)?)
    }

    fn commit(&mut self, figures: &Figures, save: Save<'_>) -> plugin::Result<bool> {
        Ok(self.commit_step(figures, save)?)
    }
}
