//! A trained app as a directory that Hugging Face can also read: `config.json`, `model.safetensors`, tokenizer files,
//! and `easytransfer.json` with everything that only we need.

use std::path::{Path, PathBuf};

use easytransfer_plugin::plugin_version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result, excerpt};
use crate::files::atomic::{self, AtomicDir};
use crate::model::checksums::{self, Checksums};
use crate::model::components::{Components, Origin, UsedComponent};
use crate::model::network::{AppStage, Network, Start, read_json};
use crate::model::weights::{self, path_text};

/// Name of our own file in a bundle. It is written last: a directory without it is not a bundle.
pub const MANIFEST: &str = "easytransfer.json";
const FORMAT: u64 = 1;

/// What `easytransfer.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub format: u64,
    /// Version of the SDK that wrote it.
    pub easytransfer: String,
    /// The app.
    pub app: Origin,
    /// Options of the app.
    pub app_options: Value,
    /// What the app keeps: its labels.
    pub app_state: Value,
    /// The model.
    pub model: Origin,
    /// All components that the run has used, these two too.
    #[serde(default)]
    pub components: Vec<UsedComponent>,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Names of the columns by role, as the training file had them.
    pub columns: Map<String, Value>,
    /// Options of the training run.
    pub training: Value,
    /// Figures of the saved parameters on the validation data.
    pub metrics: Map<String, Value>,
    /// Checksums of the other files, by name. Bundles of versions before there were any have none.
    #[serde(default)]
    pub files: Checksums,
}

/// Writes the network into a directory, which may exist. The files are written aside and then take their names at
/// once, `easytransfer.json` last, so that a directory with that file is a whole bundle. Files of an older bundle go.
pub fn save(
    network: &Network,
    directory: &Path,
    columns: Map<String, Value>,
    training: Value,
    metrics: Map<String, Value>,
) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
    let aside = AtomicDir::create(&directory.join(".bundle"))?;
    let at = aside.path();
    let info = network.model.info();
    let task = info.tasks.get(&network.app_info.task);
    let prefixed = task.is_some() && !info.base_prefix.is_empty();
    weights::save(at, &network.params, |name| {
        if name.starts_with("lora.") {
            None
        } else if prefixed && info.depth_of(name).is_some() {
            Some(format!("{}.{name}", info.base_prefix))
        } else {
            Some(name.to_owned())
        }
    })?;
    let mut config = network.config.clone();
    let class = task.map_or(&info.class, |task| &task.class);
    if let Some(object) = config.as_object_mut() {
        object.remove("_name_or_path");
        if !class.is_empty() {
            object.insert("architectures".to_owned(), json!([class]));
        }
        for (key, value) in &network.app_info.config {
            object.insert(key.clone(), value.clone());
        }
    }
    write_json(&at.join("config.json"), &config)?;
    network.tokenizer.save(&path_text(at)?)?;
    let files = checksums::of_files_in(at)?;
    let gone = replaced(directory, &files);
    let manifest = Manifest {
        format: FORMAT,
        easytransfer: plugin_version().to_owned(),
        app: network.app_origin.clone(),
        app_options: network.app_options.clone(),
        app_state: network.app.state()?,
        model: network.model_origin.clone(),
        components: network.made_with.clone(),
        labels: network.app_info.labels.clone(),
        columns,
        training,
        metrics,
        files,
    };
    let manifest = serde_json::to_value(manifest)
        .map_err(|error| Error::other(format!("write {MANIFEST}: {error}")))?;
    write_json(&at.join(MANIFEST), &manifest)?;
    aside.merge(directory, MANIFEST, &gone)
}

/// What a new bundle with these files removes first: the older manifest, and files of the older bundle that the new
/// one does not have.
fn replaced(directory: &Path, files: &Checksums) -> Vec<PathBuf> {
    let mut gone = vec![directory.join(MANIFEST)];
    // Without a manifest that can be read nobody knows which files belonged to it.
    let older = manifest(directory).map(|manifest| manifest.files).unwrap_or_default();
    let is_name =
        |name: &String| Path::new(name).file_name().is_some_and(|last| last == name.as_str());
    let names = older.into_keys().filter(|name| is_name(name) && !files.contains_key(name));
    gone.extend(names.map(|name| directory.join(name)));
    gone
}

