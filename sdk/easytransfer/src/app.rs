//! A trained bundle that answers records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use easytransfer_plugin::Record;
use easytransfer_train::bundle::{self, Manifest};
use easytransfer_train::dataset::{DataOptions, Dataset};
use easytransfer_train::evaluate;
use easytransfer_train::network::Network;
use easytransfer_train::output::{Output, OutputFormat};
use easytransfer_train::records::ReadOptions;
use easytransfer_train::report::{Report, WrongExample};
use easytransfer_train::run_log::{figures_report, write_report};
use easytransfer_train::{Error, Result};
use serde_json::{Map as Json, Value};

use crate::Runtime;

/// A trained bundle.
pub struct App {
    runtime: Runtime,
    network: Network,
    manifest: Manifest,
    tokens: u32,
}

/// A data file and how to read it.
#[derive(Debug, Clone, Default)]
pub struct DataFile {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// Format, schema, what to do with bad rows.
    pub read: ReadOptions,
    /// Columns by role, where the usual names do not fit.
    pub named: BTreeMap<String, String>,
}

/// Figures on a labelled file.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Rows that were evaluated.
    pub rows: usize,
    /// Rows that were left out.
    pub skipped: u64,
    /// Figures by name.
    pub metrics: Json<String, Value>,
}

impl App {
    pub(crate) fn load(runtime: &Runtime, directory: &Path) -> Result<App> {
        let (network, manifest) = bundle::load(runtime.components(), directory)?;
        Ok(App { runtime: runtime.clone(), network, manifest, tokens: 4096 })
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names of the classes in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.network.app_info.labels
    }

    /// The network: model, head, parameters and tokenizer.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// One prediction per text.
    pub fn predict(&mut self, texts: &[&str]) -> Result<Vec<Record>> {
        let records: Vec<Record> = texts
            .iter()
            .map(|text| Record::from_iter([("text".to_owned(), Value::from(*text))]))
            .collect();
        self.predict_records(&records)
    }

    /// One prediction per record; a record maps roles ("text", "text_pair") to values. Records are batched by length.
    pub fn predict_records(&mut self, records: &[Record]) -> Result<Vec<Record>> {
        if records.len() <= 1 {
            return self.network.predict(records);
        }
        let rows = records
            .iter()
            .enumerate()
            .map(|(index, record)| {
                let mut row = easytransfer_plugin::Row::new()?;
                self.network
                    .app
                    .features(&self.network.tokenizer, record, &mut row)
                    .map_err(|error| error.context(format!("record {index}")))?;
                Ok(row)
            })
            .collect::<Result<Vec<_>>>()?;
        evaluate::predictions(&mut self.network, &rows, self.tokens)
    }

