//! Numbers of training steps that are perhaps not computed yet. A card computes behind the host, and reading a number
//! waits for it; so losses and norms stay tensors until somebody asks for them.

use easytransfer_plugin::{DType, Map, Tensor};

use crate::error::Result;

/// Steps after which their numbers are read even if nobody asked: a loss that is no number should not go unnoticed
/// for long.
pub const MOST_UNREAD: usize = 64;

/// A step whose numbers nobody has read.
pub struct Unread {
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// Loss of each batch, times its part in the step.
    pub losses: Vec<Tensor>,
    /// Norm of the gradients before clipping.
    pub norm: Option<Tensor>,
    /// Losses by name where there are several, of each batch, times its part in the step.
    pub parts: Vec<(String, Tensor)>,
}

/// A step with its numbers.
pub struct Figures {
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// Mean loss of its batches.
    pub loss: f64,
    /// Norm of the gradients before clipping.
    pub norm: Option<f64>,
    /// Losses by name where there are several.
    pub parts: Vec<(String, f64)>,
}

impl Unread {
    /// The numbers; waits for a card.
    pub fn read(self) -> Result<Figures> {
        let mut loss = 0.0;
        for part in &self.losses {
            loss += part.to_scalar()?;
        }
        let norm = self.norm.map(|norm| norm.to_scalar()).transpose()?;
        let mut parts: Vec<(String, f64)> = Vec::new();
        for (name, value) in self.parts {
            let value = value.to_scalar()?;
            match parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => parts.push((name, value)),
            }
        }
        Ok(Figures { step: self.step, lr: self.lr, loss, norm, parts })
    }
}

/// What a mean loss over a batch is a mean over: the sum of its weights if it has some, else the number of its
/// labels, one per row or per token, without those that `ignore` says do not count; the number of rows where there
/// are no labels.
pub fn mean_over(batch: &Map, ignore: i64) -> Result<f64> {
    let rows = rows_of(batch)? as f64;
    let labels = batch.find("labels")?.filter(|labels| labels.dtype() == DType::I64);
    let Some(labels) = labels.map(|labels| labels.to_vec::<i64>()).transpose()? else {
        let weights = batch.find("weights")?.map(|weights| weights.sum(&[], false)?.to_scalar());
        return Ok(weights.transpose()?.unwrap_or(rows));
    };
    let counts = labels.iter().map(|label| *label != ignore);
    Ok(match batch.find("weights")? {
        Some(weights) => {
            let weights = weights.cast(DType::F64)?.to_vec::<f64>()?;
            counts.zip(weights).filter(|(counts, _)| *counts).map(|(_, weight)| weight).sum()
        }
        None => counts.filter(|counts| *counts).count() as f64,
    })
}

/// Rows of a batch.
pub fn rows_of(batch: &Map) -> Result<u64> {
    Ok(batch.get("starts")?.len().saturating_sub(1) as u64)
}
