//! Which crate may depend on which: the rules of the crate map in `ARCHITECTURE.md`, read against `cargo metadata`.
//!
//! Only what a crate is built from counts; its tests may use anything.

use crate::{Context, Failure, process};
use serde_json::Value;
use std::path::Path;

/// Folders, `*` for any name, with the folders of the workspace that they may be built from.
const EDGES: &[(&str, &[&str])] = &[
    ("sdk/abi", &[]),
    ("sdk/plugin", &["sdk/abi"]),
    ("sdk/core", &["sdk/abi"]),
    ("sdk/engine", &["sdk/core", "sdk/abi"]),
    ("sdk/loader", &["sdk/abi"]),
    ("sdk/train", &["sdk/plugin", "sdk/loader"]),
    ("sdk/easytransfer", &["sdk/train", "sdk/loader", "sdk/core", "sdk/plugin", "sdk/abi"]),
    ("plugins/*", &["sdk/plugin", "sdk/abi"]),
    ("sdk/conformance", &["sdk/easytransfer"]),
    ("capi", &["sdk/easytransfer", "sdk/abi"]),
    ("hosts/*", &["sdk/easytransfer", "sdk/conformance"]),
    ("tests/*", &["sdk/*", "plugins/*", "capi", "hosts/*", "tests/*"]),
    ("xtask", &[]),
];

/// Crates from outside (`*` for any ending) with the only folders that may name them.
const OWNERS: &[(&str, &[&str])] = &[
    ("candle-*", &["sdk/core"]),
    ("cudarc", &["sdk/core"]),
    ("gemm", &["sdk/core"]),
    ("tokenizers", &["sdk/core"]),
    ("rayon", &["sdk/core"]),
    ("tokio", &[]),
    ("libloading", &["sdk/loader", "tests/*"]),
    ("abi_stable", &["sdk/abi", "tests/abi"]),
    ("cbindgen", &["xtask"]),
    ("cxx", &["hosts/cxx-service"]),
    ("cxx-build", &["hosts/cxx-service"]),
];

/// Folders that may name no crate from outside at all, with the exceptions, which must be optional.
const BARE: &[(&str, &[&str])] = &[("sdk/abi", &["abi_stable"])];

/// Checks the workspace. Errors: every forbidden edge, one per line.
pub fn run(context: &Context) -> Result<(), Failure> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let text = process::output(&mut process::cargo(context, arguments))?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure(format!("read the output of cargo metadata: {error}")))?;
    let errors = forbidden(&metadata, &context.root);
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
            if dependency["kind"] == "dev" {
                continue;
            }
            let name = dependency["name"].as_str().unwrap_or_default();
            if let Some(path) = dependency["path"].as_str() {
                let target = relative(Path::new(path), root);
                if !allowed.iter().any(|pattern| fits(pattern, &target)) {
                    errors
                        .push(format!("{folder} may not depend on {target}, only on {allowed:?}"));
                }
                continue;
            }
            if let Some((_, owners)) = OWNERS.iter().find(|(pattern, _)| fits(pattern, name))
                && !owners.iter().any(|owner| fits(owner, &folder))
            {
                errors.push(format!("{folder} may not name {name}, only {owners:?} may"));
            }
            if let Some((_, exceptions)) = BARE.iter().find(|(bare, _)| *bare == folder)
                && !(exceptions.contains(&name) && dependency["optional"] == true)
            {
                errors.push(format!("{folder} may not name {name}: it depends on nothing"));
            }
        }
    }
    errors
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::forbidden;
    use serde_json::{Value, json};
    use std::path::Path;

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
        assert!(check("sdk/abi", json!({"name": "abi_stable", "optional": true})).is_empty());
        assert!(
            check("plugins/zoo-bert", json!({"name": "candle-core", "kind": "dev"})).is_empty()
        );
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
            ("sdk/train", json!({"name": "libloading", "kind": "build"})),
            ("sdk/abi", json!({"name": "serde", "kind": null, "optional": true})),
            ("sdk/abi", json!({"name": "abi_stable", "kind": null, "optional": false})),
            ("sdk/core", path("tests/suite")),
            ("elsewhere", path("sdk/abi")),
        ] {
            let errors = check(folder, dependency.clone());
            assert!(!errors.is_empty() && errors[0].starts_with(folder), "{folder}: {dependency}");
        }
    }
}
