//! Predictions as TSV, CSV or JSON Lines, written row by row from JSON objects.
//!
//! TSV and CSV start with a header line. A missing or null value is an empty cell; a list of plain values without
//! commas, semicolons and brackets is joined with commas and a list of lists with `;` between the inner ones;
//! anything else is JSON. A text is written as it is, so that reading the file gives it back: TSV has neither quotes
//! nor escapes, so a text with a tab or a line break is an error there, which names CSV and JSON Lines.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result, excerpt};
use crate::files::atomic::AtomicFile;

/// The format of a file of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// Tab-separated with a header line; no tab and no line break in a cell.
    Tsv,
    /// Comma-separated with a header line and RFC 4180 quotes.
    Csv,
    /// One JSON object per line, with all of its keys.
    JsonLines,
}

impl OutputFormat {
    /// By the ending of the name: `.csv`; `.jsonl`, `.ndjson` or `.json`; `.tsv`, `.txt` or none (also for standard
    /// output) for TSV. Errors: another ending.
    pub fn of(path: &Path) -> Result<OutputFormat> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("csv") => Ok(OutputFormat::Csv),
            Some("jsonl" | "ndjson" | "json") => Ok(OutputFormat::JsonLines),
            None | Some("tsv" | "txt") => Ok(OutputFormat::Tsv),
            Some(other) => Err(Error::user(format!(
                "`{}`: expected a name that ends in .tsv, .csv or .jsonl, found .{other}; use such a name, or say the format (`output_format=jsonl`)",
                path.display()
            ))),
        }
    }
}

enum Target {
    File(AtomicFile),
    Stream(BufWriter<Box<dyn Write + Send>>),
}

impl Target {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Target::File(file) => file,
            Target::Stream(stream) => stream,
        }
    }
}

/// Where predictions go, before their columns are known.
pub struct OutputPlace {
    path: PathBuf,
    format: OutputFormat,
    target: Target,
}

impl OutputPlace {
    /// Opens the file at `path`, or standard output for `-`, so that a place that cannot be written to is an error
    /// before the work.
    pub fn open(path: &Path, format: OutputFormat) -> Result<OutputPlace> {
        let target = if path.as_os_str() == "-" {
            Target::Stream(BufWriter::new(Box::new(std::io::stdout())))
        } else {
            Target::File(AtomicFile::create(path)?)
        };
        Ok(OutputPlace { path: path.to_path_buf(), format, target })
    }

    /// Starts to write. `columns` are the keys to write as TSV and CSV, in order.
    pub fn start(self, columns: Vec<String>) -> Result<Output> {
        let OutputPlace { path, format, target } = self;
        let mut output = Output { path, format, columns, target, rows: 0 };
        let names: Vec<String> = output.columns.clone();
        output.line(names.iter().map(String::as_str))?;
        Ok(output)
    }
}

/// Writes predictions. A file appears under its name when [`Output::finish`] is called; without that nothing remains.
pub struct Output {
    path: PathBuf,
    format: OutputFormat,
    columns: Vec<String>,
    target: Target,
    /// Lines of TSV and CSV written.
    rows: u64,
}

impl Output {
    /// Writes to `stream`.
    pub fn stream(
        stream: Box<dyn Write + Send>,
        format: OutputFormat,
        columns: Vec<String>,
    ) -> Result<Output> {
        let target = Target::Stream(BufWriter::new(stream));
        OutputPlace { path: PathBuf::from("-"), format, target }.start(columns)
    }

    /// Writes one row.
    pub fn write(&mut self, row: &Map<String, Value>) -> Result<()> {
        if self.format == OutputFormat::JsonLines {
            let io = |error: serde_json::Error| Error::io("write", &self.path, error.into());
            serde_json::to_writer(self.target.writer(), row).map_err(io)?;
            return self.raw("\n");
        }
        let cells: Vec<String> =
            self.columns.iter().map(|column| row.get(column).map_or(String::new(), cell)).collect();
        self.line(cells.iter().map(String::as_str))
    }

    /// Hands what was written so far to the reader of a stream, pipe or device; a file waits for the end.
    pub fn flush(&mut self) -> Result<()> {
        self.target.writer().flush().map_err(|error| Error::io("write", &self.path, error))
    }

    /// Ends the output; a file now appears under its name.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        match self.target {
            Target::File(file) => file.commit(),
            Target::Stream(_) => Ok(()),
        }
    }

    fn raw(&mut self, text: &str) -> Result<()> {
        let written = self.target.writer().write_all(text.as_bytes());
        written.map_err(|error| Error::io("write", &self.path, error))
    }

    fn line<'a>(&mut self, cells: impl Iterator<Item = &'a str>) -> Result<()> {
        let cells: Vec<&str> = cells.collect();
        let mut line = match self.format {
            OutputFormat::Tsv => {
                self.check_tsv(&cells)?;
                cells.join("\t")
            }
            OutputFormat::Csv => {
                cells.into_iter().map(quote_csv).collect::<Vec<String>>().join(",")
            }
            OutputFormat::JsonLines => return Ok(()),
        };
        if line.is_empty() && self.format == OutputFormat::Csv {
            // A lone empty cell would be a blank line, which readers skip.
            line.push_str("\"\"");
        }
        line.push('\n');
        self.rows += 1;
        self.raw(&line)
    }

    /// Errors: a cell that TSV cannot hold.
    fn check_tsv(&self, cells: &[&str]) -> Result<()> {
        for (index, cell) in cells.iter().enumerate() {
            let found = match cell.find(['\t', '\n']).map(|at| cell.as_bytes()[at]) {
                Some(b'\t') => "a tab",
                Some(_) => "a line break",
                // It would be taken for a part of the line's end.
                None if index + 1 == cells.len() && cell.ends_with('\r') => "a carriage return",
                None => continue,
            };
            return Err(Error::user(format!(
                "row {} of the output, column `{}`: expected a text that TSV can hold, found {found} in `{}`; write CSV or JSON Lines instead (`output_format=jsonl`, or the ending of the output's name)",
                self.rows,
                self.columns[index],
                excerpt(cell)
            )));
        }
        Ok(())
    }
}

