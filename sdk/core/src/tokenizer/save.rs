//! Writing a tokenizer's files.

use std::fs;
use std::path::Path;

use easytransfer_abi::ET_ERR_UNKNOWN;
use serde_json::{Map, Value};
use tokenizers::ModelWrapper;

use super::{Engine, Loaded};
use crate::error::{Error, Result, fail};

/// Writes all files of a tokenizer into an existing directory.
pub fn save(loaded: &Loaded, directory: &Path) -> Result<()> {
    if !directory.is_dir() {
        fail!(
            ET_ERR_NOT_FOUND,
            "cannot save a tokenizer: there is no directory {}",
            directory.display()
        );
    }
    match &loaded.engine {
        Engine::Pipeline(pipeline) => {
            let mut whole = pipeline.tokenizer.clone();
            whole.with_post_processor(loaded.special.clone());
            let text = whole.to_string(false).map_err(|error| {
                Error::new(ET_ERR_UNKNOWN, format!("cannot write the tokenizer as JSON: {error}"))
            })?;
            write(&directory.join("tokenizer.json"), text.as_bytes())?;
            if let ModelWrapper::WordPiece(_) = whole.get_model() {
                write(&directory.join("vocab.txt"), lines(&whole).as_bytes())?;
            }
        }
        // The model file is the only form that gives the same ids again.
        Engine::SentencePiece(model) => write(&directory.join("spiece.model"), &model.file)?,
    }
    if let Some(config) = config(loaded) {
        let text = format!("{:#}\n", Value::Object(config));
        write(&directory.join("tokenizer_config.json"), text.as_bytes())?;
    }
    Ok(())
}

/// The settings in full, so that nothing beside the tokenizer's own files decides on them: a class is always named. A
/// SentencePiece model without settings has none, since settings would make it the tokenizer of a family.
fn config(loaded: &Loaded) -> Option<Map<String, Value>> {
    let settings = &loaded.settings;
    let mut config = settings.config.clone();
    config.remove("added_tokens_decoder");
    if let Engine::SentencePiece(model) = &loaded.engine {
        if !settings.configured {
            return None;
        }
        let tokens = model.added().iter().map(|(token, id)| {
            let value = serde_json::json!({
                "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special
            });
            (id.to_string(), value)
        });
        config.insert("added_tokens_decoder".into(), Value::Object(tokens.collect()));
    }
    let class = settings.class.clone().unwrap_or_else(|| "PreTrainedTokenizerFast".into());
    config.insert("tokenizer_class".into(), class.into());
    Some(config)
}

/// The vocabulary, one token per line in the order of ids.
fn lines(tokenizer: &tokenizers::Tokenizer) -> String {
    let mut tokens: Vec<(u32, String)> =
        tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    let mut text = String::new();
    let mut next = 0;
    for (id, token) in tokens {
        // A token that appeared twice kept its last id; the line of the first gets a name of its own.
        while next < id {
            text.push_str(&format!("[unused-line-{next}]\n"));
            next += 1;
        }
        text.push_str(&token);
        text.push('\n');
        next = id + 1;
    }
    text
}

/// Writes beside the file and renames, so that nobody sees half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = Path::new(&beside);
    let written =
        fs::write(beside, bytes).map_err(|error| Error::io("write", beside, &error)).and_then(
            |()| fs::rename(beside, path).map_err(|error| Error::io("replace", path, &error)),
        );
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(beside);
    }
    written
}
