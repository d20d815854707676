//! The models of words (`zoo-word`): equal to twins in PyTorch, trained by text-classify from nothing but data.

use std::fs;
use std::path::{Path, PathBuf};

use easytransfer::plugin::{Call, LoadedModel, Map, Params, Row, Tensor, abi, no_grad};
use easytransfer::{App, TrainConfig, TrainJob};
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::{linked, places};
use easytransfer_train::data::dataset::DataOptions;
use easytransfer_train::model::network::Start;
use easytransfer_train::report::progress::ProgressMode;
use serde_json::{Value, json};

const ENCODERS: [&str; 3] = ["text-cnn", "bilstm", "bigru-attention"];
const PAIRS: [&str; 4] = ["dam", "dam-plus", "bicnn", "hcnn"];

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// CRC-32 as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// The formula of the golden script.
fn fill(params: &Params) {
    for param in params.iter() {
        let seed = f64::from(crc32(param.name().as_bytes()) % 1000);
        let shape = param.shape().to_vec();
        let scale = 1.5 / ((param.len() / shape[0]).max(1) as f64).sqrt();
        let value = |at: usize| (scale * (at as f64 * (1.1 + seed / 1000.0) + seed).sin()) as f32;
        let values: Vec<f32> = (0..param.len()).map(value).collect();
        param.assign(&Tensor::from_slice(&values, &shape).unwrap()).unwrap();
    }
}

fn batch_of(rows: &[(Vec<i64>, Vec<i64>)]) -> Map {
    let rows: Vec<Row> = rows
        .iter()
        .map(|(first, second)| {
            let mut row = Row::new().unwrap();
            row.put_tokens("ids", &[&first[..], second].concat()).unwrap();
            let segments = [vec![0; first.len()], vec![1; second.len()]].concat();
            row.put_tokens("segments", &segments).unwrap();
            row
        })
        .collect();
    Map::from_rows(&rows.iter().collect::<Vec<_>>()).unwrap()
}

fn weighted(x: &Tensor) -> Tensor {
    let weights: Vec<f32> = (0..x.len()).map(|at| (at as f64 + 1.0).sin() as f32).collect();
    let weights = Tensor::from_slice(&weights, x.shape()).unwrap();
    x.mul(&weights).unwrap().sum(&[], false).unwrap()
}

/// `ET_WORD_GOLDEN` names the file of another seed.
fn golden() -> Vec<Value> {
    let path = std::env::var_os("ET_WORD_GOLDEN")
        .map_or(places::parity().join("word.json"), PathBuf::from);
    let golden: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    golden.as_array().unwrap().clone()
}

