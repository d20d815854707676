//! The tokenizers of ALBERT and XLNet from the vocabulary of a `tokenizer.json`: Unigram after a few settings.

use serde_json::{Value, json};
use tokenizers::Tokenizer;
use tokenizers::models::unigram::Unigram;

use super::json::part;
use super::keys::Family;
use super::settings::Settings;
use super::template::{Part, bert, build};
use super::{Loaded, failed, limits};
use crate::error::{Result, fail};

/// A tokenizer of pieces with scores. `charsmap` is the step of the file that holds SentencePiece's own rules.
pub fn load(
    scores: Vec<(String, f64)>,
    charsmap: Option<Value>,
    family: Family,
    mut settings: Settings,
) -> Result<Loaded> {
    limits::scores(&scores)?;
    let albert = family == Family::Albert;
    let (cls, sep) = if albert { ("[CLS]", "[SEP]") } else { ("<cls>", "<sep>") };
    settings.token_or("bos_token", if albert { "[CLS]" } else { "<s>" });
    settings.token_or("eos_token", if albert { "[SEP]" } else { "</s>" });
    let unknown = settings.token_or("unk_token", "<unk>");
    let sep = settings.token_or("sep_token", sep);
    settings.token_or("pad_token", "<pad>");
    let cls = settings.token_or("cls_token", cls);
    settings.token_or("mask_token", if albert { "[MASK]" } else { "<mask>" });
    let lower = settings.bool_or("do_lower_case", albert)?;
    let accents = settings.bool_or("keep_accents", false)?;
    let prefix = settings.get_bool("add_prefix_space")?.unwrap_or(true) || !albert;
    let Some(unknown_id) = scores.iter().position(|(piece, _)| *piece == unknown) else {
        fail!(ET_ERR_BAD_INPUT, "the vocabulary of {} pieces has no {unknown:?}", scores.len());
    };

    let model = Unigram::from(scores, Some(unknown_id), false)
        .map_err(|error| failed("the pieces are malformed", error))?;
    let mut pipeline = Tokenizer::new(model);
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": "``"}, "content": "\""}),
        json!({"type": "Replace", "pattern": {"String": "''"}, "content": "\""}),
    ];
    if !accents {
        steps.extend([json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
    }
    if lower {
        steps.push(json!({"type": "Lowercase"}));
    }
    steps.extend(charsmap);
    let normalizer: tokenizers::NormalizerWrapper =
        part(json!({"type": "Sequence", "normalizers": steps}))?;
    pipeline
        .with_normalizer(Some(normalizer))
        .map_err(|error| failed("cannot set the normalizer", error))?;
    let metaspace = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "split": true,
        "prepend_scheme": if prefix { "always" } else { "never" }
    });
    let pre_tokenizer: tokenizers::PreTokenizerWrapper = part(json!({
        "type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]
    }))?;
    pipeline.with_pre_tokenizer(Some(pre_tokenizer));
    pipeline.with_decoder(Some(part::<tokenizers::DecoderWrapper>(metaspace)?));
    let tokens = settings.tokens_to_add(&[], |_| ());
    pipeline.add_tokens(tokens).map_err(|error| failed("cannot add tokens", error))?;
    let id = |name: &str| pipeline.token_to_id(name);
    let special = match id(&cls).zip(id(&sep)) {
        Some((cls_id, sep_id)) if albert => Some(bert((&cls, cls_id), (&sep, sep_id))?),
        Some((cls_id, sep_id)) => {
            let sep = |segment| Part::Token(sep.clone(), sep_id, segment);
            let cls = || Part::Token(cls.clone(), cls_id, 2);
            let single = [Part::First(0), sep(0), cls()];
            Some(build(&single, &[Part::First(0), sep(0), Part::Second(1), sep(1), cls()])?)
        }
        None => None,
    };
    Loaded::new(pipeline.into(), special, settings)
}
