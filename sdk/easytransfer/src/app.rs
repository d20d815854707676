//! A trained bundle that answers records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use easytransfer_core::inference::{LayerPrecision, PredictionScope};
use easytransfer_plugin::{Column, Record};
use easytransfer_train::data::dataset::{DataOptions, DatasetReader};
use easytransfer_train::data::input::Data;
use easytransfer_train::data::records::ReadOptions;
use easytransfer_train::data::store::none_left;
use easytransfer_train::data::windows::{Window, Windows};
use easytransfer_train::files::atomic::AtomicFile;
use easytransfer_train::files::output::{OutputFormat, OutputPlace};
use easytransfer_train::model::bundle::{self, Manifest};
use easytransfer_train::model::network::Network;
use easytransfer_train::options::config::Named;
use easytransfer_train::report::run_log::{figures_report, write_report};
use easytransfer_train::report::{Report, WrongExample};
use easytransfer_train::run::evaluate::{self, Measure};
use easytransfer_train::run::events::Watch;
use easytransfer_train::{Error, Result};
use serde::Serialize;
use serde_json::{Map as Json, Value};

use crate::inputs::Inputs;
use crate::json::record_of;
use crate::lanes::Lanes;
use crate::shared;
use crate::{Answer, Runtime};

/// Tokens that the engine works on at a time: enough to fill its kernels, few enough that what one layer hands to the
/// next stays in the last-level cache.
pub(crate) const BATCH_TOKENS: u32 = 1024;
/// Mistakes that a report shows.
const MISTAKES: usize = 100;

/// A trained bundle. Threads may ask it at the same time: each answer is the one that it would have alone, to the
/// byte. Cloning is cheap; clones, and apps that are loaded from the same unchanged files, share one set of weights.
#[derive(Clone)]
pub struct App {
    runtime: Runtime,
    lanes: Arc<Lanes>,
    about: Arc<About>,
    precision: LayerPrecision,
    inputs: Inputs,
}

/// What a bundle says of itself.
struct About {
    manifest: Manifest,
    columns: Vec<Column>,
    /// Roles that records must have because the training data had them, though the app does without.
    needed: Vec<String>,
}

/// How a bundle answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppOptions {
    /// What the encoder's linear layers compute in.
    pub precision: LayerPrecision,
}

/// Where records come from and how to read them. [`Data`], a path, or records in memory make one.
#[derive(Debug, Clone, Default)]
pub struct DataSource {
    /// A file, where `-` is standard input, or records in memory.
    pub data: Data,
    /// Format, schema, what to do with bad rows.
    pub read: ReadOptions,
    /// Columns by role, where the usual names do not fit.
    pub named: BTreeMap<String, String>,
}

impl<T: Into<Data>> From<T> for DataSource {
    fn from(data: T) -> DataSource {
        DataSource { data: data.into(), ..DataSource::default() }
    }
}

/// Figures on labelled data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Rows that were evaluated.
    pub rows: usize,
    /// Rows that were left out.
    pub skipped: u64,
    /// Figures by name.
    pub metrics: Json<String, Value>,
}

impl App {
    pub(crate) fn load(runtime: &Runtime, directory: &Path, options: AppOptions) -> Result<App> {
        let manifest = bundle::manifest(directory)?;
        let lanes = shared::load(&runtime.shared(), directory, "app", || {
            Ok(bundle::load(runtime.components(), directory)?.0)
        })?;
        let precision = options.precision;
        let inputs = Inputs::of(directory);
        let columns = lanes.first().app.columns()?;
        let needed = columns
            .iter()
            .filter(|column| !column.required && !column.target)
            .map(|column| column.role.clone())
            .filter(|role| manifest.columns.contains_key(role))
            .collect();
        let about = Arc::new(About { manifest, columns, needed });
        Ok(App { runtime: runtime.clone(), lanes, about, precision, inputs })
    }

    /// What the encoder's linear layers compute in.
    pub fn precision(&self) -> LayerPrecision {
        self.precision
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.about.manifest
    }

    /// What loading the bundle said that one may not expect, as the log has it too; usually nothing.
    pub fn warnings(&self) -> &[String] {
        &self.lanes.first().load_report.warnings
    }

