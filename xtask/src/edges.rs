//! Which crate may depend on which: the rules of the crate map in `ARCHITECTURE.md`, read against `cargo metadata`.
//!
//! Only what a crate is built from counts; its tests may use anything but what `TEST_OWNERS` restricts.

use crate::{Context, Failure, process};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders, `*` for any name, with the folders of the workspace that they may be built from.
const EDGES: &[(&str, &[&str])] = &[
    ("sdk/abi", &[]),
    ("sdk/text", &[]),
    ("sdk/paste", &[]),
    ("sdk/plugin", &["sdk/abi", "sdk/text"]),
    ("sdk/kernels", &[]),
    ("sdk/core", &["sdk/abi", "sdk/kernels", "sdk/text"]),
    ("sdk/cuda", &["sdk/core", "sdk/kernels", "sdk/abi"]),
    ("sdk/engine", &["sdk/core", "sdk/cuda", "sdk/abi"]),
    ("sdk/loader", &["sdk/abi", "sdk/text"]),
    ("sdk/train", &["sdk/plugin", "sdk/loader", "sdk/text"]),
    (
        "sdk/easytransfer",
        &["sdk/train", "sdk/loader", "sdk/core", "sdk/plugin", "sdk/abi", "plugins/*"],
    ),
    ("plugins/*", &["sdk/plugin", "sdk/abi"]),
    ("sdk/conformance", &["sdk/easytransfer"]),
    ("capi", &["sdk/easytransfer", "sdk/abi", "sdk/text"]),
    ("hosts/*", &["sdk/easytransfer", "sdk/conformance", "sdk/scaffold"]),
    ("tests/*", &["sdk/*", "plugins/*", "capi", "hosts/*", "tests/*"]),
    ("sdk/scaffold", &[]),
    ("xtask", &["sdk/scaffold"]),
];

/// Crates from outside (`*` for any ending) with the only folders that may name them; the first one that fits counts.
const OWNERS: &[(&str, &[&str])] = &[
    // Its fast paths drop gradients silently.
    ("candle-nn", &[]),
    ("candle-*", &["sdk/core", "sdk/cuda"]),
    ("cudarc", &["sdk/cuda"]),
    ("gemm", &[]),
    ("tokenizers", &["sdk/core"]),
    ("rayon", &["sdk/kernels", "tests/suite"]),
    ("tokio", &[]),
    ("libloading", &["sdk/loader", "tests/*"]),
    ("abi_stable", &["sdk/abi", "tests/abi"]),
    ("cbindgen", &["xtask"]),
    ("cxx", &["hosts/cxx-service"]),
    ("cxx-build", &["hosts/cxx-service"]),
];

/// Crates from outside with the only folders whose tests may name them.
const TEST_OWNERS: &[(&str, &[&str])] = &[
    // The engine's second opinion.
    ("candle-nn", &["sdk/core"]),
];

/// Folders that may name no crate from outside at all, with the exceptions, which must be optional.
const BARE: &[(&str, &[&str])] =
    &[("sdk/abi", &["abi_stable"]), ("sdk/text", &[]), ("sdk/scaffold", &[])];

/// Names of folders, with what each may use.
type Rules = [(&'static str, &'static [&'static str])];

/// Folders inside a crate with the folders and files of the same crate that they may use (`crate::NAME`). Tests may
/// use anything.
const FOLDERS: &[(&str, &Rules)] = &[(
    "sdk/train/src",
    &[
        ("error", &["error"]),
        ("files", &["error", "nearest"]),
        ("options", &["error", "nearest"]),
        ("report", &["error", "nearest", "files"]),
        ("data", &["error", "nearest", "options", "report"]),
        ("model", &["error", "nearest", "files", "options"]),
        ("run", &["error", "nearest", "files", "options", "report", "data", "model"]),
    ],
)];

/// Checks the workspace. Errors: every forbidden edge, one per line.
pub fn run(context: &Context) -> Result<(), Failure> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let text = process::output(&mut process::cargo(context, arguments))?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure(format!("read the output of cargo metadata: {error}")))?;
    let mut errors = forbidden(&metadata, &context.root);
    for (source, folders) in FOLDERS {
        errors.extend(forbidden_in_crate(&context.root.join(source), source, folders)?);
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("dependency edges:\n  {}", errors.join("\n  "))))
}

/// Every forbidden edge as text.
fn forbidden(metadata: &Value, root: &Path) -> Vec<String> {
    let mut errors = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest.parent().map(|path| relative(path, root)).unwrap_or_default();
        let Some((_, allowed)) = EDGES.iter().find(|(pattern, _)| fits(pattern, &folder)) else {
            errors
                .push(format!("{folder}: no rule for this folder, add one to xtask/src/edges.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            if dependency["kind"] == "dev" {
                errors.extend(not_owned(TEST_OWNERS, name, &folder, "the tests of "));
                continue;
            }
            if let Some(path) = dependency["path"].as_str() {
                let target = relative(Path::new(path), root);
                if !allowed.iter().any(|pattern| fits(pattern, &target)) {
                    errors
                        .push(format!("{folder} may not depend on {target}, only on {allowed:?}"));
                }
                if target.starts_with("plugins/")
                    && folder.starts_with("sdk/")
                    && dependency["optional"] != true
                {
                    errors.push(format!("{folder} may depend on {target} by a feature only"));
                }
                continue;
            }
            errors.extend(not_owned(OWNERS, name, &folder, ""));
            if let Some((_, exceptions)) = BARE.iter().find(|(bare, _)| *bare == folder)
                && !(exceptions.contains(&name) && dependency["optional"] == true)
            {
                errors.push(format!("{folder} may not name {name}: it depends on nothing"));
            }
        }
    }
    errors
}

