//! A tokenizer of the crate `tokenizers`, and the places where a text may be cut before it goes through it.
//!
//! A place is safe when everything left of it becomes the same tokens whatever stands right of it, and the other way
//! round. Such places are looked for between words ("a b", before the space) and, for BERT, between two Chinese
//! characters. Whether they are safe follows from the steps of the pipeline: normalizers that see single characters or
//! the marks after them, pre-tokenizers that always part there, and added tokens that do not reach over. Everything
//! else is not cut.

use serde_json::Value;
use tokenizers::tokenizer::Normalizer;
use tokenizers::{AddedToken, NormalizedString, Tokenizer};

use super::failed;
use super::stream::{STRETCH, Source, Tokens, check_stretch};
use crate::error::Result;

/// Where texts may be cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seams {
    /// Before a space between two words.
    spaces: bool,
    /// Before any other white space of ASCII between two words.
    white: bool,
    /// Between two Chinese characters.
    chinese: bool,
}

/// A tokenizer of the crate, without post-processor, padding and truncation.
pub struct Pipeline {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Where texts may be cut.
    pub seams: Seams,
    /// Bytes that may be tokenised at once.
    pub stretch: usize,
}

impl From<Tokenizer> for Pipeline {
    fn from(tokenizer: Tokenizer) -> Self {
        let seams = seams(&tokenizer);
        Self { tokenizer, seams, stretch: STRETCH }
    }
}

impl Pipeline {
    /// Reads a text.
    pub fn read<'a>(&'a self, text: &'a str) -> TextReader<'a> {
        TextReader { pipeline: self, text, at: 0 }
    }
}

/// Reads a text part by part.
pub struct TextReader<'a> {
    pipeline: &'a Pipeline,
    text: &'a str,
    at: usize,
}

impl Source for TextReader<'_> {
    fn next(&mut self, size: usize, tokens: &mut Tokens) -> Result<bool> {
        let rest = &self.text[self.at..];
        let len = self.pipeline.seams.first(rest, size);
        check_stretch(len, self.pipeline.stretch)?;
        let encoding = self.pipeline.tokenizer.encode(&rest[..len], false);
        let encoding = encoding.map_err(|error| failed("cannot encode a text", error))?;
        let places = encoding.get_offsets().iter().zip(encoding.get_word_ids());
        let mut before = None;
        for ((id, text), ((begin, end), word)) in
            encoding.get_ids().iter().zip(encoding.get_tokens()).zip(places)
        {
            // Parts end between words. A token without a word is an added one, which is a word of its own.
            let begins_word = before.is_none_or(|before| before != *word) || word.is_none();
            before = Some(*word);
            tokens.push(*id, text.clone(), (self.at + begin, self.at + end), begins_word);
        }
        self.at += len;
        Ok(self.at < self.text.len())
    }
}

impl Seams {
    /// The first place from `size` on, or the end of the text.
    fn first(self, text: &str, size: usize) -> usize {
        let bytes = text.as_bytes();
        if self == Self::default() || bytes.len() <= size + 1 {
            return bytes.len();
        }
        let here = |at: &usize| {
            let byte = bytes[*at];
            let white = match byte {
                b' ' => self.spaces,
                b'\n' | b'\t' | b'\r' => self.white,
                0x80.. => return self.chinese && between_chinese(text, *at),
                _ => false,
            };
            white && word_before(&text[..*at]) && text[at + 1..].chars().next().is_some_and(is_word)
        };
        (size.max(1)..bytes.len() - 1).find(here).unwrap_or(bytes.len())
    }
}

fn word_before(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

/// Letters and digits that neither join with a space into one character of a screen nor change beside one.
fn is_word(c: char) -> bool {
    let usual = c < '\u{600}' || ('\u{3040}'..'\u{d7a4}').contains(&c);
    usual && c.is_alphanumeric()
}

/// The ideographs around which BERT puts spaces.
fn is_chinese(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}')
}

fn between_chinese(text: &str, at: usize) -> bool {
    text.is_char_boundary(at)
        && text[..at].chars().next_back().is_some_and(is_chinese)
        && text[at..].chars().next().is_some_and(is_chinese)
}