#[test]
fn models_of_words_equal_their_twins() {
    let runtime = linked::runtime();
    let (mut worst_output, mut worst_gradient) = (0.0f64, 0.0f64);
    let cases = golden();
    for case in &cases {
        let (name, what) =
            (case["model"].as_str().unwrap(), format!("{} {}", case["model"], case["config"]));
        let component = runtime.components().find("et.model/1", name).unwrap();
        let mut params = Params::new(0).unwrap();
        let config = case["config"].to_string();
        let mut model = LoadedModel::create(&component, &config, &params.root().unwrap()).unwrap();
        fill(&params);
        params.seal().unwrap();
        let rows: Vec<(Vec<i64>, Vec<i64>)> = serde_json::from_value(case["rows"].clone()).unwrap();
        let run = |model: &mut LoadedModel, rows: &[_]| {
            let mut outputs = Map::new().unwrap();
            let call = Call::inference(abi::ET_WANT_POOLED);
            model.forward(&call, &batch_of(rows), &mut outputs).unwrap();
            (outputs.get("last").unwrap(), outputs.get("pooled").unwrap())
        };
        let (last, pooled) = run(&mut model, &rows);
        let expected = numbers(&case["pooled"]);
        let found = pooled.to_vec::<f32>().unwrap();
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale = expected.iter().map(|value| value.abs()).fold(1.0, f64::max);
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let difference = (f64::from(*found) - expected).abs() / scale;
            worst_output = worst_output.max(difference);
            assert!(difference < 1e-5, "{what}: pooled {at}: {found}, expected {expected}");
        }
        let (sum, expected) =
            (weighted(&last).to_scalar().unwrap(), case["last"].as_f64().unwrap());
        assert!(
            (sum - expected).abs() < 1e-5 * (last.len() as f64).max(1.0),
            "{what}: last: {sum}, {expected}"
        );
        // A row alone is answered as in a batch.
        let width = pooled.shape()[1];
        for (at, row) in rows.iter().enumerate() {
            let alone =
                no_grad(|| run(&mut model, std::slice::from_ref(row)).1).to_vec::<f32>().unwrap();
            for (alone, together) in alone.iter().zip(&found[at * width..]) {
                assert!(
                    (alone - together).abs() <= 2e-6 * (1.0 + together.abs()),
                    "{what}: row {at}"
                );
            }
        }
        weighted(&pooled).add(&weighted(&last)).unwrap().backward().unwrap();
        let gradients = case["gradients"].as_object().unwrap();
        assert_eq!(gradients.len(), params.len(), "{what}");
        for (name, expected) in gradients {
            let gradient = params.find(name).unwrap().grad().unwrap();
            let gradient =
                gradient.map_or(Vec::new(), |gradient| gradient.to_vec::<f32>().unwrap());
            let sum = |term: fn(f64, f64) -> f64| -> f64 {
                gradient.iter().enumerate().map(|(k, g)| term(k as f64, f64::from(*g))).sum()
            };
            let found =
                [sum(|_, g| g * g).sqrt(), sum(|k, g| g * k.sin()), sum(|k, g| g * k.cos())];
            let expected = numbers(expected);
            for (found, number) in found.iter().zip(&expected) {
                let difference = (found - number).abs() / (1e-2 + expected[0]);
                worst_gradient = worst_gradient.max(difference);
                assert!(difference < 1e-4, "{what}: {name}: {found:?}, expected {expected:?}");
            }
        }
    }
    println!("{} cases: outputs {worst_output:.1e}, gradients {worst_gradient:.1e}", cases.len());
    assert!(cases.len() >= 28);
}

fn job(scratch: &Scratch, train: &Path, config: Value) -> TrainJob {
    let data = || DataOptions { targets: true, ..DataOptions::default() };
    TrainJob {
        app: "text-classify".to_owned(),
        encoder: PathBuf::new(),
        start: Start::Encoder,
        train: train.to_path_buf(),
        valid: None,
        output: scratch.path().join("bundle"),
        train_data: data(),
        valid_data: data(),
        config: TrainConfig::from_value(config, "test").unwrap(),
        resume: false,
        progress: ProgressMode::Silent,
        on_step: None,
        cancel: Default::default(),
    }
}

/// Numbers that look random.
struct Draw(u64);