/// The error when `owners` leaves the crate `name` to other folders; `who` is put before those that may name it.
fn not_owned(owners: &Rules, name: &str, folder: &str, who: &str) -> Option<String> {
    let (_, owners) = owners.iter().find(|(pattern, _)| fits(pattern, name))?;
    let owned = owners.iter().any(|owner| fits(owner, folder));
    (!owned).then(|| format!("{folder} may not name {name}, only {who}{owners:?} may"))
}

/// Every use between the folders of one crate that the table does not allow, as text. Errors: a folder cannot be read.
fn forbidden_in_crate(path: &Path, source: &str, folders: &Rules) -> Result<Vec<String>, Failure> {
    let mut errors = Vec::new();
    for entry in entries(path)? {
        let folder = relative(&entry, path);
        if !entry.is_dir() {
            continue;
        }
        let Some((_, allowed)) = folders.iter().find(|(name, _)| *name == folder) else {
            errors
                .push(format!("{source}/{folder}: no rule for it, add one to xtask/src/edges.rs"));
            continue;
        };
        let mut files = entries(&entry)?;
        while let Some(file) = files.pop() {
            if file.is_dir() {
                files.extend(entries(&file)?);
                continue;
            }
            let text = fs::read_to_string(&file)
                .map_err(|error| Failure(format!("{}: {error}", file.display())))?;
            for used in uses(&text) {
                if used != folder && !allowed.contains(&used) {
                    let file = relative(&file, path);
                    errors.push(format!("{source}/{file} may not use {used}, only {allowed:?}"));
                }
            }
        }
    }
    errors.sort();
    errors.dedup();
    Ok(errors)
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure(format!("{}: {error}", path.display()));
    fs::read_dir(path).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

/// The names behind `crate::` in code before the first test module.
fn uses(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
        })
        // Items of the crate's root (`crate::Error`) are types.
        .filter(|name| name.starts_with(|c: char| c.is_lowercase()))
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::{forbidden, uses};
    use serde_json::{Value, json};
    use std::path::Path;

    #[test]
    fn uses_between_folders_are_found_outside_of_comments_and_tests() {
        let text = "use crate::data::batches;\n// crate::run::fit\nlet x = crate::files::npy::write(crate::Error::new());\n\
                    #[cfg(test)]\nmod tests { use crate::run::fit; }";
        assert_eq!(uses(text).collect::<Vec<_>>(), ["data", "files"]);
    }

    fn check(folder: &str, dependency: Value) -> Vec<String> {
        let manifest = format!("/tree/{folder}/Cargo.toml");
        let package = json!({"manifest_path": manifest, "dependencies": [dependency]});
        forbidden(&json!({"packages": [package]}), Path::new("/tree"))
    }

    #[test]
    fn edges_of_the_crate_map_are_allowed() {
        let path = |path: &str| json!({"name": "x", "path": format!("/tree/{path}"), "kind": null});
        assert!(check("sdk/train", path("sdk/plugin")).is_empty());
        assert!(check("plugins/zoo-bert", path("sdk/plugin")).is_empty());
        assert!(check("tests/suite", path("sdk/core")).is_empty());
        assert!(check("sdk/engine", path("sdk/cuda")).is_empty());
        assert!(check("sdk/cuda", json!({"name": "cudarc", "kind": null})).is_empty());
        assert!(check("sdk/abi", json!({"name": "abi_stable", "optional": true})).is_empty());
        assert!(
            check("plugins/zoo-bert", json!({"name": "candle-core", "kind": "dev"})).is_empty()
        );
        assert!(check("sdk/core", json!({"name": "candle-nn", "kind": "dev"})).is_empty());
    }

    #[test]
    fn edges_against_the_crate_map_are_named() {
        let path = |path: &str| json!({"name": "x", "path": format!("/tree/{path}"), "kind": null});
        for (folder, dependency) in [
            ("sdk/train", path("sdk/core")),
            ("plugins/zoo-bert", path("sdk/core")),
            ("plugins/zoo-bert", json!({"name": "rayon", "kind": null})),
            ("plugins/zoo-bert", json!({"name": "tokio", "kind": null})),
            ("sdk/plugin", json!({"name": "candle-nn", "kind": null})),
            ("sdk/core", json!({"name": "candle-nn", "kind": null})),
            ("sdk/core", json!({"name": "candle-nn", "kind": "build"})),
            ("sdk/core", json!({"name": "candle-nn", "kind": null, "optional": true})),
            ("tests/suite", json!({"name": "candle-nn", "kind": null})),
            ("tests/suite", json!({"name": "candle-nn", "kind": "dev"})),
            ("sdk/train", json!({"name": "libloading", "kind": "build"})),
            ("sdk/abi", json!({"name": "serde", "kind": null, "optional": true})),
            ("sdk/abi", json!({"name": "abi_stable", "kind": null, "optional": false})),
            ("sdk/core", path("tests/suite")),
            ("sdk/core", path("sdk/cuda")),
            ("sdk/core", json!({"name": "cudarc", "kind": null, "optional": true})),
            ("sdk/easytransfer", path("sdk/cuda")),
            ("elsewhere", path("sdk/abi")),
        ] {
            let errors = check(folder, dependency.clone());
            assert!(!errors.is_empty() && errors[0].starts_with(folder), "{folder}: {dependency}");
        }
    }
}
