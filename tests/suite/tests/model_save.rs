//! A model that is saved by itself has the names that transformers gives it, and is read back to the same bits. The
//! goldens are models that transformers saved.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use easytransfer::plugin::{Activation, Init, Linear, LinearConfig, Scope, Tensor, nn};
use easytransfer::train::files::safetensors::Header;
use easytransfer::{Model, Runtime};
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::{linked, places};
use serde_json::{Value, json};

fn golden(family: &str) -> PathBuf {
    places::root().join("tests/parity/tiny").join(family)
}

fn config(directory: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(directory.join("config.json")).unwrap()).unwrap()
}

/// Shapes and bytes by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn tensors(directory: &Path) -> Tensors {
    let path = directory.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let header = Header::parse(&path, &bytes).unwrap();
    let each = header.tensors.iter();
    each.map(|(name, entry)| {
        (name.clone(), (entry.shape.clone(), bytes[entry.range.clone()].to_vec()))
    })
    .collect()
}

/// The model of a golden's configuration.
fn model(runtime: &Runtime, family: &str, seed: u64) -> Model {
    runtime.model(family, &config(&golden(family)).to_string(), seed).unwrap()
}

/// Declares parameters of these names and shapes at the root of a set.
fn declare(model: &mut Model, names: impl IntoIterator<Item = (String, Vec<usize>)>) {
    let root: Scope = model.params().root().unwrap();
    for (name, shape) in names {
        root.param(&name, &shape, Init::Normal(0.0, 0.1)).unwrap();
    }
}

#[test]
fn names_and_bytes_are_those_that_transformers_saved() {
    let scratch = Scratch::new("model-save");
    let runtime = linked::runtime();
    for family in ["bert", "roberta", "distilbert", "electra", "albert"] {
        let directory = golden(family);
        let mut model = model(&runtime, family, 1);
        let expected = tensors(&directory);
        let prefix = format!("{family}.");
        let head: Vec<_> = expected.iter().filter(|(name, _)| !name.starts_with(&prefix)).collect();
        assert!(!head.is_empty(), "{family}: the golden has a head");
        declare(
            &mut model,
            head.into_iter().map(|(name, (shape, _))| (name.clone(), shape.clone())),
        );
        let report = model.load_weights(&directory).unwrap();
        assert_eq!((report.missing.len(), report.unused.len()), (0, 0), "{family}");
        let saved = scratch.path().join(family);
        model.save(&saved).unwrap();
        assert!(tensors(&saved) == expected, "{family}: other tensors than transformers saved");
        let config = config(&saved);
        assert_eq!(config["model_type"], json!(family));
        assert_eq!(config["hidden_size"], self::config(&directory)["hidden_size"]);
    }
}

#[test]
fn a_bare_model_is_read_back_with_its_base_class() {
    let scratch = Scratch::new("model-save-bare");
    let saved = scratch.path().join("made/for/it");
    let runtime = linked::runtime();
    let mut first = model(&runtime, "bert", 1);
    first.save(&saved).unwrap();
    let config = config(&saved);
    assert_eq!(
        (&config["architectures"], &config["dtype"]),
        (&json!(["BertModel"]), &json!("float32"))
    );
    assert!(tensors(&saved).contains_key("embeddings.word_embeddings.weight"));
    let mut second = model(&runtime, "bert", 2);
    let values = |model: &mut Model| -> Vec<Vec<f32>> {
        let values = |param: easytransfer::plugin::Param| param.tensor()?.to_vec::<f32>();
        model.params().iter().map(|param| values(param).unwrap()).collect()
    };
    assert!(values(&mut first) != values(&mut second));
    second.load_weights(&saved).unwrap();
    assert!(values(&mut first) == values(&mut second));
    assert_eq!(
        fs::read_dir(&saved).unwrap().count(),
        2,
        "nothing but config.json and model.safetensors"
    );
}