impl Draw {
    fn below(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

const THINGS: [&str; 10] =
    ["tea", "rain", "moon", "road", "bread", "glass", "river", "salt", "stone", "wood"];

/// Texts whose class lies in the order of two words, so that a bag of words does not know it.
fn texts(count: usize, draw: &mut Draw) -> Vec<(String, &'static str)> {
    (0..count)
        .map(|at| {
            let filler = |draw: &mut Draw, most: usize| -> String {
                (0..draw.below(most)).map(|_| format!("{} ", THINGS[draw.below(10)])).collect()
            };
            let (words, class) = [("Not good", "bad"), ("good not", "good")][at % 2];
            (format!("{}{words} {}.", filler(draw, 5), filler(draw, 5)), class)
        })
        .collect()
}

/// Pairs that belong together where both speak of the same thing.
fn pairs(count: usize, draw: &mut Draw) -> Vec<([String; 2], &'static str)> {
    (0..count)
        .map(|at| {
            let first = draw.below(10);
            let second = if at % 2 == 0 { first } else { (first + 1 + draw.below(9)) % 10 };
            let texts =
                [format!("is there {}", THINGS[first]), format!("the {} here", THINGS[second])];
            (texts, ["same", "other"][at % 2])
        })
        .collect()
}

fn write(path: &Path, header: &str, lines: impl IntoIterator<Item = String>) {
    fs::write(
        path,
        lines.into_iter().fold(format!("{header}\n"), |table, line| table + &line + "\n"),
    )
    .unwrap();
}

/// Share of right answers.
fn accuracy(app: &mut App, records: &[(Value, &str)]) -> f64 {
    let asked: Vec<_> =
        records.iter().map(|(record, _)| record.as_object().unwrap().clone()).collect();
    let answers = app.predict_records(&asked).unwrap();
    let right =
        answers.iter().zip(records).filter(|(a, (_, label))| a.label().as_deref() == Some(label));
    right.count() as f64 / records.len() as f64
}

fn small(model: &str) -> Value {
    let mut encoder = json!({"model_type": model, "embedding_size": 12});
    let own = match model {
        "text-cnn" => json!({"num_filters": 12, "filter_sizes": [1, 2, 3], "dropout": 0.1}),
        "bilstm" | "bigru-attention" => json!({"hidden_size": 12, "dropout": 0.1}),
        "hcnn" => {
            json!({"hidden_size": 24, "first_sequence_length": 28, "second_sequence_length": 28})
        }
        _ => json!({"hidden_size": 24}),
    };
    encoder.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    encoder
}

#[test]
fn encoders_learn_the_order_of_words() {
    let runtime = linked::runtime();
    for model in ENCODERS {
        let scratch = Scratch::new(&format!("word-{model}"));
        let train = scratch.path().join("train.tsv");
        write(
            &train,
            "text\tlabel",
            texts(240, &mut Draw(1)).iter().map(|(t, l)| format!("{t}\t{l}")),
        );
        let config = json!({"encoder": small(model), "lr": 0.02, "epochs": 12, "seed": 3});
        runtime.train(job(&scratch, &train, config)).unwrap();
        let mut app = runtime.app(&scratch.path().join("bundle")).unwrap();
        let asked: Vec<(Value, &str)> = texts(100, &mut Draw(2))
            .into_iter()
            .map(|(text, label)| (json!({"text": text}), label))
            .collect();
        let found = accuracy(&mut app, &asked);
        assert!(found > 0.97, "{model}: {found}");
        // The case of words does not count; texts without words and with one are answered.
        let answers = app.predict(&["NOT GOOD", "not good", "", "quark", "good", "the"]).unwrap();
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers.len(), 6);
        let copy =
            runtime.app(&scratch.path().join("bundle")).unwrap().predict(&["not good"]).unwrap();
        assert_eq!(copy[0].label(), answers[1].label());
    }
}

#[test]
fn networks_over_pairs_learn_which_belong_together() {
    let runtime = linked::runtime();
    for model in PAIRS {
        let scratch = Scratch::new(&format!("word-{model}"));
        let train = scratch.path().join("train.tsv");
        let lines = pairs(400, &mut Draw(5));
        write(
            &train,
            "text\ttext_b\tlabel",
            lines.iter().map(|([a, b], l)| format!("{a}\t{b}\t{l}")),
        );
        let config = json!({"encoder": small(model), "lr": 0.01, "epochs": 30, "seed": 4, "batch": {"rows": 32}});
        runtime.train(job(&scratch, &train, config)).unwrap();
        let mut app = runtime.app(&scratch.path().join("bundle")).unwrap();
        let asked: Vec<(Value, &str)> = pairs(200, &mut Draw(6))
            .into_iter()
            .map(|([text, pair], label)| (json!({"text": text, "text_pair": pair}), label))
            .collect();
        let found = accuracy(&mut app, &asked);
        assert!(found > 0.95, "{model}: {found}");
    }
}
