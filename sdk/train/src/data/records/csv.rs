//! Rows separated by commas, or another character, with the quotes of RFC 4180: a cell that starts with `"` runs to
//! the next single `"`, may hold separators and line breaks, and writes a quote as `""`. A quote inside a cell that
//! does not start with one is itself.

use super::source::{Source, trim_end};
use super::{Fault, MOST_COLUMNS};
use crate::error::{DataError, excerpt};

/// The next row's first line and cells; none at the end. Blank lines between rows are skipped.
pub(super) fn next_row(
    source: &mut Source,
    line: &mut Vec<u8>,
    separator: u8,
) -> Result<Option<(u64, Vec<String>)>, Fault> {
    loop {
        if !source.next_line(line).map_err(Fault::Fatal)? {
            return Ok(None);
        }
        if !trim_end(line).is_empty() {
            break;
        }
    }
    let first = source.line();
    let mut cells: Vec<Vec<u8>> = Vec::new();
    let mut position = 0;
    let mut size = 0;
    loop {
        let mut cell = Vec::new();
        if line.get(position) == Some(&b'"') {
            position = quoted(source, line, position + 1, first, &mut cell)?;
            let rest = trim_end(&line[position.min(line.len())..]);
            if !rest.is_empty() && rest[0] != separator {
                let rest = String::from_utf8_lossy(rest).into_owned();
                return Err(Fault::Row(
                    DataError::new(source.path())
                        .line(source.line())
                        .expected(format!(
                            "{} or the end of the line after a closing quote",
                            named(separator)
                        ))
                        .found(format!("`{}`", excerpt(&rest)))
                        .remedy("write a quote inside a quoted text as two quotes")
                        .into(),
                ));
            }
        } else {
            let rest = trim_end(&line[position..]);
            let end = rest.iter().position(|&byte| byte == separator).unwrap_or(rest.len());
            cell.extend_from_slice(&rest[..end]);
            position += end;
        }
        size += cell.len();
        if source.exceeds_limit(size) {
            return Err(Fault::Fatal(source.too_long(first).into()));
        }
        if cells.len() == MOST_COLUMNS {
            return Err(source.too_many_cells(first));
        }
        cells.push(cell);
        if line.get(position) == Some(&separator) {
            position += 1;
        } else {
            break;
        }
    }
    let mut texts = Vec::with_capacity(cells.len());
    for cell in cells {
        texts.push(source.text(&cell, first)?.to_string());
    }
    Ok(Some((first, texts)))
}

fn named(separator: u8) -> String {
    match separator {
        b',' => "a comma".to_string(),
        other => format!("`{}`", char::from(other).escape_default()),
    }
}

/// Reads a quoted cell from `position`, behind its opening quote, into `cell`, going on to further lines as needed;
/// returns the position in `line` behind the closing quote.
fn quoted(
    source: &mut Source,
    line: &mut Vec<u8>,
    mut position: usize,
    first: u64,
    cell: &mut Vec<u8>,
) -> Result<usize, Fault> {
    loop {
        match line[position..].iter().position(|&byte| byte == b'"') {
            Some(offset) => {
                cell.extend_from_slice(&line[position..position + offset]);
                position += offset + 1;
                if line.get(position) != Some(&b'"') {
                    return Ok(position);
                }
                cell.push(b'"');
                position += 1;
            }
            None => {
                cell.extend_from_slice(&line[position..]);
                if source.exceeds_limit(cell.len()) {
                    return Err(Fault::Fatal(source.too_long(first).into()));
                }
                position = 0;
                if !source.next_line(line).map_err(Fault::Fatal)? {
                    return Err(Fault::Fatal(
                        DataError::new(source.path())
                            .line(first)
                            .expected("a closing quote for a cell of this row")
                            .found("the end of the file")
                            .remedy("close the quote, or use TSV, which has no quoting")
                            .into(),
                    ));
                }
            }
        }
    }
}