    /// Predictions for a JSON text: an object, or an array of objects and strings; answers with one object or an array.
    pub fn predict_json(&mut self, json: &str) -> Result<String> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| Error::user(format!("predict: the request is not JSON: {error}")))?;
        let record = |value: Value| match value {
            Value::Object(record) => Ok(record),
            Value::String(text) => {
                Ok(Record::from_iter([("text".to_owned(), Value::String(text))]))
            }
            other => Err(Error::user(format!(
                "predict: expected an object like {{\"text\": ...}} or a string, found {other}"
            ))),
        };
        let answer = match value {
            Value::Array(values) => {
                let records = values.into_iter().map(record).collect::<Result<Vec<_>>>()?;
                Value::Array(
                    self.predict_records(&records)?.into_iter().map(Value::Object).collect(),
                )
            }
            value => {
                let mut answers = self.predict_records(&[record(value)?])?;
                answers.pop().map_or(Value::Null, Value::Object)
            }
        };
        Ok(answer.to_string())
    }

    fn dataset(&self, data: &DataFile, targets: bool) -> Result<Dataset> {
        let columns = self.network.app.columns()?;
        let mut named = data.named.clone();
        // Columns that the training file had count as usual names, unless the user says otherwise.
        let columns: Vec<_> = columns
            .into_iter()
            .map(|mut column| {
                if let Some(Value::String(name)) = self.manifest.columns.get(&column.role) {
                    column.names.insert(0, name.clone());
                }
                column
            })
            .collect();
        if !targets {
            let is_target =
                |role: &str| columns.iter().any(|column| column.target && column.role == role);
            named.retain(|role, _| !is_target(role));
        }
        let columns: Vec<_> =
            columns.into_iter().filter(|column| targets || !column.target).collect();
        let options = DataOptions { read: data.read.clone(), named, split: None, targets };
        Dataset::load(&data.path, &columns, &options)
    }

    /// Figures on a labelled file; with `report` also an HTML page with the confusion matrix and the worst mistakes.
    pub fn evaluate(&mut self, data: &DataFile, report: Option<&Path>) -> Result<Evaluation> {
        let mut dataset = self.dataset(data, true)?;
        let (app, tokenizer) = (self.network.app.clone(), self.network.tokenizer.clone());
        let rows = dataset.featurize(&app, &tokenizer, &[], 1)?;
        // The report shows single answers; they come from the same pass as the figures.
        let mut answers: Vec<Option<Record>> = vec![None; rows.len()];
        let metrics = evaluate::evaluate_and(
            self.runtime.components(),
            &mut self.network,
            &rows,
            self.tokens,
            None,
            |network, indices, batch, outputs| match report {
                Some(_) => evaluate::decode_into(&mut answers, network, indices, batch, outputs),
                None => Ok(()),
            },
        )?;
        if let Some(path) = report {
            let title = format!("{} on {}", self.manifest.app.name, data.path.display());
            let page = Report {
                wrong: mistakes(&dataset, &answers),
                options: self.manifest.training.clone(),
                ..figures_report(&title, &self.network.app_info.labels, &metrics)
            };
            write_report(path, &page)?;
        }
        Ok(Evaluation { rows: rows.len(), skipped: dataset.skipped, metrics })
    }

    /// Predictions for a file, written as TSV, CSV or JSON Lines by the name of `output` (`-` is standard output). The output has the
    /// columns that were read, then the prediction. Answers with the number of rows.
    pub fn predict_file(
        &mut self,
        data: &DataFile,
        output: &Path,
        format: Option<OutputFormat>,
    ) -> Result<usize> {
        let mut dataset = self.dataset(data, false)?;
        let (app, tokenizer) = (self.network.app.clone(), self.network.tokenizer.clone());
        let rows = dataset.featurize(&app, &tokenizer, &[], 1)?;
        let predictions = evaluate::predictions(&mut self.network, &rows, self.tokens)?;
        let mut columns: Vec<String> = dataset.columns.keys().cloned().collect();
        if let Some(first) = predictions.first() {
            columns.extend(first.keys().cloned());
        }
        let format = format.unwrap_or_else(|| OutputFormat::of(output));
        let mut out = Output::create(output, format, columns)?;
        for (record, prediction) in dataset.records.into_iter().zip(predictions) {
            let mut row = record;
            row.extend(prediction);
            out.write(&row)?;
        }
        out.finish()?;
        Ok(rows.len())
    }
}

/// Wrong answers, the surest first, at most 100.
fn mistakes(dataset: &Dataset, answers: &[Option<Record>]) -> Vec<WrongExample> {
    let text_of = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let mut wrong: Vec<WrongExample> = answers
        .iter()
        .zip(&dataset.records)
        .zip(&dataset.lines)
        .filter_map(|((answer, record), line)| Some((answer.as_ref()?, record, line)))
        .filter(|(answer, _, _)| answer.contains_key("label"))
        .map(|(answer, record, line)| WrongExample {
            line: *line,
            text: text_of(record.get("text")),
            expected: text_of(record.get("label")),
            predicted: text_of(answer.get("label")),
            probability: answer.get("score").and_then(Value::as_f64).unwrap_or(0.0),
        })
        .filter(|example| example.expected.trim() != example.predicted)
        .collect();
    wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    wrong.truncate(100);
    wrong
}
