//! `easytransfer evaluate`.

use std::path::PathBuf;

use clap::Args;
use easytransfer::{AppOptions, Result, Watch};
use serde_json::json;

use crate::arguments::{Common, Computing, Label, Metrics, Reading, name_of_file};
use crate::print;

/// Compute figures of a bundle on labelled data
#[derive(Args)]
pub struct Evaluate {
    /// Directory of the bundle
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Labelled data; `-` is standard input
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Write an HTML page with the confusion matrix and the worst mistakes
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    label: Label,
    #[command(flatten)]
    metrics: Metrics,
    #[command(flatten)]
    computing: Computing,
    /// Print one JSON object with all figures
    #[arg(long)]
    json: bool,
}

impl Evaluate {
    pub fn run(self, common: &Common) -> Result<()> {
        let data = self.reading.file(&self.data, Some(&self.label))?;
        let mut files = vec![self.data.as_path()];
        if let Some(report) = &self.report {
            name_of_file("--report", report)?;
            files.push(report);
        }
        let runtime = common.runtime(&files)?;
        let options = AppOptions { precision: self.computing.precision() };
        let app = runtime.app_with(&self.model, options)?;
        let found = app.evaluate_by(
            &data,
            self.report.as_deref(),
            &self.metrics.metrics,
            &mut Watch::nobody(),
        )?;
        if self.json {
            let all = json!({
                "rows": found.rows, "skipped": found.skipped, "metrics": found.metrics
            });
            return print::text(&format!("{all}\n"));
        }
        let mut text = format!("rows {}\n", found.rows);
        if found.skipped > 0 {
            text.push_str(&format!("rows left out {}\n", found.skipped));
        }
        for (name, value) in &found.metrics {
            if let Some(value) = value.as_f64() {
                text.push_str(&format!("{name} {value:.4}\n"));
            }
        }
        if let Some(report) = &self.report {
            text.push_str(&format!("report: {}\n", report.display()));
        }
        print::text(&text)
    }
}
