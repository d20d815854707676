//! Tokenizers through the C table, against the files of real models and the ids that their own implementations give.

mod boundary;

use std::path::Path;
use std::ptr;

use boundary::*;
use easytransfer_abi::*;
use easytransfer_core::handle::slice_from;

fn api() -> &'static et_host_tokenizer {
    table(c"et.tokenizer/1")
}

/// An owned tokenizer.
struct Tokenizer(*mut et_tokenizer);

/// What an encoding holds.
#[derive(Debug, PartialEq)]
struct Encoded {
    ids: Vec<i64>,
    segments: Vec<i64>,
    special: Vec<i64>,
    offsets: Vec<i64>,
    truncated: i32,
}

impl Tokenizer {
    fn try_load(path: &Path) -> Result<Self, (i32, String)> {
        let mut out = ptr::null_mut();
        // SAFETY: readable text.
        let error = unsafe { api().load.unwrap()(text(path.to_str().unwrap()), &mut out) };
        if error.is_null() { Ok(Self(out)) } else { Err(err(error)) }
    }

    fn load(path: &Path) -> Self {
        Self::try_load(path).unwrap()
    }

    fn model(name: &str) -> Self {
        Self::load(&shared(&format!("models/{name}")))
    }

    fn encode(&self, first: &str, pair: Option<&str>, max_len: usize, special: i32) -> Encoded {
        let options = et_encode_options {
            struct_size: size_of::<et_encode_options>(),
            max_len,
            add_special_tokens: special,
            reserved: 0,
        };
        let pair = pair.map(text);
        let pair = pair.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: live handles; the arrays are copied before the encoding goes.
        unsafe {
            let encoding =
                make(|out| api().encode.unwrap()(self.0, text(first), pair, &options, out));
            let len = api().encoding_len.unwrap()(encoding);
            let copy = |values: *const i64, len| slice_from(values, len).unwrap().to_vec();
            let encoded = Encoded {
                ids: copy(api().encoding_ids.unwrap()(encoding), len),
                segments: copy(api().encoding_segments.unwrap()(encoding), len),
                special: copy(api().encoding_special.unwrap()(encoding), len),
                offsets: copy(api().encoding_offsets.unwrap()(encoding), 2 * len),
                truncated: api().encoding_truncated.unwrap()(encoding),
            };
            api().encoding_release.unwrap()(encoding);
            encoded
        }
    }

    fn ids(&self, first: &str) -> Vec<i64> {
        self.encode(first, None, 0, 0).ids
    }

    fn decode(&self, ids: &[i64], skip: i32) -> String {
        // SAFETY: live handles.
        unsafe {
            let buffer =
                make(|out| api().decode.unwrap()(self.0, ids.as_ptr(), ids.len(), skip, out));
            take_text(buffer)
        }
    }

    fn id(&self, token: &str) -> i64 {
        // SAFETY: a live tokenizer.
        unsafe { api().token_id.unwrap()(self.0, text(token)) }
    }

    fn vocab_len(&self) -> usize {
        // SAFETY: a live tokenizer.
        unsafe { api().vocab_len.unwrap()(self.0) }
    }

    fn save(&self, directory: &Path) {
        // SAFETY: a live tokenizer.
        ok(unsafe { api().save.unwrap()(self.0, text(directory.to_str().unwrap())) });
    }
}

impl Drop for Tokenizer {
    fn drop(&mut self) {
        // SAFETY: an owned tokenizer.
        unsafe { api().release.unwrap()(self.0) }
    }
}

/// Text of a buffer, which is released.
///
/// # Safety
/// An owned buffer.
unsafe fn take_text(buffer: *mut et_buffer) -> String {
    let data: &et_host_data = table(c"et.data/1");
    // SAFETY: the caller's contract.
    unsafe {
        let at = data.buffer_data.unwrap()(buffer).cast::<u8>();
        let bytes = slice_from(at, data.buffer_size.unwrap()(buffer)).unwrap().to_vec();
        data.buffer_release.unwrap()(buffer);
        String::from_utf8(bytes).unwrap()
    }
}

const TEXTS: [&str; 12] = [
    "This is a test.",
    "Hello  world, how are   you?",
    " leading and trailing ",
    "I saw a girl with a telescope.",
    "na\u{ef}ve caf\u{e9} \u{2460}\u{2461}",
    "",
    "\u{65e5}\u{672c}\u{8a9e} text",
    "a\tb\nc",
    "Z\u{fc}rich \u{1f642} ok",
    "unbelievably internationalization",
    "\u{4e2d}\u{6587}\u{5206}\u{8bcd}\u{5f88}\u{6709}\u{8da3}\u{ff0c}\u{5bf9}\u{5417}\u{ff1f}",
    "[MASK] and [SEP] \u{200b} x",
];

