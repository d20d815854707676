//! JSON: one object per line, objects that span lines, or an array of objects. Objects are cut out of the bytes one
//! by one, so a file may be larger than memory, and only the wanted entries of an object become values, so those that
//! nobody asked for cost little.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::Fault;
use super::source::{Source, trim_end};
use crate::error::{DataError, excerpt};

/// How the objects of a file stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One on each line.
    Lines,
    /// One after the other, each over any number of lines.
    Spread,
    /// In an array.
    Array(Place),
}

/// Where in an array the next object is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before `[`.
    Begin,
    /// Behind an object.
    Next,
    /// Behind `]`.
    End,
}

/// How the objects of a file stand that begins with `start`. `by_line` says that its name promises one per line.
pub(super) fn layout(start: &[u8], by_line: bool) -> Layout {
    let text = start.trim_ascii_start();
    if text.first() == Some(&b'[') {
        return Layout::Array(Place::Begin);
    }
    let is_open = serde_json::from_slice::<IgnoredAny>(text).is_err_and(|error| error.is_eof());
    if !by_line && text.first() == Some(&b'{') && is_open { Layout::Spread } else { Layout::Lines }
}

/// The text of the next object, or of what stands in its place, and its line; none at the end.
pub(super) fn next_text(
    source: &mut Source,
    layout: &mut Layout,
    text: &mut Vec<u8>,
) -> Result<Option<u64>, Fault> {
    text.clear();
    match layout {
        Layout::Lines => {
            while source.next_line(text).map_err(Fault::Fatal)? {
                if !text.trim_ascii().is_empty() {
                    text.truncate(trim_end(text).len());
                    return Ok(Some(source.line()));
                }
            }
            return Ok(None);
        }
        Layout::Spread => {
            if skip_blank(source)?.is_none() {
                return Ok(None);
            }
        }
        Layout::Array(place) => {
            if !next_in_array(source, place)? {
                return Ok(None);
            }
        }
    }
    let line = source.line() + 1;
    cut(source, text, line)?;
    Ok(Some(line))
}

/// Goes to the next element of an array; false behind its end.
fn next_in_array(source: &mut Source, place: &mut Place) -> Result<bool, Fault> {
    let first = skip_blank(source)?;
    match (*place, first) {
        (Place::End, None) => return Ok(false),
        (Place::End, found) => return Err(broken(source, "nothing behind the array", found)),
        (Place::Begin, _) => {
            source.take(1);
            *place = Place::Next;
            if skip_blank(source)? != Some(b']') {
                return Ok(true);
            }
        }
        (Place::Next, Some(b',')) => {
            source.take(1);
            return match skip_blank(source)? {
                found @ (None | Some(b']' | b',')) => {
                    Err(broken(source, "an object behind the comma", found))
                }
                Some(_) => Ok(true),
            };
        }
        (Place::Next, Some(b']')) => {}
        (Place::Next, found) => {
            return Err(broken(source, "a comma or `]` behind an element of the array", found));
        }
    }
    source.take(1);
    *place = Place::End;
    next_in_array(source, place)
}

/// Takes blanks; the byte behind them, none at the end of the file.
fn skip_blank(source: &mut Source) -> Result<Option<u8>, Fault> {
    loop {
        let bytes = source.next_bytes().map_err(Fault::Fatal)?;
        let len = bytes.len();
        let at = bytes.iter().position(|byte| !byte.is_ascii_whitespace());
        let found = at.map(|at| bytes[at]);
        source.take(at.unwrap_or(len));
        if found.is_some() || len == 0 {
            return Ok(found);
        }
    }
}

fn broken(source: &Source, expected: &str, found: Option<u8>) -> Fault {
    let found = match found {
        Some(byte) => format!("`{}`", char::from(byte).escape_default()),
        None => "the end of the file".to_string(),
    };
    Fault::Fatal(
        DataError::new(source.path())
            .line(source.line() + 1)
            .expected(expected)
            .found(found)
            .remedy("correct the file; nothing behind this place can be read")
            .into(),
    )
}

