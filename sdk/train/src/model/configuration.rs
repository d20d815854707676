//! What a model is made from: its config.json, or a run's options alone, and for models of words the vocabulary that
//! the app has learned.

use std::path::Path;

use easytransfer_plugin::{ComponentRef, Tokenizer};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::model::bundle;
use crate::model::components::Components;
use crate::model::network::{read_json, schema_of};
use crate::options;

/// Options of a model by name.
pub type ModelOptions = Map<String, Value>;

/// The configuration of a model, and who makes one of it.
pub struct Configuration {
    /// What the model is made from: the content of config.json, or what stands for it.
    pub value: Value,
    /// What a bundle keeps of it: all but the options that count only while a model begins, which its schema calls
    /// `writeOnly`.
    pub kept: Value,
    /// The model's component.
    pub component: ComponentRef,
    /// Where the configuration stands, for messages.
    pub origin: String,
}

/// What the host adds to a configuration.
#[derive(Default)]
pub struct Additions<'a> {
    /// Size of the vocabulary, for a configuration that does not say it.
    pub words: Option<usize>,
    /// The tokenizer of a model that begins from nothing. Its words are the option `words` of a model that has one,
    /// for vectors that stand in a file by word.
    pub beginning: Option<&'a Tokenizer>,
}

impl Configuration {
    /// Reads config.json in `directory`, with `replaced` over it. Without that file `replaced` is the whole
    /// configuration, with the model's name under `model_type`. Errors: neither names a model, or they name two; an
    /// option that the model does not have, or that counts for a model that begins, where this one does not.
    pub fn read(
        components: &dyn Components,
        directory: &Path,
        replaced: &ModelOptions,
        additions: &Additions<'_>,
    ) -> Result<Configuration> {
        let words = additions.words;
        let path = directory.join("config.json");
        let mut replaced = replaced.clone();
        let named = replaced.remove("model_type");
        let named = named.as_ref().map(|name| match name.as_str() {
            Some(name) => Ok(name),
            None => Err(Error::user(format!(
                "encoder.model_type: expected the name of a model, found {name}"
            ))),
        });
        let named = named.transpose()?;
        if !is_in(directory) {
            let Some(name) = named else { return Err(nothing_in(directory, "")) };
            let component = components.find("et.model/1", name)?;
            let mut value = Value::Object(replaced);
            let mut schema = schema_of(&component, "encoder")?;
            if words.is_some() {
                // It is filled in below, so it is neither required nor has it the model's default.
                if let Some(Value::Array(keys)) = schema.get_mut("required") {
                    keys.retain(|key| key != "vocab_size");
                }
                if let Some(Value::Object(size)) = schema.pointer_mut("/properties/vocab_size") {
                    size.remove("default");
                }
            }
            options::validate(&schema, &mut value, "", "encoder")?;
            value["model_type"] = json!(component.name);
            fill(&mut value, words);
            return Self::made(value, component, "encoder".to_owned(), additions);
        }
        let mut value = read_json(&path)?;
        let origin = path.display().to_string();
        let model_type = value["model_type"].as_str().ok_or_else(|| Error::Config {
            origin: origin.clone(),
            message: "expected a text under `model_type`, for instance \"bert\"".to_owned(),
        })?;
        let plain = |name: &str| name.rsplit('/').next() == Some(model_type);
        if let Some(name) = named.filter(|name| !plain(name)) {
            return Err(Error::user(format!(
                "encoder.model_type: expected {model_type:?}, which `{origin}` says, found {name:?}; leave it out, or leave the encoder's directory out"
            )));
        }
        let component = match (named, bundle::model_origin(directory)?) {
            (Some(name), _) if name != model_type => components.find("et.model/1", name)?,
            (_, Some(origin)) if origin.name == model_type => {
                components.find_made_with("et.model/1", &origin)?
            }
            _ => components.find("et.model/1", model_type)?,
        };
        replace(&mut value, &replaced, &component)?;
        if additions.beginning.is_none() {
            let begins = beginnings(&component)?;
            if let Some(option) = begins.iter().find(|option| replaced.contains_key(*option)) {
                return Err(Error::user(format!(
                    "encoder.{option}: it says how a model begins, and this one has the weights of `{}`; leave it out, or start from scratch (`from_scratch=true`)",
                    directory.display()
                )));
            }
        }
        fill(&mut value, words);
        Self::made(value, component, origin, additions)
    }

    fn made(
        mut value: Value,
        component: ComponentRef,
        origin: String,
        additions: &Additions<'_>,
    ) -> Result<Configuration> {
        let mut kept = value.clone();
        for option in beginnings(&component)? {
            kept.as_object_mut().map(|kept| kept.remove(&option));
            if option == "words"
                && let Some(tokenizer) = additions.beginning
            {
                let text = |id: usize| tokenizer.token_text(id as i64).unwrap_or_default();
                value[option] = (0..tokenizer.vocab_len()).map(text).collect();
            }
        }
        if additions.beginning.is_none() {
            value.clone_from(&kept);
        }
        Ok(Configuration { value, kept, component, origin })
    }
}

/// The options of a model that count only while it begins.
fn beginnings(component: &ComponentRef) -> Result<Vec<String>> {
    let schema = schema_of(component, "encoder")?;
    let properties = schema["properties"].as_object().into_iter().flatten();
    let begins = properties.filter(|(_, property)| property["writeOnly"] == true);
    Ok(begins.map(|(name, _)| name.clone()).collect())
}

/// Whether a directory has a config.json. An empty path is no directory.
pub fn is_in(directory: &Path) -> bool {
    !directory.as_os_str().is_empty() && directory.join("config.json").exists()
}

/// Says how many words there are, where the configuration does not.
fn fill(config: &mut Value, words: Option<usize>) {
    if let (Some(config), Some(words)) = (config.as_object_mut(), words) {
        config.entry("vocab_size").or_insert_with(|| json!(words));
    }
}

/// Puts options of the model into the content of a config.json. Errors name an option that the model does not have.
fn replace(config: &mut Value, options: &ModelOptions, component: &ComponentRef) -> Result<()> {
    if options.is_empty() {
        return Ok(());
    }
    let mut schema = schema_of(component, "encoder")?;
    // What is not replaced stands in the file, or has its default there.
    if let Value::Object(schema) = &mut schema {
        schema.remove("required");
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        for property in properties.into_iter().flat_map(ModelOptions::values_mut) {
            property.as_object_mut().map(|property| property.remove("default"));
        }
    }
    let mut options = Value::Object(options.clone());
    options::validate(&schema, &mut options, "", "encoder")?;
    options::merge(config, options);
    Ok(())
}
/// Refuses, before a run reads its data, what [`Configuration::read`] would find nothing in.
pub fn check(directory: &Path, replaced: &ModelOptions) -> Result<()> {
    if is_in(directory) || replaced.contains_key("model_type") {
        return Ok(());
    }
    Err(nothing_in(
        directory,
        "; to start one from scratch, name it under the option `encoder.model_type`",
    ))
}

fn nothing_in(directory: &Path, hint: &str) -> Error {
    if directory.as_os_str().is_empty() {
        return Error::user(
            "encoder: expected the directory of a model (`encoder=DIR`), or a model's name under the option `encoder.model_type`, found neither",
        );
    }
    let found = match (directory.is_dir(), directory.exists()) {
        (true, _) => "a directory without config.json",
        (false, true) => "a file",
        (false, false) => "nothing",
    };
    Error::user(format!(
        "`{}`: expected the directory of a model (config.json, weights, tokenizer files), found {found}{hint}",
        directory.display()
    ))
}
