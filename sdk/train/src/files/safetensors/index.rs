//! Models in several files: `model.safetensors.index.json` (and `pytorch_model.bin.index.json`, which looks alike)
//! says which file holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::text::Unique;
use crate::error::{Result, WeightError, excerpt};

/// Which file holds which tensor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShardIndex {
    /// File names, without directories, by tensor name.
    pub files: BTreeMap<String, String>,
    /// The bytes of all tensors together; 0 when not stated.
    pub total_size: u64,
}

/// An index as it is written.
#[derive(Deserialize)]
struct Text {
    weight_map: Unique<String>,
    #[serde(default)]
    metadata: Value,
}

impl ShardIndex {
    /// Parses an index, which messages call `path`. Errors: damaged JSON, no `weight_map`, a tensor twice, a file
    /// name that leads out of the directory.
    pub fn parse(path: &Path, text: &str) -> Result<ShardIndex> {
        let fault = |expected: &str, found: String| {
            WeightError::new(path, expected, found, "fetch or save the model again")
        };
        let parsed: Text = serde_json::from_str(text).map_err(|error| {
            fault("an object `weight_map` of tensor names and files", error.to_string())
        })?;
        let mut files = BTreeMap::new();
        for (name, file) in parsed.weight_map.0 {
            let is_plain = !file.is_empty()
                && file != "."
                && file != ".."
                && !file.contains(['/', '\\', '\0']);
            if !is_plain {
                let found = format!("`{}`", excerpt(&file));
                return Err(fault("the name of a file beside the index", found)
                    .tensor(name)
                    .into());
            }
            files.insert(name, file);
        }
        let total_size = parsed.metadata["total_size"].as_f64().unwrap_or(0.0) as u64;
        Ok(ShardIndex { files, total_size })
    }

    /// The files in order of their names, each once.
    pub fn file_names(&self) -> BTreeSet<&str> {
        self.files.values().map(String::as_str).collect()
    }

    /// The index as text.
    pub fn render(&self) -> String {
        let json = json!({"metadata": {"total_size": self.total_size}, "weight_map": self.files});
        format!("{json:#}\n")
    }
}

/// Distributes tensors (name and bytes, in order) over files of at most `limit` bytes; a larger tensor gets a file of
/// its own. Returns for each file its name, `model-00001-of-00002.safetensors` (`model.safetensors` for a single
/// one), and its tensors' indices.
pub fn plan_shards(sizes: &[u64], limit: u64) -> Vec<(String, Vec<usize>)> {
    let mut shards: Vec<Vec<usize>> = vec![Vec::new()];
    let mut bytes = 0u64;
    for (index, &size) in sizes.iter().enumerate() {
        let last = shards.len() - 1;
        if !shards[last].is_empty() && bytes.saturating_add(size) > limit {
            shards.push(vec![index]);
            bytes = size;
        } else {
            shards[last].push(index);
            bytes = bytes.saturating_add(size);
        }
    }
    let count = shards.len();
    let name = |number: usize| match count {
        1 => "model.safetensors".to_string(),
        count => format!("model-{number:05}-of-{count:05}.safetensors"),
    };
    shards.into_iter().enumerate().map(|(index, shard)| (name(index + 1), shard)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_reads_back_and_refuses_paths() {
        let text = "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"x.safetensors\"}}";
        let index = ShardIndex::parse(Path::new("i"), text).unwrap();
        assert_eq!(index.file_names().into_iter().collect::<Vec<_>>(), ["x.safetensors"]);
        assert_eq!(ShardIndex::parse(Path::new("i"), &index.render()).unwrap(), index);
        for bad in ["../x", "", "/etc/x", "a\\\\b"] {
            let text = format!("{{\"weight_map\":{{\"a\":\"{bad}\"}}}}");
            let error = ShardIndex::parse(Path::new("i"), &text).unwrap_err().to_string();
            assert!(error.contains("tensor `a`: expected the name of a file"), "{error}");
        }
        let twice = "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}";
        for (text, needle) in
            [("{}", "weight_map"), (twice, "`a` twice"), ("{\"weight_map\":{\"a\":1}}", "a string")]
        {
            let error = ShardIndex::parse(Path::new("i"), text).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn shards_respect_the_limit() {
        assert_eq!(plan_shards(&[1, 2], 10), [("model.safetensors".to_string(), vec![0, 1])]);
        let plan = plan_shards(&[6, 6, 20, 1, 1], 12);
        let sets: Vec<Vec<usize>> = plan.iter().map(|(_, set)| set.clone()).collect();
        assert_eq!(sets, [vec![0, 1], vec![2], vec![3, 4]]);
        assert_eq!(plan[2].0, "model-00003-of-00003.safetensors");
    }
}
