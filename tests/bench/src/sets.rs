//! Real lines for the benches, each set as one file that both sides read: a header, then label, text and, for pairs,
//! the second text, separated by tabs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use easytransfer_tests::places;
use serde_json::Value;

/// A set on disk.
pub struct Set {
    /// "sst-2", "mrpc" or "squad".
    pub name: &'static str,
    /// Lines to train on.
    pub train: PathBuf,
    /// Other lines.
    pub valid: PathBuf,
    /// Most tokens of a row.
    pub max_length: usize,
}

/// Writes `lines` training lines of a set, and up to `valid` others, into `folder`. A set with fewer lines is
/// repeated from its begin.
///
/// SST-2: single short texts. MRPC: pairs of sentences. SQuAD: a question and its paragraph, cut to 384 tokens, with
/// a label that only says whether the question is long; the text is what matters here.
pub fn prepare(name: &str, folder: &Path, lines: usize, valid: usize) -> Set {
    let data = places::shared().join("data");
    let (name, rows, others, max_length) = match name {
        "sst-2" => {
            let (rows, others) = (
                table(&data.join("sst-2/train.tsv"), &[0, 1]),
                table(&data.join("sst-2/dev.tsv"), &[0, 1]),
            );
            ("sst-2", rows, others, 128)
        }
        "mrpc" => {
            let read =
                |part: &str| table(&data.join(format!("mrpc/msr-para-{part}.tsv")), &[0, 3, 4]);
            ("mrpc", read("train"), read("test"), 128)
        }
        "squad" => {
            let all = questions(&data.join("squad-v1.1/dev-v1.1.json"));
            let others = all[all.len() - 570..].to_vec();
            ("squad", all[..all.len() - 570].to_vec(), others, 384)
        }
        other => panic!("--sets: expected sst-2, mrpc or squad, found {other}"),
    };
    std::fs::create_dir_all(folder).expect("a folder");
    let write = |path: PathBuf, rows: &[Vec<String>], count: usize| {
        let head = if rows[0].len() == 3 { "label\ttext\ttext_pair" } else { "label\ttext" };
        let mut text = format!("{head}\n");
        for row in rows.iter().cycle().take(count) {
            writeln!(text, "{}", row.join("\t")).expect("a string");
        }
        std::fs::write(&path, text).expect("the file");
        path
    };
    let valid_len = others.len().min(valid);
    Set {
        name,
        train: write(folder.join(format!("{name}-train.tsv")), &rows, lines),
        valid: write(folder.join(format!("{name}-valid.tsv")), &others, valid_len),
        max_length,
    }
}

/// Some columns of a file with a header.
fn table(path: &Path, columns: &[usize]) -> Vec<Vec<String>> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cells = |line: &str| {
        let cells: Vec<&str> = line.trim_end_matches('\r').split('\t').collect();
        columns.iter().map(|&column| cells.get(column).unwrap_or(&"").to_string()).collect()
    };
    text.lines().skip(1).filter(|line| !line.is_empty()).map(cells).collect()
}

/// Questions with their paragraphs.
fn questions(path: &Path) -> Vec<Vec<String>> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let line = |text: &Value| {
        text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut rows = Vec::new();
    for paragraph in value["data"]
        .as_array()
        .expect("articles")
        .iter()
        .flat_map(|a| a["paragraphs"].as_array().expect("paragraphs"))
    {
        for question in paragraph["qas"].as_array().expect("questions") {
            let asked = line(&question["question"]);
            let label = if asked.len() > 55 { "1" } else { "0" };
            rows.push(vec![label.to_owned(), asked, line(&paragraph["context"])]);
        }
    }
    rows
}
