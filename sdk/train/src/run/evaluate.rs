//! Figures and predictions over a whole data set.

use std::borrow::Borrow;

use easytransfer_plugin::{Call, Choice, LoadedMetric, Map, Record, Row, no_grad, profile};
use serde_json::{Map as Json, Value};

use crate::data::batching::plan_sequential;
use crate::data::collation::{batch_options, collate, lengths};
use crate::error::{Error, Result};
use crate::model::components::Components;
use crate::model::network::Network;
use crate::run::figures::mean_over;

/// The metrics that an app asks for.
pub fn metrics(components: &dyn Components, choices: &[Choice]) -> Result<Vec<LoadedMetric>> {
    choices
        .iter()
        .map(|choice| {
            let component = components.find("et.metric/1", &choice.name)?;
            let options = Value::Object(choice.options.clone()).to_string();
            Ok(LoadedMetric::create(&component, &options)?)
        })
        .collect()
}

/// Names of the figures of a network of which less is better: the loss, those of which a metric says so, and the
/// app's best one if the app does. Errors: an app that says neither "max" nor "min".
pub fn lower_is_better(components: &dyn Components, network: &Network) -> Result<Vec<String>> {
    let info = &network.app_info;
    let mut names = vec!["loss".to_owned()];
    for metric in metrics(components, &info.metrics)? {
        names.extend(metric.info()?.lower_is_better);
    }
    match info.best_is.as_str() {
        "min" => names.push(info.best.clone()),
        "max" | "" => {}
        other => {
            return Err(Error::other(format!(
                "app {}: best_is: expected \"max\" or \"min\", found {other:?}",
                network.app_origin.name
            )));
        }
    }
    Ok(names)
}

/// Runs the network over all rows without a tape, batch by batch; `each` gets row indices, batch and outputs.
pub fn run(
    network: &mut Network,
    rows: &[impl Borrow<Row>],
    tokens: u32,
    mut each: impl FnMut(&Network, &[u32], &Map, &Map) -> Result<()>,
) -> Result<()> {
    for indices in plan_sequential(&lengths(rows), &batch_options(tokens)) {
        let span = profile::span("predict", "batch");
        span.note("rows", indices.len() as f64);
        let batch = collate(rows, &indices)?;
        let outputs = no_grad(|| network.forward(&Call::inference(0), &batch))?;
        each(network, &indices, &batch, &outputs)?;
    }
    Ok(())
}

/// Figures of the network on labelled rows, which come in windows, with the mean loss under "loss" when one is given,
/// together with the label of rows that it leaves out.
pub fn evaluate<R: Borrow<Row>>(
    components: &dyn Components,
    network: &mut Network,
    windows: impl IntoIterator<Item = Result<Vec<R>>>,
    tokens: u32,
    loss: Option<(&mut easytransfer_plugin::LoadedLoss, i64)>,
) -> Result<Json<String, Value>> {
    let mut measure = Measure::new(components, network)?;
    let mut loss = loss;
    let (mut sum, mut count) = (0.0, 0.0);
    for rows in windows {
        run(network, &rows?, tokens, |_, _, batch, outputs| {
            measure.update(batch, outputs)?;
            if let Some((loss, ignored)) = &mut loss {
                let value =
                    no_grad(|| loss.forward(&Call::inference(0), outputs, batch))?.to_scalar()?;
                let part = mean_over(batch, *ignored)?;
                // Nothing has a mean over nothing.
                if part > 0.0 {
                    sum += value * part;
                    count += part;
                }
            }
            Ok(())
        })?;
    }
    let mut figures = Json::new();
    if count > 0.0 {
        figures.insert("loss".to_owned(), Value::from(sum / count));
    }
    figures.extend(measure.figures()?);
    Ok(figures)
}

/// The metrics that a network's app asks for, over batches that come one by one.
pub struct Measure(Vec<LoadedMetric>);

impl Measure {
    /// Metrics that have seen nothing.
    pub fn new(components: &dyn Components, network: &Network) -> Result<Measure> {
        Ok(Measure(metrics(components, &network.app_info.metrics)?))
    }

    /// Takes a batch and what the network said of it.
    pub fn update(&mut self, batch: &Map, outputs: &Map) -> Result<()> {
        Ok(self.0.iter_mut().try_for_each(|metric| metric.update(outputs, batch))?)
    }

    /// Figures of all batches so far.
    pub fn figures(&self) -> Result<Json<String, Value>> {
        let mut figures = Json::new();
        for metric in &self.0 {
            figures.extend(metric.compute()?);
        }
        Ok(figures)
    }
}

/// Predictions in the order of the rows; `each` sees every batch and its outputs.
pub fn predictions_with(
    network: &mut Network,
    rows: &[Row],
    tokens: u32,
    mut each: impl FnMut(&Map, &Map) -> Result<()>,
) -> Result<Vec<Record>> {
    let mut all: Vec<Option<Record>> = vec![None; rows.len()];
    run(network, rows, tokens, |network, indices, batch, outputs| {
        each(batch, outputs)?;
        let records = network.app.decode(batch, outputs)?;
        if records.len() != indices.len() {
            return Err(Error::other(format!(
                "app {}: expected {} predictions for a batch, found {}",
                network.app_origin.name,
                indices.len(),
                records.len()
            )));
        }
        for (&index, record) in indices.iter().zip(records) {
            all[index as usize] = Some(record);
        }
        Ok(())
    })?;
    // Every row is in exactly one batch of the plan.
    Ok(all.into_iter().flatten().collect())
}

/// Predictions in the order of the rows.
pub fn predictions(network: &mut Network, rows: &[Row], tokens: u32) -> Result<Vec<Record>> {
    predictions_with(network, rows, tokens, |_, _| Ok(()))
}

/// Vectors [rows, width] in the order of the rows, from the output "vectors".
pub fn vectors(network: &mut Network, rows: &[Row], tokens: u32) -> Result<(Vec<f32>, usize)> {
    let mut width = 0;
    let mut all: Vec<f32> = Vec::new();
    run(network, rows, tokens, |_, indices, _, outputs| {
        let vectors = outputs.get("vectors")?;
        width = vectors.extent(1)?;
        all.resize(rows.len() * width, 0.0);
        for (&index, vector) in indices.iter().zip(vectors.to_vec::<f32>()?.chunks_exact(width)) {
            let begin = index as usize * width;
            all[begin..begin + width].copy_from_slice(vector);
        }
        Ok(())
    })?;
    Ok((all, width))
}
