//! One step: forward and backward of its batches, gradient hooks, clipping, optimizer, figures.

use easytransfer_plugin::{Call, Map, Phases, Tensor};
use serde_json::{Map as Json, json};

use crate::error::{Error, Result};
use crate::run::Run;

/// What came of one of the batches whose gradients make a step.
pub(crate) struct Micro {
    pub loss: f64,
    /// Losses by name, when there are several.
    pub parts: Vec<(String, f64)>,
    pub rows: u64,
    pub tokens: u64,
}

impl Run<'_, '_> {
    /// Forward and backward of one batch; gradients are added up.
    pub(crate) fn micro(&mut self, mut batch: Map, micros: usize) -> Result<Micro> {
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
                parts.push((name.clone(), value.to_scalar()?));
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
        let loss = total.to_scalar()? * micros as f64;
        let rows = batch.get("starts")?.len().saturating_sub(1) as u64;
        let tokens = batch.get("ids")?.len() as u64;
        Ok(Micro { loss, parts, rows, tokens })
    }

    /// Gradient hooks, clipping and the optimizer; answers with the norm before clipping when it was computed.
    pub(crate) fn update(&mut self, lr: f64) -> Result<Option<f64>> {
        let config = self.fit.config;
        for strategy in self.strategies.iter_mut().filter(|s| s.phases().has(Phases::GRADIENTS)) {
            strategy.on_gradients(self.fit)?;
        }
        let params = &mut self.fit.network.params;
        let mut norm = None;
        if config.clip > 0.0 {
            let found = params.grad_norm()?;
            if found > config.clip {
                // The small constant is torch.nn.utils.clip_grad_norm_'s.
                params.scale_grads(config.clip / (found + 1e-6))?;
            }
            norm = Some(found);
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

    /// Writes the figures of a step when it is their turn.
    pub(crate) fn log_step(
        &mut self,
        loss: f64,
        lr: f64,
        norm: Option<f64>,
        parts: Vec<(String, f64)>,
    ) -> Result<()> {
        let due = self.progress.step.is_multiple_of(self.fit.config.log_every)
            || self.progress.step == self.fit.total_steps;
        let scalars = std::mem::take(&mut self.fit.scalars);
        if !due && scalars.is_empty() {
            return Ok(());
        }
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
