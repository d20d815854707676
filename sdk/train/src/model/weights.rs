//! Weights between Hugging Face directories and parameter sets. Nothing is initialised silently: a missing, unexpected or mis-shaped
//! weight is reported by name.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use easytransfer_loader::open_regular;
use easytransfer_plugin::{Buffer, DType, ModelInfo, Param, Params};

use crate::error::{Error, Result, WeightError};
use crate::files::dtype::WeightType;
use crate::files::safetensors::{F32Bytes, Header, ShardIndex, write_f32};
use crate::files::torch_pickle::TorchFile;
use crate::model::bundle::MANIFEST;
use crate::model::checksums::{Checksum, Checksums};
use crate::model::network::read_text;
use crate::nearest::quoted_list;

/// What happened to the names of a checkpoint.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct LoadReport {
    /// Parameters that got their values.
    pub loaded: usize,
    /// Weights of the checkpoint that this model legitimately does not use.
    pub unused: Vec<String>,
    /// Parameters that keep their initial values because the caller allowed it.
    pub missing: Vec<String>,
    /// Checksums of the files of weights, by name.
    pub files: Checksums,
}

/// Which names a checkpoint must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Every parameter of the set.
    All,
    /// Every parameter of the set that is there now; a head may be declared later.
    Encoder,
    /// What is there; the rest keeps its initial values and is listed.
    Some,
}

/// The name that a parameter has, for the name that a checkpoint uses: without the base prefix, and with today's names of layer norms.
fn canonical(name: &str, prefix: &str) -> String {
    let name = match name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
        Some(rest) if !prefix.is_empty() => rest,
        _ => name,
    };
    if let Some(stem) = name.strip_suffix(".gamma") {
        format!("{stem}.weight")
    } else if let Some(stem) = name.strip_suffix(".beta") {
        format!("{stem}.bias")
    } else {
        name.to_owned()
    }
}

struct Loader<'a> {
    params: BTreeMap<String, Param>,
    info: &'a ModelInfo,
    done: BTreeSet<String>,
    unused: Vec<String>,
    unexpected: Vec<String>,
    /// Whether checksums are wanted.
    sums: bool,
    files: Checksums,
}

impl Loader<'_> {
    /// The parameter for a name of the checkpoint, after the checks.
    fn accept(&mut self, path: &Path, name: &str, shape: &[usize]) -> Result<Option<Param>> {
        let canonical = canonical(name, &self.info.base_prefix);
        let Some(param) = self.params.get(&canonical) else {
            let known = self.info.ignore.iter().any(|start| canonical.starts_with(start.as_str()));
            if known { &mut self.unused } else { &mut self.unexpected }.push(name.to_owned());
            return Ok(None);
        };
        if param.shape() != shape {
            return Err(WeightError::new(
                path,
                format!("shape {:?} as the configuration says", param.shape()),
                format!("shape {shape:?}"),
                "check that config.json belongs to these weights",
            )
            .tensor(name)
            .into());
        }
        if !self.done.insert(canonical.clone()) {
            return Err(WeightError::new(
                path,
                "each weight once",
                format!("a second weight for {canonical}"),
                "",
            )
            .tensor(name)
            .into());
        }
        Ok(Some(param.clone()))
    }

    /// The bytes of a file of weights, which are in memory from then on, whatever becomes of the file.
    fn read(&mut self, path: &Path) -> Result<Buffer> {
        // The engine would refuse it, too, without the name of what was expected.
        open_regular(path).map_err(|error| Error::io("read", path, error))?;
        let buffer = Buffer::map_file(&path_text(path)?)?;
        if self.sums {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.files.insert(name, Checksum::of(buffer.as_slice()));
        }
        Ok(buffer)
    }

    fn safetensors(&mut self, path: &Path) -> Result<()> {
        let buffer = self.read(path)?;
        let header = Header::parse(path, buffer.as_slice())?;
        for (name, entry) in &header.tensors {
            if let Some(param) = self.accept(path, name, &entry.shape)? {
                let dtype = float_type(path, name, entry.dtype)?;
                param.assign_buffer(dtype, &buffer, entry.range.start)?;
            }
        }
        Ok(())
    }

    fn torch(&mut self, path: &Path) -> Result<()> {
        let buffer = self.read(path)?;
        let file = TorchFile::parse(path, buffer.as_slice())?;
        for tensor in &file.tensors {
            if let Some(param) = self.accept(path, &tensor.name, &tensor.shape)? {
                let dtype = float_type(path, &tensor.name, tensor.dtype)?;
                let bytes = Buffer::new(&file.bytes(tensor)?)?;
                param.assign_buffer(dtype, &bytes, 0)?;
            }
        }
        Ok(())
    }
}

