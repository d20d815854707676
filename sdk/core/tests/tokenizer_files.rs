//! Tokenizers of many files: the ids of the references in `tests/parity`, texts that are cut before they are
//! tokenised, and files that no honest tool writes.

use std::path::{Path, PathBuf};

use easytransfer_core::tokenizer::{EncodeOptions, Encoding, Tokenizer};
use serde_json::{Value, json};

fn golden(name: &str) -> Value {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity")).join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A directory that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("easytransfer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn encode(tokenizer: &Tokenizer, text: &str, pair: Option<&str>, max_len: usize) -> Encoding {
    tokenizer.encode(text, pair, EncodeOptions { max_len, add_special_tokens: true }).unwrap()
}

/// The tokenizer of a case of `settings.json`, in a directory of its own.
fn case(golden: &Value, case: &Value, scratch: &Scratch) -> Tokenizer {
    for (name, content) in case["files"].as_object().unwrap() {
        let text = match content {
            Value::Number(index) => {
                golden["contents"][index.as_u64().unwrap() as usize].as_str().unwrap().to_string()
            }
            other => other.to_string(),
        };
        scratch.write(name, text);
    }
    Tokenizer::load(&scratch.0).unwrap()
}

#[test]
fn settings_beside_a_vocabulary_give_the_ids_of_transformers() {
    let golden = golden("settings.json");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 90);
    for (index, one) in cases.iter().enumerate() {
        let scratch = Scratch::new(&format!("settings-{index}"));
        let tokenizer = case(&golden, one, &scratch);
        let saved = Scratch::new(&format!("settings-saved-{index}"));
        tokenizer.save(&saved.0).unwrap();
        saved.write("config.json", one["files"]["config.json"].to_string());
        let again = Tokenizer::load(&saved.0).unwrap();
        for (text, expected) in
            golden["texts"].as_array().unwrap().iter().zip(one["ids"].as_array().unwrap())
        {
            let (first, pair) = (text[0].as_str().unwrap(), text[1].as_str());
            let found = encode(&tokenizer, first, pair, 0);
            assert_eq!(json!(found.ids), *expected, "{}: {text}", one["files"]);
            assert_eq!(encode(&again, first, pair, 0), found, "saved: {}: {text}", one["files"]);
        }
    }
}

/// Bytes of Base64 text.
fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut len) = (0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | alphabet.iter().position(|letter| *letter == byte).unwrap() as u32;
        len += 6;
        if len >= 8 {
            len -= 8;
            bytes.push((bits >> len) as u8);
        }
    }
    bytes
}

/// CRC-32 as zlib computes it (ISO 3309, reflected polynomial edb88320).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn sentencepiece_models(scratch: &Scratch) -> Vec<(String, Tokenizer, Value)> {
    let golden = golden("sentencepiece.json");
    let models = golden["models"].as_array().unwrap().iter();
    let load = |model: &Value| {
        let name = model["name"].as_str().unwrap();
        let path =
            scratch.write(&format!("{name}.model"), base64(model["model"].as_str().unwrap()));
        (name.to_string(), Tokenizer::load(&path).unwrap(), model["checksums"].clone())
    };
    models.map(load).collect()
}

#[test]
fn sentencepiece_models_of_every_kind_give_the_ids_of_the_library() {
    let scratch = Scratch::new("sentencepiece");
    let texts = golden("sentencepiece.json")["texts"].clone();
    let texts = texts.as_array().unwrap();
    let models = sentencepiece_models(&scratch);
    assert!(models.len() > 20);
    for (name, tokenizer, checksums) in models {
        for (text, expected) in texts.iter().zip(checksums.as_array().unwrap()) {
            let options = EncodeOptions { max_len: 0, add_special_tokens: false };
            let ids = tokenizer.encode(text.as_str().unwrap(), None, options).unwrap().ids;
            let bytes: Vec<u8> = ids.iter().flat_map(|id| (*id as u32).to_le_bytes()).collect();
            assert_eq!(
                u64::from(crc32(&bytes)),
                expected.as_u64().unwrap(),
                "{name}: {text}: {ids:?}"
            );
        }
    }
}

