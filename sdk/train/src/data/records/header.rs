//! What the start of a file says of its columns, in the ways in which pandas, spreadsheets and their like write them.

use super::json::Entries;
use super::source::{Source, trim_end};
use crate::error::{DataError, Result, excerpt};
use crate::nearest::quoted_list;

/// The names in a header line, without blanks around them, and how many columns there are up to the last with a name.
/// A column without one is called `Unnamed: N`, which is what pandas calls it.
pub(super) fn names(cells: Vec<String>) -> (Vec<String>, usize) {
    let is_named = |cell: &String| !cell.trim().is_empty();
    let named = cells.iter().rposition(is_named).map_or(0, |last| last + 1);
    let name = |(at, cell): (usize, String)| match cell.trim() {
        "" => format!("Unnamed: {at}"),
        name => name.to_string(),
    };
    (cells.into_iter().enumerate().map(name).collect(), named)
}

/// What separates the cells of a CSV file: what a first line `sep=;`, which is taken, says, as spreadsheets read and
/// write it; with a header, `;` if that has some and no comma; otherwise a comma. Errors: more or less than one
/// character behind `sep=`.
pub(super) fn separator(source: &mut Source, line: &mut Vec<u8>, has_header: bool) -> Result<u8> {
    let first = source.peek_start()?;
    if let Some(said) = trim_end(first).strip_prefix(b"sep=") {
        if let [separator] = *said {
            source.next_line(line)?;
            return Ok(separator);
        }
        let found = format!("`{}`", excerpt(&String::from_utf8_lossy(said)));
        let error = DataError::new(source.path()).line(1);
        return Err(error.expected("one character behind `sep=`").found(found).into());
    }
    let semicolons = has_header && first.contains(&b';') && !first.contains(&b',');
    Ok(if semicolons { b';' } else { b',' })
}

/// Where a file whose lines end with carriage returns alone, as on old Macs, has the first of them. `start` is its
/// first line.
pub(super) fn old_line_ends(start: &[u8]) -> Option<usize> {
    if start.ends_with(b"\n") {
        return None;
    }
    let at = start.iter().position(|&byte| byte == b'\r')?;
    (at + 1 < start.len()).then_some(at)
}

/// Whether all values of an object are lists, or all are objects: its keys then.
pub(super) fn are_columns(entries: Entries<'_>) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut open = None;
    for (key, value) in entries {
        let bracket = value.chars().next().filter(|first| matches!(first, '[' | '{'))?;
        if *open.get_or_insert(bracket) != bracket {
            return None;
        }
        keys.push(key.trim_matches('"').to_string());
    }
    (!keys.is_empty()).then_some(keys)
}

/// The error for a file that is one object with `keys`, all of which hold many values.
pub(super) fn columns_object(source: &Source, keys: &[String]) -> DataError {
    let found = match keys {
        [key] => format!("one object that holds all under `{key}`"),
        keys => format!(
            "one object that holds a column under each key: {}",
            quoted_list(keys.iter().map(String::as_str))
        ),
    };
    let remedy = match keys {
        [key] => format!("take the rows out, for instance with `jq -c '.{key}[]'`"),
        _ => "write it by rows, in pandas with `to_json(path, orient=\"records\", lines=True)`"
            .to_string(),
    };
    DataError::new(source.path()).expected("one JSON object per row").found(found).remedy(remedy)
}
