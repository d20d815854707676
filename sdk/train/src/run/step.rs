//! One step: forward and backward of its batches, gradient hooks, clipping, optimizer, figures.

use easytransfer_plugin::{Call, Map, Phases, Tensor, profile, step};
use serde_json::{Map as Json, json};

use crate::data::batches::Batches;
use crate::data::collation::Batch;
use crate::error::{Error, Result};
use crate::run::blame::{self, Added};
use crate::run::epochs::Run;
use crate::run::events::Event;
use crate::run::figures::{Figures, Unread};

/// What came of the batches whose gradients make a step, perhaps not computed yet.
#[derive(Default)]
pub(crate) struct Micros {
    /// Loss of each batch, times its part in the step.
    pub losses: Vec<Tensor>,
    /// Losses by name, when there are several, times the batch's part in the step.
    pub parts: Vec<(String, Tensor)>,
    pub rows: u64,
    pub tokens: u64,
}

/// A batch's part in a step of several: the gradient of the step is that of one batch of all their rows.
#[derive(Clone, Copy)]
struct Share {
    /// Of its rows in all rows, which is its part in losses that are means over rows.
    rows: f64,
    /// Of what its own loss is a mean over, which the loss says.
    own: f64,
}

impl Run<'_, '_> {
    /// The next `count` batches.
    pub(crate) fn gather(&mut self, batches: &mut Batches, count: usize) -> Result<Vec<Batch>> {
        let mut all: Vec<Batch> = Vec::with_capacity(count);
        for _ in 0..count {
            let _wait = profile::span("train", "wait for batch");
            all.push(batches.next().ok_or_else(|| Error::other("the batches ended early"))??);
        }
        Ok(all)
    }

    /// Forward and backward of batches; gradients are added up.
    pub(crate) fn micros(&mut self, all: Vec<Batch>) -> Result<Micros> {
        let count = all.len();
        let shares = if count > 1 {
            let rows: Vec<f64> = all.iter().map(|batch| batch.rows as f64).collect();
            let loss = &mut self.fit.loss;
            let own: Vec<f64> =
                all.iter().map(|batch| Ok(loss.weight(&batch.map)?)).collect::<Result<_>>()?;
            // A step in which nothing counts has no loss, whatever its parts are.
            let part = |of: f64, all: &[f64]| of / all.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            rows.iter()
                .zip(&own)
                .map(|(of_rows, of_own)| Share {
                    rows: part(*of_rows, &rows),
                    own: part(*of_own, &own),
                })
                .collect()
        } else {
            vec![Share { rows: 1.0, own: 1.0 }; count]
        };
        let mut micros = Micros::default();
        for (batch, share) in all.into_iter().zip(shares) {
            self.micro(batch, share, &mut micros)?;
        }
        Ok(micros)
    }