    /// Names of the classes in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.lanes.first().app_info.labels
    }

    /// The network: model, head, parameters and tokenizer. Clones and other apps of the bundle share it, so a parameter
    /// that is changed here is changed for them too; what is loaded from now on reads the files again.
    pub fn network(&self) -> &Network {
        self.lanes.show()
    }

    /// One answer per text.
    pub fn predict(&self, texts: &[&str]) -> Result<Vec<Answer>> {
        let records: Vec<Record> = texts
            .iter()
            .map(|text| Record::from_iter([("text".to_owned(), Value::from(*text))]))
            .collect();
        self.predict_records(&records)
    }

    /// As [`App::predict`], with answers as a type of the program's own, which has the fields that the app says:
    /// [`Classification`](crate::Classification), [`TextSpan`](crate::TextSpan), or another one. Errors: a field that
    /// an answer lacks.
    pub fn predict_as<T: serde::de::DeserializeOwned>(&self, texts: &[&str]) -> Result<Vec<T>> {
        self.predict(texts)?.iter().map(Answer::typed).collect()
    }

    /// One answer per record; a record maps the app's roles ("text" and "text_pair", "question" and "context") to
    /// values. Records are batched by length. Errors: a record without what the app needs, or without a second text
    /// where the app was trained on pairs.
    pub fn predict_records(&self, records: &[Record]) -> Result<Vec<Answer>> {
        let lacks = |record: &Record| {
            self.about.needed.iter().find(|role| record.get(*role).is_none_or(Value::is_null))
        };
        let lacking =
            records.iter().enumerate().find_map(|(at, record)| Some((at, lacks(record)?)));
        if let Some((index, role)) = lacking {
            return Err(Error::user(format!(
                "record {index}: expected `{role}`, since the app was trained with it, found none"
            )));
        }
        let _scope = PredictionScope::new(self.precision);
        if records.len() <= 1 {
            let answers = self.lanes.take().predict(records)?;
            return Ok(answers.into_iter().map(Answer::from).collect());
        }
        let network = self.lanes.first();
        let (app, tokenizer) = (network.app.clone(), network.tokenizer.clone());
        let mut answers = Vec::with_capacity(records.len());
        for window in Windows::of_records(records.to_vec(), app, tokenizer)? {
            let Window { samples, records, .. } = window?;
            let window =
                evaluate::predictions(&self.lanes.take(), &samples, &records, BATCH_TOKENS)?;
            answers.extend(window.into_iter().map(Answer::from));
        }
        Ok(answers)
    }

    /// Answers to a JSON text: an object, or an array of objects and strings; one object or an array.
    pub fn predict_json(&self, json: &str) -> Result<String> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| Error::user(format!("predict: the request is not JSON: {error}")))?;
        let answer = match value {
            Value::Array(values) => {
                let records = values.into_iter().map(record_of).collect::<Result<Vec<_>>>()?;
                let answers = self.predict_records(&records)?;
                Value::Array(answers.into_iter().map(|a| Value::Object(a.into_record())).collect())
            }
            value => {
                let mut answers = self.predict_records(&[record_of(value)?])?;
                answers.pop().map_or(Value::Null, |answer| Value::Object(answer.into_record()))
            }
        };
        Ok(answer.to_string())
    }

    fn reader(&self, data: &DataSource, targets: bool) -> Result<DatasetReader> {
        let columns = &self.about.columns;
        let mut named = data.named.clone();
        if !targets {
            let is_target =
                |role: &str| columns.iter().any(|column| column.target && column.role == role);
            named.retain(|role, _| !is_target(role));
        }
        let columns: Vec<_> =
            columns.iter().filter(|column| targets || !column.target).cloned().collect();
        let trained = self.about.manifest.columns.clone();
        let options = DataOptions { read: data.read.clone(), named, split: None, targets, trained };
        DatasetReader::open(&data.data, &columns, &options)
    }

    /// The windows of a file, read and made into features while the engine computes.
    fn windows(&self, reader: DatasetReader) -> Result<Windows> {
        let network = self.lanes.first();
        Windows::start(reader, network.app.clone(), network.tokenizer.clone())
    }

    /// Figures on labelled data, a file or records in memory; with `report` also an HTML page with the confusion matrix
    /// and the worst mistakes.
    pub fn evaluate(&self, data: &DataSource, report: Option<&Path>) -> Result<Evaluation> {
        self.evaluate_watched(data, report, &mut Watch::nobody())
    }

    /// As [`App::evaluate`]; `watch` is told of the rows that are done, and may end it. Errors: `Cancelled`, without a
    /// page.
    pub fn evaluate_watched(
        &self,
        data: &DataSource,
        report: Option<&Path>,
        watch: &mut Watch<'_>,
    ) -> Result<Evaluation> {
        self.evaluate_by(data, report, &[], watch)
    }

    /// As [`App::evaluate_watched`], with metrics of any plugins beside those of the app. Errors: also a metric that no
    /// plugin has, that cannot count what the app says, or that has a figure of the name of another one's.
    pub fn evaluate_by(
        &self,
        data: &DataSource,
        report: Option<&Path>,
        metrics: &[Named],
        watch: &mut Watch<'_>,
    ) -> Result<Evaluation> {
        watch.set_total(data.data.known_len());
        let windows = self.windows(self.reader(data, true)?)?;
        // A place that cannot be written to is an error before the work.
        let page_file = report
            .map(|path| {
                self.inputs.check(path, data.data.path())?;
                AtomicFile::create(path)
            })
            .transpose()?;
        let _scope = PredictionScope::new(self.precision);
        let mut measure = Measure::new(self.runtime.components(), self.lanes.first(), metrics)?;
        let wants_answers = measure.wants_answers();
        let mut wrong = Vec::new();
        let mut count = Count::default();
        for window in windows {
            let window = window?;
            count.add(&window);
            let network = &*self.lanes.take();
            let Window { samples, records, .. } = &window;
            let mut update = |batch: &_, outputs: &_| measure.update(batch, outputs);
            if report.is_some() || wants_answers {
                let predictions = evaluate::predictions_with(
                    network,
                    samples,
                    records,
                    BATCH_TOKENS,
                    &mut update,
                )?;
                measure.answers(&predictions, records)?;
                keep_mistakes(&mut wrong, &window, &predictions);
            } else {
                evaluate::run(network, samples, BATCH_TOKENS, |_, _, batch, outputs| {
                    update(batch, outputs)
                })?;
            }
            watch.rows(window.samples.len() as u64)?;
        }
        count.check(data.data.path())?;
        let metrics = measure.figures()?;
        if let (Some(path), Some(file)) = (report, page_file) {
            let title = format!("{} on {}", self.about.manifest.app.name, data.data);
            let page = Report {
                wrong,
                options: self.about.manifest.training.clone(),
                ..figures_report(&title, &self.lanes.first().app_info.labels, &metrics)
            };
            write_report(path, file, &page)?;
        }
        Ok(Evaluation { rows: count.rows, skipped: count.skipped, metrics })
    }

    /// Predictions for a file (or records in memory), written as TSV, CSV or JSON Lines by the name of `output` (`-` is standard output;
    /// other endings need a `format`) while the file is read. The output has the columns that were read, then what the
    /// app says; what it calls as a column is called, it is written as "predicted_…". Answers with the number of rows.
    pub fn predict_file(
        &self,
        data: &DataSource,
        output: &Path,
        format: Option<OutputFormat>,
    ) -> Result<usize> {
        self.predict_file_watched(data, output, format, &mut Watch::nobody())
    }

    /// As [`App::predict_file`]; `watch` is told of the rows that are done, and may end it. Errors: `Cancelled`;
    /// nothing of an output file remains.
    pub fn predict_file_watched(
        &self,
        data: &DataSource,
        output: &Path,
        format: Option<OutputFormat>,
        watch: &mut Watch<'_>,
    ) -> Result<usize> {
        watch.set_total(data.data.known_len());
        let reader = self.reader(data, false)?;
        let mut columns: Vec<String> = reader.columns().keys().cloned().collect();
        let format = format.map_or_else(|| OutputFormat::of(output), Ok)?;
        self.inputs.check(output, data.data.path())?;
        let mut place = Some(OutputPlace::open(output, format)?);
        let _scope = PredictionScope::new(self.precision);
        let read: BTreeSet<String> = columns.iter().cloned().collect();
        let own = |key: String| if read.contains(&key) { format!("predicted_{key}") } else { key };
        let mut out = None;
        let mut count = Count::default();
        for window in self.windows(reader)? {
            let window = window?;
            count.add(&window);
            let Window { samples, records, .. } = window;
            let predictions =
                evaluate::predictions(&self.lanes.take(), &samples, &records, BATCH_TOKENS)?;
            watch.rows(predictions.len() as u64)?;
            let Some(first) = predictions.first() else { continue };
            if let Some(place) = place.take() {
                columns.extend(first.keys().cloned().map(own));
                out = Some(place.start(std::mem::take(&mut columns))?);
            }
            let Some(out) = &mut out else { continue };
            for (record, prediction) in records.into_iter().zip(predictions) {
                let mut row = record;
                row.extend(prediction.into_iter().map(|(key, value)| (own(key), value)));
                out.write(&row)?;
            }
            out.flush()?;
        }
        count.check(data.data.path())?;
        if let Some(out) = out {
            out.finish()?;
        }
        Ok(count.rows)
    }
}

