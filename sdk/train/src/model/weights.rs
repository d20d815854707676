//! Weights between Hugging Face directories and parameter sets. Nothing is initialised silently: a missing,
//! unexpected or mis-shaped weight is reported by name.

mod finite;
mod location;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use easytransfer_loader::open_regular;
use easytransfer_plugin::{Buffer, DType, LogLevel, ModelInfo, Param, Params, log};

use crate::error::{Error, Result, WeightError};
use crate::files::dtype::WeightType;
use crate::files::safetensors::{F32Bytes, Header, write_f32};
#[cfg(feature = "pickle")]
use crate::files::torch_pickle::TorchFile;
use crate::model::bundle::MANIFEST;
use crate::model::checksums::{Checksum, Checksums};
use crate::nearest::quoted_list;
use location::WeightFiles;

/// What programs put before every name: `torch.nn.DataParallel` and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// What happened to the names of a checkpoint.
#[derive(Debug, Default, Clone, PartialEq, serde::Serialize)]
pub struct LoadReport {
    /// Parameters that got their values.
    pub loaded: usize,
    /// Weights of the checkpoint that this model legitimately does not use.
    pub unused: Vec<String>,
    /// Weights of the checkpoint that nothing here knows: those of some other head.
    pub unknown: Vec<String>,
    /// Parameters that keep their initial values: the caller allowed it, or only the pooled output needs them.
    pub missing: Vec<String>,
    /// Checksums of the files of weights, by name.
    pub files: Checksums,
    /// What a user may not expect, as the log has it: weights that nothing uses, parameters without weights.
    pub warnings: Vec<String>,
}

impl LoadReport {
    /// Says what a user may not expect, in the log and under `warnings`.
    pub fn warn(&mut self, directory: &Path) {
        for (names, what) in [
            (&self.unknown, "weights that nothing here knows and nothing uses"),
            (&self.missing, "parameters without weights, which keep their initial values"),
        ] {
            if !names.is_empty() {
                let message = format!("`{}`: {what}: {}", directory.display(), some_of(names));
                log(LogLevel::Warn, "weights", &message);
                self.warnings.push(message);
            }
        }
    }
}

/// Which names a checkpoint must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Every parameter of the set, and no weight that nothing knows.
    All,
    /// Every parameter of the set that is there now, but for those of [`ModelInfo::pooler`]; a head may be declared
    /// later.
    Encoder,
    /// What is there; the rest keeps its initial values and is listed.
    Some,
}

/// The name that a parameter has, for the name that a checkpoint uses: without the base prefix, and with today's
/// names of layer norms.
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

/// The name without what wrappers of models put before it.
fn unwrapped(name: &str) -> &str {
    let inner = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper));
    inner.map_or(name, unwrapped)
}

fn first_part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// A file's bytes and, where they are wanted, their checksum.
type Read = (Buffer, Option<Checksum>);

fn read_file(path: &Path, sum: bool) -> Result<Read> {
    // The engine would refuse it, too, without the name of what was expected.
    open_regular(path).map_err(|error| Error::io("read", path, error))?;
    let buffer = Buffer::map_file(&path_text(path)?)?;
    let sum = sum.then(|| Checksum::of(buffer.as_slice()));
    Ok((buffer, sum))
}

/// Only bundles have something to compare checksums with.
fn wants_sums(directory: &Path) -> bool {
    directory.join(MANIFEST).exists()
}

/// The first file of weights in a directory, read on a thread of its own while the plugins are opened that will take
/// it.
#[derive(Default)]
pub struct Ahead(Option<(PathBuf, JoinHandle<Result<Read>>)>);

impl Ahead {
    /// Starts to read. What is wrong comes out when the weights are loaded.
    pub fn start(directory: &Path) -> Ahead {
        let first =
            WeightFiles::find(directory).ok().and_then(|found| found.files.into_iter().next());
        let sum = wants_sums(directory);
        Ahead(first.and_then(|path| {
            let name = path.clone();
            let thread = std::thread::Builder::new().spawn(move || read_file(&name, sum));
            // Without a thread the file is read when it is needed.
            thread.ok().map(|thread| (path, thread))
        }))
    }

    /// What was read of this file; none if it was another one.
    fn take(&mut self, path: &Path) -> Option<Result<Read>> {
        let (_, thread) = self.0.take_if(|(name, _)| name == path)?;
        let panicked = |_| Err(Error::other("the thread that reads weights panicked"));
        Some(thread.join().unwrap_or_else(panicked))
    }
}

struct Loader<'a> {
    ahead: Ahead,
    params: BTreeMap<String, Param>,
    info: &'a ModelInfo,
    /// Every name of the files, with its file.
    seen: BTreeMap<String, PathBuf>,
    done: BTreeSet<String>,
    unused: Vec<String>,
    unknown: Vec<String>,
    unexpected: Vec<String>,
    /// Whether checksums are wanted.
    sums: bool,
    files: Checksums,
}

