//! `easytransfer predict`.

use std::path::{Path, PathBuf};

use clap::Args;
use easytransfer::train::files::output::OutputFormat;
use easytransfer::{AppOptions, Result};

use crate::arguments::{Common, Computing, PredictionFormat, Reading};
use crate::print;

/// Predict for texts: by default from standard input to standard output, as JSON Lines
#[derive(Args)]
pub struct Predict {
    /// Directory of the bundle
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Texts: TSV, CSV, JSON (one object per line, or an array) or one text per line; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    data: PathBuf,
    /// Where predictions go; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    computing: Computing,
    /// Format of the predictions [default: by the name of the output, jsonl for standard output]
    #[arg(long, value_enum)]
    output_format: Option<PredictionFormat>,
}

impl Predict {
    /// Whether it writes to standard output.
    pub fn prints(&self) -> bool {
        print::is_standard_output(&self.output)
    }

    pub fn run(self, common: &Common) -> Result<()> {
        let data = self.reading.file(&self.data, None)?;
        let is_stdout = self.output == Path::new("-");
        let format = self
            .output_format
            .map(OutputFormat::from)
            .or_else(|| is_stdout.then_some(OutputFormat::JsonLines));
        let runtime = common.runtime(&[&self.data, &self.output])?;
        let options = AppOptions { precision: self.computing.precision() };
        runtime.app_with(&self.model, options)?.predict_file(&data, &self.output, format)?;
        Ok(())
    }
}
