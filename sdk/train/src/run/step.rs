//! One step: forward and backward of its batches, gradient hooks, clipping, optimizer, figures.

use easytransfer_plugin::{Call, Map, Phases, Tensor, step};
use serde_json::{Map as Json, json};

use crate::data::collation::Batch;
use crate::error::{Error, Result};
use crate::run::epochs::Run;
use crate::run::figures::{Figures, Unread};

/// What came of one of the batches whose gradients make a step, perhaps not computed yet.
pub(crate) struct Micro {
    /// Divided by the number of batches.
    pub loss: Tensor,
    /// Losses by name, when there are several.
    pub parts: Vec<(String, Tensor)>,
    pub rows: u64,
    pub tokens: u64,
}

impl Run<'_, '_> {
    /// Forward and backward of one batch; gradients are added up.
    pub(crate) fn micro(&mut self, batch: Batch, micros: usize) -> Result<Micro> {
        let Batch { map: mut batch, rows, tokens } = batch;
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
        Ok(Micro { loss: total, parts, rows, tokens })
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
                    "step {step}: the loss is {loss}; use a smaller learning rate (lr is {})",
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
