//! Apps of many rows and towers in whole runs: masks that change with the epoch and come again after a kill, and
//! vectors of one side of a pair.

use std::collections::BTreeSet;

use easytransfer::plugin::{ContextHost, Record, Result, Rng, Row, features_rng};
use easytransfer::train::model::network::{AppStage, Network, Start};
use easytransfer::{EmbedOptions, Error};
use easytransfer_tests::command::Place;
use easytransfer_tests::face::is_step;
use easytransfer_tests::linked;
use serde_json::{Map, Value, json};

/// A record of training in an epoch.
struct Training {
    seed: u64,
    epoch: u64,
    rng: Option<Rng>,
}

impl ContextHost for Training {
    fn training(&self) -> bool {
        true
    }
    fn epoch(&self) -> u64 {
        self.epoch
    }
    fn record(&self) -> u64 {
        7
    }
    fn rng(&mut self) -> Result<&Rng> {
        let rng = features_rng(self.seed, 0, self.epoch, 7)?;
        Ok(self.rng.insert(rng))
    }
}

#[test]
fn masks_differ_between_epochs_and_are_equal_for_equal_seeds() {
    let place = Place::new("masks");
    let runtime = linked::runtime();
    let text = "unbelievable weather reports about thunderstorms and snowflakes in the mountains of sunday";
    for whole_words in [false, true] {
        let options = json!({"probability": 0.3, "whole_words": whole_words});
        let stage = AppStage::new(runtime.components(), "masked-lm", options, None).unwrap();
        let none = Map::new();
        let encoder = place.at("encoder");
        let network =
            Network::new(runtime.components(), stage, &encoder, &none, Start::Scratch, 0).unwrap();
        let masked = |seed, epoch| {
            let record = Record::from_iter([("text".to_owned(), json!(text))]);
            let mut context = Training { seed, epoch, rng: None };
            let rows = network.app.features(&mut context, &network.tokenizer, &record).unwrap();
            let batch =
                easytransfer::plugin::Map::from_rows(&rows.iter().collect::<Vec<&Row>>()).unwrap();
            batch.get("token_labels").unwrap().to_vec::<i64>().unwrap()
        };
        assert_eq!(masked(1, 0), masked(1, 0));
        let all: BTreeSet<Vec<i64>> =
            [(1, 0), (1, 1), (1, 2), (2, 0)].map(|(seed, epoch)| masked(seed, epoch)).into();
        assert_eq!(all.len(), 4, "epochs and seeds draw other masks");
        // All tokens of a word, or none.
        let encoding = network.tokenizer.encode(text, None, 0).unwrap();
        let halves = |labels: &[i64]| {
            let hidden = |at: usize| labels[at] != -100;
            (1..labels.len())
                .filter(|&at| encoding.words()[at] == encoding.words()[at - 1])
                .filter(|&at| encoding.special()[at] == 0 && hidden(at) != hidden(at - 1))
                .count()
        };
        let torn: usize = (0..8).map(|epoch| halves(&masked(3, epoch))).sum();
        assert_eq!(torn == 0, whole_words, "{torn} words are hidden in part");
    }
}

#[test]
fn pretraining_resumes_to_the_same_masks() {
    let place = Place::new("masked-lm-resume");
    let runtime = linked::runtime();
    let config = json!({"epochs": 3, "max_steps": 14, "lr": 1e-3, "log_every": 1,
        "batch": {"rows": 64}, "app": {"whole_words": true, "max_length": 48}});
    let whole = runtime.train(place.job("masked-lm", "whole", config.clone())).unwrap();
    assert!(whole.metrics["loss"].as_f64().unwrap() > 0.0);
    assert!(whole.metrics.contains_key("accuracy"), "{:?}", whole.metrics);
    for stop in [3, 9] {
        let output = format!("stopped-{stop}");
        let first = place.job("masked-lm", &output, config.clone());
        let first = first.on_event(move |event| !is_step(event, stop));
        assert!(matches!(runtime.train(first), Err(Error::Cancelled)));
        let mut second = place.job("masked-lm", &output, config.clone());
        second.resume = true;
        second.config.workers = 2;
        runtime.train(second).unwrap();
        assert_eq!(place.metrics(&output), place.metrics("whole"), "stopped at {stop}");
        let weights = |output: &str| place.read(&format!("{output}/model.safetensors"));
        assert!(weights(&output) == weights("whole"), "stopped at {stop}");
    }
    // The bundle says what its head is, and fills what a text hides.
    let class = place.read_json("whole/config.json")["architectures"].clone();
    assert_eq!(class, json!(["BertForMaskedLM"]));
    let app = runtime.app(&place.at("whole")).unwrap();
    let answer = app.predict(&["please send the [MASK] again"]).unwrap().remove(0);
    assert_eq!(answer["masked"][0]["tokens"].as_array().unwrap().len(), 5, "{answer:?}");
}

#[test]
fn two_towers_train_and_embed_one_side() {
    let place = Place::new("two-towers");
    let text = place.read_text("train.tsv");
    let pairs = |from: &[&str]| {
        let half = |text: &str, of: usize| -> String {
            let letters: Vec<char> = text.chars().collect();
            letters.chunks(letters.len().div_ceil(2)).nth(of).unwrap_or(&[]).iter().collect()
        };
        let lines = from.iter().map(|text| format!("{}\t{}\n", half(text, 0), half(text, 1)));
        format!("query\tpassage\n{}", lines.collect::<String>())
    };
    let all: Vec<&str> =
        text.lines().skip(1).filter_map(|line| line.split('\t').next()).take(96).collect();
    place.write("train.tsv", pairs(&all[..64]));
    place.write("dev.tsv", pairs(&all[64..]));
    let runtime = linked::runtime();
    for shared in [true, false] {
        let output = format!("towers-{shared}");
        let config =
            json!({"max_steps": 8, "lr": 1e-3, "batch": {"rows": 16}, "app": {"shared": shared}});
        let result = runtime.train(place.job("text-match", &output, config)).unwrap();
        assert!(result.metrics.contains_key("recall@1"), "{:?}", result.metrics);
        let mut app = runtime.app(&place.at(&output)).unwrap();
        let ask = |app: &mut easytransfer::App, record: Value| {
            let Value::Object(record) = record else { unreachable!() };
            app.predict_records(&[record]).unwrap().remove(0)
        };
        let vector = |answer: &Record| -> Vec<f64> {
            serde_json::from_value(answer["vector"].clone()).unwrap()
        };
        let query = vector(&ask(&mut app, json!({"text": "where is my parcel"})));
        let passage = vector(&ask(&mut app, json!({"text_pair": "it was sent on monday"})));
        let both = ask(
            &mut app,
            json!({"text": "where is my parcel", "text_pair": "it was sent on monday"}),
        );
        let cosine: f64 = query.iter().zip(&passage).map(|(a, b)| a * b).sum();
        assert!((cosine - both["score"].as_f64().unwrap()).abs() < 1e-5, "{cosine} {both:?}");
        // The first tower is an encoder that the embedder reads.
        let options = EmbedOptions {
            pooling: Some("mean".to_owned()),
            normalize: Some(true),
            ..EmbedOptions::default()
        };
        let embedder = runtime.embedder(&place.at(&output), options).unwrap();
        let own = embedder.embed(&["where is my parcel"]).unwrap();
        let largest = own.iter().zip(&query).map(|(a, b)| (f64::from(*a) - b).abs());
        assert!(largest.fold(0.0, f64::max) < 1e-5);
    }
}
