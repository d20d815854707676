//! SentencePiece models (Kudo and Richardson 2018): the file alone gives the ids that Google's library gives.
//!
//! Nothing of the crate `tokenizers` cuts the text, because its normalisation and its added tokens decide otherwise
//! than the library on decomposed text, on user-defined symbols and on spaces. Where `tokenizer_config.json` lies
//! beside the file, the tokenizer is that of the model's family: text is prepared as ALBERT and XLNet do, and the
//! special tokens are found in text. Control pieces are otherwise never found in text.

use std::collections::HashMap;

use serde_json::json;
use tokenizers::{AddedToken, Decoder, DecoderWrapper};

use super::json::part;
use super::settings::Settings;
use super::{Loaded, failed};
use crate::error::{Result, fail};

mod added;
mod model;
mod normalizer;
mod prefixes;
mod preprocess;
mod reader;
mod segment;
mod template;

use added::Added;
use model::{Kind, Model};
use normalizer::Normalizer;
use preprocess::Preprocess;
use reader::Seam;
pub use reader::TextReader;
use segment::Segmenter;

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

/// What a piece that ends in a digit and a comma loses, so that ALBERT and XLNet cut the comma off.
const DIGIT_COMMA: f32 = 100.0;

/// A model ready to cut texts.
pub struct SentencePiece {
    /// The file, for saving.
    pub file: Vec<u8>,
    texts: Vec<String>,
    ids: HashMap<String, u32>,
    normalizer: Normalizer,
    segmenter: Segmenter,
    preprocess: Option<Preprocess>,
    seam: Seam,
    unknown: u32,
    byte_fallback: bool,
    /// The pieces that stand for bytes.
    bytes: Vec<Option<u32>>,
    added: Added,
    /// Ids that decoding may leave out.
    special: Vec<u32>,
    decoder: DecoderWrapper,
}

impl SentencePiece {
    /// Number of tokens, added tokens included.
    pub fn vocab_len(&self) -> usize {
        self.texts.len()
    }

    /// Id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// Text of a token that exists.
    fn text(&self, id: u32) -> &str {
        &self.texts[id as usize]
    }

    /// Text of a token.
    pub fn get_text(&self, id: u32) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    /// The tokens that are found in text before all others, with their ids.
    pub fn added(&self) -> &[(AddedToken, u32)] {
        self.added.tokens()
    }

    /// Text of ids, which all exist.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let kept = ids.iter().filter(|id| !(skip_special_tokens && self.special.contains(id)));
        let texts = kept.map(|id| self.text(*id).to_string()).collect();
        self.decoder.decode(texts).map_err(|error| failed("cannot decode", error))
    }
}