impl<'a> Loader<'a> {
    fn new(params: BTreeMap<String, Param>, info: &'a ModelInfo) -> Self {
        Loader {
            params,
            info,
            seen: BTreeMap::new(),
            done: BTreeSet::new(),
            unused: Vec::new(),
            unknown: Vec::new(),
            unexpected: Vec::new(),
            ahead: Ahead::default(),
            sums: false,
            files: Checksums::new(),
        }
    }

    /// The parameter for a name of the checkpoint, after the checks.
    fn accept(&mut self, path: &Path, name: &str, shape: &[usize]) -> Result<Option<Param>> {
        let twice = |what: &str| {
            let found = format!("a second weight for {what}");
            WeightError::new(path, "each weight once", found, "").tensor(name)
        };
        if let Some(before) = self.seen.insert(name.to_owned(), path.to_path_buf()) {
            return Err(twice(&format!("it: the first is in `{}`", before.display())).into());
        }
        let bare = if self.params.contains_key(name) { name } else { unwrapped(name) };
        let canonical = canonical(bare, &self.info.base_prefix);
        let Some(param) = self.params.get(&canonical) else {
            let is_ignored = self.info.ignore.iter().any(|start| canonical.starts_with(start));
            // What stands where the model keeps its own parameters belongs to another model; the rest is a head.
            let had_prefix = first_part(bare) == self.info.base_prefix;
            let is_inside = || {
                let first = first_part(&canonical);
                had_prefix || self.params.keys().any(|own| first_part(own) == first)
            };
            if is_ignored {
                self.unused.push(name.to_owned());
            } else if is_inside() {
                self.unexpected.push(name.to_owned());
            } else {
                self.unknown.push(name.to_owned());
            }
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
            return Err(twice(&canonical).into());
        }
        Ok(Some(param.clone()))
    }

    /// The bytes of a file of weights, which are in memory from then on, whatever becomes of the file.
    fn bytes(&mut self, path: &Path) -> Result<Buffer> {
        let (buffer, sum) = match self.ahead.take(path) {
            Some(read) => read?,
            None => read_file(path, self.sums)?,
        };
        if let Some(sum) = sum {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.files.insert(name, sum);
        }
        Ok(buffer)
    }

    fn safetensors(&mut self, path: &Path) -> Result<()> {
        let buffer = self.bytes(path)?;
        let header = Header::parse(path, buffer.as_slice())?;
        for (name, entry) in &header.tensors {
            if let Some(param) = self.accept(path, name, &entry.shape)? {
                let dtype = float_type(path, name, entry.dtype)?;
                finite::check(path, name, dtype, &buffer.as_slice()[entry.range.clone()])?;
                param.assign_buffer(dtype, &buffer, entry.range.start)?;
            }
        }
        Ok(())
    }

    #[cfg(not(feature = "pickle"))]
    fn torch(&mut self, path: &Path) -> Result<()> {
        let remedy = "convert the weights to safetensors, or build with the feature `pickle`";
        Err(WeightError::new(path, "a safetensors file", "a file of PyTorch", remedy).into())
    }

    #[cfg(feature = "pickle")]
    fn torch(&mut self, path: &Path) -> Result<()> {
        let buffer = self.bytes(path)?;
        let file = TorchFile::parse(path, buffer.as_slice())?;
        for tensor in &file.tensors {
            if let Some(param) = self.accept(path, &tensor.name, &tensor.shape)? {
                let dtype = float_type(path, &tensor.name, tensor.dtype)?;
                let bytes = file.bytes(tensor)?;
                finite::check(path, &tensor.name, dtype, &bytes)?;
                param.assign_buffer(dtype, &Buffer::new(&bytes)?, 0)?;
            }
        }
        Ok(())
    }

    /// Reads all files of a directory; then every weight has its place, or with `strict` unset is one that nothing
    /// knows.
    fn read(&mut self, directory: &Path, strict: bool) -> Result<()> {
        self.read_all(directory)?;
        if strict {
            self.unexpected.append(&mut self.unknown);
        }
        if !self.unexpected.is_empty() {
            return Err(WeightError::new(
                directory,
                "only weights of the model that config.json describes",
                some_of(&self.unexpected),
                "check `model_type` and the layer counts in config.json",
            )
            .into());
        }
        Ok(())
    }

    /// Reads all files of a directory, whatever else than the parameters they have.
    fn read_all(&mut self, directory: &Path) -> Result<()> {
        let WeightFiles { files, index } = WeightFiles::find(directory)?;
        for path in &files {
            if path.extension().is_some_and(|ending| ending == "safetensors") {
                self.safetensors(path)?;
            } else {
                self.torch(path)?;
            }
        }
        if let Some((path, index)) = index {
            for (name, file) in &index.files {
                let found = match self.seen.get(name) {
                    Some(seen) if seen.ends_with(file) => continue,
                    Some(seen) => format!("it in `{}`", seen.display()),
                    None => "no such tensor".to_owned(),
                };
                let expected = format!("the tensor in `{file}` as the index says");
                let remedy = "the files do not belong together; fetch or save the model again";
                return Err(WeightError::new(&path, expected, found, remedy).tensor(name).into());
            }
        }
        Ok(())
    }

