// The behaviour suite: included by one test file per way of reaching the plugins, each of which defines `face()`.

use easytransfer_tests::face::Face;
use easytransfer_tests::places;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("et-behaviour-{}-{}-{name}", WAY, std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn demo() -> PathBuf {
    places::root().join("hosts/demo")
}

/// A one-layer encoder with the demo's vocabulary.
fn tiny_encoder(folder: &Path) -> PathBuf {
    let encoder = folder.join("encoder");
    std::fs::create_dir_all(&encoder).unwrap();
    for entry in std::fs::read_dir(demo().join("encoder")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, encoder.join(path.file_name().unwrap())).unwrap();
        }
    }
    let text = std::fs::read_to_string(encoder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [("num_hidden_layers", 1), ("hidden_size", 32), ("num_attention_heads", 2), ("intermediate_size", 64)] {
        config[key] = json!(value);
    }
    std::fs::write(encoder.join("config.json"), config.to_string()).unwrap();
    encoder
}

fn short() -> Value {
    json!({ "epochs": 2, "lr": 1e-3, "max_steps": 12, "seed": 3 })
}

fn fit(folder: &Path, config: &Value) -> (PathBuf, Value) {
    let encoder = tiny_encoder(folder);
    let bundle = folder.join("bundle");
    let (train, valid) = (demo().join("messages.train.tsv"), demo().join("messages.dev.tsv"));
    let figures = face().fit(&encoder, &train, &valid, &bundle, config).unwrap();
    (bundle, figures)
}

#[test]
fn plugins_of_the_tree_are_there() {
    let plugins = face().plugins();
    for id in ["zoo-bert", "app-classify", "app-embed", "loss-basic", "optim-basic", "tl-finetune", "tl-distill"] {
        assert!(plugins.iter().any(|p| p == id), "{id} is not in {plugins:?}");
    }
}

#[test]
fn training_then_predicting_gives_probabilities_that_sum_to_one() {
    let folder = folder("predict");
    let (bundle, figures) = fit(&folder, &short());
    assert_eq!(figures["steps"], json!(12));
    assert!(figures["metrics"]["accuracy"].as_f64().unwrap() > 0.0);
    let answer = face().predict(&bundle, r#"[{"text": "where is my parcel"}, "我要退款", ""]"#).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer.as_array().unwrap().len(), 3);
    for row in answer.as_array().unwrap() {
        let sum: f64 = row["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row}");
        assert_eq!(row["probabilities"][row["label"].as_str().unwrap()], row["score"]);
    }
    let one = face().predict(&bundle, r#"{"text": "where is my parcel"}"#).unwrap();
    let one: Value = serde_json::from_str(&one).unwrap();
    let (a, b) = (one["score"].as_f64().unwrap(), answer[0]["score"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-6, "neighbours in a batch must not matter: {a} {b}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn pooling_of_the_head_trains_and_loads_in_every_form() {
    let mut answers = Vec::new();
    for pooling in ["model", "mean", "cls", "max"] {
        let folder = folder(&format!("pooling-{pooling}"));
        let mut config = short();
        config["app"] = json!({ "pooling": pooling });
        let (bundle, _) = fit(&folder, &config);
        let texts = r#"["where is my parcel, it should have been here on monday"]"#;
        answers.push(face().predict(&bundle, texts).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }
    for (index, answer) in answers.iter().enumerate() {
        assert!(!answers[..index].contains(answer), "two poolings answer alike: {answer}");
    }
}

#[test]
fn same_seed_gives_the_same_bytes() {
    let folder = folder("seed");
    let read = |name: &str| {
        let at = folder.join(name);
        std::fs::create_dir_all(&at).unwrap();
        std::fs::read(fit(&at, &short()).0.join("model.safetensors")).unwrap()
    };
    assert!(read("a") == read("b"), "two runs with one seed differ");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn vectors_have_length_one() {
    let folder = folder("embed");
    let (bundle, _) = fit(&folder, &short());
    let vectors = face().embed(&bundle, &["refund please", ""]).unwrap();
    assert_eq!(vectors.len(), 2 * 32);
    for vector in vectors.chunks_exact(32) {
        let length: f32 = vector.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn errors_name_the_culprit() {
    let missing = face().predict(Path::new("no/such/bundle"), "{}").unwrap_err();
    assert!(missing.contains("no/such/bundle"), "{missing}");
    let folder = folder("errors");
    let (bundle, _) = fit(&folder, &short());
    let request = face().predict(&bundle, "{\"text\": 3").unwrap_err();
    assert!(request.contains("JSON"), "{request}");
    let encoder = tiny_encoder(&folder);
    let (train, valid) = (demo().join("messages.train.tsv"), demo().join("messages.dev.tsv"));
    let fit = |config: Value| face().fit(&encoder, &train, &valid, &folder.join("other"), &config).unwrap_err();
    let unknown = fit(json!({"epoch": 1}));
    assert!(unknown.contains("epoch") && unknown.contains("epochs"), "{unknown}");
    let optimizer = fit(json!({"optimizer": {"name": "adamv"}}));
    assert!(optimizer.contains("adamv") && optimizer.contains("adamw"), "{optimizer}");
    let option = fit(json!({"app": {"max_len": 3}}));
    assert!(option.contains("max_len"), "{option}");
    std::fs::remove_dir_all(folder).unwrap();
}
