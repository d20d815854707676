//! One meaning per word: a public type's name stands in one crate of the SDK, or means the same wherever it stands.

use crate::{Context, Failure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that several crates have for the same thing: as one side of the boundary and as the other, or as every crate
/// has its own.
const SHARED: &[&str] = &[
    // Every crate's own.
    "Error",
    "Result",
    "Sealed",
    // A value or an operation of the engine, its kernel, and what a plugin sees of it.
    "Activation",
    "Attention",
    "Element",
    "LayerNorm",
    "Pool",
    "Recompute",
    "Recurrent",
    "Span",
    // Where an engine computes: its name, as a program chooses it, and the seam behind which it works.
    "Device",
    // A component that a plugin writes and what a program holds of it.
    "App",
    "Model",
    "Optimizer",
    // What an engine computes in, as it is asked for and as the engine reads it.
    "EnginePrecision",
];

/// Checks the sources of `sdk/*`. Errors: every name with two meanings, one per line.
pub fn run(context: &Context) -> Result<(), Failure> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in entries(&context.root.join("sdk"))? {
        let mut files = vec![folder.join("src")];
        while let Some(file) = files.pop() {
            if file.is_dir() {
                files.extend(entries(&file)?);
                continue;
            }
            let text = fs::read_to_string(&file)
                .map_err(|error| Failure(format!("{}: {error}", file.display())))?;
            let place = file.strip_prefix(&context.root).unwrap_or(&file).display().to_string();
            for name in public_types(&text) {
                places.entry(name.to_owned()).or_default().push(place.clone());
            }
        }
    }
    let errors = ambiguous(&places);
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("names of types:\n  {}", errors.join("\n  "))))
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure(format!("{}: {error}", path.display()));
    fs::read_dir(path).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

/// Names behind `pub struct` and the like, in code before the first test module.
fn public_types(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("pub ")?;
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let rest = ["struct ", "enum ", "trait ", "type ", "union "]
            .iter()
            .find_map(|word| rest.strip_prefix(word))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

/// Every name that two crates have, unless it means the same in both.
fn ambiguous(places: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let crate_of = |place: &String| place.split('/').nth(1).map(str::to_owned);
    places
        .iter()
        .filter(|(name, places)| {
            let first = crate_of(&places[0]);
            !SHARED.contains(&name.as_str()) && places.iter().any(|at| crate_of(at) != first)
        })
        .map(|(name, places)| {
            format!("{name} has several meanings: {}; rename all but one, or say in xtask/src/names.rs that they are one", places.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{ambiguous, public_types};
    use std::collections::BTreeMap;

    #[test]
    fn public_types_are_found_outside_of_tests() {
        let text = "pub struct A<T>(T);\n    pub enum B {\npub(crate) struct C;\nstruct D;\n/// pub struct E;\npub unsafe trait F {}\n\
                    pub type G = u8;\npub fn pub_struct() {}\n#[cfg(test)]\nmod tests { pub struct H; }";
        assert_eq!(public_types(text).collect::<Vec<_>>(), ["A", "B", "F", "G"]);
    }

    #[test]
    fn names_in_two_crates_are_told_with_their_places() {
        let places = |names: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
            let owned = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect();
            names.iter().map(|(name, files)| ((*name).to_owned(), owned(files))).collect()
        };
        let found = ambiguous(&places(&[
            ("Report", &["sdk/train/src/a.rs", "sdk/loader/src/b.rs"]),
            ("Once", &["sdk/train/src/a.rs", "sdk/train/src/b.rs"]),
            ("Error", &["sdk/train/src/a.rs", "sdk/core/src/b.rs"]),
        ]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("Report ") && found[0].contains("sdk/loader/src/b.rs"));
    }
}
