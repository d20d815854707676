//! A trained app as a directory that Hugging Face can also read: `config.json`, `model.safetensors`, tokenizer files, and
//! `easytransfer.json` with everything that only we need.

use std::path::Path;

use easytransfer_plugin::plugin_version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files::atomic;
use crate::model::components::Components;
use crate::model::network::{AppStage, Network, Origin, Start, read_json};
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
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Names of the columns by role, as the training file had them.
    pub columns: Map<String, Value>,
    /// Options of the training run.
    pub training: Value,
    /// Figures of the saved parameters on the validation data.
    pub metrics: Map<String, Value>,
}

/// Writes the network into a directory, which may exist: each file appears whole or not at all, and `easytransfer.json` last.
pub fn save(
    network: &Network,
    directory: &Path,
    columns: Map<String, Value>,
    training: Value,
    metrics: Map<String, Value>,
) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
    let manifest_path = directory.join(MANIFEST);
    if manifest_path.exists() {
        std::fs::remove_file(&manifest_path)
            .map_err(|error| Error::io("remove", &manifest_path, error))?;
    }
    let info = network.model.info();
    let task = info.tasks.get(&network.app_info.task);
    let prefixed = task.is_some() && !info.base_prefix.is_empty();
    weights::save(directory, &network.params, |name| {
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
    write_json(&directory.join("config.json"), &config)?;
    network.tokenizer.save(&path_text(directory)?)?;
    let manifest = Manifest {
        format: FORMAT,
        easytransfer: plugin_version().to_owned(),
        app: network.app_origin.clone(),
        app_options: network.app_options.clone(),
        app_state: network.app.state()?,
        model: network.model_origin.clone(),
        labels: network.app_info.labels.clone(),
        columns,
        training,
        metrics,
    };
    let manifest = serde_json::to_value(manifest)
        .map_err(|error| Error::other(format!("write {MANIFEST}: {error}")))?;
    write_json(&manifest_path, &manifest)
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
            "a Hugging Face model without it; train an app from it first (easytransfer train --encoder)"
        } else if directory.is_dir() {
            "a directory without it"
        } else if directory.exists() {
            "a file"
        } else {
            "nothing"
        };
        return Err(Error::user(format!(
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

/// Loads a bundle.
pub fn load(components: &dyn Components, directory: &Path) -> Result<(Network, Manifest)> {
    let manifest = manifest(directory)?;
    let stage = AppStage::new(
        components,
        &manifest.app.name,
        manifest.app_options.clone(),
        Some(&manifest.app_state),
    )?;
    let network = Network::new(components, stage, directory, &Map::new(), Start::Bundle, 0)?;
    Ok((network, manifest))
}