/// Takes one JSON value, which begins here at `line`, into `text`: up to its closing bracket or quote, or for
/// anything else up to what may follow a value. Errors: too long; the end of the file inside of it.
fn cut(source: &mut Source, text: &mut Vec<u8>, line: u64) -> Result<(), Fault> {
    let mut balance = Balance::default();
    loop {
        let bytes = source.next_bytes().map_err(Fault::Fatal)?;
        if bytes.is_empty() {
            if balance.is_open() {
                return Err(broken(source, "the end of an object", None));
            }
            return Ok(());
        }
        let end = balance.end(bytes);
        let count = end.unwrap_or(bytes.len());
        text.extend_from_slice(&bytes[..count]);
        source.take(count);
        if source.exceeds_limit(text.len()) {
            return Err(Fault::Fatal(source.too_long(line).into()));
        }
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Follows brackets and quotes to the end of a value.
#[derive(Default)]
struct Balance {
    /// Whether anything was seen.
    begun: bool,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Balance {
    fn is_open(&self) -> bool {
        self.depth > 0 || self.in_text
    }

    /// Where in `bytes`, which follow those before, the value ends; none if it does not.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                if !self.is_open() {
                    return Some(at + 1);
                }
                continue;
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                // Behind a value without quotes or brackets; the first byte belongs to it whatever it is.
                b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'
                    if self.begun && !self.is_open() =>
                {
                    return Some(at);
                }
                _ => {}
            }
            self.begun = true;
        }
        None
    }
}

/// The text of an object, checked, of which the entries may be taken. Errors: no object, or no JSON.
pub(super) fn object<'t>(
    source: &Source,
    layout: Layout,
    text: &'t [u8],
    line: u64,
) -> Result<Entries<'t>, Fault> {
    let text = source.text(text, line)?.trim();
    let fault = |found: String, remedy: &str| {
        Fault::Row(
            DataError::new(source.path())
                .line(line)
                .expected("a JSON object")
                .found(found)
                .remedy(remedy)
                .into(),
        )
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        // serde_json counts lines within the text it was given.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let found = format!("{message} at position {}", error.column());
        let open = matches!(text, "[" | "{");
        let rest = error.column().checked_sub(1).and_then(|at| text.get(at..)).unwrap_or_default();
        let is_number = ["NaN", "Infinity", "-Infinity"].iter().any(|name| rest.starts_with(name));
        return Err(fault(
            found,
            if error.line() == 1 && is_number {
                "JSON has no such number; write null, or leave the key out"
            } else if open {
                "the file seems to be one JSON document; give one object per line, for instance \
                 with `jq -c`"
            } else {
                "correct the line"
            },
        ));
    }
    if text.starts_with('{') {
        return Ok(Entries { text, at: 1 });
    }
    if layout != Layout::Lines {
        let found = format!("`{}` in an array", excerpt(text));
        return Err(fault(
            found,
            "give objects such as {\"text\": \"...\"}, as `jq` can make them",
        ));
    }
    if text.starts_with('[') {
        return Err(fault(
            "an array".to_string(),
            "give one object per line, for instance with `jq -c '.[]'`",
        ));
    }
    Err(fault(
        format!("`{}`", excerpt(text)),
        "give one object per line, such as {\"text\": \"...\"}",
    ))
}

/// The entries of a JSON object as they stand in its text, which is valid.
#[derive(Clone)]
pub(super) struct Entries<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Entries<'t> {
    fn next_value(&mut self) -> Option<&'t str> {
        let bytes = self.text.as_bytes();
        let is_value = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b',' | b':');
        let begin = self.at + bytes[self.at..].iter().position(is_value)?;
        if bytes[begin] == b'}' {
            return None;
        }
        let end = Balance::default().end(&bytes[begin..]);
        self.at = end.map_or(bytes.len(), |end| begin + end);
        Some(&self.text[begin..self.at])
    }
}

impl<'t> Iterator for Entries<'t> {
    /// Key, with its quotes, and value.
    type Item = (&'t str, &'t str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.next_value()?, self.next_value()?))
    }
}

/// The name that a key stands for; none if it is no text in UTF-8 (a lone surrogate).
pub(super) fn name(key: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = key.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str::<String>(key).ok().map(Into::into);
    }
    Some(inner.into())
}

/// A value from its text. With `as_text`, numbers and truth values are the texts that stand in the file, as in other
/// formats.
pub(super) fn value(text: &str, as_text: bool) -> Result<Value, String> {
    let is_plain = text.starts_with(|first: char| !matches!(first, '"' | '{' | '[' | 'n'));
    if as_text && is_plain {
        return Ok(Value::String(text.to_string()));
    }
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        message.split(" at line ").next().unwrap_or_default().to_string()
    })
}
