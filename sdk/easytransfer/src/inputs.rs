//! What an output must not replace: the data that is being read, and the files of the model.

use std::path::{Path, PathBuf};

use easytransfer_train::files::destination::is_same_file;
use easytransfer_train::{Error, Result};

/// The directory of a model. Its files were read when it was loaded; a report or a list beside them may well be
/// written.
#[derive(Clone)]
pub(crate) struct Inputs(PathBuf);

impl Inputs {
    pub(crate) fn of(model: &Path) -> Inputs {
        Inputs(model.to_path_buf())
    }

    /// Refuses to write `output` over the file `data` (`-` is standard input) or over a file of the model.
    pub(crate) fn check(&self, output: &Path, data: &Path) -> Result<()> {
        let stdin = Path::new("/dev/stdin");
        let data = if data.as_os_str() == "-" { stdin } else { data };
        if is_same_file(output, data) {
            return Err(Error::user(format!(
                "`{}`: the output is the file that is being read; name another one",
                output.display()
            )));
        }
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let of_model = entries
            .map(|entry| entry.path())
            .find(|path| is_of_model(path) && is_same_file(output, path));
        match of_model {
            Some(path) => Err(Error::user(format!(
                "`{}`: the output is a file of the model, `{}`; name another one",
                output.display(),
                path.display()
            ))),
            None => Ok(()),
        }
    }
}

/// Files of a model's directory that loading it may read, by name.
const NAMES: [&str; 12] = [
    "easytransfer.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentence_bert_config.json",
    "vocab.json",
    "vocab.txt",
    "vocab.bpe",
    "encoder.json",
    "merges.txt",
];

/// Whether it is one of those, or holds weights.
fn is_of_model(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let weights = [".safetensors", ".index.json", ".bin", ".model"];
    NAMES.contains(&name) || weights.iter().any(|ending| name.ends_with(ending))
}
