//! A loss on inputs of one form.

use easytransfer::plugin::abi::ET_ERR_UNIMPLEMENTED;
use easytransfer::plugin::{Call, ComponentRef, DType, LoadedLoss, Map, Tensor};

use crate::inputs::{Form, ROWS, tensor, values};
use crate::report::{Outcome, failed, skipped};
use crate::schema::defaults;

/// Weights of the first rows, none of them 0 and no two alike.
pub const WEIGHTS: [f64; ROWS] = [0.5, 2.0, 1.0, 0.25];

pub struct Trial {
    pub loss: LoadedLoss,
    pub form: Form,
    pub dtype: DType,
}

impl Trial {
    pub fn new(component: &ComponentRef, form: Form, dtype: DType) -> Outcome<Self> {
        Self::with(component, &defaults(component)?, form, dtype)
    }

    pub fn with(
        component: &ComponentRef,
        options: &str,
        form: Form,
        dtype: DType,
    ) -> Outcome<Self> {
        let loss = LoadedLoss::create(component, options)?;
        Ok(Self { loss, form, dtype })
    }

    fn forward(&mut self, logits: &Tensor, weights: Option<&[f64]>) -> Outcome<Tensor> {
        let rows = logits.extent(0)?;
        let mut outputs = Map::new()?;
        outputs.put("logits", logits)?;
        let mut batch = self.form.batch(0, rows, self.dtype)?;
        if let Some(weights) = weights {
            batch.put("weights", &tensor(weights, &[rows], self.dtype)?)?;
        }
        let value = self.loss.forward(&Call::inference(0), &outputs, &batch)?;
        match value.len() {
            1 => Ok(value),
            _ => failed(format!("expected a scalar, found shape {:?}", value.shape())),
        }
    }

    /// The loss of the first rows at these logits.
    pub fn value_at(&mut self, logits: &[f64]) -> Outcome<f64> {
        let width = self.form.width;
        let logits = tensor(logits, &[logits.len() / width, width], self.dtype)?;
        Ok(values(&self.forward(&logits, None)?)?[0])
    }

    pub fn value(&mut self) -> Outcome<f64> {
        self.value_at(&self.form.logits(ROWS))
    }

    /// Gradient of the loss at these logits of the first rows.
    pub fn gradient_at(&mut self, logits: &[f64], weights: Option<&[f64]>) -> Outcome<Vec<f64>> {
        let shape = [logits.len() / self.form.width, self.form.width];
        let logits = tensor(logits, &shape, self.dtype)?.leaf()?;
        self.forward(&logits, weights)?.backward()?;
        match logits.leaf_grad()? {
            Some(gradient) => Ok(values(&gradient)?),
            None => failed("no gradient reaches the logits"),
        }
    }

    pub fn gradient(&mut self, weights: Option<&[f64]>) -> Outcome<Vec<f64>> {
        self.gradient_at(&self.form.logits(ROWS), weights)
    }

    /// Outputs and batch of the rows with these numbers, and their weights where `WEIGHTS` has them.
    pub fn part(&self, rows: &[usize], weights: Option<&[f64]>) -> Outcome<(Map, Map)> {
        let outputs = self.form.outputs_of(rows, self.dtype)?;
        let mut batch = self.form.batch_of(rows, self.dtype)?;
        if let Some(weights) = weights {
            let weights: Vec<f64> = rows.iter().map(|row| weights[*row]).collect();
            batch.put("weights", &tensor(&weights, &[rows.len()], self.dtype)?)?;
        }
        Ok((outputs, batch))
    }

    pub fn value_of(&mut self, rows: &[usize], weights: Option<&[f64]>) -> Outcome<f64> {
        let (outputs, batch) = self.part(rows, weights)?;
        Ok(values(&self.loss.forward(&Call::inference(0), &outputs, &batch)?)?[0])
    }

    pub fn weight(&mut self, rows: &[usize], weights: Option<&[f64]>) -> Outcome<f64> {
        let (_, batch) = self.part(rows, weights)?;
        Ok(self.loss.weight(&batch)?)
    }

    /// The loss of each row. Skips where rows have none.
    pub fn rows(&mut self, rows: &[usize], weights: Option<&[f64]>) -> Outcome<Vec<f64>> {
        let (outputs, batch) = self.part(rows, weights)?;
        let count = rows.len();
        match self.loss.rows(&Call::inference(0), &outputs, &batch) {
            Ok(found) if found.shape() == [count] => Ok(values(&found)?),
            Ok(found) => {
                failed(format!("`rows`: expected shape [{count}], found {:?}", found.shape()))
            }
            Err(error) if error.code() == ET_ERR_UNIMPLEMENTED => {
                skipped("its rows have no loss of their own")
            }
            Err(error) => failed(error.to_string()),
        }
    }
}