/// A tokenizer of a model file called `name`.
pub fn load(bytes: &[u8], name: &str, mut settings: Settings) -> Result<Loaded> {
    refuse_shifted(name, &settings)?;
    let mut model = Model::parse(bytes)?;
    for field in &model.unknown {
        crate::log::warn(&format!("{name}: the field {field} is not known and ignored"));
    }
    let unknown = check(&model)?;
    let family = family(&settings)?;
    let preprocess = family.map(|family| preprocess(&settings, family)).transpose()?;
    if preprocess.is_some_and(|preprocess| preprocess.remove_space) {
        model.squeeze_spaces = true;
    }
    let mut segmenter = Segmenter::new(&model, unknown);
    if preprocess.is_some() {
        for (piece, id) in model.pieces.iter().zip(0..) {
            let mut end = piece.text.chars().rev();
            if end.next() == Some(',') && end.next().is_some_and(|c| c.is_numeric()) {
                segmenter.lower(id, DIGIT_COMMA);
            }
        }
    }
    let normalizer = Normalizer::new(&model)?;
    let seam = Seam::of(segmenter.texts(), normalizer.space.as_bytes());
    let mut texts: Vec<String> = model.pieces.iter().map(|piece| piece.text.clone()).collect();
    let mut ids = HashMap::with_capacity(texts.len());
    for (text, id) in texts.iter().zip(0..) {
        ids.entry(text.clone()).or_insert(id);
    }
    let mut bytes_of = vec![None; 256];
    for (byte, id) in bytes_of.iter_mut().enumerate() {
        let text = format!("<0x{byte:02X}>");
        *id = ids.get(&text).copied().filter(|id| model.pieces[*id as usize].kind == Kind::Byte);
    }

    let mut added = Vec::new();
    let of_kind = |kinds: &[Kind]| -> Vec<u32> {
        let pieces = model.pieces.iter().zip(0..);
        pieces.filter(|(piece, _)| kinds.contains(&piece.kind)).map(|(_, id)| id).collect()
    };
    let mut special = of_kind(&[Kind::Control, Kind::Unknown]);
    if settings.configured {
        for &id in &special {
            let text = texts[id as usize].as_str();
            added.push((AddedToken::from(text, true).normalized(false), id));
        }
    }
    if matches!(settings.class.as_deref(), Some("T5Tokenizer" | "MT5Tokenizer"))
        && settings.configured
    {
        sentinels(&mut settings, &ids)?;
    }
    for token in settings.tokens_to_add(&[], count_down) {
        let id = match ids.get(&token.content) {
            Some(&id) => id,
            None => {
                let id = texts.len() as u32;
                ids.insert(token.content.clone(), id);
                texts.push(token.content.clone());
                id
            }
        };
        if token.special && !special.contains(&id) {
            special.push(id);
        }
        added.retain(|(_, known)| *known != id);
        added.push((token, id));
    }
    for (key, text) in [("bos_token", "<s>"), ("eos_token", "</s>")] {
        if ids.contains_key(text) {
            settings.token_or(key, text);
        }
    }
    settings.check_ids(|content| ids.get(content).copied());
    let template = template::template(&ids, &settings)?;
    if settings.split_special_tokens()? {
        added.retain(|(token, _)| !token.special);
    }
    let decoder = decoder(&model)?;
    let engine = SentencePiece {
        file: bytes.into(),
        texts,
        ids,
        normalizer,
        segmenter,
        seam,
        unknown,
        byte_fallback: model.byte_fallback,
        bytes: bytes_of,
        added: Added::new(added, preprocess.is_some_and(|preprocess| preprocess.lower)),
        preprocess,
        special,
        decoder,
    };
    Loaded::new(engine.into(), template, settings)
}

/// The unknown piece of a model in which no two pieces that text is cut into, nor two others, are alike.
fn check(model: &Model) -> Result<u32> {
    let mut seen: HashMap<(&str, bool), u32> = HashMap::with_capacity(model.pieces.len());
    for (piece, id) in model.pieces.iter().zip(0u32..) {
        let in_text = matches!(piece.kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
        if let Some(first) = seen.insert((&piece.text, in_text), id) {
            fail!(ET_ERR_BAD_INPUT, "pieces {first} and {id} are both {:?}", piece.text);
        }
    }
    let unknown: Vec<u32> = model
        .pieces
        .iter()
        .zip(0..)
        .filter(|(piece, _)| piece.kind == Kind::Unknown)
        .map(|(_, id)| id)
        .collect();
    match unknown.as_slice() {
        [unknown] => Ok(*unknown),
        _ => fail!(ET_ERR_BAD_INPUT, "expected one unknown piece, found {}", unknown.len()),
    }
}

/// Some models number their tokens unlike their own SentencePiece file; reading it would give wrong ids silently.
fn refuse_shifted(name: &str, settings: &Settings) -> Result<()> {
    let class = settings.class.as_deref().unwrap_or("");
    let shifted = [
        "XLMRoberta",
        "Camembert",
        "MBart",
        "Barthez",
        "PLBart",
        "Plbart",
        "M2M100",
        "Pegasus",
        "Nllb",
        "XGLM",
        "Bartpho",
        "SeamlessM4T",
    ];
    if name == "sentencepiece.bpe.model" || shifted.iter().any(|prefix| class.starts_with(prefix)) {
        fail!(
            ET_ERR_UNIMPLEMENTED,
            "the tokens of this model ({}) are numbered unlike its SentencePiece file: it needs a tokenizer.json",
            if class.is_empty() { name } else { class }
        );
    }
    Ok(())
}

/// Families whose tokenizer prepares a text, and the others that are known to take it as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Albert,
    Xlnet,
}

