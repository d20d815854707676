//! The tokenizers of RoBERTa and GPT-2: byte-level BPE over a vocabulary, merges and a few settings.

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Tokenizer};

use super::keys::Family;
use super::settings::Settings;
use super::{Loaded, failed, limits};
use crate::error::{Result, fail};

/// The merges of a `merges.txt`: one pair per line, after lines that begin with "#version".
pub fn merges(text: &str) -> Result<Merges> {
    let mut pairs: Merges = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
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
    Ok(pairs)
}

/// A tokenizer of a vocabulary and merges. RoBERTa puts its text between `<s>` and `</s>`, GPT-2 adds nothing unless
/// it is told.
pub fn load(vocab: Vocab, pairs: Merges, family: Family, mut settings: Settings) -> Result<Loaded> {
    limits::vocabulary(&vocab)?;
    let roberta = family == Family::Roberta;
    let prefix_space = settings.bool_or("add_prefix_space", false)?;
    let trim_offsets = settings.get_bool("trim_offsets")?.unwrap_or(true);
    let said = |key| settings.token(key).is_some();
    let mask_said = said("mask_token");
    let mut ends = None;
    if roberta {
        settings.token_or("bos_token", "<s>");
        settings.token_or("eos_token", "</s>");
        settings.token_or("unk_token", "<unk>");
        let sep = settings.token_or("sep_token", "</s>");
        settings.token_or("pad_token", "<pad>");
        ends = Some((settings.token_or("cls_token", "<s>"), sep));
        settings.token_or("mask_token", "<mask>");
    } else {
        for key in ["bos_token", "eos_token", "unk_token"] {
            settings.token_or(key, "<|endoftext|>");
        }
    }
    let mut tokens = settings.tokens_to_add(&[], |_| ());
    let mask = |token: &&mut AddedToken| token.content == "<mask>" && token.special && !mask_said;
    if roberta && let Some(mask) = tokens.iter_mut().find(mask) {
        // The space before a mask belongs to it.
        *mask = mask.clone().lstrip(true);
    }
    let model = BPE::builder().vocab_and_merges(vocab, pairs).build();
    let model = model.map_err(|error| failed("vocabulary and merges do not fit", error))?;
    let mut pipeline = Tokenizer::new(model);
    pipeline.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    pipeline.with_decoder(Some(ByteLevel::new(true, true, true)));
    pipeline.add_tokens(tokens).map_err(|error| failed("cannot add tokens", error))?;
    let id = |name: &str| pipeline.token_to_id(name);
    let special = match ends {
        Some((cls, sep)) => id(&cls).zip(id(&sep)).map(|(cls_id, sep_id)| {
            let ends = RobertaProcessing::new((sep, sep_id), (cls, cls_id));
            ends.trim_offsets(trim_offsets).add_prefix_space(prefix_space).into()
        }),
        None => match settings.bos_eos(|name| id(name))? {
            Some(template) => Some(template),
            None => Some(ByteLevel::new(prefix_space, false, true).into()),
        },
    };
    Loaded::new(pipeline.into(), special, settings)
}
