//! Data and how to read it as JSON, and work on it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use easytransfer_train::data::input::Data;
use easytransfer_train::data::records::{Format, OnBadRow, ReadOptions, Schema};
use easytransfer_train::files::output::OutputFormat;
use easytransfer_train::options::config::{metrics_of, metrics_schema};
use easytransfer_train::run::events::Watch;
use easytransfer_train::{Error, Result};
use serde_json::{Map, Value, json};

use super::{checked, text};
use crate::{App, DataSource, Embedder, Record};

/// Schema of data: the name of a file, or an array of records.
pub(super) fn data_schema(description: &str) -> Value {
    json!({"type": ["string", "array"], "description": description})
}

/// Adds the options of reading to those of `schema`.
pub(super) fn with_reading(mut schema: Value) -> Value {
    let open = json!({"type": "object", "default": {}, "additionalProperties": {"type": "string"}, "description": "column by role, where the usual names do not fit"});
    let reading = [
        ("columns", open),
        (
            "format",
            json!({"type": "string", "enum": ["auto", "tsv", "csv", "jsonl", "text"], "default": "auto", "description": "format of the data"}),
        ),
        (
            "schema",
            json!({"type": ["string", "null"], "description": "columns of a file without a header line: content:str:1,label:str:1"}),
        ),
        (
            "on_bad_row",
            json!({"type": "string", "enum": ["stop", "skip"], "default": "stop", "description": "what to do with a row that does not fit"}),
        ),
    ];
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.extend(reading.map(|(key, value)| (key.to_owned(), value)));
    }
    schema
}

/// The options of reading of checked options.
pub(super) fn read_options(value: &Value) -> Result<ReadOptions> {
    Ok(ReadOptions {
        format: match text(value, "format").as_str() {
            "tsv" => Format::Tsv,
            "csv" => Format::Csv,
            "jsonl" => Format::JsonLines,
            "text" => Format::Text,
            _ => Format::Auto,
        },
        schema: value["schema"].as_str().map(Schema::parse).transpose()?,
        wanted: None,
        on_bad_row: match text(value, "on_bad_row").as_str() {
            "skip" => OnBadRow::Skip,
            _ => OnBadRow::Stop,
        },
    })
}

/// Columns by role of checked options, under `key`.
pub(super) fn columns(value: &Value, key: &str) -> BTreeMap<String, String> {
    let named = value[key].as_object().into_iter().flatten();
    named.filter_map(|(role, name)| Some((role.clone(), name.as_str()?.to_owned()))).collect()
}

/// The data of checked options, under `key`.
pub(super) fn data(value: Value, key: &str, origin: &str) -> Result<Data> {
    let record = |(index, value): (usize, Value)| match value {
        Value::Object(record) => Ok(record),
        other => Err(Error::Config {
            origin: origin.to_owned(),
            message: format!("{key}[{index}]: expected a record, an object, found {other}"),
        }),
    };
    match value {
        Value::Array(records) => {
            let records = records.into_iter().enumerate().map(record);
            Ok(Data::from(records.collect::<Result<Vec<Record>>>()?))
        }
        other => Ok(Data::from(other.as_str().unwrap_or_default())),
    }
}

/// Checked options of work on data, and the data.
fn job(options: &str, origin: &str, more: Value) -> Result<(Value, DataSource)> {
    let mut properties = Map::from_iter([("data".to_owned(), data_schema("a file, or records"))]);
    let mut required = vec!["data".to_owned()];
    for (key, value) in more.as_object().into_iter().flatten() {
        if key == "output" {
            required.push(key.clone());
        }
        properties.insert(key.clone(), value.clone());
    }
    let schema = json!({"type": "object", "required": required, "properties": properties});
    let mut value = checked(&with_reading(schema), options, origin)?;
    let source = DataSource {
        data: data(value["data"].take(), "data", origin)?,
        read: read_options(&value)?,
        named: columns(&value, "columns"),
    };
    Ok((value, source))
}

/// Figures on labelled data: `{"data": "file" | [records], "report": "file", "columns": {"text": "sentence"}, "format":
/// "auto" | "tsv" | "csv" | "jsonl" | "text", "schema": "..", "on_bad_row": "stop" | "skip", "metrics": ["name", {"name":
/// "f-beta", "beta": 2}]}`, of which `data` is required; `metrics` are of any plugin, beside those of the app. Answers with `{"rows": 10, "skipped": 0, "metrics": {..}}`.
pub fn evaluate(app: &App, options: &str, watch: &mut Watch<'_>) -> Result<String> {
    let more = json!({
        "report": {"type": ["string", "null"], "description": "an HTML page"},
        "metrics": metrics_schema()
    });
    let (value, source) = job(options, "evaluate options", more)?;
    let report = value["report"].as_str().map(PathBuf::from);
    let found =
        app.evaluate_by(&source, report.as_deref(), &metrics_of(&value["metrics"])?, watch)?;
    Ok(super::written(&found))
}

/// Predictions for data, written to a file: options as those of [`evaluate`] without `report`, and `"output": "file"`,
/// which is required, and `"output_format": "tsv" | "csv" | "jsonl"`. Answers with `{"rows": 10}`.
pub fn predict_file(app: &App, options: &str, watch: &mut Watch<'_>) -> Result<String> {
    let more = json!({
        "output": {"type": "string"},
        "output_format": {"type": ["string", "null"], "enum": ["tsv", "csv", "jsonl", null]}
    });
    let (value, source) = job(options, "predict options", more)?;
    let format = match text(&value, "output_format").as_str() {
        "tsv" => Some(OutputFormat::Tsv),
        "csv" => Some(OutputFormat::Csv),
        "jsonl" => Some(OutputFormat::JsonLines),
        _ => None,
    };
    let output = PathBuf::from(text(&value, "output"));
    let rows = app.predict_file_watched(&source, &output, format, watch)?;
    Ok(json!({ "rows": rows }).to_string())
}

/// Vectors of data, written to a file: options as those of [`evaluate`] without `report`, and `"output": "file"`, which
/// is required. Answers with `{"rows": 10}`.
pub fn embed_file(embedder: &Embedder, options: &str, watch: &mut Watch<'_>) -> Result<String> {
    let more = json!({"output": {"type": "string"}});
    let (value, source) = job(options, "embed options", more)?;
    let output = PathBuf::from(text(&value, "output"));
    let rows = embedder.embed_file_watched(&source, &output, watch)?;
    Ok(json!({ "rows": rows }).to_string())
}
