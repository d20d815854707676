//! Metrics as JSON Lines: one object per line with the key `step`, flushed at once, so that a killed run keeps all but
//! the line that it was writing.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A growing file of metrics.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Starts an empty log; an older file of the name is emptied.
    pub fn create(path: &Path) -> Result<MetricsLog> {
        let file = File::create(path).map_err(|error| Error::io("create", path, error))?;
        Ok(MetricsLog { path: path.to_path_buf(), file })
    }

    /// Opens a log to go on after `step`: everything from the first line on that is of a later step, incomplete or no
    /// JSON object is cut off. A missing file starts empty.
    pub fn resume(path: &Path, step: u64) -> Result<MetricsLog> {
        let io = |error| Error::io("read", path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| Error::io("open", path, error))?;
        let mut keep = 0u64;
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = reader.read_until(b'\n', &mut line).map_err(io)?;
            let of_step = || {
                let value: Value = serde_json::from_slice(&line).ok()?;
                value.as_object()?;
                Some(value.get("step").and_then(Value::as_u64).unwrap_or(0))
            };
            if count == 0 || !line.ends_with(b"\n") || of_step().is_none_or(|found| found > step) {
                break;
            }
            keep += count as u64;
        }
        drop(reader);
        file.set_len(keep).map_err(|error| Error::io("truncate", path, error))?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(MetricsLog { path: path.to_path_buf(), file })
    }

    /// Appends one line with `step` first and then `values`; numbers that JSON cannot say are null.
    pub fn append(&mut self, step: u64, values: &Map<String, Value>) -> Result<()> {
        let mut object = Map::new();
        object.insert("step".to_string(), Value::from(step));
        for (key, value) in values {
            object.insert(key.clone(), value.clone());
        }
        object["step"] = Value::from(step);
        let line = format!("{}\n", Value::Object(object));
        // One call, and no buffer of ours: the operating system has the line when this returns.
        self.file.write_all(line.as_bytes()).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Appends one number.
    pub fn number(&mut self, step: u64, key: &str, value: f64) -> Result<()> {
        let mut values = Map::new();
        values.insert(key.to_string(), Value::from(value));
        self.append(step, &values)
    }

    /// Reads a log back; incomplete lines are left out.
    pub fn read(path: &Path) -> Result<Vec<Map<String, Value>>> {
        let bytes = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
        Ok(bytes
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic::tests::Scratch;

    #[test]
    fn resume_cuts_off_later_and_incomplete_lines() {
        let scratch = Scratch::new("log");
        let path = scratch.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        for step in 1..=5 {
            log.number(step, "loss", 1.0 / step as f64).unwrap();
        }
        drop(log);
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(whole.lines().nth(1), Some("{\"step\":2,\"loss\":0.5}"));
        let mut log = MetricsLog::resume(&path, 3).unwrap();
        log.number(4, "loss", f64::NAN).unwrap();
        let lines = MetricsLog::read(&path).unwrap();
        assert_eq!(lines.len(), 4);
        assert!(lines[3]["loss"].is_null());

        let cut = &whole.as_bytes()[..whole.len() - 4];
        std::fs::write(&path, cut).unwrap();
        MetricsLog::resume(&path, 100).unwrap();
        assert_eq!(MetricsLog::read(&path).unwrap().len(), 4);
        assert!(std::fs::read(&path).unwrap().ends_with(b"\n"));
        MetricsLog::resume(&scratch.path().join("new.jsonl"), 1).unwrap();
    }
}
