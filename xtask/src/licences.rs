//! The licences of everything that is built from: each must be one that `deny.toml` allows, read against `cargo
//! metadata`, so the check runs wherever cargo does. The same list, with the texts, goes into a distribution.

use crate::{Context, Failure, process};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};
use toml::Table;

/// What `deny.toml` says under `[licenses]`.
struct Rules {
    allowed: BTreeSet<String>,
    /// By crate.
    exceptions: BTreeMap<String, BTreeSet<String>>,
}

/// Checks every package that the workspace depends on. Errors: all packages whose licence is not allowed, one per
/// line.
pub fn run(context: &Context) -> Result<(), Failure> {
    let metadata = metadata(context)?;
    let path = context.root.join("deny.toml");
    let text =
        fs::read_to_string(&path).map_err(|error| Failure(format!("read deny.toml: {error}")))?;
    let rules = rules(&text).map_err(|error| Failure(format!("deny.toml: {error}")))?;
    let refused = refused(&metadata, &rules);
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("licences that deny.toml does not allow:\n  {}", refused.join("\n  "))))
}

/// Checks that no crate is built from which `deny.toml` bans whoever asks for it. Errors: all of them, one per line.
pub fn bans(context: &Context) -> Result<(), Failure> {
    let path = context.root.join("deny.toml");
    let text =
        fs::read_to_string(&path).map_err(|error| Failure(format!("read deny.toml: {error}")))?;
    let table: Table =
        text.parse().map_err(|error: toml::de::Error| Failure(format!("deny.toml: {error}")))?;
    let found = banned(&metadata(context)?, &table);
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("crates that deny.toml bans:\n  {}", found.join("\n  "))))
}

/// Packages from a registry that stand under `[bans] deny` without crates that may ask for them.
fn banned(metadata: &Value, table: &Table) -> Vec<String> {
    let entries = table.get("bans").and_then(|bans| bans.get("deny")?.as_array());
    let names: BTreeSet<&str> = entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("wrappers").is_none())
        .filter_map(|entry| entry.get("crate")?.as_str()?.split('@').next())
        .collect();
    packages_of(metadata)
        .filter(|package| !package["source"].is_null() && names.contains(field(package, "name")))
        .map(|package| format!("{} {}", field(package, "name"), field(package, "version")))
        .collect()
}

/// Name, version, licence and texts of everything that `package` is built from and that is not of this workspace,
/// build tools and tests left out.
pub fn third_party(context: &Context, packages: &[&str]) -> Result<String, Failure> {
    let metadata = metadata(context)?;
    let ids = linked(&metadata, packages);
    let mut found: Vec<&Value> = packages_of(&metadata)
        .filter(|package| !package["source"].is_null())
        .filter(|package| package["id"].as_str().is_some_and(|id| ids.contains(id)))
        .collect();
    found.sort_by_key(|package| (package["name"].as_str(), package["version"].as_str()));
    let mut list =
        "EasyTransfer's programs and libraries are built from these packages.\n\n".to_owned();
    // Most packages bring the same texts; each is printed once.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in found {
        let name = format!("{} {}", field(package, "name"), field(package, "version"));
        // Writing to a String cannot fail.
        let _ = writeln!(list, "{name}: {}", field(package, "license"));
        let folder = Path::new(field(package, "manifest_path")).parent().unwrap_or(Path::new(""));
        for text in licence_texts(folder) {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, names) in texts {
        let _ = write!(list, "\n{}\n{}\n\n{}\n", "-".repeat(80), names.join(", "), text.trim_end());
    }
    Ok(list)
}

fn metadata(context: &Context) -> Result<Value, Failure> {
    let arguments = ["metadata", "--format-version", "1", "--locked"];
    let text = process::output(&mut process::cargo(context, arguments))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure(format!("read the output of cargo metadata: {error}")))
}

fn packages_of(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn field<'a>(package: &'a Value, name: &str) -> &'a str {
    package[name].as_str().unwrap_or_default()
}

fn rules(text: &str) -> Result<Rules, String> {
    let table: Table = text.parse().map_err(|error| format!("{error}"))?;
    let strings = |value: Option<&toml::Value>| -> BTreeSet<String> {
        let values = value.and_then(toml::Value::as_array).into_iter().flatten();
        values.filter_map(toml::Value::as_str).map(str::to_owned).collect()
    };
    let licenses = table.get("licenses").ok_or("expected a table `licenses`")?;
    let allowed = strings(licenses.get("allow"));
    if allowed.is_empty() {
        return Err("licenses.allow: expected at least one licence".to_owned());
    }
    let exceptions = licenses.get("exceptions").and_then(toml::Value::as_array);
    let exceptions = exceptions.into_iter().flatten().filter_map(|one| {
        Some((one.get("crate")?.as_str()?.to_owned(), strings(one.get("allow"))))
    });
    Ok(Rules { allowed, exceptions: exceptions.collect() })
}

