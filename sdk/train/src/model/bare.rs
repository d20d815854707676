//! A model without an app as a directory that Hugging Face can also read: `config.json` and `model.safetensors`.

use std::path::Path;

use easytransfer_plugin::{ModelInfo, Params};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::atomic::AtomicDir;
use crate::model::bundle::{MANIFEST, write_json};
use crate::model::weights;

/// A model's parameters and what they are of.
pub struct Bare<'a> {
    /// The model's own parameters, and behind them what was declared beside it, such as a head.
    pub params: &'a Params,
    /// How many parameters are the model's own.
    pub own: usize,
    /// What the model says of itself.
    pub info: &'a ModelInfo,
    /// Name of the model, the `model_type` of its configuration.
    pub model_type: &'a str,
    /// The configuration that it was made from.
    pub config: &'a Value,
}

/// Writes `config.json` and `model.safetensors` into a directory, which is made where there is none; other files in it
/// stay. Both are written aside and then take the places of older ones at once.
///
/// Names are those of the model's class in transformers. Where parameters were declared beside the model, its own have
/// the base prefix before them ("bert."), as in the classes of transformers with a head. Low-rank updates are merged,
/// and their factors ("lora.") left out. Numbers are f32, which `config.json` says.
///
/// Errors: the directory is a file, or holds a trained bundle, which would no longer be one; values that are not finite;
/// what the system refuses. Then it is as it was.
pub fn save(bare: &Bare<'_>, directory: &Path) -> Result<()> {
    if directory.as_os_str().is_empty() {
        return Err(Error::user("save: expected the name of a directory, found an empty one"));
    }
    if directory.join(MANIFEST).exists() {
        return Err(Error::user(format!(
            "`{}`: expected a directory without a trained bundle, found {MANIFEST}; name another directory",
            directory.display()
        )));
    }
    std::fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))?;
    let aside = AtomicDir::create(&directory.join(".model"))?;
    let names: Vec<String> = bare.params.iter().map(|param| param.name()).collect();
    let (own, beside) = names.split_at(bare.own.min(names.len()));
    let prefix = &bare.info.base_prefix;
    let is_lora = |name: &str| name.starts_with("lora.");
    let prefixed = !prefix.is_empty() && beside.iter().any(|name| !is_lora(name));
    weights::save(aside.path(), bare.params, |name| match name {
        name if is_lora(name) => None,
        name if prefixed && own.iter().any(|own| own == name) => Some(format!("{prefix}.{name}")),
        name => Some(name.to_owned()),
    })?;
    let mut config = bare.config.clone();
    if let Some(config) = config.as_object_mut() {
        config.remove("_name_or_path");
        config.insert("model_type".to_owned(), json!(bare.model_type));
        if !bare.info.class.is_empty() {
            config.insert("architectures".to_owned(), json!([bare.info.class]));
        }
        for key in ["dtype", "torch_dtype"] {
            if let Some(dtype) = config.get_mut(key) {
                *dtype = json!("float32");
            }
        }
    }
    let last = "config.json";
    write_json(&aside.path().join(last), &config)?;
    // A reader finds either model whole, or none: without config.json a directory is no model.
    aside.merge(directory, last, &[directory.join(last)])
}
