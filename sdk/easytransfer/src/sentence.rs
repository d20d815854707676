//! Directories of sentence-transformers: `modules.json` names the modules that make a vector, each in a folder with a
//! configuration of its own. They are read exactly, or refused by module and key.

mod config;
mod modules;

use std::path::{Path, PathBuf};

use easytransfer_train::model::network::read_json;
use easytransfer_train::{Error, Result};
use serde_json::{Value, json};

use config::Config;

/// How a directory makes vectors.
pub(crate) struct Recipe {
    /// Where the encoder and its tokenizer are.
    pub encoder: PathBuf,
    /// Options of the app that follow from the files; what they leave open is not among them.
    pub options: serde_json::Map<String, Value>,
    /// Folders with weights, each with the scope of its parameters.
    pub weights: Vec<(PathBuf, String)>,
    /// Texts that may precede a text, by name.
    prompts: serde_json::Map<String, Value>,
    /// Name of the one that does when nobody says another.
    default_prompt: Option<String>,
}

/// Names that are there without being in a file, for the empty prompt.
const NAMES_OF_NO_PROMPT: [&str; 2] = ["query", "document"];

impl Recipe {
    /// Reads what is there; a plain encoder has none of the files.
    pub fn read(directory: &Path) -> Result<Recipe> {
        let mut recipe = Recipe {
            encoder: directory.to_path_buf(),
            options: serde_json::Map::new(),
            weights: Vec::new(),
            prompts: serde_json::Map::new(),
            default_prompt: None,
        };
        let modules = directory.join("modules.json");
        if modules.exists() {
            recipe.model(&directory.join("config_sentence_transformers.json"))?;
            modules::read(&modules, directory, &mut recipe)?;
        } else {
            // Files of sentence-transformers without the one that names them: what they say of vectors still holds.
            modules::transformer(directory, &mut recipe, false)?;
            let pooling = directory.join("1_Pooling");
            if pooling.join("config.json").exists() {
                modules::pooling(&Config::read(&pooling, "1_Pooling")?, &mut recipe)?;
            }
        }
        Ok(recipe)
    }

    /// Reads `config_sentence_transformers.json`. Of its keys these change vectors; the others are books, and the
    /// similarity, which is somebody else's business.
    fn model(&mut self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let config = Config::new(path, "the model", read_json(path)?);
        config.only("model_type", &[json!("SentenceTransformer")])?;
        if let Some(length) = config.whole("truncate_dim")? {
            if length == 0 {
                return Err(config.wrong("truncate_dim", "at least 1"));
            }
            self.options.insert("truncate".to_owned(), json!(length));
        }
        match config.get("prompts") {
            Value::Null => {}
            Value::Object(prompts) => self.prompts = prompts.clone(),
            _ => return Err(config.wrong("prompts", "texts by name")),
        }
        if self.prompts.values().any(|prompt| !prompt.is_string() && !prompt.is_null()) {
            return Err(config.wrong("prompts", "texts by name"));
        }
        self.default_prompt = config.text("default_prompt_name")?.map(str::to_owned);
        if let Some(name) = &self.default_prompt
            && self.named_prompt(name).is_none()
        {
            return Err(config.wrong("default_prompt_name", "the name of one of `prompts`"));
        }
        Ok(())
    }

    fn named_prompt(&self, name: &str) -> Option<&str> {
        match self.prompts.get(name) {
            Some(prompt) => Some(prompt.as_str().unwrap_or_default()),
            None => NAMES_OF_NO_PROMPT.contains(&name).then_some(""),
        }
    }

    /// The prompt: `text` itself, the one of that `name`, or the files' default. Errors: no prompt of that name.
    pub fn prompt(&self, text: Option<&str>, name: Option<&str>) -> Result<String> {
        if let Some(text) = text {
            return Ok(text.to_owned());
        }
        let Some(name) = name.or(self.default_prompt.as_deref()) else {
            return Ok(String::new());
        };
        let known: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
        self.named_prompt(name).map(str::to_owned).ok_or_else(|| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::user(format!(
                "prompt_name: `{name}` is no prompt of the model, which has: {known}"
            ))
        })
    }

    /// The pooling of a caller instead of that of the files.
    pub fn set_pooling(&mut self, pooling: &str) {
        self.options.insert("pooling".to_owned(), json!(pooling));
    }

    /// Whether the vectors have length 1 in the end, whatever the files say.
    pub fn set_normalize(&mut self, normalize: bool) {
        if !normalize && let Some(Value::Array(modules)) = self.options.get_mut("modules") {
            while modules.last().is_some_and(|module| module["kind"] == "normalize") {
                modules.pop();
            }
        }
        self.options.insert("normalize".to_owned(), json!(normalize));
    }

    /// Numbers of a vector, from those of a token.
    pub fn width(&self, hidden_size: usize) -> usize {
        let poolings = self.options.get("pooling").and_then(Value::as_array).map_or(1, Vec::len);
        let modules = self.options.get("modules").and_then(Value::as_array);
        let dense =
            modules.into_iter().flatten().rev().find_map(|module| module["out_features"].as_u64());
        let width = dense.map_or(hidden_size * poolings, |width| width as usize);
        match self.options.get("truncate").and_then(Value::as_u64) {
            Some(length) => width.min(length as usize),
            None => width,
        }
    }
}
