//! The configuration of a module, read key by key.

use std::path::{Path, PathBuf};

use easytransfer_train::model::network::read_json;
use easytransfer_train::{Error, Result};
use serde_json::{Map, Value};

/// A JSON object and who it belongs to.
pub(crate) struct Config {
    path: PathBuf,
    /// The module, for messages.
    owner: String,
    values: Map<String, Value>,
}

impl Config {
    pub fn new(path: &Path, owner: &str, values: Value) -> Config {
        let values = match values {
            Value::Object(values) => values,
            _ => Map::new(),
        };
        Config { path: path.to_path_buf(), owner: owner.to_owned(), values }
    }

    /// The `config.json` of a folder, empty where there is none.
    pub fn read(folder: &Path, owner: &str) -> Result<Config> {
        let path = folder.join("config.json");
        let values = if path.exists() { read_json(&path)? } else { Value::Null };
        Ok(Config::new(&path, owner, values))
    }

    pub fn get(&self, key: &str) -> &Value {
        self.values.get(key).unwrap_or(&Value::Null)
    }

    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The error of a key that is not what was expected.
    pub fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = match self.values.get(key) {
            Some(value) => {
                let text: String = value.to_string().chars().take(200).collect();
                format!("`{text}`")
            }
            None => "nothing".to_owned(),
        };
        Error::Config {
            origin: self.path.display().to_string(),
            message: format!("module {}: {key}: expected {expected}, found {found}", self.owner),
        }
    }

    /// Errors: the key is there, and neither null nor one of `values`.
    pub fn only(&self, key: &str, values: &[Value]) -> Result<()> {
        let found = self.get(key);
        if found.is_null() || values.contains(found) {
            return Ok(());
        }
        let names: Vec<String> = values.iter().map(Value::to_string).collect();
        let expected = if names.is_empty() { "null".to_owned() } else { names.join(" or ") };
        Err(self.wrong(key, &format!("{expected}, which is all that is done here")))
    }

    /// Errors: a key that is not among `known`.
    pub fn known(&self, known: &[&str]) -> Result<()> {
        match self.values.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(self.wrong(key, &format!("one of the keys {}", known.join(", ")))),
        }
    }

    /// A whole number, where the key is there and not null.
    pub fn whole(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            Value::Null => Ok(None),
            value => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
                Some(whole) => Ok(Some(whole)),
                None => Err(self.wrong(key, "a whole number")),
            },
        }
    }

    /// A whole number that must be there.
    pub fn required(&self, key: &str) -> Result<usize> {
        self.whole(key)?.ok_or_else(|| self.wrong(key, "a whole number"))
    }

    /// True or false, or `default` where the key is not there.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.values.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A text, where the key is there and not null.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.wrong(key, "a text")),
        }
    }
}
