//! SentencePiece models (Kudo and Richardson 2018), turned into a Unigram or BPE tokenizer.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

use super::json::part;
use super::load::configured_bool;
use super::{Loaded, failed};
use crate::error::{Result, fail};

mod model;

use model::{Algorithm, Kind, Model, Piece};

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

/// A tokenizer of a model file called `name`.
pub fn load(bytes: &[u8], name: &str, config: Option<Value>) -> Result<Loaded> {
    refuse_shifted(name, config.as_ref())?;
    let model = Model::parse(bytes)?;
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(model.pieces.len());
    for (piece, id) in model.pieces.iter().zip(0u32..) {
        if let Some(first) = ids.insert(&piece.text, id) {
            fail!(ET_ERR_BAD_INPUT, "pieces {first} and {id} are both {:?}", piece.text);
        }
    }
    let unknown: Vec<usize> =
        (0..model.pieces.len()).filter(|&id| model.pieces[id].kind == Kind::Unknown).collect();
    let &[unknown] = unknown.as_slice() else {
        fail!(ET_ERR_BAD_INPUT, "expected one unknown piece, found {}", unknown.len());
    };
    if model.space_is_suffix || !model.escape_spaces {
        fail!(
            ET_ERR_UNIMPLEMENTED,
            "SentencePiece models with spaces at the end of words or with bare spaces are not supported: convert it to tokenizer.json"
        );
    }
    let mut pipeline = Tokenizer::new(match model.algorithm {
        Algorithm::Unigram => unigram(&model, unknown)?,
        Algorithm::Bpe => bpe(&model, &ids, unknown)?,
        Algorithm::Other(number) => fail!(
            ET_ERR_UNIMPLEMENTED,
            "SentencePiece models of type {number} are not supported, expected Unigram (1) or BPE (2)"
        ),
    });
    let normalizer = normalizer(&model)?;
    pipeline
        .with_normalizer(normalizer)
        .map_err(|error| failed("cannot set the normalizer", error))?;
    pipeline.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(metaspace(&model))?));
    pipeline.with_decoder(Some(decoder(&model)?));
    let mut added: Vec<AddedToken> = Vec::new();
    for piece in &model.pieces {
        match piece.kind {
            Kind::Control | Kind::Unknown => {
                added.push(AddedToken::from(piece.text.as_str(), true).normalized(false));
            }
            Kind::UserDefined => {
                added.push(AddedToken::from(piece.text.as_str(), false).normalized(false));
            }
            Kind::Normal | Kind::Byte | Kind::Unused => {}
        }
    }
    added.extend(extra_tokens(config.as_ref()));
    pipeline.add_tokens(added).map_err(|error| failed("cannot add tokens", error))?;
    let special = template(&ids, config.as_ref())?;
    Ok(Loaded { pipeline, special, config })
}

/// Some models number their tokens unlike their own SentencePiece file; reading it would give wrong ids silently.
fn refuse_shifted(name: &str, config: Option<&Value>) -> Result<()> {
    let class = config.and_then(|config| config.get("tokenizer_class")?.as_str()).unwrap_or("");
    let shifted = ["XLMRoberta", "Camembert", "MBart", "Barthez", "Plbart", "M2M100", "Pegasus"];
    if name == "sentencepiece.bpe.model" || shifted.iter().any(|prefix| class.starts_with(prefix)) {
        fail!(
            ET_ERR_UNIMPLEMENTED,
            "the tokens of this model ({}) are numbered unlike its SentencePiece file: it needs a tokenizer.json",
            if class.is_empty() { name } else { class }
        );
    }
    Ok(())
}

fn unigram(model: &Model, unknown: usize) -> Result<ModelWrapper> {
    // Pieces that text must never become lose against all others; the lowest score of all stays where it was, since the
    // score of unknown characters hangs on it.
    let usable = |piece: &&Piece| piece.kind == Kind::Normal;
    let lowest = model.pieces.iter().filter(usable).map(|piece| f64::from(piece.score));
    let lowest = lowest.fold(f64::INFINITY, f64::min);
    let lowest = if lowest.is_finite() { lowest } else { 0.0 };
    let score = |piece: &Piece| match piece.kind {
        Kind::Unused => lowest,
        _ => f64::from(piece.score).max(lowest),
    };
    let vocab = model.pieces.iter().map(|piece| (piece.text.clone(), score(piece))).collect();
    let built = Unigram::from(vocab, Some(unknown), model.byte_fallback);
    Ok(built.map_err(|error| failed("the pieces are malformed", error))?.into())
}

/// BPE needs the pairs that are merged, which the file does not say: all splits of a piece into two pieces, best piece first.
fn bpe(model: &Model, ids: &HashMap<&str, u32>, unknown: usize) -> Result<ModelWrapper> {
    let mut merges: Vec<(f32, usize, usize, &str, &str)> = Vec::new();
    for piece in model.pieces.iter().filter(|piece| piece.kind == Kind::Normal) {
        let inner = piece.text.char_indices().skip(1);
        for (at, _) in inner {
            let (left, right) = piece.text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                let (left_len, right_len) = (left.chars().count(), right.chars().count());
                merges.push((piece.score, left_len, right_len, left, right));
            }
        }
    }
    // Longer left parts first among the splits of one score. Scores are finite.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
    let merges = merges.into_iter().map(|(.., left, right)| (left.into(), right.into())).collect();
    let vocab: Vocab = ids.iter().map(|(text, id)| (text.to_string(), *id)).collect();
    let built = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(model.pieces[unknown].text.clone())
        .fuse_unk(true)
        .byte_fallback(model.byte_fallback)
        .build();
    Ok(built.map_err(|error| failed("the pieces are malformed", error))?.into())
}