#[test]
fn what_was_trained_beside_the_model_is_saved_with_it() {
    let scratch = Scratch::new("model-save-trained");
    let runtime = linked::runtime();
    let mut model = model(&runtime, "bert", 1);
    let scope = model.params().root().unwrap().child("classifier").unwrap();
    let head: Linear = LinearConfig::new(32, 3).init(&scope).unwrap();
    let mut optimizer = runtime.optimizer("adamw", "", &mut model).unwrap();
    let mut batch = easytransfer::Map::new().unwrap();
    let i64s = |values: &[i64]| Tensor::from_slice(values, &[values.len()]).unwrap();
    for (name, values) in [
        ("ids", &[2, 17, 45, 3, 2, 5, 3][..]),
        ("positions", &[0, 1, 2, 3, 0, 1, 2]),
        ("segments", &[0; 7]),
        ("starts", &[0, 4, 7]),
    ] {
        batch.put(name, &i64s(values)).unwrap();
    }
    let loss = |model: &mut Model| {
        let outputs =
            model.forward(&batch, true, easytransfer::plugin::abi::ET_WANT_POOLED).unwrap();
        let logits = head.forward(&outputs.get("pooled").unwrap(), Activation::None).unwrap();
        nn::cross_entropy(&logits, &i64s(&[0, 2]), None, -100, 0.0).unwrap()
    };
    let saved = scratch.path().join("model");
    let mut older = None;
    for step in 0..2 {
        loss(&mut model).backward().unwrap();
        optimizer.step(&mut model, 0.01).unwrap();
        // Each save takes the place of the one before.
        model.save(&saved).unwrap();
        let now = tensors(&saved);
        let head = &now["classifier.weight"];
        assert_eq!(head.0, [3, 32], "step {step}");
        assert!(now.contains_key("bert.embeddings.word_embeddings.weight"));
        assert!(
            older
                .replace(now.clone())
                .is_none_or(|older| older["classifier.weight"] != now["classifier.weight"])
        );
    }

    // A pass forward before a step is no good afterwards.
    let stale = loss(&mut model);
    loss(&mut model).backward().unwrap();
    optimizer.step(&mut model, 0.01).unwrap();
    let error = stale.backward().unwrap_err();
    assert!(error.message().contains("has changed since the pass forward"), "{error}");
}

#[test]
fn an_optimizer_belongs_to_its_model() {
    let runtime = linked::runtime();
    let (mut first, mut second) = (model(&runtime, "bert", 1), model(&runtime, "bert", 1));
    let mut optimizer = runtime.optimizer("adamw", "", &mut first).unwrap();
    let error = optimizer.step(&mut second, 0.1).unwrap_err().to_string();
    assert!(error.contains("adamw") && error.contains("found another one"), "{error}");
    optimizer.step(&mut first, 0.1).unwrap();
    // The set goes where the reference leads, and no further.
    std::mem::swap(first.params(), second.params());
    assert!(optimizer.step(&mut first, 0.1).is_err());
    optimizer.step(&mut second, 0.1).unwrap();
    // A model that is gone leaves no address that another one could be taken for.
    drop((first, second));
    for seed in 0..50 {
        let mut next = model(&runtime, "bert", seed);
        assert!(optimizer.step(&mut next, 0.1).is_err());
    }
}

#[test]
fn what_cannot_be_saved_says_so_and_leaves_the_directory_alone() {
    let scratch = Scratch::new("model-save-refused");
    let runtime = linked::runtime();
    let mut model = model(&runtime, "bert", 1);
    let saved = scratch.path().join("model");
    model.save(&saved).unwrap();
    let before = tensors(&saved);
    let bias = model.params().find("pooler.dense.bias").unwrap();
    bias.assign(&Tensor::full(f64::NAN, bias.tensor().unwrap().dtype(), &[32]).unwrap()).unwrap();
    let error = model.save(&saved).unwrap_err().to_string();
    assert!(error.contains("pooler.dense.bias") && error.contains("NaN"), "{error}");
    assert!(tensors(&saved) == before);
    assert_eq!(fs::read_dir(&saved).unwrap().count(), 2, "nothing half-written");

    bias.assign(&Tensor::full(0.0, bias.tensor().unwrap().dtype(), &[32]).unwrap()).unwrap();
    fs::write(saved.join("easytransfer.json"), "{}").unwrap();
    let error = model.save(&saved).unwrap_err().to_string();
    assert!(error.contains("easytransfer.json") && error.contains("another directory"), "{error}");
    let file = scratch.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert!(model.save(&file).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}