/// The places that the steps of a tokenizer allow.
fn seams(tokenizer: &Tokenizer) -> Seams {
    let normalizer = tokenizer.get_normalizer().map(serde_json::to_value);
    let pre_tokenizer = tokenizer.get_pre_tokenizer().map(serde_json::to_value);
    let (Ok(normalizer), Ok(pre_tokenizer)) = (normalizer.transpose(), pre_tokenizer.transpose())
    else {
        return Seams::default();
    };
    if !normalizer.as_ref().is_none_or(is_local) {
        return Seams::default();
    }
    let mut seams = pre_tokenizer.as_ref().map_or(Seams::default(), parts_at);
    seams.chinese &= normalizer.is_some_and(|normalizer| {
        normalizer["type"] == "BertNormalizer" && normalizer["handle_chinese_chars"] == true
    });
    let decoder = tokenizer.get_added_tokens_decoder();
    for token in decoder.values() {
        let mut forms = vec![token.content.clone()];
        if let Some(normalizer) = tokenizer.get_normalizer() {
            let mut form = NormalizedString::from(token.content.as_str());
            if normalizer.normalize(&mut form).is_err() {
                return Seams::default();
            }
            forms.push(form.get().into());
        }
        for form in forms {
            if reaches_over_a_space(&form, token) {
                return Seams::default();
            }
            let chars: Vec<char> = form.chars().filter(|c| *c != ' ').collect();
            seams.chinese &= !chars.windows(2).any(|pair| pair.iter().all(|c| is_chinese(*c)));
            seams.chinese &= !(token.rstrip || token.lstrip || token.single_word);
        }
    }
    seams
}

/// Whether a token may be found on both sides of a space between words, or takes a space after a word along.
fn reaches_over_a_space(form: &str, token: &AddedToken) -> bool {
    let chars: Vec<char> = form.chars().collect();
    let inside = chars.windows(2).any(|pair| pair[0].is_alphanumeric() && pair[1].is_whitespace());
    inside || (token.rstrip && chars.last().is_some_and(|c| c.is_alphanumeric()))
}

/// Whether a normalizer writes the same for what is left and right of a space between words, together or apart.
fn is_local(step: &Value) -> bool {
    let local = [
        "BertNormalizer",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "StripAccents",
    ];
    match step["type"].as_str() {
        Some("Sequence") => {
            step["normalizers"].as_array().is_some_and(|steps| steps.iter().all(is_local))
        }
        // Takes spaces at the end, where there is none.
        Some("Strip") => step["strip_left"] == false,
        // One space stays one.
        Some("Replace") if step["pattern"]["Regex"] == " {2,}" => true,
        // Found between words only if it holds none.
        Some("Replace") => {
            let pattern = step["pattern"]["String"].as_str();
            let content = step["content"].as_str();
            let marks =
                |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_punctuation());
            pattern.is_some_and(marks) && content.is_some_and(marks)
        }
        Some(kind) => local.contains(&kind),
        None => false,
    }
}