fn cell(value: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    };
    // What would come apart, or be something else, when the list is read again.
    let item = |value: &Value| {
        plain(value).filter(|item| {
            !value.is_string() || !item.trim().is_empty() && !item.contains([',', ';', '[', ']'])
        })
    };
    let row = |items: &Vec<Value>| {
        items.iter().map(item).collect::<Option<Vec<String>>>().map(|parts| parts.join(","))
    };
    let joined = match value {
        Value::Array(items) => row(items).or_else(|| {
            let rows = items.iter().map(|item| item.as_array().and_then(row));
            rows.collect::<Option<Vec<String>>>().map(|rows| rows.join(";"))
        }),
        other => plain(other),
    };
    joined.unwrap_or_else(|| value.to_string())
}

/// A CSV cell, in quotes if it holds a comma, a quote or a line break.
pub fn quote_csv(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::records::{Format, ReadOptions, Reader};
    use crate::files::atomic::tests::Scratch;

    fn rows() -> Vec<Map<String, Value>> {
        let rows = [
            json!({"text": "a b\\n \"c\", d", "label": "x", "probabilities": [0.25, 0.75]}),
            json!({"label": null, "text": "", "probabilities": [[1, 2], [3]], "more": {"k": 1}}),
        ];
        rows.into_iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    fn write(name: &str) -> (Scratch, PathBuf) {
        let scratch = Scratch::new("output");
        let path = scratch.path().join(name);
        let columns = ["text", "label", "probabilities"].map(str::to_string).to_vec();
        let place = OutputPlace::open(&path, OutputFormat::of(&path).unwrap()).unwrap();
        let mut output = place.start(columns).unwrap();
        for row in rows() {
            output.write(&row).unwrap();
        }
        assert!(!path.exists());
        output.finish().unwrap();
        (scratch, path)
    }

    #[test]
    fn texts_are_read_back_as_they_were() {
        // A TSV file that its program reads back must have the same backslashes.
        let (_scratch, path) = write("p.tsv");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "text\tlabel\tprobabilities\na b\\n \"c\", d\tx\t0.25,0.75\n\t\t1,2;3\n");
        let texts = [
            "C:\\new\\file",
            "",
            " a ",
            "\"quoted\"",
            "it's \"so\"",
            "a,b;c",
            "\u{feff}mark",
            "a\rb",
            "two\nlines",
            "two\r\nlines",
            "a\tb",
            "end\r",
            "[1, 2]",
            "007",
        ];
        for format in [OutputFormat::Tsv, OutputFormat::Csv, OutputFormat::JsonLines] {
            let mut refused = Vec::new();
            for text in texts {
                let scratch = Scratch::new("round");
                let path = scratch.path().join("p");
                let columns = vec!["text".to_string()];
                let mut output = OutputPlace::open(&path, format).unwrap().start(columns).unwrap();
                let row = json!({ "text": text });
                if let Err(error) = output.write(row.as_object().unwrap()) {
                    assert!(error.to_string().contains("row 1 of the output, column `text`"));
                    assert!(error.is_user_error());
                    refused.push(text);
                    continue;
                }
                output.finish().unwrap();
                let format = match format {
                    OutputFormat::Tsv => Format::Tsv,
                    OutputFormat::Csv => Format::Csv,
                    OutputFormat::JsonLines => Format::JsonLines,
                };
                let options = ReadOptions { format, ..ReadOptions::default() };
                let records = Reader::open(&path, options).unwrap().read_all().unwrap();
                assert_eq!(records.len(), 1, "{text:?}");
                assert_eq!(records[0].get("text"), Some(&json!(text)));
            }
            let tsv: &[&str] = &["two\nlines", "two\r\nlines", "a\tb", "end\r"];
            assert_eq!(refused, if format == OutputFormat::Tsv { tsv } else { &[] });
        }
    }

    #[test]
    fn lists_whose_items_would_come_apart_are_json() {
        for (value, text) in [
            (json!(["a", "b"]), "a,b"),
            (json!(["a,b", "c"]), "[\"a,b\",\"c\"]"),
            (json!(["[x]"]), "[\"[x]\"]"),
            (json!(["", "c"]), "[\"\",\"c\"]"),
            (json!([[1, null], [3]]), "1,;3"),
        ] {
            assert_eq!(cell(&value), text);
        }
    }

    #[test]
    fn csv_reads_back() {
        let (_scratch, path) = write("p.csv");
        let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
        let records = reader.read_all().unwrap();
        assert_eq!(records[0].get("text"), Some(&rows()[0]["text"]));
        assert_eq!(records[0].get("probabilities"), Some(&json!("0.25,0.75")));
        assert_eq!(records.len(), 2);
    }

    #[test]
    fn json_lines_keep_everything() {
        let (_scratch, path) = write("p.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Map<String, Value>> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, rows());
    }

    #[test]
    fn abandoned_output_leaves_nothing() {
        let scratch = Scratch::new("abandoned");
        let path = scratch.path().join("p.tsv");
        let place = OutputPlace::open(&path, OutputFormat::Tsv).unwrap();
        drop(place.start(vec!["a".to_string()]).unwrap());
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
