//! Families of models in whole runs: text-classify and masked-lm learn from a tiny random directory of each, and the
//! bundle has the names of transformers.

use std::fs;

use easytransfer::Runtime;
use easytransfer::train::model::network::Start;
use easytransfer_tests::command::Place;
use easytransfer_tests::{linked, places};
use serde_json::{Value, json};

/// A folder with the tiny model of a family in the place of its encoder.
fn with_family(family: &str, test: &str) -> Place {
    let place = Place::new(&format!("{test}-{family}"));
    fs::remove_dir_all(place.at("encoder")).unwrap();
    fs::create_dir(place.at("encoder")).unwrap();
    let tiny = places::parity().join("tiny").join(family);
    for entry in fs::read_dir(tiny).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("g") {
            fs::copy(&path, place.at("encoder").join(name)).unwrap();
        }
    }
    place
}

fn train(
    runtime: &Runtime,
    place: &Place,
    app: &str,
    config: Value,
) -> serde_json::Map<String, Value> {
    let mut job = place.job(app, "run", config);
    job.start = Start::Encoder;
    runtime.train(job).unwrap().metrics
}

/// Texts of a few words that are thanks or are not.
fn write_data(place: &Place) {
    let line = |at: usize| {
        let word = ["the train", "he said", "not in the", "we you", "it is on"][at % 5];
        let more = ["is late", "to you", "an is"][at % 3];
        if at.is_multiple_of(2) {
            format!("{word} thanks {more}\tthanks\n")
        } else {
            format!("{word} {more}\tno\n")
        }
    };
    let lines = |range: std::ops::Range<usize>| range.map(line).collect::<String>();
    place.write("train.tsv", format!("text\tlabel\n{}", lines(0..120)));
    place.write("dev.tsv", format!("text\tlabel\n{}", lines(121..151)));
}

#[test]
fn text_classify_learns_from_a_random_directory_of_each_family() {
    let runtime = linked::runtime();
    for (family, class, prefix) in [
        ("modernbert", "ModernBertForSequenceClassification", "model."),
        ("deberta-v2", "DebertaV2ForSequenceClassification", "deberta."),
        ("xlnet", "XLNetForSequenceClassification", "transformer."),
    ] {
        let place = with_family(family, "learns");
        write_data(&place);
        let config = json!({"epochs": 12, "lr": 3e-3, "batch": {"rows": 16}, "log_every": 1});
        let metrics = train(&runtime, &place, "text-classify", config);
        let accuracy = metrics["accuracy"].as_f64().unwrap();
        assert!(accuracy >= 0.9, "{family}: {accuracy}");
        let loss = place.curve("run", "train/loss");
        assert!(loss[loss.len() - 1] < 0.5 * loss[0], "{family}: {loss:?}");
        assert_eq!(place.read_json("run/config.json")["architectures"], json!([class]));
        // All that the checkpoint of transformers had is there again under its name.
        let (before, after) = (place.tensors("encoder"), place.tensors("run"));
        assert!(before.keys().eq(after.keys()), "{family}: {:?} {:?}", before.keys(), after.keys());
        assert!(after.keys().any(|name| name.starts_with(prefix)));
        let app = runtime.app(&place.at("run")).unwrap();
        let answers = app.predict(&["he said thanks to you", "he said to you"]).unwrap();
        let labels: Vec<&Value> = answers.iter().map(|answer| &answer["label"]).collect();
        assert_eq!(labels, ["thanks", "no"], "{family}");
    }
}

#[test]
fn masked_lm_trains_the_head_of_each_family() {
    let runtime = linked::runtime();
    for (family, class) in
        [("modernbert", "ModernBertForMaskedLM"), ("deberta-v2", "DebertaV2ForMaskedLM")]
    {
        let place = with_family(family, "masks");
        write_data(&place);
        let config = json!({"epochs": 12, "lr": 3e-3, "batch": {"rows": 16}, "log_every": 1});
        train(&runtime, &place, "masked-lm", config);
        let loss = place.curve("run", "train/loss");
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&loss[..10]), mean(&loss[loss.len() - 10..]));
        assert!(last < 0.8 * first, "{family}: {first} {last}");
        assert_eq!(place.read_json("run/config.json")["architectures"], json!([class]));
        let app = runtime.app(&place.at("run")).unwrap();
        let answer = app.predict(&["he said [MASK] to you"]).unwrap().remove(0);
        assert_eq!(answer["masked"][0]["tokens"].as_array().unwrap().len(), 5, "{answer:?}");
    }
    // XLNet predicts over permutations instead.
    let place = with_family("xlnet", "masks");
    write_data(&place);
    let mut job = place.job("masked-lm", "run", json!({"max_steps": 1}));
    job.start = Start::Encoder;
    let error = runtime.train(job).err().unwrap().to_string();
    assert!(error.contains("no head of masked language modelling"), "{error}");
}
