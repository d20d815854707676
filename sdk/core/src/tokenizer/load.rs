//! Finding and reading the files of a tokenizer.

use std::fs::{self, File};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::keys::{Family, is_generic};
use super::settings::{Files, Settings};
use super::{Loaded, byte_level, json, limits, sentencepiece, wordpiece};
use crate::error::{Error, Result, fail};

/// SentencePiece models by the names that they usually have; any other name that ends in `.model` comes last.
const SENTENCEPIECE: [&str; 3] = ["spiece.model", "tokenizer.model", "sentencepiece.bpe.model"];

/// Files that make a tokenizer.
enum Found {
    Json(PathBuf),
    Vocab(PathBuf),
    Pair(PathBuf, PathBuf),
    SentencePiece(PathBuf),
}

/// Loads from a directory or a file.
pub fn load(path: &Path) -> Result<Loaded> {
    let found = find(path)?;
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let settings = Settings::merge(Files {
        tokenizer_config: read_object(&directory.join("tokenizer_config.json"))?,
        special_tokens_map: read_object(&directory.join("special_tokens_map.json"))?,
        added_tokens: read_object(&directory.join("added_tokens.json"))?,
        model: read_object(&directory.join("config.json")).unwrap_or_default(),
    });
    let settings = settings.map_err(|error| error.context(directory.display()))?;
    let (Found::Json(file)
    | Found::Vocab(file)
    | Found::Pair(file, _)
    | Found::SentencePiece(file)) = &found;
    // Malformed files may make the tokenizer crate panic; that is bad input here.
    let loaded = catch_unwind(AssertUnwindSafe(|| match &found {
        Found::Json(path) => json::load(&read(path)?, settings),
        Found::Vocab(path) => {
            let family = family(&settings, &[Family::Bert, Family::Mpnet], "vocab.txt")?;
            wordpiece::load(wordpiece::vocabulary(&read_text(path)?), family, settings)
        }
        Found::Pair(vocab, merges) => {
            let vocab = match json::vocab_from(&read(vocab)?) {
                Ok(vocab) => vocab,
                Err(error) => {
                    fail!(ET_ERR_BAD_INPUT, "expected a JSON object of token ids: {error}")
                }
            };
            let merges = byte_level::merges(&read_text(merges)?)?;
            let families = [Family::Roberta, Family::Gpt2];
            let family = match &settings.class {
                // Without a class the vocabulary tells.
                None if vocab.contains_key("<s>") && vocab.contains_key("</s>") => Family::Roberta,
                None => Family::Gpt2,
                Some(_) => family(&settings, &families, "vocab.json with merges.txt")?,
            };
            byte_level::load(vocab, merges, family, settings)
        }
        Found::SentencePiece(path) => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            sentencepiece::load(&read(path)?, name, settings)
        }
    }));
    match loaded {
        Ok(loaded) => loaded.map_err(|error| error.context(file.display())),
        Err(_) => fail!(ET_ERR_BAD_INPUT, "{}: the file is malformed", file.display()),
    }
}

/// Reads the text of a `tokenizer.json` with no files beside it.
pub fn from_json(text: &str) -> Result<Loaded> {
    let settings = Settings::merge(Files::default())?;
    match catch_unwind(AssertUnwindSafe(|| json::load(text.as_bytes(), settings))) {
        Ok(loaded) => loaded,
        Err(_) => fail!(ET_ERR_BAD_INPUT, "tokenizer.json: the text is malformed"),
    }
}

/// The family that builds a tokenizer from such files; the first one where no class is named.
fn family(settings: &Settings, families: &[Family], files: &str) -> Result<Family> {
    match (&settings.class, settings.family()) {
        (None, _) => Ok(families[0]),
        (_, Some(family)) if families.contains(&family) => Ok(family),
        (Some(class), _) => fail!(
            ET_ERR_UNIMPLEMENTED,
            "a tokenizer of class {class:?} is not made from {files} here{}: it needs a tokenizer.json",
            if is_generic(class) { ", since that class says nothing about it" } else { "" }
        ),
    }
}

fn find(path: &Path) -> Result<Found> {
    if path.is_dir() {
        return find_in(path);
    }
    if !path.is_file() {
        fail!(
            ET_ERR_NOT_FOUND,
            "there is no tokenizer at {}: expected a directory or a file",
            path.display()
        );
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let beside = |other: &str| {
        let other = path.with_file_name(other);
        if other.is_file() {
            return Ok(other);
        }
        fail!(ET_ERR_NOT_FOUND, "{} needs {} beside it", path.display(), other.display())
    };
    Ok(match name {
        "vocab.json" => Found::Pair(path.into(), beside("merges.txt")?),
        "encoder.json" => Found::Pair(path.into(), beside("vocab.bpe")?),
        "merges.txt" => Found::Pair(beside("vocab.json")?, path.into()),
        "vocab.bpe" => Found::Pair(beside("encoder.json")?, path.into()),
        _ if name.ends_with(".json") => Found::Json(path.into()),
        _ if name.ends_with(".txt") => Found::Vocab(path.into()),
        _ if name.ends_with(".model") => Found::SentencePiece(path.into()),
        _ => fail!(
            ET_ERR_BAD_INPUT,
            "{} is no tokenizer: expected a name that ends in .json, .txt or .model",
            path.display()
        ),
    })
}

fn find_in(directory: &Path) -> Result<Found> {
    let file = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
    if let Some(path) = file("tokenizer.json") {
        return Ok(Found::Json(path));
    }
    if let Some(path) = file("vocab.txt") {
        return Ok(Found::Vocab(path));
    }
    for (vocab, merges) in [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")] {
        if let (Some(vocab), Some(merges)) = (file(vocab), file(merges)) {
            return Ok(Found::Pair(vocab, merges));
        }
    }
    if let Some(path) = SENTENCEPIECE.iter().find_map(|name| file(name)) {
        return Ok(Found::SentencePiece(path));
    }
    let entries = fs::read_dir(directory).map_err(|e| Error::io("list", directory, &e))?;
    let mut models: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "model") && path.is_file())
        .collect();
    models.sort();
    match models.as_slice() {
        [path] => Ok(Found::SentencePiece(path.clone())),
        [] => fail!(
            ET_ERR_NOT_FOUND,
            "there is no tokenizer in {}: looked for tokenizer.json, vocab.txt, vocab.json with merges.txt, and *.model",
            directory.display()
        ),
        [first, second, ..] => fail!(
            ET_ERR_BAD_INPUT,
            "{} and {} are both SentencePiece models: name the file to load",
            first.display(),
            second.display()
        ),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limits::FILE_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limits::FILE_SIZE {
        fail!(
            ET_ERR_BAD_INPUT,
            "{}: the file has more than {} MiB, the limit for a tokenizer",
            path.display(),
            limits::FILE_SIZE >> 20
        );
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<String> {
    match String::from_utf8(read(path)?) {
        Ok(text) => Ok(text),
        Err(error) => fail!(ET_ERR_BAD_INPUT, "the file is not UTF-8: {}", error.utf8_error()),
    }
}

/// A file with a JSON object, if it is there.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    match serde_json::from_slice(&read(path)?) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => fail!(ET_ERR_BAD_INPUT, "{}: expected a JSON object", path.display()),
        Err(error) => fail!(ET_ERR_BAD_INPUT, "{}: {error}", path.display()),
    }
}