fn normalizer(model: &Model) -> Result<Option<NormalizerWrapper>> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if !model.rules.is_empty() {
        let rules = Precompiled::from(&model.rules);
        steps.push(rules.map_err(|error| failed("the normalisation rules", error))?.into());
    }
    if model.squeeze_spaces {
        steps.push(part(json!({"type": "Strip", "strip_left": true, "strip_right": true}))?);
        steps
            .push(part(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}))?);
    }
    if steps.is_empty() {
        return Ok(None);
    }
    Ok(Some(tokenizers::normalizers::Sequence::new(steps).into()))
}

/// Spaces become U+2581; text is cut there too, which is quicker, unless a piece reaches over it. Where spaces are squeezed, the
/// text after an added token has lost its first space and gets it back, as in Hugging Face's conversions.
fn metaspace(model: &Model) -> Value {
    let reaches = |piece: &Piece| {
        piece.kind == Kind::Normal && piece.text.chars().skip(1).any(|c| c == SPACE)
    };
    let scheme = match (model.dummy_prefix, model.squeeze_spaces) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    let split = !model.pieces.iter().any(reaches);
    json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split})
}

fn decoder(model: &Model) -> Result<DecoderWrapper> {
    if !model.byte_fallback {
        return part(metaspace(model));
    }
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if model.dummy_prefix {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    part(json!({"type": "Sequence", "decoders": steps}))
}

/// Tokens that the configuration adds behind the vocabulary. T5 counts its sentinels down: the last one comes first.
fn extra_tokens(config: Option<&Value>) -> Vec<AddedToken> {
    let listed = config.and_then(|config| config.get("additional_special_tokens")?.as_array());
    let mut names: Vec<&str> = listed
        .into_iter()
        .flatten()
        .filter_map(|token| token.as_str().or_else(|| token.get("content")?.as_str()))
        .collect();
    let number = |name: &&str| -> i64 {
        let digits = name.strip_prefix("<extra_id_").and_then(|rest| rest.strip_suffix('>'));
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(-1)
    };
    names.sort_by_key(|name| -number(name));
    names.into_iter().map(|name| AddedToken::from(name, true).normalized(false)).collect()
}

/// What the model adds around a text. The file does not say; the configuration does (`add_bos_token`, `add_eos_token`), else the
/// names of the control pieces tell the family: ALBERT "[CLS] A [SEP]", XLNet "A <sep> <cls>", T5 "A </s>" (it has no "<s>").
fn template(
    ids: &HashMap<&str, u32>,
    config: Option<&Value>,
) -> Result<Option<PostProcessorWrapper>> {
    let has = |name: &str| ids.contains_key(name);
    let bos = configured_bool(config, "add_bos_token");
    let eos = configured_bool(config, "add_eos_token");
    let (single, pair): (String, String) = if bos.is_some() || eos.is_some() {
        let begin = |segment| match bos {
            Some(true) if has("<s>") => format!("<s>:{segment} "),
            _ => String::new(),
        };
        let end = |segment| match eos {
            Some(true) if has("</s>") => format!(" </s>:{segment}"),
            _ => String::new(),
        };
        let single = format!("{}$A:0{}", begin(0), end(0));
        (single.clone(), format!("{single} {}$B:1{}", begin(1), end(1)))
    } else if has("[CLS]") && has("[SEP]") {
        ("[CLS]:0 $A:0 [SEP]:0".into(), "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1".into())
    } else if has("<cls>") && has("<sep>") {
        ("$A:0 <sep>:0 <cls>:2".into(), "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2".into())
    } else if has("</s>") && has("<pad>") && !has("<s>") {
        ("$A:0 </s>:0".into(), "$A:0 </s>:0 $B:0 </s>:0".into())
    } else {
        return Ok(None);
    };
    let parts = |template: &str| -> Vec<Value> {
        let part = |text: &str| {
            // Every part was written above as a name, a colon and a digit.
            let (name, segment) = text.rsplit_once(':').unwrap_or((text, "0"));
            let segment: u32 = segment.parse().unwrap_or(0);
            match name.strip_prefix('$') {
                Some(id) => json!({"Sequence": {"id": id, "type_id": segment}}),
                None => json!({"SpecialToken": {"id": name, "type_id": segment}}),
            }
        };
        template.split(' ').map(part).collect()
    };
    let mut tokens = serde_json::Map::new();
    for text in single.split(' ').filter(|text| !text.starts_with('$')) {
        let name = text.rsplit_once(':').map_or(text, |(name, _)| name);
        tokens.insert(name.into(), json!({"id": name, "ids": [ids[name]], "tokens": [name]}));
    }
    let value = json!({
        "type": "TemplateProcessing", "single": parts(&single), "pair": parts(&pair), "special_tokens": tokens
    });
    part(value).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model file in the smallest form: pieces of (text, score, kind), the algorithm and no normalisation rules.
    fn file(pieces: &[(&str, f32, u8)], algorithm: u8, byte_fallback: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (text, score, kind) in pieces {
            let mut piece = vec![0x0a, text.len() as u8];
            piece.extend_from_slice(text.as_bytes());
            piece.push(0x15);
            piece.extend_from_slice(&score.to_le_bytes());
            piece.extend_from_slice(&[0x18, *kind]);
            bytes.extend_from_slice(&[0x0a, piece.len() as u8]);
            bytes.extend_from_slice(&piece);
        }
        let trainer = [0x18, algorithm, 0x98, 0x02, u8::from(byte_fallback)];
        bytes.extend_from_slice(&[0x12, trainer.len() as u8]);
        bytes.extend_from_slice(&trainer);
        bytes
    }

    fn ids(loaded: &Loaded, text: &str) -> Vec<u32> {
        loaded.pipeline.encode(text, false).unwrap().get_ids().to_vec()
    }

    const BPE_PIECES: [(&str, f32, u8); 9] = [
        ("<unk>", 0.0, 2),
        ("\u{2581}a", -1.0, 1),
        ("ab", -2.0, 1),
        ("\u{2581}ab", -3.0, 1),
        ("\u{2581}", -4.0, 1),
        ("a", -5.0, 1),
        ("b", -6.0, 1),
        ("<0x63>", 0.0, 6),
        ("<s>", 0.0, 3),
    ];

    #[test]
    fn bpe_merges_by_rank_and_falls_back_to_bytes() {
        let loaded = load(&file(&BPE_PIECES, 2, true), "x.model", None).unwrap();
        assert_eq!(ids(&loaded, "ab  bab"), [3, 4, 6, 2]);
        assert_eq!(ids(&loaded, "ac"), [1, 7]);
        assert_eq!(loaded.pipeline.decode(&[3, 4, 6, 2, 7], false).unwrap(), "ab babc");
        assert!(loaded.special.is_none());
    }

    #[test]
    fn unigram_takes_the_most_probable_pieces() {
        let pieces = [
            ("<unk>", 0.0, 2),
            ("\u{2581}", -2.0, 1),
            ("a", -2.0, 1),
            ("\u{2581}aa", -7.0, 1),
            ("aa", -1.0, 1),
        ];
        let loaded = load(&file(&pieces, 1, false), "x.model", None).unwrap();
        assert_eq!(ids(&loaded, " aa "), [1, 4]);
        assert_eq!(ids(&loaded, "z"), [1, 0]);
    }

    #[test]
    fn families_are_told_by_their_control_pieces() {
        let mut pieces = BPE_PIECES.to_vec();
        pieces.extend([("[CLS]", 0.0, 3), ("[SEP]", 0.0, 3)]);
        let loaded = load(&file(&pieces, 2, false), "x.model", None).unwrap();
        assert!(loaded.special.is_some());
        let config = json!({"add_bos_token": true, "add_eos_token": false});
        let loaded = load(&file(&BPE_PIECES, 2, false), "x.model", Some(config)).unwrap();
        let added = tokenizers::PostProcessor::added_tokens(&loaded.special.unwrap(), true);
        assert_eq!(added, 2);
    }

    #[test]
    fn wrong_models_are_refused() {
        let refuse =
            |bytes: &[u8], name: &str| load(bytes, name, None).err().unwrap().message.clone();
        let good = file(&BPE_PIECES, 2, false);
        assert!(refuse(&good, "sentencepiece.bpe.model").contains("tokenizer.json"));
        assert!(refuse(&file(&BPE_PIECES, 4, false), "m").contains("type 4"));
        assert!(refuse(&file(&BPE_PIECES[1..], 2, false), "m").contains("one unknown piece"));
        assert!(refuse(b"", "m").contains("no pieces"));
        let twice = [BPE_PIECES[0], BPE_PIECES[1], BPE_PIECES[1]];
        assert!(refuse(&file(&twice, 1, false), "m").contains("both"));
        assert!(refuse(&file(&[("", 0.0, 1)], 1, false), "m").contains("no text"));
        assert!(refuse(&file(&[("a", f32::NAN, 1)], 1, false), "m").contains("score"));
    }

    /// Damaged files give errors or tokenizers, never a panic of the parser.
    #[test]
    fn damaged_files_do_not_bring_the_parser_down() {
        let good = file(&BPE_PIECES, 2, true);
        for len in 0..good.len() {
            let _ = Model::parse(&good[..len]);
        }
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..3 {
                // Knuth's linear congruential generator: the same damage every time.
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (state >> 33) as usize % bad.len();
                bad[at] = (state >> 20) as u8;
            }
            if Model::parse(&bad).is_ok()
                && let Ok(loaded) = load(&bad, "m", None)
            {
                let _ = loaded.pipeline.encode("ab c", false);
            }
        }
    }
}