    /// Parameters that got no value.
    fn missing(&self) -> Vec<String> {
        self.params.keys().filter(|name| !self.done.contains(*name)).cloned().collect()
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

/// The first of the names, for a message.
fn some_of(names: &[String]) -> String {
    let more =
        if names.len() > 8 { format!(" and {} more", names.len() - 8) } else { String::new() };
    quoted_list(names.iter().take(8).map(String::as_str)) + &more
}

fn none_for(directory: &Path, all: usize, missing: &[String], remedy: &str) -> Error {
    let expected = format!("weights for all {all} parameters");
    let found = format!("none for {} of them: {}", missing.len(), some_of(missing));
    WeightError::new(directory, expected, found, remedy).into()
}

/// Whether weights are in a directory.
pub fn are_in(directory: &Path) -> bool {
    WeightFiles::find(directory).is_ok()
}

/// Loads the weights in a directory into the set. Where their type allows it they stay in the
/// memory into which the file was read. Errors: values that are not
/// finite, types other than floating point, other shapes than the set's, weights of the model itself that it has no
/// place for, and what `expect` does not allow to be missing.
pub fn load(
    directory: &Path,
    params: &Params,
    info: &ModelInfo,
    expect: Expect,
) -> Result<LoadReport> {
    load_ahead(directory, params, info, expect, Ahead::default())
}

/// As [`load`], with what was read ahead.
pub fn load_ahead(
    directory: &Path,
    params: &Params,
    info: &ModelInfo,
    expect: Expect,
    ahead: Ahead,
) -> Result<LoadReport> {
    let all = params.iter().map(|param| (param.name(), param)).collect();
    let mut loader = Loader::new(all, info);
    loader.sums = wants_sums(directory);
    loader.ahead = ahead;
    loader.read(directory, expect == Expect::All)?;
    let missing = loader.missing();
    let is_needed = |name: &&String| match expect {
        Expect::All => true,
        Expect::Encoder => !info.is_pooler(name),
        Expect::Some => false,
    };
    let needed: Vec<String> = missing.iter().filter(is_needed).cloned().collect();
    if !needed.is_empty() {
        let mut remedy =
            "allow it with `allow_missing=true`; those parameters then start at random".to_owned();
        if !loader.unknown.is_empty() {
            remedy = format!("nothing knows {} of the files; {remedy}", some_of(&loader.unknown));
        }
        return Err(none_for(directory, params.len(), &needed, &remedy));
    }
    let Loader { done, unused, unknown, files, .. } = loader;
    Ok(LoadReport { loaded: done.len(), unused, unknown, missing, files, warnings: Vec::new() })
}

/// The error of a task that needs the pooler's parameters where `report` says that they are missing.
pub fn check_pooler(directory: &Path, info: &ModelInfo, report: &LoadReport) -> Result<()> {
    let missing: Vec<String> =
        report.missing.iter().filter(|name| info.is_pooler(name)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let remedy =
        "choose another pooling (\"mean\" or \"cls\"), or allow it with `allow_missing=true`";
    Err(none_for(directory, report.loaded + report.missing.len(), &missing, remedy))
}

/// Loads the weights in a directory into the parameters below `scope`, whose names there are those of the files.
/// Errors: as [`load`]; each weight must have its parameter and each parameter its weight.
pub fn load_scope(directory: &Path, params: &Params, scope: &str) -> Result<()> {
    let below = |param: Param| {
        let name = param.name().strip_prefix(scope)?.strip_prefix('.')?.to_owned();
        Some((name, param))
    };
    let info = ModelInfo::default();
    let mut loader = Loader::new(params.iter().filter_map(below).collect(), &info);
    loader.read(directory, true)?;
    let missing = loader.missing();
    if missing.is_empty() {
        return Ok(());
    }
    Err(none_for(directory, loader.params.len(), &missing, "save the model again"))
}

/// Loads those of these parameters that the weights in a directory have, and answers with the names of the others,
/// which keep their values. Errors: a weight of another shape.
pub fn load_where_there(
    directory: &Path,
    params: Vec<Param>,
    info: &ModelInfo,
) -> Result<Vec<String>> {
    let wanted = params.into_iter().map(|param| (param.name(), param)).collect();
    let mut loader = Loader::new(wanted, info);
    loader.read_all(directory)?;
    let Loader { params, done, .. } = loader;
    Ok(params.into_keys().filter(|name| !done.contains(name)).collect())
}

/// Writes all parameters as `model.safetensors`, names given by `name_of` (`None` leaves one out), low-rank updates
/// merged.
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
    use super::{canonical, unwrapped};

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

    #[test]
    fn names_lose_what_wrappers_put_before_them() {
        assert_eq!(unwrapped("module.bert.pooler.dense.bias"), "bert.pooler.dense.bias");
        assert_eq!(unwrapped("_orig_mod.module.x"), "x");
        assert_eq!(unwrapped("modules.x"), "modules.x");
    }
}
