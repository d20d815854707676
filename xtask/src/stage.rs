//! `stage`: builds every plugin in the profile `plugin` and puts it with its manifest under
//! `target/release/plugins/<id>/`, where hosts and tests find it.
//!
//! `plugins/<id>/plugin.toml` is the manifest without what only a build knows: version, library and SHA-256 are
//! filled in.

use crate::{
    Context, Failure,
    process::{self, cargo},
};
pub use easytransfer_scaffold::{library_file_name, platform};
use sha2::{Digest, Sha256};
use std::{fs, path::PathBuf};
use toml::{Table, Value};

/// A plugin that was staged.
pub struct Staged {
    /// Its id, the name of its folder.
    pub id: String,
    /// Its library in the staging folder.
    pub library: PathBuf,
}

/// Stages all plugins and prints one line each.
pub fn run(context: &Context) -> Result<(), Failure> {
    for staged in stage(context)? {
        println!("staged {}", process::shown(context, &staged.library));
    }
    Ok(())
}

/// Stages all plugins of `plugins/`, in order of their ids. Errors: a missing manifest or library, or a manifest that
/// names another id.
pub fn stage(context: &Context) -> Result<Vec<Staged>, Failure> {
    link_library(context)?;
    let ids = ids(context)?;
    build(context, &ids)?;
    ids.iter().map(|id| stage_one(context, id)).collect()
}

/// Ids of all plugins of `plugins/`, sorted. A plugin's folder is called after its id, and so is its package.
pub fn ids(context: &Context) -> Result<Vec<String>, Failure> {
    let folder = context.root.join("plugins");
    let mut ids: Vec<String> = fs::read_dir(&folder)
        .map_err(|error| Failure(format!("read {}: {error}", process::shown(context, &folder))))?
        .flatten()
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    ids.sort();
    Ok(ids)
}

fn build(context: &Context, ids: &[String]) -> Result<(), Failure> {
    // As a shared library alone, because with an rlib beside it Cargo leaves out what the linker optimises, which makes
    // libraries half as large again.
    for id in ids {
        let arguments =
            ["rustc", "--quiet", "--lib", "--profile", "plugin", "--crate-type", "cdylib"];
        let mut command = cargo(context, arguments);
        process::show(command.arg("--package").arg(format!("easytransfer-{id}")))?;
    }
    Ok(())
}

/// Gives the C library the name that programs linked against it look for, its SONAME, as an installation would.
fn link_library(context: &Context) -> Result<(), Failure> {
    let library = process::release(context).join("libeasytransfer.so");
    if cfg!(unix) && library.exists() {
        let link = library.with_extension("so.0");
        let _ = fs::remove_file(&link);
        #[cfg(unix)]
        std::os::unix::fs::symlink("libeasytransfer.so", &link).map_err(|error| {
            Failure(format!("link {}: {error}", process::shown(context, &link)))
        })?;
    }
    Ok(())
}

fn stage_one(context: &Context, id: &str) -> Result<Staged, Failure> {
    let plugin = context.root.join("plugins").join(id);
    let file_name = library_file_name(id);
    let built = process::release(context).with_file_name("plugin").join(&file_name);
    let bytes = fs::read(&built).map_err(|error| {
        Failure(format!("stage {id}: read {}: {error}", process::shown(context, &built)))
    })?;
    let source = plugin.join("plugin.toml");
    let text = fs::read_to_string(&source).map_err(|error| {
        Failure(format!("stage {id}: read {}: {error}", process::shown(context, &source)))
    })?;
    let manifest = fill(&text, id, &file_name, &bytes).map_err(|error| {
        Failure(format!("stage {id}: {}: {error}", process::shown(context, &source)))
    })?;
    let folder = process::release(context).join("plugins").join(id);
    let library = folder.join(&file_name);
    let write = || {
        fs::create_dir_all(&folder)?;
        // Written beside and renamed, because a running program may have the old file mapped.
        let beside = folder.join(format!("{file_name}.new"));
        fs::write(&beside, &bytes)?;
        fs::rename(&beside, &library)?;
        fs::write(folder.join(format!("{id}.toml")), manifest)
    };
    write().map_err(|error| Failure(format!("stage {id}: write {}: {error}", folder.display())))?;
    Ok(Staged { id: id.to_owned(), library })
}

/// A manifest with version, library and SHA-256 of this platform filled in.
fn fill(text: &str, id: &str, file_name: &str, library: &[u8]) -> Result<String, String> {
    let mut manifest: Table = text.parse().map_err(|error| format!("{error}"))?;
    match manifest.get("id").and_then(Value::as_str) {
        Some(found) if found == id => {}
        found => return Err(format!("id: expected {id:?}, the folder's name, found {found:?}")),
    }
    let digest = digest(library);
    manifest.entry("version").or_insert_with(|| env!("CARGO_PKG_VERSION").into());
    for (section, value) in [("library", file_name), ("sha256", &digest)] {
        let entry = manifest.entry(section).or_insert_with(|| Table::new().into());
        let Some(table) = entry.as_table_mut() else {
            return Err(format!("{section}: expected a table, found {}", entry.type_str()));
        };
        table.insert(platform(), value.into());
    }
    toml::to_string(&manifest).map_err(|error| format!("{error}"))
}

/// The SHA-256 of a library as manifests have it.
pub fn digest(library: &[u8]) -> String {
    Sha256::digest(library).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{fill, platform};

    #[test]
    fn fill_adds_version_library_and_hash() {
        let text = "id = \"loss-a\"\nmanifest_version = 1\n[abi]\nmajor = 0\n";
        let filled = fill(text, "loss-a", "libloss_a.so", b"abc").unwrap();
        let table: toml::Table = filled.parse().unwrap();
        assert_eq!(table["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(table["library"][platform()].as_str(), Some("libloss_a.so"));
        // The digest of "abc" in FIPS 180-2, appendix B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(table["sha256"][platform()].as_str(), Some(digest));
        assert_eq!(table["abi"]["major"].as_integer(), Some(0));
    }

    #[test]
    fn fill_other_id_is_an_error_that_names_both() {
        let error = fill("id = \"b\"\n", "a", "liba.so", b"").unwrap_err();
        assert!(error.contains("\"a\"") && error.contains("\"b\""), "{error}");
    }
}
