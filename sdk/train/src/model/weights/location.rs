//! Where a directory keeps its weights.

use std::path::{Path, PathBuf};

use crate::error::{Result, WeightError};
use crate::files::safetensors::ShardIndex;
use crate::model::network::read_text;

/// The files that may hold a model's weights, in the order in which transformers looks for them, and whether each is
/// an index of several files.
const CANDIDATES: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];

/// The files of weights in a directory.
pub(super) struct WeightFiles {
    pub files: Vec<PathBuf>,
    /// The index that names them, where there is one.
    pub index: Option<(PathBuf, ShardIndex)>,
}

impl WeightFiles {
    /// Errors: none of the files is there, an index that is damaged, leads out of the directory or names a file that
    /// is not there.
    pub fn find(directory: &Path) -> Result<WeightFiles> {
        for (name, is_index) in CANDIDATES {
            let path = directory.join(name);
            if path.exists() {
                return if is_index {
                    WeightFiles::indexed(directory, path)
                } else {
                    Ok(WeightFiles { files: vec![path], index: None })
                };
            }
        }
        let names: Vec<&str> = CANDIDATES.iter().map(|(name, _)| *name).collect();
        Err(WeightError::new(
            directory,
            format!("one of {}", names.join(", ")),
            "none of them",
            "give the directory of a Hugging Face model (`from_scratch=true` starts from random weights)",
        )
        .into())
    }

    fn indexed(directory: &Path, path: PathBuf) -> Result<WeightFiles> {
        let text = read_text(&path)?;
        let index = ShardIndex::parse(&path, &text)?;
        let mut files = Vec::new();
        for name in index.file_names() {
            let file = directory.join(name);
            if !file.exists() {
                let expected = format!("the file `{name}` beside the index");
                let remedy = "fetch all files of the model";
                return Err(
                    WeightError::new(&path, expected, "nothing of that name", remedy).into()
                );
            }
            files.push(file);
        }
        Ok(WeightFiles { files, index: Some((path, index)) })
    }
}
