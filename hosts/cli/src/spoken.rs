//! What the library calls its settings, as the flags of the command. The library knows no flags: it speaks of
//! `overwrite=true` or `columns.text=sentence`, which every program sets in its own way.

/// Settings that are flags of the same name.
const FLAGS: [&str; 13] = [
    "allow_missing",
    "device",
    "encoder",
    "from_scratch",
    "on_bad_row",
    "output_format",
    "overwrite",
    "precision",
    "resume",
    "schema",
    "threads",
    "valid",
    "output",
];

/// A message of the library with the command's flags in the place of settings.
pub fn spoken(message: &str) -> String {
    let parts: Vec<&str> = message.split('`').collect();
    let last = parts.len() - 1;
    let part = |(index, part): (usize, &&str)| {
        // What stands between two marks.
        let quoted = index % 2 == 1 && index < last;
        quoted.then(|| flag(part)).flatten().unwrap_or_else(|| (*part).to_owned())
    };
    parts.iter().enumerate().map(part).collect::<Vec<_>>().join("`")
}

/// The flag that sets `setting`, `key=value`; what has no value may be anybody's word.
fn flag(setting: &str) -> Option<String> {
    let (key, value) = setting.split_once('=')?;
    let name = match (key.strip_prefix("columns."), key.strip_prefix("valid_columns.")) {
        (Some(role), _) => role.to_owned(),
        (_, Some(role)) => format!("valid-{role}"),
        _ if FLAGS.contains(&key) => key.to_owned(),
        _ => return None,
    };
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if name.is_empty() || !is_name(&name) {
        return None;
    }
    let flag = format!("--{}", name.replace('_', "-"));
    Some(if value == "true" { flag } else { format!("{flag} {value}") })
}

#[cfg(test)]
mod tests {
    use super::spoken;

    #[test]
    fn settings_become_flags_and_nothing_else_does() {
        for (message, expected) in [
            ("say `overwrite=true` to replace it", "say `--overwrite` to replace it"),
            ("skip such rows with `on_bad_row=skip`", "skip such rows with `--on-bad-row skip`"),
            (
                "`a.tsv`: did you mean `columns.text_pair=b`?",
                "`a.tsv`: did you mean `--text-pair b`?",
            ),
            (
                "add `valid_columns.text=x` (from `columns.text=y`)",
                "add `--valid-text x` (from `--text y`)",
            ),
            ("name it (`encoder=DIR`)", "name it (`--encoder DIR`)"),
            // Names of the user's.
            (
                "`columns.tsv`: the columns `schema`, `a=b`",
                "`columns.tsv`: the columns `schema`, `a=b`",
            ),
            ("`overwrite=true", "`overwrite=true"),
            ("option `lr`: expected a number", "option `lr`: expected a number"),
            ("", ""),
        ] {
            assert_eq!(spoken(message), expected);
        }
    }
}
