//! What the families of SentencePiece models add around a text.

use std::collections::HashMap;

use tokenizers::PostProcessorWrapper;

use crate::error::Result;
use crate::tokenizer::settings::Settings;
use crate::tokenizer::template::{Part, bert, build};

/// What the model adds around a text. The file does not say; the configuration does (`add_bos_token`,
/// `add_eos_token`), else the names of the control pieces tell the family: ALBERT "[CLS] A [SEP]", XLNet "A <sep>
/// <cls>", T5 "A </s>" (it has no "<s>").
pub fn template(
    ids: &HashMap<String, u32>,
    settings: &Settings,
) -> Result<Option<PostProcessorWrapper>> {
    let named = |key: &str, default: &str| -> Option<(String, u32)> {
        let name = settings.token(key).map_or_else(|| default.to_string(), |token| token.content);
        ids.get(&name).map(|id| (name, *id))
    };
    let token = |(text, id): &(String, u32), segment| Part::Token(text.clone(), *id, segment);
    if let Some(template) = settings.bos_eos(|name| ids.get(name).copied())? {
        return Ok(Some(template));
    }
    let is = |class: &str| settings.class.as_deref() == Some(class);
    if (is("AlbertTokenizer") || !is("XLNetTokenizer"))
        && let Some((cls, sep)) = named("cls_token", "[CLS]").zip(named("sep_token", "[SEP]"))
        && (cls.0 != "<cls>" || is("AlbertTokenizer"))
    {
        return bert((&cls.0, cls.1), (&sep.0, sep.1)).map(Some);
    }
    if let Some((cls, sep)) = named("cls_token", "<cls>").zip(named("sep_token", "<sep>")) {
        let single = [Part::First(0), token(&sep, 0), token(&cls, 2)];
        let pair =
            [Part::First(0), token(&sep, 0), Part::Second(1), token(&sep, 1), token(&cls, 2)];
        return build(&single, &pair).map(Some);
    }
    if let Some(eos) = named("eos_token", "</s>")
        && ids.contains_key("<pad>")
        && !ids.contains_key("<s>")
    {
        let single = [Part::First(0), token(&eos, 0)];
        let pair = [Part::First(0), token(&eos, 0), Part::Second(0), token(&eos, 0)];
        return build(&single, &pair).map(Some);
    }
    Ok(None)
}
