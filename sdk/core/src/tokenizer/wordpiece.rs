//! The tokenizers of BERT and MPNet: WordPiece over a vocabulary and a few settings.

use tokenizers::Tokenizer;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::roberta::RobertaProcessing;

use super::keys::Family;
use super::settings::Settings;
use super::{Loaded, failed, limits, template};
use crate::error::{Result, fail};

/// Words with more characters become the unknown token.
const MAX_WORD: usize = 100;

/// The vocabulary of a `vocab.txt`: one token per line, without white space at its end. The last of equal lines
/// counts.
pub fn vocabulary(text: &str) -> Vocab {
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    lines.zip(0u32..).map(|(line, id)| (line.trim_end().to_string(), id)).collect()
}

/// A tokenizer of a vocabulary. What the settings leave open is as the family's class in `transformers` has it: text
/// is lower-cased, whatever the vocabulary holds.
pub fn load(ids: Vocab, family: Family, mut settings: Settings) -> Result<Loaded> {
    limits::vocabulary(&ids)?;
    let mpnet = family == Family::Mpnet;
    if mpnet {
        settings.token_or("bos_token", "<s>");
        settings.token_or("eos_token", "</s>");
    }
    let unknown = settings.token_or("unk_token", "[UNK]");
    let sep = settings.token_or("sep_token", if mpnet { "</s>" } else { "[SEP]" });
    settings.token_or("pad_token", if mpnet { "<pad>" } else { "[PAD]" });
    let cls = settings.token_or("cls_token", if mpnet { "<s>" } else { "[CLS]" });
    settings.token_or("mask_token", if mpnet { "<mask>" } else { "[MASK]" });
    if !ids.contains_key(&unknown) {
        fail!(ET_ERR_BAD_INPUT, "the vocabulary of {} tokens has no token {unknown:?}", ids.len());
    }
    let lower = settings.bool_or("do_lower_case", true)?;
    let chinese = settings.bool_or("tokenize_chinese_chars", true)?;
    let accents = settings.get_bool("strip_accents")?;

    let model = WordPiece::builder()
        .vocab(ids)
        .unk_token(unknown)
        .continuing_subword_prefix("##".into())
        .max_input_chars_per_word(MAX_WORD)
        .build()
        .map_err(|error| failed("the vocabulary is malformed", error))?;
    let mut pipeline = Tokenizer::new(model);
    pipeline
        .with_normalizer(Some(BertNormalizer::new(true, chinese, accents, lower)))
        .map_err(|error| failed("cannot set the normalizer", error))?;
    pipeline.with_pre_tokenizer(Some(BertPreTokenizer));
    pipeline.with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
    let mut tokens = settings.tokens_to_add(&[], |_| ());
    if mpnet && let Some(mask) = tokens.iter_mut().find(|token| token.content == "<mask>") {
        // The space before a mask belongs to it.
        *mask = mask.clone().lstrip(true);
    }
    pipeline.add_tokens(tokens).map_err(|error| failed("cannot add tokens", error))?;
    let id = |name: &str| pipeline.token_to_id(name);
    let ends = id(&cls).zip(id(&sep));
    let special = match ends {
        Some((cls_id, sep_id)) if mpnet => {
            let ends = RobertaProcessing::new((sep, sep_id), (cls, cls_id));
            Some(ends.trim_offsets(true).add_prefix_space(false).into())
        }
        Some((cls_id, sep_id)) => Some(template::bert((&cls, cls_id), (&sep, sep_id))?),
        None => None,
    };
    Loaded::new(pipeline.into(), special, settings)
}
