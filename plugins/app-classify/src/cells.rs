//! Cells that hold several labels: lists as JSON has them, as Python and NumPy print them into CSV files, or texts
//! with a separator; and rows of 0 and 1 with a place for every class.

use easytransfer_plugin::{Error, Result};
use serde_json::Value;

/// The labels in a cell of a text: a list in brackets, whose items may stand in quotes, or parts between `separator`.
pub fn parts(text: &str, separator: &str) -> Result<Vec<String>> {
    let text = text.trim();
    if let Some(list) = list(text) {
        return list.ok_or_else(|| {
            let expected =
                format!("a list such as [\"a\", \"b\"], or labels between {separator:?}");
            Error::record("label", expected, text)
        });
    }
    let parts = text.split(separator).map(str::trim).filter(|part| !part.is_empty());
    Ok(parts.map(str::to_owned).collect())
}

/// What stands in brackets: in `[]` anything, in the others, as Python prints tuples and sets, items in quotes.
fn inside(text: &str) -> Option<&str> {
    let within = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let is_quoted = |inner: &&str| inner.trim_start().starts_with(['\'', '"']);
    within('[', ']').or_else(|| within('(', ')').or_else(|| within('{', '}')).filter(is_quoted))
}

/// The items of a text in brackets; the inner `None` is a list that is not written as one.
fn list(text: &str) -> Option<Option<Vec<String>>> {
    let inner = inside(text)?;
    if let Ok(Value::Array(values)) = serde_json::from_str(text) {
        return Some(values.iter().map(plain).collect());
    }
    let mut items = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (item, behind) = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                let Some(found) = quoted(&rest[1..], quote) else { return Some(None) };
                found
            }
            _ => {
                // NumPy puts blanks between numbers and no commas.
                let numbers = !inner.contains(',') && !inner.contains(['\'', '"']);
                let end = rest.find(|c: char| c == ',' || numbers && c.is_whitespace());
                let (item, behind) = rest.split_at(end.unwrap_or(rest.len()));
                (item.trim().to_owned(), behind)
            }
        };
        items.push(item);
        let behind = behind.trim_start();
        rest = behind.strip_prefix(',').unwrap_or(behind).trim_start();
    }
    Some(items.iter().all(|item| !item.is_empty()).then_some(items))
}

/// The text up to a closing quote, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => item.push(characters.next()?.1),
            _ if character == quote => return Some((item.trim().to_owned(), &text[at + 1..])),
            other => item.push(other),
        }
    }
    None
}

/// A label of a list; none for what is no text, number or truth value, or empty.
pub fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Whether a text in a cell of one label is a list of several in quotes.
pub fn is_quoted_list(text: &str) -> bool {
    let inner = inside(text.trim());
    inner.is_some_and(|inner| inner.trim_start().starts_with(['\'', '"']))
        && list(text.trim()).is_some_and(|items| items.is_some())
}

/// What the labels of a cell say if they are a row of 0 and 1 with a place for every class: at least two of them.
pub fn flags(parts: &[String]) -> Option<Vec<bool>> {
    if parts.len() < 2 {
        return None;
    }
    let flag = |part: &String| match part.as_str() {
        "0" | "0." | "0.0" | "false" | "False" => Some(false),
        "1" | "1." | "1.0" | "true" | "True" => Some(true),
        _ => None,
    };
    parts.iter().map(flag).collect()
}

/// Whether something stands twice in a cell, as no list of names has it but nearly every row of 0 and 1.
pub fn repeats(parts: &[String]) -> bool {
    (1..parts.len()).any(|at| parts[..at].contains(&parts[at]))
}

/// A whole number without the zeros behind its point ("1.0" is "1"); none for anything else, and for one without a
/// point.
pub fn whole(text: &str) -> Option<&str> {
    let (number, zeros) = text.split_once('.')?;
    let digits = number.strip_prefix('-').unwrap_or(number);
    let all = |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|b| is(&b));
    (all(digits, u8::is_ascii_digit) && all(zeros, |byte| *byte == b'0')).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_their_writers_mean_them() {
        for (text, expected) in [
            ("a, b", &["a", "b"][..]),
            ("['a', 'b']", &["a", "b"]),
            ("[\"a, c\", \"b\"]", &["a, c", "b"]),
            ("['it\\'s', \"say \\\"x\\\"\"]", &["it's", "say \"x\""]),
            ("[1, 0, 1]", &["1", "0", "1"]),
            ("[1 0 1]", &["1", "0", "1"]),
            ("[1. 0. 1.]", &["1.", "0.", "1."]),
            ("[a, b c]", &["a", "b c"]),
            ("['a' 'b']", &["a", "b"]),
            ("('a', 'b')", &["a", "b"]),
            ("('a',)", &["a"]),
            ("{'a'}", &["a"]),
            ("(none), {x}", &["(none)", "{x}"]),
            ("[]", &[]),
            ("", &[]),
        ] {
            assert_eq!(parts(text, ",").unwrap(), expected, "{text}");
        }
        assert_eq!(parts("a|b", "|").unwrap(), ["a", "b"]);
        for text in ["['a]", "[,]", "[[1], [2]]", "[null]", "['']"] {
            let error = parts(text, ",").unwrap_err();
            assert!(error.message().contains("expected a list such as"), "{text}: {error:?}");
        }
    }

    #[test]
    fn lists_survive_damage() {
        // Every cut and every change of one byte to a special one must be read or refused.
        let original = "['a\\'b', \"c\", 1.5, None, é]";
        for at in 0..original.len() {
            for special in ["", "'", "\"", "\\", "[", "]", ",", " "] {
                for end in [at, at + 1] {
                    let (Some(head), Some(tail)) = (original.get(..at), original.get(end..)) else {
                        continue;
                    };
                    let _ = parts(&format!("{head}{special}{tail}"), ",");
                    let _ = is_quoted_list(&format!("{head}{special}"));
                }
            }
        }
    }

    #[test]
    fn flags_are_rows_of_zeros_and_ones() {
        let owned =
            |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(flags(&owned(&["1", "0.0", "True"])), Some(vec![true, false, true]));
        assert_eq!(flags(&owned(&["1"])), None);
        assert_eq!(flags(&owned(&["1", "2"])), None);
        assert!(repeats(&owned(&["1", "0", "1"])) && !repeats(&owned(&["1", "0"])));
    }

    #[test]
    fn whole_numbers_lose_their_zeros() {
        assert_eq!((whole("1.0"), whole("-3.00"), whole("1.5")), (Some("1"), Some("-3"), None));
        assert_eq!((whole("1"), whole("007"), whole(".0"), whole("1.")), (None, None, None, None));
    }
}
