//! Figures and predictions over a whole data set.

use std::borrow::Borrow;
use std::sync::atomic::{AtomicBool, Ordering};

use easytransfer_plugin::{
    Call, ComponentRef, Counts, LoadedLoss, LoadedMetric, Map, Record, Row, no_grad, profile,
};
use serde_json::{Map as Json, Value};

use crate::data::batching::plan_sequential;
use crate::data::collation::{Sample, batch_options, collate_rows};
use crate::error::{Error, Result};
use crate::model::components::{Components, Origin};
use crate::model::network::{Network, schema_of};
use crate::options;
use crate::options::config::Named;

/// The metrics that a network's app asks for, of the plugins that it was trained with, and `more`, each once.
fn metrics(
    components: &dyn Components,
    network: &Network,
    more: &[Named],
) -> Result<Vec<LoadedMetric>> {
    let kind = "et.metric/1";
    let mut found = Vec::new();
    for choice in &network.app_info.metrics {
        let made_with = network.made_with.iter();
        let made_with = made_with.filter(|used| used.kind == "metric").map(|used| &used.origin);
        let component = match made_with.into_iter().find(|origin| origin.name == choice.name) {
            Some(origin) => components.find_made_with(kind, origin)?,
            None => components.find_for(kind, &choice.name, &network.app_origin.plugin)?,
        };
        found.push((component, choice.options.clone()));
    }
    for named in more {
        let component = components.find(kind, &named.name)?;
        let mut options = Value::Object(named.options.clone());
        let prefix = format!("metrics.{}", named.name);
        options::validate(&schema_of(&component, &prefix)?, &mut options, "", &prefix)?;
        // As the app asks for it, it is there already.
        let is_same = |known: &ComponentRef| Origin::from(known) == Origin::from(&component);
        if !named.options.is_empty() || !found.iter().any(|(known, _)| is_same(known)) {
            let Value::Object(options) = options else { continue };
            found.push((component, options));
        }
    }
    found
        .into_iter()
        .map(|(component, options)| {
            Ok(LoadedMetric::create(&component, &Value::Object(options).to_string())?)
        })
        .collect()
}

/// Names of the figures of a network of which less is better: the loss, those of which a metric says so, and the
/// app's best one if the app does. Errors: an app that says neither "max" nor "min".
pub fn lower_is_better(
    components: &dyn Components,
    network: &Network,
    more: &[Named],
) -> Result<Vec<String>> {
    let info = &network.app_info;
    let mut names = vec!["loss".to_owned()];
    for metric in metrics(components, network, more)? {
        names.extend(metric.info().lower_is_better.clone());
    }
    match info.best_is.as_str() {
        "min" => names.push(info.best.clone()),
        "max" | "" => {}
        other => {
            return Err(Error::other(format!(
                "{}: describe: best_is: expected \"max\" or \"min\", found {other:?}",
                network.app.who()
            )));
        }
    }
    Ok(names)
}

/// Runs the network over all rows of the samples without a tape, batch by batch, rows of like length together; `each`
/// gets the numbers of the rows (counted over all samples), batch and outputs.
pub fn run(
    network: &Network,
    samples: &[impl Borrow<Sample>],
    tokens: u32,
    mut each: impl FnMut(&Network, &[u32], &Map, &Map) -> Result<()>,
) -> Result<()> {
    let rows: Vec<&Row> = samples.iter().flat_map(|sample| sample.borrow().rows()).collect();
    let length = |row: &&Row| u32::try_from(row.tokens_len()).unwrap_or(u32::MAX);
    let lengths: Vec<u32> = rows.iter().map(length).collect();
    for indices in plan_sequential(&lengths, &batch_options(tokens)) {
        let span = profile::span("predict", "batch");
        span.note("rows", indices.len() as f64);
        let picked: Vec<&Row> = indices.iter().map(|&index| rows[index as usize]).collect();
        let batch = collate_rows(&picked)?.map;
        let outputs = no_grad(|| network.forward(&Call::inference(0), &batch))?;
        each(network, &indices, &batch, &outputs)?;
    }
    Ok(())
}

/// A loss as a mean over many batches, each weighed by what its own mean is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct WeightedMean {
    sum: f64,
    weight: f64,
}

impl WeightedMean {
    /// Takes a batch and what the network said of it.
    pub fn update(&mut self, loss: &mut LoadedLoss, batch: &Map, outputs: &Map) -> Result<()> {
        let value = no_grad(|| loss.forward(&Call::inference(0), outputs, batch))?.to_scalar()?;
        let weight = loss.weight(batch)?;
        // A batch without a single token to predict has no mean.
        if weight > 0.0 {
            self.sum += value * weight;
            self.weight += weight;
        }
        Ok(())
    }

