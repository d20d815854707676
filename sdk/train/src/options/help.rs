//! The help text of a component's options, made from the same schema that checks them.

use serde_json::{Map, Value};

use super::validate::{display, range, type_names, types};

/// The column at which descriptions are broken.
const WIDTH: usize = 96;

/// One paragraph per option, in the schema's order: its dotted key behind `prefix`, type, range, choices, default, and
/// its description below. Empty when there are no options.
pub fn help(schema: &Value, prefix: &str) -> String {
    let mut text = String::new();
    if let Some(schema) = schema.as_object() {
        write_group(&mut text, schema, prefix);
    }
    text
}

fn write_group(text: &mut String, schema: &Map<String, Value>, prefix: &str) {
    // In a group that may be absent as a whole nothing is required.
    let is_needed = !types(schema).contains(&"null");
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .filter(|_| is_needed)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (key, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let key_path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let Some(inner) = inner.as_object() else { continue };
        if inner.contains_key("properties") {
            write_description(text, inner, &format!("  {key_path}: "), "    ");
            write_group(text, inner, &key_path);
            continue;
        }
        text.push_str(&format!("  {key_path} = {}", type_names(inner)));
        if let Some(range) = range(inner) {
            text.push_str(&format!(", {range}"));
        }
        if let Some(Value::Array(choices)) = inner.get("enum") {
            let choices: Vec<String> = choices.iter().map(display).collect();
            text.push_str(&format!(" ({})", choices.join(" | ")));
        }
        if let Some(default) = inner.get("default") {
            let default = display(default);
            let shown = if default.is_empty() { "empty" } else { &default };
            text.push_str(&format!(" [default: {shown}]"));
        } else if required.contains(&key.as_str()) {
            text.push_str(" [required]");
        }
        text.push('\n');
        write_description(text, inner, "      ", "      ");
    }
}

/// Writes the description, broken at spaces, with `first` before its first line and `indent` before the others.
fn write_description(text: &mut String, schema: &Map<String, Value>, first: &str, indent: &str) {
    let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    if description.is_empty() {
        if !first.trim().is_empty() {
            text.push_str(first.trim_end_matches([':', ' ']));
            text.push('\n');
        }
        return;
    }
    let mut line = first.to_string();
    let mut empty = true;
    for word in description.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = indent.to_string();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_required_in_a_group_that_may_be_absent() {
        let group = |kind| {
            json!({"properties": {"loss": {"type": kind, "required": ["name"],
                "properties": {"name": {"type": "string"}}}}})
        };
        assert!(help(&group(json!("object")), "").contains("[required]"));
        assert!(!help(&group(json!(["object", "null"])), "").contains("[required]"));
    }

    #[test]
    fn help_shows_type_range_default_and_text() {
        let schema = json!({"properties": {
            "lr": {"type": "number", "exclusiveMinimum": 0, "default": 5e-5,
                   "description": "peak learning rate"},
            "mode": {"type": "string", "enum": ["a", "b"]},
            "lora": {"description": "low-rank adapters",
                     "properties": {"rank": {"type": "integer", "description": "x ".repeat(80)}}}
        }, "required": ["mode"]});
        let text = help(&schema, "optimizer");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("  optimizer.lr = a number, above 0 [default: 0.00005]"));
        assert_eq!(lines.next(), Some("      peak learning rate"));
        assert_eq!(lines.next(), Some("  optimizer.mode = a string (a | b) [required]"));
        assert_eq!(lines.next(), Some("  optimizer.lora: low-rank adapters"));
        assert_eq!(lines.next(), Some("  optimizer.lora.rank = an integer"));
        assert_eq!(lines.count(), 2);
        assert!(text.lines().all(|line| line.len() <= WIDTH));
    }
}