/// Packages whose licence is not allowed, as text.
fn refused(metadata: &Value, rules: &Rules) -> Vec<String> {
    packages_of(metadata)
        .filter_map(|package| {
            let (name, version) = (field(package, "name"), field(package, "version"));
            let Some(licence) = package["license"].as_str() else {
                return Some(format!("{name} {version}: it names no licence"));
            };
            let more = rules.exceptions.get(name);
            let is_allowed =
                |id: &str| rules.allowed.contains(id) || more.is_some_and(|more| more.contains(id));
            match holds(licence, &is_allowed) {
                Some(true) => None,
                Some(false) => Some(format!("{name} {version}: {licence}")),
                None => Some(format!("{name} {version}: {licence:?} is no licence expression")),
            }
        })
        .collect()
}

/// Whether an SPDX expression (`A OR B`, `A AND (B OR C)`, `A WITH x`, and the old `A/B`) is satisfied; None when it
/// cannot be read.
fn holds(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let value = either(&mut rest, is_allowed)?;
    rest.is_empty().then_some(value)
}

fn either(words: &mut &[&str], is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut value = both(words, is_allowed)?;
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        value |= both(words, is_allowed)?;
    }
    Some(value)
}

fn both(words: &mut &[&str], is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut value = single(words, is_allowed)?;
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        value &= single(words, is_allowed)?;
    }
    Some(value)
}

fn single(words: &mut &[&str], is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let value = either(words, is_allowed)?;
            let [")", rest @ ..] = *words else { return None };
            *words = rest;
            Some(value)
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(is_allowed(&format!("{licence} WITH {exception}")))
        }
        [licence, rest @ ..] if !matches!(*licence, ")" | "OR" | "AND" | "WITH") => {
            *words = rest;
            Some(is_allowed(licence))
        }
        _ => None,
    }
}

/// Ids of what the named packages are linked from.
fn linked<'a>(metadata: &'a Value, packages: &[&str]) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| (field(node, "id"), node))
        .collect();
    let mut waiting: Vec<&str> = packages_of(metadata)
        .filter(|package| package["source"].is_null() && packages.contains(&field(package, "name")))
        .map(|package| field(package, "id"))
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).and_then(|node| node["deps"].as_array());
        for dependency in dependencies.into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array();
            if kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null())) {
                waiting.push(field(dependency, "pkg"));
            }
        }
    }
    seen
}

/// Texts of the files in a package's folder whose names begin as licences do.
fn licence_texts(folder: &Path) -> Vec<String> {
    let is_licence = |name: &str| {
        let name = name.to_ascii_uppercase();
        ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let mut files: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_licence(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn banned_crates_are_found_but_not_those_of_the_tree() {
        let table = "[bans]\ndeny = [{ crate = \"onig\" }, { crate = \"paste@<2\" }, { crate = \"a\", wrappers = [\"b\"] }]";
        let package = |name: &str, source: Option<&str>| serde_json::json!({"name": name, "version": "1.0.0", "source": source});
        let metadata = serde_json::json!({"packages": [
            package("onig", Some("registry")), package("paste", None), package("a", Some("registry")),
        ]});
        assert_eq!(super::banned(&metadata, &table.parse().unwrap()), ["onig 1.0.0"]);
    }

    use super::{holds, refused, rules};
    use serde_json::json;

    #[test]
    fn expressions_hold_as_spdx_says() {
        let allowed = |id: &str| matches!(id, "MIT" | "Zlib" | "A WITH x");
        for (text, expected) in [
            ("MIT", Some(true)),
            ("GPL-3.0", Some(false)),
            ("GPL-3.0 OR MIT", Some(true)),
            ("GPL-3.0/MIT", Some(true)),
            ("MIT AND GPL-3.0", Some(false)),
            // AND binds more tightly than OR.
            ("MIT OR Zlib AND GPL-3.0", Some(true)),
            ("(MIT OR Zlib) AND GPL-3.0", Some(false)),
            ("A WITH x", Some(true)),
            ("A WITH y OR A", Some(false)),
            ("MIT OR", None),
            ("(MIT", None),
            ("MIT Zlib", None),
            ("", None),
        ] {
            assert_eq!(holds(text, &allowed), expected, "{text}");
        }
    }

    #[test]
    fn refused_names_the_package_and_knows_exceptions() {
        let rules = rules(
            "[licenses]\nallow = [\"MIT\"]\nexceptions = [{ crate = \"tool\", allow = [\"MPL-2.0\"] }]",
        )
        .unwrap();
        let package =
            |name: &str, licence| json!({"name": name, "version": "1.0.0", "license": licence});
        let metadata = json!({"packages": [package("tool", json!("MPL-2.0")), package("other", json!("MPL-2.0")),
            package("bare", json!(null)), package("fine", json!("MIT"))]});
        assert_eq!(
            refused(&metadata, &rules),
            ["other 1.0.0: MPL-2.0", "bare 1.0.0: it names no licence"]
        );
    }

    #[test]
    fn rules_without_an_allow_list_are_an_error() {
        assert!(rules("[licenses]\n").is_err() && rules("").is_err());
    }
}
