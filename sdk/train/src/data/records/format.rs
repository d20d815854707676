//! Which format a file has.

use std::path::Path;

use super::source::Source;
use crate::error::Result;

/// The format of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// By the name's ending (`.tsv`, `.csv`, `.json`, `.jsonl`, `.ndjson`, `.txt`, each also with `.gz`), except that
    /// a `.csv` with a tab in its first line is TSV. A file with a schema, or with another name, and standard input
    /// are judged by the first line: `{` or `[{` means JSON, a tab TSV, a comma together with a schema CSV, anything
    /// else text (TSV when there is a schema).
    #[default]
    Auto,
    /// Tab-separated, no quoting.
    Tsv,
    /// Comma-separated with RFC 4180 quotes.
    Csv,
    /// JSON objects: one per line, over many lines, or in an array.
    JsonLines,
    /// One text per line, column `text`.
    Text,
}

impl Format {
    /// All formats that a file can have.
    pub const ALL: [Format; 4] = [Format::Tsv, Format::Csv, Format::JsonLines, Format::Text];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::Auto => "data",
            Format::Tsv => "TSV",
            Format::Csv => "CSV",
            Format::JsonLines => "JSON Lines",
            Format::Text => "plain text",
        }
    }

    /// The options of [`ReadOptions`](super::ReadOptions) that reading this format honours; one that is set and not among them is an
    /// error that names it.
    pub fn honours(self) -> &'static [&'static str] {
        match self {
            Format::JsonLines | Format::Text => &["format", "wanted", "on_bad_row"],
            _ => &["format", "schema", "wanted", "on_bad_row"],
        }
    }
}

/// The ending of a file's name in lower case, but for `.gz`.
pub(super) fn ending(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    Some(Path::new(name).extension()?.to_str()?.to_string())
}

/// The format of a file whose options do not say it.
pub(super) fn guess(source: &mut Source, has_schema: bool) -> Result<Format> {
    let ending = ending(source.path());
    let ending = ending.as_deref();
    match ending {
        Some("tsv") => return Ok(Format::Tsv),
        Some("jsonl" | "ndjson" | "json") => return Ok(Format::JsonLines),
        Some("txt" | "text") if !has_schema => return Ok(Format::Text),
        _ => {}
    }
    let first = source.peek_start()?;
    let start = first.trim_ascii();
    // A text may begin with a bracket too, but hardly with these two.
    let is_array = start == b"["
        || start.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{"));
    Ok(match start.first() {
        Some(b'{') if ending != Some("csv") => Format::JsonLines,
        _ if is_array && ending != Some("csv") => Format::JsonLines,
        _ if ending == Some("csv") && first.starts_with(b"sep=") => Format::Csv,
        // Files of EasyTransfer and others are called `.csv` and separated by tabs all the same.
        _ if first.contains(&b'\t') => Format::Tsv,
        _ if ending == Some("csv") && !has_schema => Format::Csv,
        _ if has_schema && first.contains(&b',') => Format::Csv,
        _ if has_schema => Format::Tsv,
        _ => Format::Text,
    })
}