/// Rows of a file so far.
#[derive(Default)]
pub(crate) struct Count {
    pub(crate) rows: usize,
    skipped: u64,
}

impl Count {
    pub(crate) fn add(&mut self, window: &Window) {
        self.rows += window.samples.len();
        self.skipped += window.skipped;
    }

    /// Fails when no row was left.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        if self.rows == 0 {
            return Err(none_left(path, self.skipped));
        }
        Ok(())
    }
}

/// Whether two labels are the same text, or the same whole number, of which data frames like to write one as "1.0".
fn is_same_label(a: &str, b: &str) -> bool {
    let plain = |label: &str| label.strip_suffix(".0").unwrap_or(label).to_owned();
    a == b || plain(a) == plain(b)
}

/// Adds a window's wrong answers to the surest ones so far.
fn keep_mistakes(wrong: &mut Vec<WrongExample>, window: &Window, predictions: &[Record]) {
    let text_of = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let examples = predictions
        .iter()
        .zip(&window.records)
        .zip(&window.lines)
        .filter(|((prediction, _), _)| prediction.contains_key("label"))
        .map(|((prediction, record), line)| WrongExample {
            line: *line,
            text: text_of(record.get("text")),
            expected: text_of(record.get("label")),
            predicted: text_of(prediction.get("label")),
            probability: prediction.get("score").and_then(Value::as_f64).unwrap_or(0.0),
        })
        .filter(|example| !is_same_label(example.expected.trim(), &example.predicted));
    wrong.extend(examples);
    wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    wrong.truncate(MISTAKES);
}