#[test]
fn ids_are_those_of_the_reference() {
    let _guard = no_leaks();
    let path = shared("models/all-MiniLM-L6-v2/reference_embeddings.json");
    let reference: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let items = reference["items"].as_array().unwrap();
    assert!(items.len() >= 10);
    let json = Tokenizer::model("all-MiniLM-L6-v2");
    let vocab = Tokenizer::model("all-MiniLM-L6-v2/vocab.txt");
    for item in items {
        let expected: Vec<i64> =
            item["token_ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        for tokenizer in [&json, &vocab] {
            let found = tokenizer.encode(item["text"].as_str().unwrap(), None, 256, 1);
            assert_eq!(found.ids, expected);
        }
    }
}

#[test]
fn vocabularies_alone_give_what_tokenizer_json_gives() {
    let _guard = no_leaks();
    for (name, bare) in [
        ("all-MiniLM-L6-v2", "vocab.txt"),
        ("tokenizer-bert-base-uncased", "vocab.txt"),
        ("tokenizer-bert-base-chinese", "vocab.txt"),
        ("tokenizer-roberta-base", "vocab.json"),
    ] {
        let json = Tokenizer::model(name);
        // The Chinese vocabulary was made from lower-case text, but its tokenizer.json keeps capitals: the
        // configuration says so.
        let directory = scratch("bare");
        if name.ends_with("chinese") {
            let from = shared(&format!("models/{name}/{bare}"));
            std::fs::copy(from, directory.join(bare)).unwrap();
            let config = directory.join("tokenizer_config.json");
            std::fs::write(config, r#"{"do_lower_case": false}"#).unwrap();
        }
        let bare = match directory.join(bare) {
            copy if copy.is_file() => Tokenizer::load(&directory),
            _ => Tokenizer::model(&format!("{name}/{bare}")),
        };
        std::fs::remove_dir_all(directory).unwrap();
        assert_eq!(json.vocab_len(), bare.vocab_len(), "{name}");
        for text in TEXTS.iter().chain(&["Caf\u{e9} <mask> </s> B\u{e4}r QQ"]) {
            for pair in [None, Some("and More")] {
                let found = bare.encode(text, pair, 0, 1);
                assert_eq!(found, json.encode(text, pair, 0, 1), "{name}: {text:?}");
                assert_eq!(
                    bare.decode(&found.ids, 1),
                    json.decode(&found.ids, 1),
                    "{name}: {text:?}"
                );
            }
        }
    }
}

#[test]
fn vocabularies_alone_are_lower_cased_unless_told_otherwise() {
    let _guard = no_leaks();
    let text = "Hello, W\u{f6}rld! unaffable \u{4e2d}\u{6587} [MASK]";
    let vocab = shared("models/tokenizer-bert-base-cased/vocab.txt");
    let bare = Tokenizer::load(&vocab);
    assert_eq!(bare.ids("Hello W\u{f6}rld"), bare.ids("hello world"));
    let directory = scratch("cased");
    std::fs::copy(vocab, directory.join("vocab.txt")).unwrap();
    std::fs::write(directory.join("tokenizer_config.json"), r#"{"do_lower_case": false}"#).unwrap();
    let cased = Tokenizer::load(&directory);
    let expected =
        [101, 8667, 117, 160, 19593, 17670, 1181, 106, 8362, 9823, 8057, 2165, 980, 1030, 103, 102];
    let found = cased.encode(text, None, 0, 1);
    assert_eq!(found.ids, expected);
    assert_eq!(found.special, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    std::fs::remove_dir_all(directory).unwrap();
}

/// The ids that the reference implementation of SentencePiece (0.2.3) gives for the first texts.
#[test]
fn sentencepiece_models_give_the_ids_of_sentencepiece() {
    let _guard = no_leaks();
    let expected: [(&str, [&[i64]; 11]); 3] = [
        (
            "tokenizer-sentencepiece-test",
            [
                &[284, 47, 11, 4, 15, 400, 6],
                &[151, 88, 21, 887, 5, 311, 124, 49, 152],
                &[4, 82, 218, 18, 13, 424, 128, 18],
                &[9, 459, 11, 939, 44, 11, 4, 142, 82, 8, 28, 21, 132, 6],
                &[4, 24, 19, 0, 125, 78, 19, 57, 0, 4, 357, 596],
                &[],
                &[4, 0, 4, 142, 297, 15],
                &[11, 0, 66, 0, 28],
                &[4, 0, 83, 92, 4, 0, 4, 21, 46],
                &[210, 66, 170, 25, 16, 87, 726, 20, 190, 24, 149, 73, 25, 997, 149],
                &[4, 0, 5, 0, 152],
            ],
        ),
        (
            "tokenizer-t5/spiece.model",
            [
                &[100, 19, 3, 9, 794, 5],
                &[8774, 296, 6, 149, 33, 25, 58],
                &[1374, 11, 5032, 53],
                &[27, 1509, 3, 9, 3202, 28, 3, 9, 27480, 5],
                &[3, 29, 9, 2, 162, 11949, 586],
                &[],
                &[3, 2, 1499],
                &[3, 9, 3, 115, 3, 75],
                &[25749, 3, 2, 3, 1825],
                &[12658, 1896, 208, 3834, 1038, 1707],
                &[3, 2, 6, 2, 58],
            ],
        ),
        (
            "tokenizer-xlnet-chinese",
            [
                &[13025, 1988, 19, 1988, 19, 971, 19, 620, 5738, 9],
                &[
                    19, 14732, 2644, 14343, 2297, 1408, 903, 17, 19, 1141, 5700, 19, 15038, 19,
                    592, 7008, 1339,
                ],
                &[19, 1407, 2400, 1342, 19, 3863, 19, 6431, 2019, 1342],
                &[
                    5017, 19, 150, 7959, 19, 971, 13309, 4218, 1408, 14343, 9049, 19, 971, 19,
                    2594, 7300, 3393, 5304, 9,
                ],
                &[19, 2768, 24900, 5010, 9169, 13884, 2879, 3489],
                &[],
                &[4531, 489, 8522],
                &[19, 971, 8439, 9169],
                &[7463, 9999, 2883, 2254, 19, 0, 19, 10574],
                &[19, 2394, 4389, 2518, 10144, 4786, 2928, 13077, 22463, 3098, 917, 21365],
                &[19, 1991, 124, 1564, 711, 19391, 17, 116, 17260, 1339],
            ],
        ),
    ];
    for (name, expected) in expected {
        let tokenizer = Tokenizer::model(name);
        for (text, expected) in TEXTS.iter().zip(expected) {
            assert_eq!(tokenizer.ids(text), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn templates_follow_the_family() {
    let _guard = no_leaks();
    let t5 = Tokenizer::model("tokenizer-t5/spiece.model");
    let json = Tokenizer::model("tokenizer-t5");
    assert_eq!((t5.vocab_len(), json.vocab_len()), (32100, 32100));
    assert_eq!(t5.id("<extra_id_0>"), 32099);
    for text in ["This is a test.", "fill <extra_id_0> here", "x"] {
        let (a, b) = (t5.encode(text, Some("pair"), 0, 1), json.encode(text, Some("pair"), 0, 1));
        assert_eq!((&a.ids, &a.segments, &a.special), (&b.ids, &b.segments, &b.special), "{text}");
    }
    let xlnet = Tokenizer::model("tokenizer-xlnet-chinese");
    let encoded = xlnet.encode("x", None, 0, 1);
    assert_eq!(encoded.ids[encoded.ids.len() - 2..], [xlnet.id("<sep>"), xlnet.id("<cls>")]);
    assert_eq!(encoded.segments.last(), Some(&2));
    let gpt2 = Tokenizer::model("tokenizer-gpt2");
    assert_eq!(gpt2.encode("Hello world", None, 0, 1).ids, [15496, 995]);
    assert_eq!(gpt2.decode(&[15496, 995], 0), "Hello world");
    assert_eq!(gpt2.id("<|endoftext|>"), 50256);
}

#[test]
fn long_texts_and_pairs_are_cut() {
    let _guard = no_leaks();
    let bert = Tokenizer::model("all-MiniLM-L6-v2");
    // As the reference implementation cuts with "longest_first" at 9 tokens.
    let cases = [
        (
            "one two three four five six",
            "seven eight nine ten eleven",
            &[101, 2028, 2048, 2093, 102, 2698, 2809, 3157, 102],
            &[0, 0, 0, 0, 0, 1, 1, 1, 1],
        ),
        (
            "one two",
            "three four five six seven eight nine",
            &[101, 2028, 2048, 102, 2093, 2176, 2274, 2416, 102],
            &[0, 0, 0, 0, 1, 1, 1, 1, 1],
        ),
        (
            "one two three four five six seven",
            "eight",
            &[101, 2028, 2048, 2093, 2176, 2274, 102, 2809, 102],
            &[0, 0, 0, 0, 0, 0, 0, 1, 1],
        ),
    ];
    for (first, second, ids, segments) in cases {
        let encoded = bert.encode(first, Some(second), 9, 1);
        assert_eq!((&encoded.ids[..], &encoded.segments[..]), (&ids[..], &segments[..]));
        assert_eq!(encoded.truncated, 1);
        let whole = bert.encode(first, Some(second), 0, 1);
        assert_eq!(
            (whole.truncated, bert.encode(first, Some(second), whole.ids.len(), 1)),
            (0, whole)
        );
    }
    let bare = bert.encode("one two three", Some("four"), 2, 0);
    assert_eq!((bare.ids, bare.segments), (vec![2028, 2176], vec![0, 1]));
    assert_eq!(bert.encode("one two", None, 2, 1).ids, [101, 102]);
    let options = et_encode_options {
        struct_size: size_of::<et_encode_options>(),
        max_len: 1,
        add_special_tokens: 1,
        reserved: 0,
    };
    // SAFETY: live handles; NULL options mean the defaults.
    unsafe {
        let mut out = ptr::null_mut();
        let tight = api().encode.unwrap()(bert.0, text("one"), ptr::null(), &options, &mut out);
        assert_eq!(err(tight).0, ET_ERR_INVALID_ARGUMENT);
        let encoding =
            make(|out| api().encode.unwrap()(bert.0, text("one"), ptr::null(), ptr::null(), out));
        assert_eq!(api().encoding_len.unwrap()(encoding), 3);
        api().encoding_release.unwrap()(encoding);
    }
}

#[test]
fn offsets_are_bytes_of_the_text() {
    let _guard = no_leaks();
    for name in
        ["all-MiniLM-L6-v2", "tokenizer-roberta-base", "tokenizer-bert-base-cased/vocab.txt"]
    {
        let tokenizer = Tokenizer::model(name);
        let text = "Z\u{fc}rich \u{4e2d}\u{6587} \u{1f642} na\u{ef}ve";
        let encoded = tokenizer.encode(text, None, 0, 0);
        let mut covered = String::new();
        for pair in encoded.offsets.chunks(2) {
            let part = text.get(pair[0] as usize..pair[1] as usize);
            assert!(part.is_some() || name.contains("roberta"), "{name}: {pair:?}");
            covered.push_str(part.unwrap_or(""));
        }
        if !name.contains("roberta") {
            assert_eq!(covered, text.replace(' ', ""));
        }
    }
    let roberta = Tokenizer::model("tokenizer-roberta-base");
    let encoded = roberta.encode("it's <mask> na", None, 0, 1);
    assert_eq!(encoded.offsets[..2], [0, 0]);
    assert_eq!(encoded.offsets[2..10], [0, 2, 2, 4, 5, 11, 12, 14]);
}

#[test]
fn tokens_have_texts_and_ids() {
    let _guard = no_leaks();
    let bert = Tokenizer::model("tokenizer-bert-base-uncased");
    assert_eq!((bert.vocab_len(), bert.id("[CLS]"), bert.id("no such token")), (30522, 101, -1));
    // SAFETY: live handles.
    unsafe {
        let buffer = make(|out| api().token_text.unwrap()(bert.0, 102, out));
        assert_eq!(take_text(buffer), "[SEP]");
        for id in [-1, 30522, i64::MAX] {
            let error = api().token_text.unwrap()(bert.0, id, &mut ptr::null_mut());
            assert_eq!(err(error).0, ET_ERR_NOT_FOUND);
        }
        let ids = [2023, -7];
        let (code, message) =
            err(api().decode.unwrap()(bert.0, ids.as_ptr(), 2, 0, &mut ptr::null_mut()));
        assert_eq!(code, ET_ERR_INVALID_ARGUMENT);
        assert!(message.contains("position 1"), "{message}");
        let same = api().retain.unwrap()(bert.0);
        assert_eq!(api().vocab_len.unwrap()(same), 30522);
        api().release.unwrap()(same);
    }
    assert_eq!(bert.decode(&[101, 2023, 2003, 102], 1), "this is");
}

#[test]
fn saved_tokenizers_are_the_same() {
    let _guard = no_leaks();
    for (name, vocab) in [
        ("all-MiniLM-L6-v2", true),
        ("tokenizer-bert-base-cased", true),
        ("tokenizer-roberta-base", false),
        ("tokenizer-gpt2", false),
        ("tokenizer-t5/spiece.model", false),
        ("tokenizer-sentencepiece-test", false),
    ] {
        let directory = scratch("tokenizer");
        let first = Tokenizer::model(name);
        first.save(&directory);
        assert_eq!(directory.join("vocab.txt").is_file(), vocab, "{name}");
        let again = Tokenizer::load(&directory);
        assert_eq!(first.vocab_len(), again.vocab_len());
        for text in TEXTS {
            let (a, b) =
                (first.encode(text, Some("pair"), 20, 1), again.encode(text, Some("pair"), 20, 1));
            assert_eq!(a, b, "{name}: {text:?}");
        }
        if vocab {
            let original = shared(&format!("models/{name}/vocab.txt"));
            let written = std::fs::read(directory.join("vocab.txt")).unwrap();
            assert!(written == std::fs::read(original).unwrap(), "{name}: vocab.txt changed");
        }
        let left: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.iter().all(|p| !p.to_str().unwrap().ends_with(".part")), "{left:?}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn wrong_files_are_refused_with_reasons() {
    let _guard = no_leaks();
    let directory = scratch("wrong");
    let refuse = |path: &Path, code: i32, expected: &str| {
        let (found, message) = Tokenizer::try_load(path).err().expect("an error");
        assert_eq!(found, code, "{message}");
        assert!(message.contains(expected), "{message}");
    };
    refuse(&directory, ET_ERR_NOT_FOUND, "vocab.txt");
    refuse(&directory.join("none"), ET_ERR_NOT_FOUND, "none");
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    refuse(&write("a.bin", b""), ET_ERR_BAD_INPUT, "a.bin");
    refuse(&write("a.json", b"{"), ET_ERR_BAD_INPUT, "a.json");
    refuse(&write("a.txt", b"x\ny\n"), ET_ERR_BAD_INPUT, "[UNK]");
    refuse(&write("b.txt", b"\xff"), ET_ERR_BAD_INPUT, "UTF-8");
    refuse(&write("a.model", b"not a model"), ET_ERR_BAD_INPUT, "a.model");
    refuse(&write("merges.txt", b""), ET_ERR_NOT_FOUND, "vocab.json");
    write("vocab.json", br#"{"a": 0, "b": 1, "ab": 2}"#);
    refuse(&write("merges.txt", b"#version: 0.2\na b\nab\n"), ET_ERR_BAD_INPUT, "line 3");
    let empty_piece = br#"{"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], ["", 0.0]]}}"#;
    refuse(&write("u.json", empty_piece), ET_ERR_BAD_INPUT, "empty piece");
    std::fs::remove_dir_all(directory).unwrap();
}

/// Damaged copies of a real model give errors or tokenizers; nothing crashes and nothing hangs.
#[test]
fn damaged_models_are_survived() {
    let _guard = no_leaks();
    let good =
        std::fs::read(shared("models/tokenizer-sentencepiece-test/test_model.model")).unwrap();
    let directory = scratch("damaged");
    let path = directory.join("m.model");
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    for round in 0..60 {
        let mut bad = good.clone();
        match round % 3 {
            0 => bad.truncate(random() % good.len()),
            // The first 30 kB are pieces, the end is trainer and rules.
            1 => (0..4).for_each(|_| bad[random() % 30_000] = random() as u8),
            _ => (0..4).for_each(|_| {
                let at = good.len() - 1 - random() % 230_000;
                bad[at] = random() as u8;
            }),
        }
        std::fs::write(&path, bad).unwrap();
        if let Ok(tokenizer) = Tokenizer::try_load(&path) {
            let mut out = ptr::null_mut();
            // SAFETY: live handles.
            unsafe {
                let error = api().encode.unwrap()(
                    tokenizer.0,
                    text("a \u{2460} test"),
                    ptr::null(),
                    ptr::null(),
                    &mut out,
                );
                if error.is_null() {
                    api().encoding_release.unwrap()(out);
                } else {
                    err(error);
                }
            }
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}