/// The path as UTF-8 text, as the boundary wants it.
pub fn path_text(path: &Path) -> Result<Cow<'_, str>> {
    path.to_str().map(Cow::Borrowed).ok_or_else(|| {
        Error::user(format!("`{}`: expected a path that is valid UTF-8", path.display()))
    })
}

fn float_type(path: &Path, name: &str, dtype: WeightType) -> Result<DType> {
    match dtype {
        WeightType::F32 => Ok(DType::F32),
        WeightType::F16 => Ok(DType::F16),
        WeightType::BF16 => Ok(DType::Bf16),
        WeightType::F64 => Ok(DType::F64),
        other => Err(WeightError::new(path, "floating point numbers", other.name(), "")
            .tensor(name)
            .into()),
    }
}

/// The files of weights in a directory, `model.safetensors` before its shards before `pytorch_model.bin`.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let single = directory.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = directory.join("model.safetensors.index.json");
    if index.exists() {
        let text = read_text(&index)?;
        let index = ShardIndex::parse(&index, &text)?;
        return Ok(index.file_names().into_iter().map(|name| directory.join(name)).collect());
    }
    let torch = directory.join("pytorch_model.bin");
    if torch.exists() {
        return Ok(vec![torch]);
    }
    Err(WeightError::new(
        directory,
        "model.safetensors, model.safetensors.index.json or pytorch_model.bin",
        "none of them",
        "give the directory of a Hugging Face model (`train --from-scratch` starts from random weights)",
    )
    .into())
}

/// Whether weights are in a directory.
pub fn are_in(directory: &Path) -> bool {
    files(directory).is_ok()
}

/// Loads the weights in a directory into the set. Where their type allows it they stay in the memory into which the
/// file was read.
pub fn load(
    directory: &Path,
    params: &Params,
    info: &ModelInfo,
    expect: Expect,
) -> Result<LoadReport> {
    let mut loader = Loader {
        params: params.iter().map(|param| (param.name(), param)).collect(),
        info,
        done: BTreeSet::new(),
        unused: Vec::new(),
        unexpected: Vec::new(),
        // Only bundles have something to compare them with.
        sums: directory.join(MANIFEST).exists(),
        files: Checksums::new(),
    };
    for path in files(directory)? {
        if path.extension().is_some_and(|ending| ending == "bin") {
            loader.torch(&path)?;
        } else {
            loader.safetensors(&path)?;
        }
    }
    let Loader { params, done, unused, unexpected, files, .. } = loader;
    if !unexpected.is_empty() {
        return Err(WeightError::new(
            directory,
            "only weights of the model that config.json describes",
            quoted_list(unexpected.iter().take(8).map(String::as_str)),
            "check `model_type` and the layer counts in config.json",
        )
        .into());
    }
    let missing: Vec<String> =
        params.keys().filter(|name| !done.contains(*name)).cloned().collect();
    if !missing.is_empty() && expect != Expect::Some {
        return Err(WeightError::new(
            directory,
            format!("weights for all {} parameters", params.len()),
            format!(
                "none for {} of them: {}",
                missing.len(),
                quoted_list(missing.iter().take(8).map(String::as_str))
            ),
            "allow it with --allow-missing; those parameters then start at random",
        )
        .into());
    }
    Ok(LoadReport { loaded: done.len(), unused, missing, files })
}

/// Writes all parameters as `model.safetensors`, names given by `name_of` (`None` leaves one out), low-rank updates merged.
pub fn save(
    directory: &Path,
    params: &Params,
    name_of: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    let mut tensors: Vec<F32Bytes> = Vec::new();
    for param in params.iter() {
        let Some(name) = name_of(&param.name()) else { continue };
        let values = param.merged()?.to_vec::<f32>()?;
        if let Some(bad) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::other(format!(
                "save: parameter {name} holds {} at index {bad}; the training diverged, use a smaller learning rate",
                values[bad]
            )));
        }
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name, param.shape().to_vec(), bytes));
    }
    write_f32(&directory.join("model.safetensors"), &tensors)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn names_lose_the_base_prefix_and_old_endings() {
        assert_eq!(canonical("bert.pooler.dense.bias", "bert"), "pooler.dense.bias");
        assert_eq!(canonical("bertlike.x", "bert"), "bertlike.x");
        assert_eq!(
            canonical("bert.embeddings.LayerNorm.gamma", "bert"),
            "embeddings.LayerNorm.weight"
        );
        assert_eq!(canonical("classifier.weight", ""), "classifier.weight");
    }
}