    /// The mean, once there was something to take it over.
    pub fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// Figures of the network on labelled samples, which come in windows, by its app's metrics and `more`, with the mean
/// loss under "loss" when one is given. `record` gives the record of a sample, which is asked where a metric counts
/// answers. `cancel` is looked at after every batch. Errors: cancelled.
#[allow(clippy::too_many_arguments, reason = "each is one thing, and they have nothing in common")]
pub fn evaluate<S: Borrow<Sample>>(
    components: &dyn Components,
    network: &Network,
    more: &[Named],
    windows: impl IntoIterator<Item = Result<Vec<S>>>,
    record: impl Fn(u32) -> Result<Record>,
    tokens: u32,
    loss: Option<&mut LoadedLoss>,
    cancel: &AtomicBool,
) -> Result<Json<String, Value>> {
    let mut measure = Measure::new(components, network, more)?;
    let mut loss = loss;
    let mut mean = WeightedMean::default();
    let wants_answers = measure.wants_answers();
    let mut first = 0;
    for samples in windows {
        let samples = samples?;
        let mut update = |batch: &Map, outputs: &Map| {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            measure.update(batch, outputs)?;
            match loss.as_deref_mut() {
                Some(loss) => mean.update(loss, batch, outputs),
                None => Ok(()),
            }
        };
        if wants_answers {
            let numbers = first..first + samples.len() as u32;
            let records: Vec<Record> = numbers.map(&record).collect::<Result<_>>()?;
            let answers = predictions_with(network, &samples, &records, tokens, &mut update)?;
            measure.answers(&answers, &records)?;
        } else {
            run(network, &samples, tokens, |_, _, batch, outputs| update(batch, outputs))?;
        }
        first += samples.len() as u32;
    }
    let mut figures = Json::new();
    if let Some(mean) = mean.value() {
        figures.insert("loss".to_owned(), Value::from(mean));
    }
    figures.extend(measure.figures()?);
    Ok(figures)
}

/// The metrics that a network's app asks for, and more, over batches that come one by one.
pub struct Measure(Vec<LoadedMetric>);

impl Measure {
    /// Metrics that have seen nothing. Errors: one that no plugin has, options that it refuses.
    pub fn new(components: &dyn Components, network: &Network, more: &[Named]) -> Result<Measure> {
        Ok(Measure(metrics(components, network, more)?))
    }

    /// Whether a metric counts answers.
    pub fn wants_answers(&self) -> bool {
        self.0.iter().any(|metric| metric.info().of == Counts::Answers)
    }

    /// Takes a batch and what the network said of it.
    pub fn update(&mut self, batch: &Map, outputs: &Map) -> Result<()> {
        let mut metrics = self.0.iter_mut().filter(|metric| metric.info().of == Counts::Outputs);
        Ok(metrics.try_for_each(|metric| metric.update(outputs, batch))?)
    }

    /// Takes predictions and their records.
    pub fn answers(&mut self, answers: &[Record], records: &[Record]) -> Result<()> {
        let mut metrics = self.0.iter_mut().filter(|metric| metric.info().of == Counts::Answers);
        Ok(metrics.try_for_each(|metric| metric.answers(answers, records))?)
    }

    /// Figures of all batches so far. Errors: two metrics with a figure of one name.
    pub fn figures(&self) -> Result<Json<String, Value>> {
        let mut figures: Json<String, Value> = Json::new();
        for metric in &self.0 {
            for (name, value) in metric.compute()? {
                if figures.contains_key(&name) {
                    return Err(Error::user(format!(
                        "{}: its figure {name:?} is the name of another metric's too; leave one of them out",
                        metric.who()
                    )));
                }
                figures.insert(name, value);
            }
        }
        Ok(figures)
    }
}

/// Predictions in the order of the records, whose samples are given; `each` sees every batch and its outputs.
pub fn predictions_with(
    network: &Network,
    samples: &[impl Borrow<Sample>],
    records: &[Record],
    tokens: u32,
    mut each: impl FnMut(&Map, &Map) -> Result<()>,
) -> Result<Vec<Record>> {
    let rows: usize = samples.iter().map(|sample| sample.borrow().rows().len()).sum();
    let mut parts: Vec<Option<Record>> = vec![None; rows];
    run(network, samples, tokens, |network, indices, batch, outputs| {
        each(batch, outputs)?;
        let decoded = network.decode(batch, outputs, indices.len())?;
        for (&index, part) in indices.iter().zip(decoded) {
            parts[index as usize] = Some(part);
        }
        Ok(())
    })?;
    // Every row is in exactly one batch of the plan.
    let mut parts = parts.into_iter().flatten();
    let mut answers = Vec::with_capacity(samples.len());
    for (sample, record) in samples.iter().zip(records) {
        let count = sample.borrow().rows().len();
        answers.push(network.answer(record, parts.by_ref().take(count).collect())?);
    }
    Ok(answers)
}

/// Predictions in the order of the records.
pub fn predictions(
    network: &Network,
    samples: &[impl Borrow<Sample>],
    records: &[Record],
    tokens: u32,
) -> Result<Vec<Record>> {
    predictions_with(network, samples, records, tokens, |_, _| Ok(()))
}

/// Vectors [samples, width] in the order of the samples, from the output "vectors". Errors: a sample of several rows.
pub fn vectors(network: &Network, samples: &[Sample], tokens: u32) -> Result<(Vec<f32>, usize)> {
    if let Some(sample) = samples.iter().find(|sample| sample.rows().len() != 1) {
        return Err(Error::other(format!(
            "vectors: expected one row per text, found {}",
            sample.rows().len()
        )));
    }
    let mut width = 0;
    let mut all: Vec<f32> = Vec::new();
    run(network, samples, tokens, |_, indices, _, outputs| {
        let vectors = outputs.get("vectors")?;
        width = vectors.extent(1)?;
        all.resize(samples.len() * width, 0.0);
        for (&index, vector) in indices.iter().zip(vectors.to_vec::<f32>()?.chunks_exact(width)) {
            let begin = index as usize * width;
            all[begin..begin + width].copy_from_slice(vector);
        }
        Ok(())
    })?;
    Ok((all, width))
}
