//! The sources that plugins in Rust are made of, as a package carries them: a small workspace of `easytransfer-abi`,
//! `easytransfer-text` and `easytransfer-plugin`, with the manifests that they have here, under a root that says what
//! ours says for them. So they compile, and `cargo package` takes them, without the rest of this tree.

use crate::{Context, Failure, process};
use easytransfer_scaffold::CRATES;
use std::fs;
use std::path::Path;
use toml::{Table, Value};

/// Folder in the tree and name of each crate; a crate comes after those that it uses.
pub const ALL: [(&str, &str); 3] = [
    ("sdk/abi", "easytransfer-abi"),
    ("sdk/text", "easytransfer-text"),
    ("sdk/plugin", "easytransfer-plugin"),
];

/// Lays the crates out below the folder of a package.
pub fn collect(context: &Context, package: &Path) -> Result<(), Failure> {
    let folder = package.join(CRATES);
    let root = read(context, &context.root.join("Cargo.toml"))?;
    let mut dependencies = Table::new();
    for (place, name) in ALL {
        let from = context.root.join(place);
        let manifest = read(context, &from.join("Cargo.toml"))?;
        let named = manifest.get("dependencies").and_then(Value::as_table);
        for dependency in named.into_iter().flat_map(Table::keys) {
            let entry = root["workspace"]["dependencies"].get(dependency).cloned();
            let mut entry = entry.ok_or_else(|| {
                Failure(format!("{place}/Cargo.toml: {dependency} is not among the workspace's"))
            })?;
            // Ours lie beside each other, under their names.
            if let Some(path) = entry.as_table_mut().and_then(|table| table.get_mut("path")) {
                *path = dependency.as_str().into();
            }
            dependencies.insert(dependency.clone(), entry);
        }
        copy(&from.join("Cargo.toml"), &folder.join(name).join("Cargo.toml"))?;
        copy(&context.root.join("LICENSE"), &folder.join(name).join("LICENSE"))?;
        copy_sources(&from.join("src"), &folder.join(name).join("src"))?;
    }
    let mut workspace = Table::new();
    for key in ["resolver", "package", "lints"] {
        workspace.insert(key.to_owned(), root["workspace"][key].clone());
    }
    let members = ALL.map(|(_, name)| Value::from(name));
    workspace.insert("members".to_owned(), Value::Array(members.to_vec()));
    workspace.insert("dependencies".to_owned(), dependencies.into());
    let text = toml::to_string(&Table::from_iter([("workspace".to_owned(), workspace.into())]))
        .map_err(|error| Failure(format!("write the workspace of the crates: {error}")))?;
    let path = folder.join("Cargo.toml");
    fs::write(&path, text)
        .map_err(|error| Failure(format!("write {}: {error}", path.display())))?;
    copy(
        &context.root.join("docs/plugin-manifest.md"),
        &package.join("share/doc/easytransfer/plugin-manifest.md"),
    )
}

fn read(context: &Context, path: &Path) -> Result<Table, Failure> {
    let fault = |error: String| Failure(format!("read {}: {error}", process::shown(context, path)));
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| fault(error.to_string()))
}

/// The files of a folder and its folders.
fn copy_sources(from: &Path, to: &Path) -> Result<(), Failure> {
    let entries =
        fs::read_dir(from).map_err(|error| Failure(format!("read {}: {error}", from.display())))?;
    for entry in entries.flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_sources(&from, &to)? } else { copy(&from, &to)? }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    to.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::copy(from, to))
        .map(drop)
        .map_err(|error| Failure(format!("copy {} to {}: {error}", from.display(), to.display())))
}
