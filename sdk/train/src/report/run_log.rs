//! Metrics of a run: JSON Lines, TensorBoard events, and the HTML report made of them.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::atomic::AtomicFile;
#[cfg(feature = "train")]
use crate::report::Curve;
#[cfg(feature = "train")]
use crate::report::events::EventWriter;
#[cfg(feature = "train")]
use crate::report::jsonl_log::MetricsLog;
use crate::report::{ClassRow, Confusion, Report, render};

#[cfg(feature = "train")]
/// The metrics files of a run: `metrics.jsonl` and TensorBoard event files in one directory.
pub struct RunLog {
    path: std::path::PathBuf,
    lines: MetricsLog,
    events: EventWriter,
}

#[cfg(feature = "train")]
impl RunLog {
    /// Starts new files, or goes on after a step.
    pub fn open(directory: &Path, resume: Option<u64>) -> Result<RunLog> {
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::io("create", directory, error))?;
        let path = directory.join("metrics.jsonl");
        let (lines, events) = match resume {
            Some(step) => (MetricsLog::resume(&path, step)?, EventWriter::resume(directory, step)?),
            None => (MetricsLog::create(&path)?, EventWriter::create(directory)?),
        };
        Ok(RunLog { path, lines, events })
    }

    /// Writes numbers of a step.
    pub fn write(&mut self, step: u64, values: &Map<String, Value>) -> Result<()> {
        self.lines.append(step, values)?;
        for (name, value) in values {
            if let Some(number) = value.as_f64() {
                self.events.scalar(step, name, number as f32)?;
            }
        }
        Ok(())
    }

    /// A warning: to the host's log.
    pub fn warn(&self, message: &str) {
        easytransfer_plugin::log(easytransfer_plugin::LogLevel::Warn, "train", message);
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.events.flush()
    }

    /// Writes the HTML report of the run.
    pub fn report(
        &self,
        path: &Path,
        title: &str,
        labels: &[String],
        figures: &Map<String, Value>,
        options: Value,
    ) -> Result<()> {
        let mut curves: Vec<Curve> = Vec::new();
        for line in MetricsLog::read(&self.path)? {
            let Some(step) = line.get("step").and_then(Value::as_f64) else { continue };
            for (name, value) in line.iter().filter(|(name, _)| *name != "step") {
                let Some(value) = value.as_f64() else { continue };
                match curves.iter_mut().find(|curve| curve.name == *name) {
                    Some(curve) => curve.points.push((step, value)),
                    None => {
                        curves.push(Curve { name: name.clone(), points: vec![(step, value)] });
                    }
                }
            }
        }
        let losses = |curve: &Curve| curve.name.contains("loss");
        let rates = |curve: &Curve| curve.name == "train/lr" || curve.name == "train/grad_norm";
        let mut charts = vec![(
            "loss".to_owned(),
            curves.iter().filter(|c| losses(c)).cloned().collect::<Vec<_>>(),
        )];
        let rest: Vec<Curve> = curves.iter().filter(|c| !losses(c) && !rates(c)).cloned().collect();
        charts.push(("validation".to_owned(), rest));
        for curve in curves.iter().filter(|c| rates(c)) {
            charts.push((curve.name.clone(), vec![curve.clone()]));
        }
        charts.retain(|(_, curves)| !curves.is_empty());
        let report = Report { charts, options, ..figures_report(title, labels, figures) };
        write_report(path, AtomicFile::create(path)?, &report)
    }
}

/// The part of a report that figures of an evaluation fill.
pub fn figures_report(title: &str, labels: &[String], figures: &Map<String, Value>) -> Report {
    let counts: Vec<Vec<u64>> = figures
        .get("confusion")
        .and_then(|value| serde_json::from_value(value.clone()).ok())
        .unwrap_or_default();
    let classes = labels
        .iter()
        .enumerate()
        .take(counts.len())
        .map(|(index, label)| {
            let support: u64 = counts[index].iter().sum();
            let answered: u64 = counts.iter().map(|row| row[index]).sum();
            let right = counts[index][index] as f64;
            let part = |whole: u64| if whole == 0 { 0.0 } else { right / whole as f64 };
            let (precision, recall) = (part(answered), part(support));
            let f1 =
                if right == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
            ClassRow { label: label.clone(), precision, recall, f1, support }
        })
        .collect();
    Report {
        title: title.to_owned(),
        metrics: figures
            .iter()
            .filter_map(|(name, value)| value.as_f64().map(|number| (name.clone(), number)))
            .collect(),
        classes,
        confusion: (!counts.is_empty()).then(|| Confusion { labels: labels.to_vec(), counts }),
        ..Report::default()
    }
}

/// Writes a report into `file`, which messages call `path`, and ends the file.
pub fn write_report(path: &Path, mut file: AtomicFile, report: &Report) -> Result<()> {
    file.write_all(render(report).as_bytes()).map_err(|error| Error::io("write", path, error))?;
    file.commit()
}
