//! Losses: a finite scalar with the right gradient, the same every time, also for no rows.

use easytransfer::plugin::abi::ET_ERR_UNIMPLEMENTED;
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
    checks.check(&name("the value is the mean of its rows"), || {
        for weights in [None, Some(&WEIGHTS[..])] {
            let mut trial = trial()?;
            let value = trial.value_of(0, ROWS, weights)?;
            // A loss that reads no weights is the plain mean, whatever they are.
            let read = value != trial.value_of(0, ROWS, None)?;
            let rows = trial.rows(weights)?;
            let weight = |at: usize| weights.filter(|_| read).map_or(1.0, |weights| weights[at]);
            let total: f64 = (0..ROWS).map(weight).sum();
            let mean =
                rows.iter().enumerate().map(|(at, row)| row * weight(at)).sum::<f64>() / total;
            expect_close(mean, value, dtype, "mean of `rows`")?;
        }
        Ok(())
    });
    checks.check(&name("parts weighed by `weight` are the whole"), || {
        for weights in [None, Some(&WEIGHTS[..])] {
            let mut trial = trial()?;
            let (whole, weight) =
                (trial.value_of(0, ROWS, weights)?, trial.weight(0, ROWS, weights)?);
            if !(weight.is_finite() && weight > 0.0) {
                return failed(format!("the weight of {ROWS} rows is {weight}"));
            }
            // Rows that have no loss of their own depend on the batch that they are in.
            trial.rows(weights)?;
            let (mut sum, mut total) = (0.0, 0.0);
            for (begin, end) in [(0, 1), (1, ROWS)] {
                let part = trial.weight(begin, end, weights)?;
                sum += part * trial.value_of(begin, end, weights)?;
                total += part;
            }
            expect_close(total, weight, dtype, "weight of the parts")?;
            let read = whole != trial.value_of(0, ROWS, None)?;
            if weights.is_none() || read {
                expect_close(sum / total, whole, dtype, "mean of the parts")?;
            }
        }
        Ok(())
    });
    checks.check(&name("no rows are no panic"), || {
        let mut trial = trial()?;
        let mut outputs = Map::new()?;
        outputs.put("logits", &Tensor::zeros(dtype, &[0, form.width])?)?;
        let batch = form.batch(0, 0, dtype)?;
        no_panic(trial.loss.forward(&Call::inference(0), &outputs, &batch))
    });
}

/// Weights of the rows, none of them 0 and no two alike.
const WEIGHTS: [f64; ROWS] = [0.5, 2.0, 1.0, 0.25];

fn expect_close(found: f64, expected: f64, dtype: DType, what: &str) -> Outcome {
    let tolerance = if dtype == DType::F64 { 1e-9 } else { 1e-5 };
    if (found - expected).abs() <= tolerance * (1.0 + expected.abs()) {
        return Ok(());
    }
    failed(format!("{what}: expected {expected}, found {found}"))
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

    /// Outputs and batch of rows `begin..end`, of the same batch of `ROWS` rows.
    fn part(&self, begin: usize, end: usize, weights: Option<&[f64]>) -> Outcome<(Map, Map)> {
        let width = self.form.width;
        let logits = &self.form.logits(ROWS)[begin * width..end * width];
        let mut outputs = Map::new()?;
        outputs.put("logits", &tensor(logits, &[end - begin, width], self.dtype)?)?;
        let mut batch = self.form.batch(begin, end, self.dtype)?;
        if let Some(weights) = weights {
            batch.put("weights", &tensor(&weights[begin..end], &[end - begin], self.dtype)?)?;
        }
        Ok((outputs, batch))
    }

    fn value_of(&mut self, begin: usize, end: usize, weights: Option<&[f64]>) -> Outcome<f64> {
        let (outputs, batch) = self.part(begin, end, weights)?;
        Ok(values(&self.loss.forward(&Call::inference(0), &outputs, &batch)?)?[0])
    }

    fn weight(&mut self, begin: usize, end: usize, weights: Option<&[f64]>) -> Outcome<f64> {
        let (_, batch) = self.part(begin, end, weights)?;
        Ok(self.loss.weight(&batch)?)
    }

    /// The loss of each row. Skips where rows have none.
    fn rows(&mut self, weights: Option<&[f64]>) -> Outcome<Vec<f64>> {
        let (outputs, batch) = self.part(0, ROWS, weights)?;
        match self.loss.rows(&Call::inference(0), &outputs, &batch) {
            Ok(rows) if rows.shape() == [ROWS] => Ok(values(&rows)?),
            Ok(rows) => {
                failed(format!("`rows`: expected shape [{ROWS}], found {:?}", rows.shape()))
            }
            Err(error) if error.code() == ET_ERR_UNIMPLEMENTED => {
                skipped("its rows have no loss of their own")
            }
            Err(error) => failed(error.to_string()),
        }
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
