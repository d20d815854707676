//! One JSON object per line.

use serde_json::Value;

use super::source::{Source, trim_end};
use super::{Fault, Object};
use crate::error::{DataError, excerpt};

/// The next object and its line; none at the end. Blank lines are skipped.
pub(super) fn next_object(
    source: &mut Source,
    line: &mut Vec<u8>,
) -> Result<Option<Object>, Fault> {
    loop {
        if !source.next_line(line).map_err(Fault::Fatal)? {
            return Ok(None);
        }
        if !line.trim_ascii().is_empty() {
            break;
        }
    }
    let number = source.line();
    let text = source.text(trim_end(line), number)?;
    let fault = |found: String, remedy: &str| {
        Fault::Row(
            DataError::new(source.path())
                .line(number)
                .expected("a JSON object")
                .found(found)
                .remedy(remedy)
                .into(),
        )
    };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => Ok(Some((number, object))),
        Ok(Value::Array(_)) => Err(fault(
            "an array".to_string(),
            "give one object per line, for instance with `jq -c '.[]'`",
        )),
        Ok(other) => Err(fault(
            format!("`{}`", excerpt(&other.to_string())),
            "give one object per line, such as {\"text\": \"...\"}",
        )),
        Err(error) => {
            // serde_json counts lines within the text it was given, which is one line.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let found = format!("{message} at position {}", error.column());
            let open = matches!(text.trim(), "[" | "{");
            Err(fault(
                found,
                if open {
                    "the file seems to be one JSON document; give one object per line, for instance \
                     with `jq -c`"
                } else {
                    "correct the line"
                },
            ))
        }
    }
}