/// Where a pre-tokenizer always parts a text.
fn parts_at(step: &Value) -> Seams {
    let spaces = Seams { spaces: true, ..Seams::default() };
    match step["type"].as_str() {
        Some("BertPreTokenizer") => Seams { spaces: true, white: true, chinese: true },
        Some("WhitespaceSplit" | "Whitespace") => Seams { white: true, ..spaces },
        // With a space at its beginning a part gets no other one.
        Some("ByteLevel") if step["use_regex"] != false => spaces,
        Some("Metaspace") if step["split"] == true => spaces,
        // A first step that parts a text there: what follows sees the same words, and whether they begin the text.
        Some("Sequence") => {
            let steps = step["pretokenizers"].as_array();
            let first = steps.and_then(|steps| steps.first()).map_or(Seams::default(), parts_at);
            Seams { chinese: false, ..first }
        }
        _ => Seams::default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Tokenizers whose steps differ in what a cut could change.
    fn pipelines() -> Vec<(&'static str, Pipeline)> {
        let pieces = [
            "u",
            "a",
            "b",
            "c",
            "\u{2581}",
            "\u{2581}a",
            "\u{2581}b",
            "a\u{2581}",
            "9",
            "\"",
            ".",
            "\u{e9}",
        ];
        let unigram: Vec<(&str, f64)> =
            pieces.iter().map(|piece| (*piece, -(piece.len() as f64))).collect();
        let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": unigram});
        let words = [
            "u", "a", "b", "c", "ab", "##a", "##b", ".", "\u{e9}", "e", "\u{4e2d}", "\u{6587}",
            "9", "<m>",
        ];
        let words: serde_json::Map<String, Value> =
            words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
        let wordpiece = json!({
            "type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": words
        });
        let letters = [
            "a", "b", "c", "e", ".", "9", "\u{120}", "\u{120}a", "\u{120}b", "\u{10a}", "\u{109}",
            "ab", "<", "m", ">",
        ];
        let letters: serde_json::Map<String, Value> = letters
            .iter()
            .enumerate()
            .map(|(id, letter)| (letter.to_string(), id.into()))
            .collect();
        let merges = json!(["\u{120} a", "\u{120} b", "a b"]);
        let bpe = json!({"type": "BPE", "vocab": letters, "merges": merges});
        let bert = |lower: bool, chinese: bool| {
            json!({
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese, "strip_accents": null, "lowercase": lower
            })
        };
        let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true});
        let byte_level = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
        let make = |model: &Value,
                    normalizer: Value,
                    pre_tokenizer: Value,
                    tokens: &[AddedToken]| {
            let file = json!({
                "version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
                "post_processor": null, "decoder": null, "model": model
            });
            let mut tokenizer: Tokenizer = file.to_string().parse().unwrap();
            tokenizer.add_tokens(tokens.to_vec()).unwrap();
            Pipeline::from(tokenizer)
        };
        let both = [AddedToken::from("<m>", true).lstrip(true).rstrip(true)];
        let whole_words =
            [AddedToken::from("Ab", false).single_word(true), AddedToken::from("b c", false)];
        let reaching = [AddedToken::from("c", false).rstrip(true)];
        let blanks = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
        let quotes = json!({"type": "Replace", "pattern": {"String": "``"}, "content": "\""});
        let steps = |steps: Value| json!({"type": "Sequence", "normalizers": steps});
        let split = |scheme| json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace(scheme)]});
        vec![
            (
                "bert",
                make(&wordpiece, bert(true, true), json!({"type": "BertPreTokenizer"}), &both),
            ),
            (
                "bert without Chinese",
                make(&wordpiece, bert(false, false), json!({"type": "BertPreTokenizer"}), &[]),
            ),
            (
                "bert with words",
                make(
                    &wordpiece,
                    bert(true, true),
                    json!({"type": "BertPreTokenizer"}),
                    &whole_words[..1],
                ),
            ),
            (
                "token over a space",
                make(
                    &wordpiece,
                    bert(true, true),
                    json!({"type": "BertPreTokenizer"}),
                    &whole_words,
                ),
            ),
            ("token with a space behind", make(&bpe, Value::Null, byte_level(false), &reaching)),
            ("bytes", make(&bpe, Value::Null, byte_level(false), &both)),
            ("bytes with prefix", make(&bpe, json!({"type": "NFC"}), byte_level(true), &both)),
            (
                "metaspace",
                make(
                    &unigram,
                    steps(
                        json!([quotes, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, blanks]),
                    ),
                    metaspace("always"),
                    &both,
                ),
            ),
            ("metaspace first", make(&unigram, Value::Null, metaspace("first"), &both)),
            (
                "words first",
                make(
                    &unigram,
                    json!({"type": "Strip", "strip_left": false, "strip_right": true}),
                    split("first"),
                    &both,
                ),
            ),
            ("words never", make(&unigram, Value::Null, split("never"), &[])),
            ("no steps", make(&bpe, Value::Null, Value::Null, &[])),
        ]
    }

    fn ids(pipeline: &Pipeline, text: &str) -> Vec<u32> {
        pipeline.tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    }

    /// Left and right of every place where a text may be cut stand the tokens of the whole.
    #[test]
    fn texts_cut_anywhere_they_may_be_have_the_same_tokens() {
        const PARTS: [&str; 22] = [
            "a", "b", "c", "ab", "Ab", "b c", "<m>", ".", "9", "\u{e9}", "e\u{301}", "\u{4e2d}",
            "\u{6587}", "``", " ", " ", " ", "\n", "\t", "\u{301}", "\u{3000}", "e",
        ];
        let mut state = 3u64;
        let mut random = || {
            // Knuth's linear congruential generator.
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        for (name, pipeline) in pipelines() {
            let mut seen = 0;
            for _ in 0..400 {
                let text: String = (0..24).map(|_| PARTS[random() % PARTS.len()]).collect();
                let whole = ids(&pipeline, &text);
                let mut at = pipeline.seams.first(&text, 1);
                while at < text.len() {
                    let parts = [ids(&pipeline, &text[..at]), ids(&pipeline, &text[at..])].concat();
                    assert_eq!(parts, whole, "{name}: {text:?} at {at}");
                    seen += 1;
                    at = pipeline.seams.first(&text, at + 1);
                }
            }
            let none =
                ["token over a space", "token with a space behind", "no steps"].contains(&name);
            assert_eq!(seen == 0, none, "{name}: {seen} places");
        }
    }

    /// Tokens that are read part by part are of one word where those of the whole are.
    #[test]
    fn words_go_on_over_the_places_where_texts_are_cut() {
        const TEXT: &str = "ab Ab abba. caab 9 <m> e\u{301}b \u{4e2d}\u{6587}a b\nab c";
        for (name, pipeline) in pipelines() {
            let whole = pipeline.tokenizer.encode(TEXT, false).unwrap();
            let begins = |words: Vec<Option<u32>>| -> Vec<bool> {
                words.windows(2).map(|pair| pair[0] != pair[1]).collect()
            };
            let mut tokens = Tokens::default();
            let mut reader = pipeline.read(TEXT);
            while reader.next(1, &mut tokens).unwrap() {}
            assert_eq!(tokens.ids, whole.get_ids(), "{name}");
            let words = tokens.words.iter().copied().map(Some).collect();
            assert_eq!(begins(words), begins(whole.get_word_ids().to_vec()), "{name}");
        }
    }
}
