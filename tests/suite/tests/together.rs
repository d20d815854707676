//! Many threads that ask one app, one embedder, one model: every answer is the one that it is alone, to the byte,
//! while clones come and go.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use easytransfer::plugin::{Map, Row, abi};
use easytransfer::{App, AppOptions, EmbedOptions, Embedder, LayerPrecision, Model, Runtime};
use easytransfer_tests::face::{Face, RustFace};
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::{linked, places};
use serde_json::json;

const THREADS: usize = 16;
const ROUNDS: usize = 12;

/// A trained bundle of a tiny encoder.
fn bundle(folder: &Path) -> PathBuf {
    let demo = places::root().join("hosts/demo");
    let bundle = folder.join("bundle");
    let face = RustFace(linked::runtime());
    let config = json!({ "epochs": 1, "lr": 1e-3, "max_steps": 6, "seed": 3 });
    let (train, valid) = (demo.join("messages.train.tsv"), demo.join("messages.dev.tsv"));
    face.fit(&demo.join("encoder"), &train, &valid, &bundle, &config).unwrap();
    bundle
}

fn texts(count: usize) -> Vec<String> {
    let words = ["where", "is", "my", "parcel", "refund", "please", "today", "never", "我要退款"];
    let text = |i: usize| {
        let picked = (0..1 + i * 7 % 23).map(|j| words[(i * 3 + j * j) % words.len()]);
        picked.collect::<Vec<_>>().join(" ")
    };
    (0..count).map(text).collect()
}

/// Runs `work(thread, round)` on many threads that begin at the same time.
fn at_once(work: impl Fn(usize, usize) + Sync) {
    let (work, begun) = (&work, &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                while begun.load(Ordering::SeqCst) < THREADS {
                    std::thread::yield_now();
                }
                (0..ROUNDS).for_each(|round| work(thread, round));
            });
        }
    });
}

#[test]
fn what_a_program_holds_may_be_sent_shared_and_cloned() {
    fn check<T: Send + Sync + Clone>() {}
    check::<App>();
    check::<Embedder>();
    check::<Model>();
    check::<Runtime>();
}

#[test]
fn one_app_answers_many_threads_as_it_answers_one() {
    let scratch = Scratch::new("together-app");
    let app = linked::runtime().app(&bundle(scratch.path())).unwrap();
    let texts = texts(40);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let said = |app: &App, texts: &[&str]| -> Vec<String> {
        app.predict(texts).unwrap().iter().map(ToString::to_string).collect()
    };
    let alone: Vec<String> = texts.iter().flat_map(|text| said(&app, &[text])).collect();
    let all = said(&app, &texts);
    let request = json!([{ "text": texts[5] }, texts[6]]).to_string();
    let as_json = app.predict_json(&request).unwrap();
    at_once(|thread, round| {
        let index = (thread * 5 + round) % texts.len();
        match (thread + round) % 4 {
            0 => assert_eq!(said(&app, &texts), all),
            1 => assert_eq!(app.predict_json(&request).unwrap(), as_json),
            // A clone, which is dropped while others are in their calls.
            2 => assert_eq!(said(&app.clone(), &texts[index..=index]), alone[index..=index]),
            _ => assert_eq!(said(&app, &texts[index..=index]), alone[index..=index]),
        }
    });
}

#[test]
fn one_embedder_serves_many_threads_as_it_serves_one() {
    let encoder = places::shared().join("models/all-MiniLM-L6-v2");
    let texts = texts(24);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for precision in [LayerPrecision::F32, LayerPrecision::Int8] {
        let options = EmbedOptions { precision, ..EmbedOptions::default() };
        let embedder = linked::runtime().embedder(&encoder, options).unwrap();
        let width = embedder.width();
        let all = embedder.embed(&texts).unwrap();
        at_once(|thread, round| {
            let index = (thread + 3 * round) % texts.len();
            let alone = embedder.clone().embed(&texts[index..=index]).unwrap();
            assert_eq!(alone, all[index * width..][..width], "text {index}");
        });
    }
}

#[test]
fn one_model_runs_on_many_threads_as_on_one() {
    let config = json!({
        "model_type": "bert", "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32,
    });
    let model = linked::runtime().model("bert", &config.to_string(), 7).unwrap();
    let run = |model: &Model, length: usize| {
        let mut row = Row::new().unwrap();
        row.put_tokens("ids", &(0..length as i64).map(|id| id % 50).collect::<Vec<_>>()).unwrap();
        let outputs = model.forward(&Map::from_rows(&[&row]).unwrap(), false, abi::ET_WANT_POOLED);
        outputs.unwrap().get("pooled").unwrap().to_vec::<f32>().unwrap()
    };
    let alone: Vec<Vec<f32>> = (1..30).map(|length| run(&model, length)).collect();
    at_once(|thread, round| {
        let length = 1 + (thread * 3 + round) % alone.len();
        assert_eq!(run(&model.clone(), length), alone[length - 1], "{length} tokens");
    });
}

#[test]
fn apps_of_one_bundle_share_one_set_of_weights_until_a_file_changes() {
    let scratch = Scratch::new("together-shared");
    let bundle = bundle(scratch.path());
    // Files that were written just now cannot be told from files that will be written in the same moment.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let runtime = linked::runtime();
    let load = |precision| runtime.app_with(&bundle, AppOptions { precision }).unwrap();
    let (one, other) = (load(LayerPrecision::F32), load(LayerPrecision::Int8));
    // A path that leads to the same directory, from another runtime that has the same plugins.
    let third = linked::runtime().app(&bundle.join("../bundle")).unwrap();
    let vector = |app: &App| std::ptr::from_ref(app.network());
    let answers = one.predict(&["where is my parcel"]).unwrap();
    assert_eq!(third.predict(&["where is my parcel"]).unwrap(), answers);
    assert_eq!(vector(&one), vector(&other));
    assert_eq!(vector(&one), vector(&third));
    assert_eq!(vector(&one), vector(&one.clone()));
    // The program has seen the network and may have changed it: who loads now reads the files.
    let fresh = load(LayerPrecision::F32);
    assert_ne!(vector(&one), vector(&fresh));
    drop((one, other, third, fresh));

    let before = load(LayerPrecision::F32);
    let manifest = bundle.join("easytransfer.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("{text}\n")).unwrap();
    let after = load(LayerPrecision::F32);
    assert_ne!(vector(&before), vector(&after), "a file has changed");
}

#[test]
fn embedders_of_one_encoder_share_its_weights_if_they_are_made_alike() {
    let encoder = places::shared().join("models/all-MiniLM-L6-v2");
    let runtime = linked::runtime();
    let load = |pooling: &str| {
        let options = EmbedOptions { pooling: Some(pooling.to_owned()), ..EmbedOptions::default() };
        runtime.embedder(&encoder, options).unwrap()
    };
    let (max, again, mean) = (load("max"), load("max"), load("mean"));
    let network = |embedder: &Embedder| std::ptr::from_ref(embedder.network());
    assert_eq!(network(&max), network(&again));
    assert_ne!(network(&max), network(&mean));
}