    fn micro(&mut self, batch: Batch, share: Share, micros: &mut Micros) -> Result<()> {
        let Batch { map: mut batch, rows, tokens } = batch;
        let fit = &mut *self.fit;
        fit.losses.clear();
        fit.loss_weight = 1.0;
        for strategy in self.strategies.iter_mut().filter(|s| s.phases().has(Phases::BATCH)) {
            strategy.on_batch(fit, &mut batch)?;
        }
        let call = Call::training(fit.want, &fit.rng);
        let outputs = fit.network.forward(&call, &batch)?;
        let own = fit.loss.forward(&call, &outputs, &batch);
        let own = own.map_err(|e| blame::with_shapes(e, &fit.network, &outputs, &batch))?;
        let mut added = Vec::new();
        for (place, strategy) in self.strategies.iter_mut().enumerate() {
            if strategy.phases().has(Phases::OUTPUTS) {
                strategy.on_outputs(fit, &batch, &outputs)?;
                added.push(Added { strategy: place, until: fit.losses.len() });
            }
        }
        // The sum of all losses gets the part of the rows; what the own loss has more or less is its own.
        let own = scaled(&own, if share.rows > 0.0 { share.own / share.rows } else { 1.0 })?;
        let mut losses = vec![("loss".to_owned(), own, fit.loss_weight)];
        losses.append(&mut fit.losses);
        let single = losses.len() == 1;
        let mut weighted: Vec<(String, Tensor)> = Vec::new();
        for (name, value, weight) in &losses {
            if !single {
                micros.parts.push((name.clone(), scaled(value, share.rows)?));
            }
            if *weight != 0.0 || single {
                weighted.push((name.clone(), scaled(value, *weight)?));
            }
        }
        let combine = self.strategies.iter().position(|s| s.phases().has(Phases::COMBINE));
        let total = match combine {
            Some(place) => {
                let strategy = &mut self.strategies[place];
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
        // Where reading a number does not wait, gradients of what is none never reach the parameters.
        if !self.defers && !blame::is_finite(&total)? {
            let who = (&*self.strategies, &self.optimizer);
            return Err(blame::of_loss(fit, &outputs, &losses, &added, combine, who));
        }
        drop(outputs);
        drop(weighted);
        drop(losses);
        let total = scaled(&total, share.rows)?;
        total.backward()?;
        micros.losses.push(total);
        micros.rows += rows;
        micros.tokens += tokens;
        Ok(())
    }

    /// Gradient hooks, clipping and the optimizer; answers with the norm before clipping when it was computed.
    pub(crate) fn update(&mut self, lr: f64) -> Result<Option<Tensor>> {
        let config = self.fit.config;
        for strategy in self.strategies.iter_mut().filter(|s| s.phases().has(Phases::GRADIENTS)) {
            strategy.on_gradients(self.fit)?;
        }
        let params = &mut self.fit.network.params;
        let mut norm = None;
        if config.clip > 0.0 {
            norm = Some(step::clip_grads(params, config.clip)?);
        }
        self.progress.optimizer_steps += 1;
        if self.progress.optimizer_steps == 1 {
            let without: Vec<String> = params
                .iter()
                .filter(|p| p.is_trainable() && !p.has_grad())
                .map(|p| p.name())
                .collect();
            if !without.is_empty() {
                let message = format!(
                    "no gradient reaches {} trainable parameters: {}",
                    without.len(),
                    without.iter().take(8).cloned().collect::<Vec<_>>().join(", ")
                );
                self.log.warn(&message);
                self.tell(|_| Event::Warning { message });
            }
        }
        let params = &mut self.fit.network.params;
        self.optimizer.step(params, lr, self.progress.optimizer_steps)?;
        Ok(norm)
    }

    /// Whether the present step gets a line of metrics.
    pub(crate) fn log_is_due(&self) -> bool {
        self.progress.step.is_multiple_of(self.fit.config.log_every)
            || self.progress.step == self.fit.total_steps
            || !self.fit.scalars.is_empty()
    }

    /// Reads the numbers of all steps that have some; waits for a card.
    pub(crate) fn read_figures(&mut self) -> Result<Vec<Figures>> {
        let read: Vec<Figures> = self.unread.drain(..).map(Unread::read).collect::<Result<_>>()?;
        for figures in &read {
            self.progress.loss_sum += figures.loss;
            self.progress.loss_count += 1;
            self.last_loss = figures.loss;
        }
        Ok(read)
    }

    /// Writes the line of the present step if one is due, and refuses a loss that is no number.
    pub(crate) fn log_figures(&mut self, read: Vec<Figures>) -> Result<()> {
        for figures in read {
            let Figures { step, loss, .. } = figures;
            // A step with a line is read as soon as it is done.
            if step == self.progress.step && self.log_is_due() {
                self.log_step(figures)?;
            }
            if !loss.is_finite() {
                return Err(Error::other(format!(
                    "step {step}: the loss is {loss} ({}); use a smaller learning rate (lr is {})",
                    self.fit.loss.who(),
                    self.fit.lr
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
}

fn scaled(value: &Tensor, factor: f64) -> Result<Tensor> {
    Ok(if factor == 1.0 { value.clone() } else { value.affine(factor, 0.0)? })
}
