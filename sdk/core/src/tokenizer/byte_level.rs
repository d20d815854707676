//! Byte-level BPE in two files, as GPT-2 and RoBERTa have them.

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Tokenizer};

use super::json::vocab_from;
use super::load::{configured_bool, configured_token};
use super::{Loaded, failed};
use crate::error::{Result, fail};

/// A tokenizer of a JSON object of token ids and a list of merges, one pair per line after an optional "#version" line. With
/// `<s>` and `</s>` in the vocabulary it adds them as RoBERTa does, else it adds nothing, as GPT-2 does.
pub fn load(vocab: &[u8], merges: &str, config: Option<Value>) -> Result<Loaded> {
    let vocab: Vocab = match vocab_from(vocab) {
        Ok(vocab) => vocab,
        Err(error) => fail!(ET_ERR_BAD_INPUT, "expected a JSON object of token ids: {error}"),
    };
    let mut pairs: Merges = Vec::new();
    for (index, line) in merges.lines().enumerate() {
        if line.is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains(' ') =>
            {
                pairs.push((left.into(), right.into()));
            }
            _ => fail!(
                ET_ERR_BAD_INPUT,
                "line {} of the merges: expected two parts with a space between, found {line:?}",
                index + 1
            ),
        }
    }
    let given = config.as_ref();
    let prefix_space = configured_bool(given, "add_prefix_space").unwrap_or(false);
    let named =
        |key: &str, default: &str| configured_token(given, key).unwrap_or_else(|| default.into());
    let find = |name: &str| vocab.get(name).map(|&id| (name.to_string(), id));
    let ends = find(&named("cls_token", "<s>")).zip(find(&named("sep_token", "</s>")));
    let mut names = vec![named("unk_token", "<|endoftext|>")];
    if ends.is_some() {
        let keys = [
            ("bos_token", "<s>"),
            ("pad_token", "<pad>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
            ("mask_token", "<mask>"),
        ];
        names = keys.map(|(key, default)| named(key, default)).into();
    }
    let mask = named("mask_token", "<mask>");
    let special: Vec<AddedToken> = names
        .iter()
        .filter(|name| vocab.contains_key(*name))
        // The space before a mask belongs to it.
        .map(|name| AddedToken::from(name.as_str(), true).normalized(true).lstrip(*name == mask))
        .collect();

    let model = BPE::builder().vocab_and_merges(vocab, pairs).build();
    let model = model.map_err(|error| failed("vocabulary and merges do not fit", error))?;
    let mut pipeline = Tokenizer::new(model);
    pipeline.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    pipeline.with_decoder(Some(ByteLevel::new(true, true, true)));
    pipeline.add_special_tokens(special).map_err(|error| failed("cannot add tokens", error))?;
    let (special, class) = match ends {
        Some((cls, sep)) => {
            let ends = RobertaProcessing::new(sep, cls).trim_offsets(true);
            (ends.add_prefix_space(prefix_space).into(), "RobertaTokenizer")
        }
        None => (ByteLevel::new(prefix_space, false, true).into(), "GPT2Tokenizer"),
    };
    let config = config
        .or_else(|| Some(json!({"tokenizer_class": class, "add_prefix_space": prefix_space})));
    Ok(Loaded { pipeline, special: Some(special), config })
}
