//! The facade's options and results as JSON, for programs in other languages.
//!
//! Every text is checked against a schema, so a misspelt key is an error that names the nearest known one; an empty
//! text stands for `{}`.

mod data;

use std::path::PathBuf;

use easytransfer_loader::Policy;
use easytransfer_loader::engine::EnginePrecision;
use easytransfer_train::model::network::Start;
use easytransfer_train::options::validate;
use easytransfer_train::report::progress::ProgressMode;
use easytransfer_train::{Error, Result};
use serde_json::{Value, json};

pub use data::{embed_file, evaluate, predict_file};

use crate::{
    AppOptions, EmbedOptions, Event, LayerPrecision, PluginInfo, Record, RuntimeOptions,
    TrainConfig, TrainJob, TrainResult,
};

/// Parses a JSON text; `origin` names it in messages.
fn parsed(text: &str, origin: &str) -> Result<Value> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|error| Error::Config {
        origin: origin.to_owned(),
        message: format!("expected a JSON object, found something else: {error}"),
    })
}

/// Parses and checks a JSON text.
fn checked(schema: &Value, text: &str, origin: &str) -> Result<Value> {
    let mut value = parsed(text, origin)?;
    validate(schema, &mut value, origin, "")?;
    Ok(value)
}

/// A text value of checked options; empty where the key is absent or null.
fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn is_true(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}

/// `{"plugins": ["dir"], "only_these": false, "policy": "any" | "hash-pinned" | "hash-required", "choose":
/// ["loss=my-losses/focal"], "device": "cpu" | "cuda" | "cuda:N" | "auto", "precision": "f32" | "tf32" | "bf16" |
/// "f16", "threads": 4}`
pub fn runtime_options(options: &str) -> Result<RuntimeOptions> {
    let schema = json!({"type": "object", "properties": {
        "plugins": {"type": "array", "items": {"type": "string"}, "default": [], "description": "where to look first"},
        "only_these": {"type": "boolean", "default": false, "description": "look nowhere else"},
        "policy": {"type": "string", "enum": ["any", "pinned", "hash-pinned", "hash-required"], "default": "hash-pinned"},
        "choose": {"type": "array", "items": {"type": "string"}, "default": [], "description": "which plugin is meant where several offer one name: KIND=PLUGIN/NAME"},
        "device": {"type": "string", "default": "cpu", "description": "what computes"},
        "precision": {"type": "string", "enum": ["f32", "tf32", "bf16", "f16"], "default": "f32"},
        "threads": {"type": ["integer", "null"], "minimum": 1, "maximum": 1024, "description": "of the engine"}
    }});
    let value = checked(&schema, options, "runtime options")?;
    let places = value["plugins"].as_array().into_iter().flatten();
    Ok(RuntimeOptions {
        plugins: places.filter_map(Value::as_str).map(PathBuf::from).collect(),
        only_these: is_true(&value, "only_these"),
        policy: Policy::from_name(&text(&value, "policy")).unwrap_or_default(),
        choose: value["choose"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|choice| {
                choice.parse().map_err(|message| Error::Config {
                    origin: "runtime options".to_owned(),
                    message: format!("choose: {message}"),
                })
            })
            .collect::<Result<_>>()?,
        device: text(&value, "device").parse().map_err(|message| Error::Config {
            origin: "runtime options".to_owned(),
            message: format!("device: {message}"),
        })?,
        precision: match text(&value, "precision").as_str() {
            "tf32" => EnginePrecision::Tf32,
            "bf16" => EnginePrecision::Bf16,
            "f16" => EnginePrecision::F16,
            _ => EnginePrecision::F32,
        },
        threads: value["threads"].as_u64().and_then(|threads| usize::try_from(threads).ok()),
    })
}

fn precision_schema() -> Value {
    let names = LayerPrecision::ALL.map(LayerPrecision::name);
    json!({"type": "string", "enum": names, "default": "f32", "description": "what the encoder's linear layers compute in"})
}

/// The precision of checked options.
fn precision(value: &Value) -> LayerPrecision {
    LayerPrecision::from_name(&text(value, "precision")).unwrap_or_default()
}

/// `{"precision": "f32" | "bf16" | "int8"}`
pub fn app_options(options: &str) -> Result<AppOptions> {
    let schema = json!({"type": "object", "properties": {"precision": precision_schema()}});
    let value = checked(&schema, options, "app options")?;
    Ok(AppOptions { precision: precision(&value) })
}