/// Knuth's linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }

    /// A text of about `len` parts.
    fn text(&mut self, len: usize) -> String {
        const PARTS: [&str; 40] = [
            "the",
            "film",
            "good",
            "caf\u{e9}",
            "cafe\u{301}",
            "\u{4e2d}",
            "\u{56fd}",
            "\u{4e2d}\u{6587}\u{5206}\u{8bcd}",
            "x",
            "\u{110}\u{1b0}\u{1edd}ng",
            "[MASK]",
            "[N1]",
            "<mask>",
            "Foo",
            "USER",
            "a-b",
            "the film",
            "don't",
            "9,9",
            "``no''",
            ".",
            ",",
            "!",
            "(",
            "\u{fdfa}",
            "\u{1f642}",
            "\u{301}",
            "\u{1100}\u{1161}",
            "\u{2581}",
            "\n",
            "\t",
            "\u{3000}",
            "  ",
            "   ",
            "[SEP]",
            "\u{200b}",
            "internationalization",
            "\u{d55c}\u{ad6d}",
            "12345",
            "Z\u{fc}rich",
        ];
        let mut text = String::new();
        for _ in 0..len {
            text.push_str(PARTS[self.below(PARTS.len())]);
            if self.below(3) > 0 {
                text.push(' ');
            }
        }
        text
    }
}

/// Cuts as the definition says: all tokens first, then "longest_first". Also whether any were cut off.
fn cut_of_the_whole(
    tokenizer: &Tokenizer,
    first: &str,
    pair: Option<&str>,
    max: usize,
) -> (Vec<i64>, bool) {
    let all = |text: &str| {
        let options = EncodeOptions { max_len: 0, add_special_tokens: false };
        tokenizer.encode(text, None, options).unwrap().ids
    };
    let mut kept = [all(first), pair.map(all).unwrap_or_default()];
    let (a, b) = (kept[0].len(), kept[1].len());
    if a + b > max {
        let (short, long) = match a.min(b) <= max / 2 {
            true => (a.min(b), max - a.min(b)),
            false => (max / 2, max - max / 2),
        };
        let (a, b) = if a > b { (long, short) } else { (short, long) };
        kept[0].truncate(a);
        kept[1].truncate(b);
    }
    (kept.concat(), a + b > max)
}

/// A long text that is cut before it is tokenised has the tokens that it has when it is tokenised first.
#[test]
fn texts_cut_before_they_are_tokenised_have_the_same_tokens() {
    let scratch = Scratch::new("cut");
    let mut tokenizers: Vec<(String, Tokenizer)> = Vec::new();
    let golden = golden("settings.json");
    for (index, one) in golden["cases"].as_array().unwrap().iter().enumerate().step_by(3) {
        let place = Scratch::new(&format!("cut-{index}"));
        tokenizers.push((one["files"].to_string(), case(&golden, one, &place)));
    }
    tokenizers.extend(
        sentencepiece_models(&scratch).into_iter().map(|(name, tokenizer, _)| (name, tokenizer)),
    );
    let mut random = Random(5);
    let mut cuts = 0;
    for (name, tokenizer) in &tokenizers {
        for round in 0..6 {
            let (first, second) = (random.text(900), random.text([3, 40, 900][round % 3]));
            let pair = (round % 2 == 1).then_some(second.as_str());
            let max = [1, 7, 30, 125, 126, 509][random.below(6)];
            let options = EncodeOptions { max_len: max, add_special_tokens: false };
            let found = tokenizer.encode(&first, pair, options).unwrap();
            let (expected, cut) = cut_of_the_whole(tokenizer, &first, pair, max);
            assert_eq!(found.ids, expected, "{name}: at most {max} of {first:?} and {pair:?}");
            assert_eq!(found.truncated, cut, "{name}");
            cuts += usize::from(cut);
        }
    }
    assert!(cuts > 200, "{cuts} texts were cut");
}

#[test]
fn texts_cut_at_their_beginning_keep_their_end() {
    let scratch = Scratch::new("left");
    scratch.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n");
    scratch.write("tokenizer_config.json", r#"{"truncation_side": "left"}"#);
    let tokenizer = Tokenizer::load(&scratch.0).unwrap();
    let long = "a ".repeat(9000) + "b c";
    assert_eq!(encode(&tokenizer, &long, None, 5).ids, [2, 5, 6, 7, 3]);
    assert_eq!(encode(&tokenizer, &long, Some("a b"), 7).ids, [2, 6, 7, 3, 5, 6, 3]);
    assert!(encode(&tokenizer, &long, None, 5).truncated);
}

fn refusal(path: &Path) -> String {
    match Tokenizer::load(path) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(error) => error.message.clone(),
    }
}

/// A tokenizer.json with a part in place of another.
fn changed(key: &str, part: Value) -> String {
    let mut file = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {"u": 0, "a": 1, "##a": 2}}
    });
    let mut at = &mut file;
    for step in key.split('.') {
        at = &mut at[step];
    }
    *at = part;
    file.to_string()
}

