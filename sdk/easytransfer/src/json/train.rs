//! Training runs as JSON.

use easytransfer_train::Result;
use easytransfer_train::model::network::Start;
use easytransfer_train::report::progress::ProgressMode;
use serde_json::json;

use super::data::{columns, data, data_schema, read_options, with_reading};
use super::{checked, is_true, parsed, text, written};
use crate::{TrainConfig, TrainJob, TrainResult};

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
    let mut valid = data_schema("validation data: a file, or records");
    valid["type"] = json!(["string", "array", "null"]);
    let schema = with_reading(
        json!({"type": "object", "required": ["train", "output"], "properties": {
            "app": {"type": "string", "default": "text-classify"},
            "encoder": {"type": "string", "description": "directory of the encoder; none for a model that config.encoder describes"},
            "train": data_schema("training data: a file, or records"),
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
    let train = data(value["train"].take(), "train", origin)?;
    let mut job = TrainJob::new(text(&value, "encoder"), train, text(&value, "output"));
    if !value["valid"].is_null() {
        job.valid = Some(data(value["valid"].take(), "valid", origin)?);
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
        of.read = read_options(&value)?;
        of.named = columns(&value, "columns");
    }
    job.valid_data.named.extend(columns(&value, "valid_columns"));
    job.resume = is_true(&value, "resume");
    job.progress = match text(&value, "progress").as_str() {
        "plain" => ProgressMode::Plain,
        "auto" => ProgressMode::Auto,
        _ => ProgressMode::Silent,
    };
    Ok(job)
}

/// `{"metrics": {..}, "best_step": 12, "steps": 30, "mean_loss": 0.3, "skipped_rows": 0, "seconds": 1.5,
/// "step_seconds": 1.2, "tokens": 4096}`
pub fn train_result(result: &TrainResult) -> String {
    written(result)
}

#[cfg(test)]
mod tests {
    use super::{Start, train_job};

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
