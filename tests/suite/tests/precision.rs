//! Prediction in f32, bf16 and int8, from Rust and from the command line: near to each other, not the same, and
//! independent of batches, windows and threads.

use std::fs;

use easytransfer::{EmbedOptions, Embedder, LayerPrecision};
use easytransfer_tests::command::Place;
use easytransfer_tests::{linked, places};

const WIDTH: usize = 384;

fn texts(count: usize) -> Vec<String> {
    let words =
        ["where", "is", "my", "parcel", "refund", "please", "today", "never", "again", "ok"];
    let text = |i: usize| {
        let length = 1 + i * 7 % 23;
        let picked = (0..length).map(|j| words[(i * 3 + j * j) % words.len()]);
        picked.collect::<Vec<_>>().join(" ")
    };
    (0..count).map(text).collect()
}

fn embedder(precision: LayerPrecision) -> Embedder {
    let options = EmbedOptions { precision, ..EmbedOptions::default() };
    let encoder = places::shared().join("models/all-MiniLM-L6-v2");
    linked::runtime().embedder(&encoder, options).unwrap()
}

/// Smallest cosine of vectors of length 1.
fn nearness(a: &[f32], b: &[f32]) -> f32 {
    let rows = a.chunks_exact(WIDTH).zip(b.chunks_exact(WIDTH));
    rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).fold(1.0, f32::min)
}

#[test]
fn precisions_are_near_each_other_and_not_the_same() {
    let texts = texts(64);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let [f32, bf16, int8] =
        LayerPrecision::ALL.map(|precision| embedder(precision).embed(&texts).unwrap());
    for (name, vectors, least) in [("bf16", &bf16, 0.999), ("int8", &int8, 0.98)] {
        let nearness = nearness(&f32, vectors);
        assert!(nearness > least, "{name}: {nearness}");
        let differ = f32.iter().zip(vectors).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
        assert!(differ > f32.len() / 2, "{name}: only {differ} of {} numbers differ", f32.len());
    }
    assert_ne!(bf16, int8);
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_any_batch() {
    let texts = texts(300);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for precision in LayerPrecision::ALL {
        let embedder = embedder(precision);
        let all = embedder.embed(&texts).unwrap();
        for i in [0, 1, 22, 150, 299] {
            let alone = embedder.embed(&texts[i..=i]).unwrap();
            assert_eq!(alone, all[i * WIDTH..][..WIDTH], "{precision:?}, text {i}");
        }
        let few = embedder.embed(&texts[10..17]).unwrap();
        assert_eq!(few, all[10 * WIDTH..17 * WIDTH], "{precision:?}");
    }
}

#[test]
fn files_of_several_windows_give_the_vectors_of_their_texts_with_any_threads() {
    let place = Place::new("precision");
    // More than the first two windows.
    let texts = texts(900);
    place.write("texts.txt", texts.join("\n") + "\n");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encoder = places::shared().join("models/all-MiniLM-L6-v2");
    let encoder = encoder.to_str().unwrap();
    for precision in LayerPrecision::ALL {
        let expected = embedder(precision).embed(&texts).unwrap();
        for threads in ["1", "2"] {
            place
                .easytransfer(&[
                    "embed",
                    "--encoder",
                    encoder,
                    "--data",
                    "texts.txt",
                    "--output",
                    "v.npy",
                    "--precision",
                    precision.name(),
                    "--threads",
                    threads,
                ])
                .good("embed");
            let bytes = fs::read(place.at("v.npy")).unwrap();
            let body = &bytes[bytes.len() - 4 * expected.len()..];
            let found: Vec<f32> =
                body.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
            assert_eq!(found, expected, "{precision:?}, {threads} threads");
        }
    }
}

#[test]
fn a_wrong_precision_names_the_values() {
    let place = Place::new("wrong-precision");
    for command in [
        &["predict", "--model", "m"][..],
        &["evaluate", "--model", "m", "--data", "d"],
        &["embed", "--encoder", "e", "--output", "o"],
    ] {
        let outcome = place.easytransfer(&[command, &["--precision", "int4"]].concat());
        assert_eq!(outcome.code, 2, "{command:?}");
        for value in ["--precision", "int4", "f32", "bf16", "int8"] {
            assert!(outcome.stderr.contains(value), "{command:?}: {}", outcome.stderr);
        }
    }
}

#[test]
fn a_bad_row_after_the_first_window_leaves_no_file() {
    let place = Place::new("late-bad-row");
    place.train("app", &[]).good("train");
    let rows: String = (0..400).map(|i| format!("{i}\ttext {i}\n")).collect();
    place.write("late.tsv", format!("id\ttext\n{rows}lonely\n"));
    let arguments = ["predict", "--model", "app", "--data", "late.tsv", "--output", "out.tsv"];
    let outcome = place.easytransfer(&arguments);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("line 402"), "{}", outcome.stderr);
    assert!(!place.at("out.tsv").exists());
    let skipping = [&arguments[..], &["--on-bad-row", "skip"]].concat();
    place.easytransfer(&skipping).good("predict");
    let ids = place.read_text("out.tsv");
    let texts: Vec<&str> =
        ids.lines().skip(1).map(|line| line.split('\t').next().unwrap()).collect();
    let expected: Vec<String> = (0..400).map(|i| format!("text {i}")).collect();
    assert_eq!(texts, expected, "rows come in the order of the file");
}