/// The family, if its tokenizer is told to prepare text. A file without a configuration beside it is taken at its
/// word.
fn family(settings: &Settings) -> Result<Option<Family>> {
    let plain = [
        "T5Tokenizer",
        "MT5Tokenizer",
        "LlamaTokenizer",
        "PreTrainedTokenizer",
        "TokenizersBackend",
        "BigBirdTokenizer",
        "ReformerTokenizer",
        "BertGenerationTokenizer",
        "GemmaTokenizer",
    ];
    match settings.class.as_deref() {
        _ if !settings.configured => Ok(None),
        Some("AlbertTokenizer") => Ok(Some(Family::Albert)),
        Some("XLNetTokenizer") => Ok(Some(Family::Xlnet)),
        Some(class) if !plain.contains(&class) => fail!(
            ET_ERR_UNIMPLEMENTED,
            "tokenizer_class {class:?} may prepare text in a way of its own before its SentencePiece model sees it: it needs a tokenizer.json"
        ),
        _ => {
            for key in ["do_lower_case", "keep_accents", "remove_space", "split_by_punct"] {
                if settings.get_bool(key)? == Some(key != "keep_accents") {
                    fail!(
                        ET_ERR_UNIMPLEMENTED,
                        "{key}: only the tokenizers of ALBERT and XLNet have this with a SentencePiece model; tokenizer_class is {:?}",
                        settings.class.as_deref().unwrap_or("not given")
                    );
                }
            }
            Ok(None)
        }
    }
}

fn preprocess(settings: &Settings, family: Family) -> Result<Preprocess> {
    if settings.get_bool("add_prefix_space")? == Some(false) {
        fail!(
            ET_ERR_UNIMPLEMENTED,
            "add_prefix_space: false is not supported with a SentencePiece model"
        );
    }
    Ok(Preprocess {
        lower: settings.get_bool("do_lower_case")?.unwrap_or(family == Family::Albert),
        keep_accents: settings.get_bool("keep_accents")?.unwrap_or(false),
        remove_space: settings.get_bool("remove_space")?.unwrap_or(true),
    })
}

fn decoder(model: &Model) -> Result<DecoderWrapper> {
    if !model.byte_fallback {
        let scheme = match (model.dummy_prefix, model.squeeze_spaces) {
            (false, _) => "never",
            (true, true) => "always",
            (true, false) => "first",
        };
        return part(
            json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": true}),
        );
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

/// T5 has sentinels (`extra_ids`, 100 where nothing is said) unless the files name them.
fn sentinels(settings: &mut Settings, ids: &HashMap<String, u32>) -> Result<()> {
    let count = match settings.config.get("extra_ids") {
        None => 100,
        Some(count) => match count.as_u64().filter(|count| *count <= 1000) {
            Some(count) => count,
            None => {
                fail!(ET_ERR_BAD_INPUT, "extra_ids: expected a number up to 1000, found {count}")
            }
        },
    };
    let named = settings.tokens_to_add(&[], |_| ());
    let sentinel = |token: &AddedToken| token.content.starts_with("<extra_id_");
    if named.iter().any(sentinel) || ids.contains_key("<extra_id_0>") {
        return Ok(());
    }
    let names: Vec<String> = (0..count).map(|number| format!("<extra_id_{number}>")).collect();
    settings.add_special_tokens(names);
    Ok(())
}

/// T5 counts its sentinels down: the last one comes first. All other tokens stay in their order, before them.
fn count_down(token: &AddedToken) -> i64 {
    let digits = token.content.strip_prefix("<extra_id_").and_then(|rest| rest.strip_suffix('>'));
    -digits.and_then(|digits| digits.parse().ok()).unwrap_or(i64::MAX)
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
        loaded.ids(text)
    }

    fn load(bytes: &[u8], name: &str, config: Option<serde_json::Value>) -> Result<Loaded> {
        let tokenizer_config = config.and_then(|config| config.as_object().cloned());
        let files = super::super::settings::Files { tokenizer_config, ..Default::default() };
        super::load(bytes, name, Settings::merge(files)?)
    }

    fn decode(loaded: &Loaded, ids: &[u32]) -> String {
        match &loaded.engine {
            super::super::Engine::SentencePiece(model) => model.decode(ids, false).unwrap(),
            super::super::Engine::Pipeline(_) => unreachable!("a SentencePiece model"),
        }
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
        assert_eq!(decode(&loaded, &[3, 4, 6, 2, 7]), "ab babc");
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
        assert!(refuse(&file(&BPE_PIECES, 5, false), "m").contains("type 5"));
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
                let mut reader = loaded.reader("ab c");
                let _ = super::super::stream::read(&mut reader, None, 100, false);
            }
        }
    }
}