/// Whether a directory holds a model, whoever wrote it.
pub fn holds_model(directory: &Path) -> bool {
    directory.join("config.json").exists() || weights::are_in(directory)
}

/// Writes a JSON file, indented, atomically.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    atomic::write_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|error| Error::io("write", path, error))
    })
}

/// Reads `easytransfer.json` of a bundle.
pub fn manifest(directory: &Path) -> Result<Manifest> {
    let path = directory.join(MANIFEST);
    if !path.exists() {
        let found = if directory.join("config.json").exists() {
            "a Hugging Face model without it; train an app from it first (`encoder=DIR` of a training run)"
        } else if directory.is_dir() {
            "a directory without it"
        } else if directory.exists() {
            "a file"
        } else {
            "nothing"
        };
        return Err(Error::not_found(format!(
            "`{}`: expected a trained bundle (a directory with {MANIFEST}), found {found}",
            directory.display()
        )));
    }
    let value = read_json(&path)?;
    let format = value["format"].as_u64().unwrap_or(0);
    if format != FORMAT {
        return Err(Error::Config {
            origin: path.display().to_string(),
            message: format!(
                "format: expected {FORMAT}, found {}; it was written by another version of easytransfer",
                value["format"]
            ),
        });
    }
    serde_json::from_value(value).map_err(|error| Error::Config {
        origin: path.display().to_string(),
        message: error.to_string(),
    })
}

/// The model that a bundle was trained with; None for a directory that is no bundle.
pub fn model_origin(directory: &Path) -> Result<Option<Origin>> {
    if !directory.join(MANIFEST).exists() {
        return Ok(None);
    }
    Ok(Some(manifest(directory)?.model))
}

/// Loads a bundle, with the components of the plugins that it was trained with. Errors, beside those of its parts:
/// names of classes that differ between its files, and files that are not those that were written with it.
pub fn load(components: &dyn Components, directory: &Path) -> Result<(Network, Manifest)> {
    let manifest = manifest(directory)?;
    let app = components.find_made_with("et.app/1", &manifest.app)?;
    let stage = AppStage::of(&app, manifest.app_options.clone(), Some(&manifest.app_state))?;
    let mut network = Network::new(components, stage, directory, &Map::new(), Start::Bundle, 0)?;
    network.made_with.clone_from(&manifest.components);
    check_labels(&network, &manifest, directory)?;
    // Last, because what is wrong with a file says more than that it was changed.
    checksums::check(directory, MANIFEST, &manifest.files, &network.load_report.files)?;
    Ok((network, manifest))
}

/// Checks the files of a directory from which an encoder was loaded, if it is a bundle.
pub fn check_files(network: &Network, directory: &Path) -> Result<()> {
    if !directory.join(MANIFEST).exists() {
        return Ok(());
    }
    let written = manifest(directory)?.files;
    checksums::check(directory, MANIFEST, &written, &network.load_report.files)
}

/// The app, `easytransfer.json` and `config.json` agree on the names of classes, their order and number, and on
/// whatever else the app has written into `config.json`.
fn check_labels(network: &Network, manifest: &Manifest, directory: &Path) -> Result<()> {
    let differ = |what: &str, here: Value, there: &Value| {
        Err(Error::Config {
            origin: directory.join(MANIFEST).display().to_string(),
            message: format!(
                "app_state: expected the {what} {}, found {}; the files are of different runs: copy the whole bundle again",
                excerpt(&there.to_string()),
                excerpt(&here.to_string())
            ),
        })
    };
    let info = &network.app_info;
    if info.labels != manifest.labels {
        return differ(
            "labels that stand under `labels`",
            json!(info.labels),
            &json!(manifest.labels),
        );
    }
    for (key, value) in &info.config {
        match network.config.get(key) {
            Some(there) if there != value => {
                return differ(&format!("`{key}` of config.json"), value.clone(), there);
            }
            _ => {}
        }
    }
    Ok(())
}
