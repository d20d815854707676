//! Tab-separated rows without quoting, and plain text.

use super::source::{Source, trim_end};
use super::{Fault, MOST_COLUMNS};

/// The next row's line and cells; none at the end. A blank line is skipped when `skip_blank`.
pub(super) fn next_row(
    source: &mut Source,
    line: &mut Vec<u8>,
    skip_blank: bool,
) -> Result<Option<(u64, Vec<String>)>, Fault> {
    while source.next_line(line).map_err(Fault::Fatal)? {
        let row = trim_end(line);
        if row.is_empty() && skip_blank {
            continue;
        }
        let number = source.line();
        if row.iter().filter(|&&byte| byte == b'\t').count() >= MOST_COLUMNS {
            return Err(source.too_many_cells(number));
        }
        let text = source.text(row, number)?;
        return Ok(Some((number, text.split('\t').map(str::to_string).collect())));
    }
    Ok(None)
}

/// The next line of a plain text file as the one cell of a row; none at the end.
pub(super) fn next_text(
    source: &mut Source,
    line: &mut Vec<u8>,
) -> Result<Option<(u64, Vec<String>)>, Fault> {
    if !source.next_line(line).map_err(Fault::Fatal)? {
        return Ok(None);
    }
    let number = source.line();
    let text = source.text(trim_end(line), number)?;
    Ok(Some((number, vec![text.to_string()])))
}