#[test]
fn files_that_blow_up_are_refused_by_key() {
    let scratch = Scratch::new("bombs");
    let tenfold = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"});
    let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let template = |single: Value, tokens: Value| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let added: Vec<Value> = (0..20_001)
        .map(|id| json!({"id": id, "content": format!("t{id}"), "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}))
        .collect();
    let cases = [
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": vec![tenfold.clone(); 9]}),
            "normalizer",
        ),
        (
            "normalizer",
            json!({"type": "Replace", "pattern": {"String": ""}, "content": "a"}),
            "empty text",
        ),
        (
            "normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": "a"}),
            "pattern",
        ),
        ("normalizer", json!({"type": "Prepend", "prepend": "a".repeat(100)}), "prepend"),
        ("decoder", json!({"type": "Sequence", "decoders": vec![tenfold; 9]}), "decoder"),
        ("pre_tokenizer", split("(x+x+)+y"), "repetition"),
        (
            "pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [split(r"(a|aa)+$")]}),
            "pattern",
        ),
        ("post_processor", template(json!(vec![text.clone(); 2]), json!({})), "more than once"),
        (
            "post_processor",
            template(
                json!([text]),
                json!({"x": {"id": "x", "ids": vec![0; 65], "tokens": vec!["x"; 65]}}),
            ),
            "65 ids",
        ),
        ("model.max_input_chars_per_word", json!(1_000_000_000), "max_input_chars_per_word"),
        ("model.continuing_subword_prefix", json!("#".repeat(65)), "continuing_subword_prefix"),
        ("model.vocab", json!({"u": 0, "a": 4_294_967_295u32}), "vocab"),
        (
            "model",
            json!({"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []}),
            "dropout",
        ),
        (
            "model",
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], ["a".repeat(1025), 0.0]]}),
            "piece 1",
        ),
        ("added_tokens", json!(added), "20001 added tokens"),
    ];
    for (key, part, expected) in cases {
        let path = scratch.write("tokenizer.json", changed(key, part));
        let message = refusal(&path);
        assert!(
            message.contains(expected) && message.contains("tokenizer.json"),
            "{key}: {message}"
        );
    }
    scratch.write("tokenizer.json", changed("decoder", Value::Null));
    assert_eq!(encode(&Tokenizer::load(&scratch.0).unwrap(), "aa b", None, 0).ids, [1, 2, 0]);
}

#[test]
fn settings_that_are_not_understood_are_refused_by_name() {
    let scratch = Scratch::new("refused");
    scratch.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n");
    for (config, expected) in [
        (json!({"do_lower_case": "yes"}), "do_lower_case"),
        (json!({"truncation_side": "middle"}), "truncation_side"),
        (json!({"tokenizer_class": "BertJapaneseTokenizer"}), "BertJapaneseTokenizer"),
        (json!({"added_tokens_decoder": {"x": {"content": "a"}}}), "added_tokens_decoder"),
        (json!({"added_tokens_decoder": {"6": {"content": "a", "odd": true}}}), "odd"),
    ] {
        scratch.write("tokenizer_config.json", config.to_string());
        let message = refusal(&scratch.0);
        assert!(message.contains(expected), "{message}");
    }
    let golden = golden("sentencepiece.json");
    let other = Scratch::new("refused-model");
    other.write("spiece.model", base64(golden["models"][0]["model"].as_str().unwrap()));
    for (config, expected) in [
        (json!({"tokenizer_class": "DebertaV2Tokenizer"}), "DebertaV2Tokenizer"),
        (json!({"tokenizer_class": "T5Tokenizer", "do_lower_case": true}), "do_lower_case"),
        (json!({"tokenizer_class": "XLMRobertaTokenizer"}), "numbered unlike"),
    ] {
        other.write("tokenizer_config.json", config.to_string());
        let message = refusal(&other.0);
        assert!(message.contains(expected), "{message}");
    }
}

/// A text without a place to cut it is an error, not a matter of gigabytes; with such places only its beginning is
/// looked at.
#[test]
fn endless_texts_are_cut_or_refused() {
    let scratch = Scratch::new("endless");
    scratch.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n\u{4e2d}\n\u{6587}\n");
    let tokenizer = Tokenizer::load(&scratch.0).unwrap();
    assert_eq!(encode(&tokenizer, &"a b ".repeat(5 << 20), None, 4).ids, [2, 5, 6, 3]);
    assert_eq!(encode(&tokenizer, &"\u{4e2d}\u{6587}".repeat(2 << 20), None, 4).ids, [2, 7, 8, 3]);
    let options = EncodeOptions { max_len: 4, add_special_tokens: true };
    let error = tokenizer.encode(&"a".repeat(2 << 20), None, options).unwrap_err();
    assert!(error.message.contains("without a place"), "{}", error.message);
}
