//! Losses: a finite scalar with the right gradient, the same every time, also for no rows.

use easytransfer::plugin::{Call, ComponentRef, DType, LoadedLoss, Map, Tensor};

use crate::defaults;
use crate::inputs::{FORMS, Form, ROWS, compare_gradient, no_panic, tensor, values};
use crate::report::{Checks, Outcome, Stop, failed, skipped};

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let mut accepted = 0;
    let mut refusals = Vec::new();
    for form in FORMS {
        // Double precision shows errors of a gradient best; not every loss has it.
        let dtype = [DType::F64, DType::F32].into_iter().find(|dtype| {
            match Trial::new(component, form, *dtype).and_then(|mut t| t.value()) {
                Ok(_) => true,
                Err(Stop::Failed(text) | Stop::Skipped(text)) => {
                    refusals.push(text);
                    false
                }
            }
        });
        if let Some(dtype) = dtype {
            accepted += 1;
            check_form(component, form, dtype, checks);
        }
    }
    checks.check("takes logits and labels of a usual form", || match refusals.pop() {
        Some(text) if accepted == 0 => skipped(format!("its inputs are others: {text}")),
        _ => Ok(()),
    });
}

fn check_form(component: &ComponentRef, form: Form, dtype: DType, checks: &mut Checks<'_>) {
    let name = |what: &str| format!("{} ({dtype:?}): {what}", form.name);
    let trial = || Trial::new(component, form, dtype);
    checks.check(&name("value is a finite scalar"), || {
        let value = trial()?.value()?;
        if value.is_finite() { Ok(()) } else { failed(format!("found {value}")) }
    });
    checks.check(&name("gradient equals finite differences"), || {
        let mut trial = trial()?;
        let at = form.logits(ROWS);
        let gradient = trial.gradient(None)?;
        compare_gradient(&at, &gradient, dtype, |point| trial.value_at(point))
    });
    checks.check(&name("same inputs give the same bits"), || {
        let (mut one, mut two) = (trial()?, trial()?);
        let (a, b, c) = (one.value()?, one.value()?, two.value()?);
        if a.to_bits() == b.to_bits() && a.to_bits() == c.to_bits() {
            Ok(())
        } else {
            failed(format!("found {a}, {b} and {c}"))
        }
    });
    checks.check(&name("a row of weight 0 has no gradient"), || {
        let mut weights = vec![1.0; ROWS];
        weights[1] = 0.0;
        let gradient = trial()?.gradient(Some(&weights))?;
        let row = &gradient[form.width..2 * form.width];
        if row.iter().all(|g| *g == 0.0) {
            Ok(())
        } else if gradient == trial()?.gradient(None)? {
            skipped("it reads no row weights")
        } else {
            failed(format!("found {row:?}"))
        }
    });
    checks.check(&name("no rows are no panic"), || {
        let mut trial = trial()?;
        let mut outputs = Map::new()?;
        outputs.put("logits", &Tensor::zeros(dtype, &[0, form.width])?)?;
        let batch = form.batch(0, 0, dtype)?;
        no_panic(trial.loss.forward(&Call::inference(0), &outputs, &batch))
    });
}

/// A loss on inputs of one form.
struct Trial {
    loss: LoadedLoss,
    form: Form,
    dtype: DType,
}

impl Trial {
    fn new(component: &ComponentRef, form: Form, dtype: DType) -> Outcome<Self> {
        let loss = LoadedLoss::create(component, &defaults(component)?)?;
        Ok(Self { loss, form, dtype })
    }

    fn forward(&mut self, logits: &Tensor, weights: Option<&[f64]>) -> Outcome<Tensor> {
        let mut outputs = Map::new()?;
        outputs.put("logits", logits)?;
        let mut batch = self.form.batch(0, ROWS, self.dtype)?;
        if let Some(weights) = weights {
            batch.put("weights", &tensor(weights, &[ROWS], self.dtype)?)?;
        }
        let value = self.loss.forward(&Call::inference(0), &outputs, &batch)?;
        match value.len() {
            1 => Ok(value),
            _ => failed(format!("expected a scalar, found shape {:?}", value.shape())),
        }
    }

    fn value_at(&mut self, logits: &[f64]) -> Outcome<f64> {
        let logits = tensor(logits, &[ROWS, self.form.width], self.dtype)?;
        Ok(values(&self.forward(&logits, None)?)?[0])
    }

    fn value(&mut self) -> Outcome<f64> {
        self.value_at(&self.form.logits(ROWS))
    }

    fn gradient(&mut self, weights: Option<&[f64]>) -> Outcome<Vec<f64>> {
        let shape = [ROWS, self.form.width];
        let logits = tensor(&self.form.logits(ROWS), &shape, self.dtype)?.leaf()?;
        self.forward(&logits, weights)?.backward()?;
        match logits.leaf_grad()? {
            Some(gradient) => Ok(values(&gradient)?),
            None => failed("no gradient reaches the logits"),
        }
    }
}
