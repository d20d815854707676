//! `easytransfer train`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use easytransfer::train::model::bundle::MANIFEST;
use easytransfer::train::options::{self, config};
use easytransfer::train::report::progress::ProgressMode;
use easytransfer::train::run::checkpoint;
use easytransfer::{Data, Error, Result, Start, TrainConfig, TrainJob, TrainResult};
use serde_json::{Value, json};

use crate::arguments::{Common, Label, Metrics, Reading, TrainPrecision, named};
use crate::{interrupt, print};

/// Train an app on labelled texts and write its bundle
#[derive(Args)]
pub struct Train {
    /// App to train
    #[arg(long, value_name = "NAME", default_value = "text-classify")]
    app: String,
    /// Directory of the encoder: config.json, weights, tokenizer files. Without one the model is what the options
    /// under `encoder` say (--set encoder.model_type=NAME), from scratch, for apps that learn their words
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
    /// Training data: TSV, CSV or JSON (one object per line, or an array), each gzipped or not
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Validation data; the parameters that do best on it are kept
    #[arg(long, value_name = "FILE")]
    valid: Option<PathBuf>,
    /// Directory of the bundle
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Options in a TOML (or .json) file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One option, over those of the file: --set lr=1e-4 --set batch.rows=16. May be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    label: Label,
    #[command(flatten)]
    metrics: Metrics,
    /// Column with the text in the validation data [default: that of --text, else a usual name]
    #[arg(long, value_name = "COLUMN", requires = "valid")]
    valid_text: Option<String>,
    /// Column with the second text in the validation data
    #[arg(long, value_name = "COLUMN", requires = "valid")]
    valid_text_pair: Option<String>,
    /// Column with the label in the validation data
    #[arg(long, value_name = "COLUMN", requires = "valid")]
    valid_label: Option<String>,
    /// How the engine computes; parameters and optimizer states stay f32. The CPU has f32 and bf16
    #[arg(long, value_enum, default_value = "f32")]
    precision: TrainPrecision,
    /// Start from random weights: the encoder's directory needs none
    #[arg(long, conflicts_with = "allow_missing")]
    from_scratch: bool,
    /// Start weights that the encoder lacks at random instead of ending with an error
    #[arg(long)]
    allow_missing: bool,
    /// Go on from the checkpoint of a run that was stopped; same options and data
    #[arg(long)]
    resume: bool,
    /// Replace the bundle, or the checkpoint of another run, that is in the output directory
    #[arg(long)]
    overwrite: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// The training options, for the end of `train --help`.
pub fn options_help() -> String {
    format!(
        "Training options (--set KEY=VALUE, or keys of the --config file):\n\n{}\n\
         Options of a component stand below `app`, `optimizer`, `loss` and `strategy.NAME`;\n\
         `easytransfer plugin info NAME` lists them, for instance `easytransfer plugin info text-classify`.",
        options::help(&config::schema(), "")
    )
}

impl Train {
    pub fn run(self, common: &Common) -> Result<()> {
        let mut config = self.options()?;
        config.overwrite |= self.overwrite;
        config.metrics.extend(self.metrics.metrics.iter().cloned());
        let read = self.reading.options()?;
        let train_named = self.reading.named(Some(&self.label));
        let mut valid_named: BTreeMap<String, String> = train_named.clone();
        valid_named.extend(named([
            ("text", &self.valid_text),
            ("text_pair", &self.valid_text_pair),
            ("label", &self.valid_label),
        ]));
        common.compute_in(self.precision);
        let files = [Some(&self.train), self.valid.as_ref(), self.config.as_ref()];
        let files: Vec<&Path> = files.into_iter().flatten().map(PathBuf::as_path).collect();
        let runtime = common.runtime(&files)?;
        if self.resume
            && !checkpoint::exists(&checkpoint::path(&self.output))?
            && !self.output.join(MANIFEST).exists()
        {
            print::message(&format!(
                "`{}` holds no checkpoint; the run starts from the beginning",
                self.output.display()
            ));
        }
        let mut job = TrainJob::new(
            self.encoder.clone().unwrap_or_default(),
            &self.train,
            self.output.clone(),
        );
        job.app.clone_from(&self.app);
        job.valid = self.valid.as_ref().map(Data::from);
        job.start = if self.from_scratch {
            Start::Scratch
        } else if self.allow_missing {
            Start::EncoderAllowMissing
        } else {
            Start::Encoder
        };
        (job.train_data.named, job.valid_data.named) = (train_named, valid_named);
        (job.train_data.read, job.valid_data.read) = (read.clone(), read);
        job.config = config;
        job.resume = self.resume;
        job.progress = if self.quiet { ProgressMode::Silent } else { ProgressMode::Auto };
        job.cancel = interrupt::flag();
        let result = runtime.train(job);
        if let Err(Error::Cancelled) = result {
            let at = checkpoint::path(&self.output);
            print::message(&if checkpoint::exists(&at)? {
                format!(
                    "cancelled; the checkpoint is `{}`, go on with the same command and --resume",
                    at.display()
                )
            } else {
                "cancelled before the first step".to_owned()
            });
        }
        print::text(&self.summary(&result?))
    }

    /// The options of the file with those of `--set` over them.
    fn options(&self) -> Result<TrainConfig> {
        let file = match &self.config {
            Some(path) => options::load(path)?,
            None => json!({}),
        };
        let mut value = file.clone();
        for argument in &self.set {
            options::set(&mut value, argument, "--set")?;
        }
        // Only both together must be valid: `--set` may complete or correct the file.
        TrainConfig::from_value(value.clone(), "--set").map_err(|error| {
            let Some(path) = &self.config else { return error };
            // What the file would be refused for by itself is told of the file.
            let origin = path.display().to_string();
            let whole = TrainConfig::from_value(value, &origin).err();
            let alone = TrainConfig::from_value(file, &origin).err();
            match (whole, alone) {
                (Some(whole), Some(alone)) if whole.to_string() == alone.to_string() => alone,
                _ => error,
            }
        })
    }

    fn summary(&self, result: &TrainResult) -> String {
        let output = self.output.display();
        let rate = result.tokens as f64 / result.step_seconds.max(1e-9);
        let mut text = format!(
            "trained {} steps in {:.1} s ({:.1} s with evaluations and checkpoints, {rate:.0} tokens/s in steps), mean loss {:.4}\n",
            result.steps, result.step_seconds, result.seconds, result.mean_loss
        );
        if result.skipped_rows > 0 {
            text.push_str(&format!("rows left out: {}\n", result.skipped_rows));
        }
        if !result.metrics.is_empty() {
            let figures = figures(&result.metrics);
            text.push_str(&format!("kept step {}: {figures}\n", result.best_step));
        }
        let data = self.valid.as_deref().unwrap_or(Path::new("FILE"));
        text.push_str(&format!(
            "bundle: {output} (report: {})\n\
             next: easytransfer evaluate --model {output} --data {}\n      \
             easytransfer predict --model {output} --data FILE\n",
            self.output.join("report.html").display(),
            data.display()
        ));
        text
    }
}

/// Figures that are numbers, on one line.
fn figures(metrics: &serde_json::Map<String, Value>) -> String {
    let parts: Vec<String> = metrics
        .iter()
        .filter_map(|(name, value)| value.as_f64().map(|value| format!("{name} {value:.4}")))
        .collect();
    parts.join(", ")
}