fn embed_schema() -> Value {
    json!({"type": "object", "properties": {
        "pooling": {"type": ["string", "null"], "enum": [
            "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "pooled", null
        ]},
        "prompt": {"type": ["string", "null"]},
        "prompt_name": {"type": ["string", "null"]},
        "normalize": {"type": ["boolean", "null"]},
        "max_length": {"type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX},
        "precision": precision_schema()
    }})
}

impl EmbedOptions {
    /// Checks every option, however it was set; `origin` names where they come from in messages and may be empty.
    /// Errors name the key, what was found and what is allowed.
    pub fn validate(&self, origin: &str) -> Result<()> {
        let mut value = json!({
            "pooling": self.pooling, "prompt": self.prompt, "prompt_name": self.prompt_name,
            "normalize": self.normalize, "max_length": self.max_length, "precision": self.precision.name(),
        });
        validate(&embed_schema(), &mut value, origin, "")
    }
}

/// `{"pooling": "mean" | "cls" | "max" | "mean_sqrt_len_tokens" | "weightedmean" | "lasttoken" | "pooled",
/// "normalize": true, "max_length": 128, "prompt": "query: ", "prompt_name": "query", "precision": "f32" | "bf16" |
/// "int8"}`, all optional.
pub fn embed_options(options: &str) -> Result<EmbedOptions> {
    let value = checked(&embed_schema(), options, "embedder options")?;
    Ok(EmbedOptions {
        pooling: value["pooling"].as_str().map(str::to_owned),
        prompt: value["prompt"].as_str().map(str::to_owned),
        prompt_name: value["prompt_name"].as_str().map(str::to_owned),
        normalize: value["normalize"].as_bool(),
        max_length: value["max_length"].as_u64(),
        precision: precision(&value),
    })
}

/// Options of a training run, as [`TrainConfig::from_value`] takes them.
pub fn train_config(options: &str) -> Result<TrainConfig> {
    let origin = "training options";
    TrainConfig::from_value(parsed(options, origin)?, origin)
}

/// A whole training run: `{"app": "text-classify", "encoder": "dir", "train": "file" | [records], "valid": "file" |
/// [records], "output": "dir", "config": {..}, "from_scratch": false, "allow_missing": false, "columns": {"text":
/// "sentence"}, "valid_columns": {}, "format": "auto" | "tsv" | "csv" | "jsonl" | "text", "schema": "..", "on_bad_row":
/// "stop" | "skip", "resume": false, "overwrite": false, "progress": "silent" | "plain" | "auto"}`; `train` and
/// `output` are required, `config` is what [`TrainConfig::from_value`] takes. Without `encoder` the model is the one
/// that `config.encoder` describes.
pub fn train_job(options: &str) -> Result<TrainJob> {
    let origin = "fit options";
    let open = |description: &str| json!({"type": "object", "default": {}, "additionalProperties": true, "properties": {}, "description": description});
    let mut valid = data::data_schema("validation data: a file, or records");
    valid["type"] = json!(["string", "array", "null"]);
    let schema = data::with_reading(
        json!({"type": "object", "required": ["train", "output"], "properties": {
            "app": {"type": "string", "default": "text-classify"},
            "encoder": {"type": "string", "description": "directory of the encoder; none for a model that config.encoder describes"},
            "train": data::data_schema("training data: a file, or records"),
            "valid": valid,
            "output": {"type": "string", "description": "directory of the bundle"},
            "config": open("options of the run"),
            "from_scratch": {"type": "boolean", "default": false, "description": "random weights"},
            "allow_missing": {"type": "boolean", "default": false, "description": "weights that the encoder lacks start at random"},
            "valid_columns": {"type": "object", "default": {}, "additionalProperties": {"type": "string"}, "description": "column by role in the validation data, where it has other names"},
            "resume": {"type": "boolean", "default": false, "description": "go on from a checkpoint"},
            "overwrite": {"type": "boolean", "default": false, "description": "replace what is in the output directory"},
            "progress": {"type": "string", "enum": ["silent", "plain", "auto"], "default": "silent"}
        }}),
    );
    let mut value = checked(&schema, options, origin)?;
    let train = data::data(value["train"].take(), "train", origin)?;
    let mut job = TrainJob::new(text(&value, "encoder"), train, text(&value, "output"));
    if !value["valid"].is_null() {
        job.valid = Some(data::data(value["valid"].take(), "valid", origin)?);
    }
    job.app = text(&value, "app");
    job.config = TrainConfig::from_value(value["config"].take(), "fit options: config")?;
    job.config.overwrite |= is_true(&value, "overwrite");
    job.start = match (is_true(&value, "from_scratch"), is_true(&value, "allow_missing")) {
        (true, _) => Start::Scratch,
        (false, true) => Start::EncoderAllowMissing,
        (false, false) => Start::Encoder,
    };
    for of in [&mut job.train_data, &mut job.valid_data] {
        of.read = data::read_options(&value)?;
        of.named = data::columns(&value, "columns");
    }
    job.valid_data.named.extend(data::columns(&value, "valid_columns"));
    job.resume = is_true(&value, "resume");
    job.progress = match text(&value, "progress").as_str() {
        "plain" => ProgressMode::Plain,
        "auto" => ProgressMode::Auto,
        _ => ProgressMode::Silent,
    };
    Ok(job)
}

/// A result as JSON text. What cannot be written, of which there is none, is null.
pub(crate) fn written(result: &impl serde::Serialize) -> String {
    serde_json::to_string(result).unwrap_or_else(|_| "null".to_owned())
}

/// `{"metrics": {..}, "best_step": 12, "steps": 30, "mean_loss": 0.3, "skipped_rows": 0, "seconds": 1.5,
/// "step_seconds": 1.2, "tokens": 4096}`
pub fn train_result(result: &TrainResult) -> String {
    written(result)
}

/// An event: `{"event": "step", "step": 1, "total_steps": 30, "loss": 0.7, "lr": 5e-5}`
pub fn event(event: &Event) -> String {
    written(event)
}

/// `[{"id": "loss-basic", "version": "0.1.0", "path": "..", "provides": [{"kind": "loss", "name": "mse"}],
/// "description": "..", "problem": null}]`
pub fn plugins(plugins: &[PluginInfo]) -> String {
    written(&plugins)
}

/// A record as programs write it: an object from role to value, or a text alone.
pub(crate) fn record_of(value: Value) -> Result<Record> {
    match value {
        Value::Object(record) => Ok(record),
        Value::String(text) => Ok(Record::from_iter([("text".to_owned(), Value::String(text))])),
        other => Err(Error::user(format!(
            "predict: expected an object like {{\"text\": ...}} or a string, found {other}"
        ))),
    }
}

/// A record from its JSON text: an object from role to value, or a string, which is a text alone. Errors: anything
/// else.
pub fn record(json: &str) -> Result<Record> {
    let value = serde_json::from_str(json)
        .map_err(|error| Error::user(format!("predict: the record is not JSON: {error}")))?;
    record_of(value)
}

#[cfg(test)]
mod tests {
    use super::{app_options, embed_options, runtime_options, train_job};
    use crate::{EmbedOptions, LayerPrecision};
    use easytransfer_loader::Policy;
    use easytransfer_train::model::network::Start;

    #[test]
    fn runtime_options_empty_text_means_defaults() {
        let options = runtime_options("").unwrap();
        assert!(options.plugins.is_empty() && !options.only_these);
        assert!(matches!(options.policy, Policy::HashPinned));
    }

    #[test]
    fn runtime_options_unknown_key_names_the_nearest() {
        let error = runtime_options(r#"{"plugin": ["x"]}"#).unwrap_err().to_string();
        assert!(error.contains("`plugins`"), "{error}");
    }

    #[test]
    fn embed_options_take_what_is_given() {
        let options = embed_options(r#"{"pooling": "cls", "normalize": true}"#).unwrap();
        assert_eq!((options.pooling.as_deref(), options.normalize), (Some("cls"), Some(true)));
        let error = embed_options(r#"{"pooling": "sum"}"#).unwrap_err().to_string();
        let by_hand = EmbedOptions { pooling: Some("sum".to_owned()), ..EmbedOptions::default() };
        assert_eq!(by_hand.validate("embedder options").unwrap_err().to_string(), error);
        let none = EmbedOptions { max_length: Some(0), ..EmbedOptions::default() };
        let error = none.validate("").unwrap_err().to_string();
        assert!(error.contains("`max_length`: expected an integer or null at least 1"), "{error}");
    }

    #[test]
    fn precision_is_read_and_a_wrong_one_names_the_values() {
        assert_eq!(app_options("").unwrap().precision, LayerPrecision::F32);
        assert_eq!(
            app_options(r#"{"precision": "int8"}"#).unwrap().precision,
            LayerPrecision::Int8
        );
        assert_eq!(
            embed_options(r#"{"precision": "bf16"}"#).unwrap().precision,
            LayerPrecision::Bf16
        );
        let error = app_options(r#"{"precision": "int4"}"#).unwrap_err().to_string();
        assert!(["f32", "bf16", "int8"].iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn train_job_reads_config_and_names_what_is_missing() {
        let job = train_job(
            r#"{"train": [{"text": "a", "label": 1}], "valid": [{"q": "b"}], "output": "o", "on_bad_row": "skip",
                "columns": {"label": "c"}, "valid_columns": {"text": "q"}, "allow_missing": true}"#,
        )
        .unwrap();
        assert_eq!((job.train.known_len(), job.valid.unwrap().known_len()), (Some(1), Some(1)));
        assert_eq!((job.train_data.named.len(), job.valid_data.named["text"].as_str()), (1, "q"));
        assert_eq!(job.start, Start::EncoderAllowMissing);
        let error = train_job(r#"{"train": [1], "output": "o"}"#).err().unwrap().to_string();
        assert!(error.contains("train[0]: expected a record"), "{error}");
        let error = train_job(r#"{"encoder": "e", "train": "t"}"#).err().unwrap().to_string();
        assert!(error.contains("output"), "{error}");
        let job = train_job(
            r#"{"encoder": "e", "train": "t", "output": "o", "config": {"max_steps": 7}, "columns": {"text": "q"}}"#,
        )
        .unwrap();
        assert_eq!((job.config.max_steps, job.app.as_str()), (7, "text-classify"));
        assert_eq!(job.valid_data.named["text"], "q");
        assert!(
            train_job(r#"{"encoder": "e", "train": "t", "output": "o", "config": {"epoch": 1}}"#)
                .is_err()
        );
    }
}
