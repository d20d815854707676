//! Directories as other tools write them: the vectors are theirs, or an error names the file, the module and the key.
//! Goldens and the script that makes them: `tests/parity/sentences`, `make_sentences.py`.

use std::fs;
use std::path::Path;

use easytransfer::{EmbedOptions, Embedder};
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::{linked, places};
use serde_json::{Value, json};

fn goldens(name: &str) -> Value {
    let text = fs::read_to_string(places::parity().join("sentences").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn case(name: &str) -> Value {
    let cases = goldens("cases.json");
    cases.as_array().unwrap().iter().find(|case| case["name"] == name).expect(name).clone()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A directory with the files of a case: JSON, or "@" and the name of a file of the goldens.
fn directory(name: &str, files: &Value) -> Scratch {
    let scratch = Scratch::new(&format!("foreign-{name}").replace([' ', ',', '\''], "-"));
    let sentences = places::parity().join("sentences");
    let files = files.as_object().unwrap();
    if !files.keys().any(|path| path.ends_with('/')) {
        copy_all(&sentences.join("base"), scratch.path());
    }
    for (path, content) in files {
        let target = scratch.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        match content.as_str() {
            Some("@base") => copy_all(&sentences.join("base"), &target),
            Some("") => fs::remove_file(&target).unwrap(),
            Some(part) => {
                fs::copy(sentences.join("parts").join(&part[1..]), &target).unwrap();
            }
            None => fs::write(&target, content.to_string()).unwrap(),
        }
    }
    scratch
}

fn embedder(directory: &Path, options: EmbedOptions) -> Result<Embedder, String> {
    linked::runtime().embedder(directory, options).map_err(|error| error.to_string())
}

/// The texts' vectors, alone and together.
fn check(embedder: &mut Embedder, expected: &Value, name: &str) {
    let texts = goldens("texts.json");
    let texts: Vec<&str> = texts.as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let expected: Vec<f64> = expected
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()))
        .collect();
    let width = expected.len() / texts.len();
    assert_eq!(embedder.width(), width, "{name}");
    let mut found = embedder.embed(&texts).unwrap();
    for text in &texts {
        found.extend(embedder.embed(&[text]).unwrap());
    }
    assert_eq!(found.len(), 2 * expected.len(), "{name}");
    for (index, value) in found.iter().enumerate() {
        let expected = expected[index % expected.len()];
        let difference = (f64::from(*value) - expected).abs();
        let text = texts[index / width % texts.len()];
        assert!(
            difference < 1e-5,
            "{name}: {text:?}[{}]: {value}, expected {expected}",
            index % width
        );
    }
}

#[test]
fn vectors_of_every_directory_are_those_of_sentence_transformers() {
    for case in goldens("cases.json").as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let place = directory(name, &case["files"]);
        match embedder(place.path(), EmbedOptions::default()) {
            Ok(mut embedder) => check(&mut embedder, &case["vectors"], name),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn options_of_the_caller_win_over_the_files() {
    let normal = case("normalize");
    let place = directory("caller", &normal["files"]);
    let plain = EmbedOptions { normalize: Some(false), ..EmbedOptions::default() };
    check(
        &mut embedder(place.path(), plain).unwrap(),
        &case("new mean")["vectors"],
        "no normalize",
    );
    let last = EmbedOptions {
        pooling: Some("lasttoken".to_owned()),
        normalize: Some(false),
        ..EmbedOptions::default()
    };
    check(
        &mut embedder(place.path(), last).unwrap(),
        &case("new lasttoken")["vectors"],
        "lasttoken",
    );
    let place = directory("caller-prompt", &case("no prompt")["files"]);
    for (prompt, prompt_name) in [(Some("query : "), None), (None, Some("query"))] {
        let options = EmbedOptions {
            prompt: prompt.map(str::to_owned),
            prompt_name: prompt_name.map(str::to_owned),
            ..EmbedOptions::default()
        };
        check(&mut embedder(place.path(), options).unwrap(), &case("prompt")["vectors"], "prompt");
    }
    let place = directory("caller-empty-prompt", &case("prompt")["files"]);
    let none = EmbedOptions { prompt: Some(String::new()), ..EmbedOptions::default() };
    check(&mut embedder(place.path(), none).unwrap(), &case("no prompt")["vectors"], "no prompt");
    let other = EmbedOptions { prompt_name: Some("qeury".to_owned()), ..EmbedOptions::default() };
    let said = embedder(place.path(), other).err().unwrap();
    assert!(said.contains("`qeury`") && said.contains("query, document"), "{said}");
}

#[test]
fn module_or_key_that_is_not_known_is_refused_by_name() {
    let modules = |more: Value| {
        let mut list = json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]);
        list.as_array_mut().unwrap().extend(more.as_array().unwrap().iter().cloned());
        list
    };
    let third = |path: &str, class: &str| {
        modules(json!([{"idx": 2, "name": "2", "path": path, "type": class}]))
    };
    let dense = |key: &str, value: Value| {
        let mut config = json!({"in_features": 16, "out_features": 6, "bias": true});
        config[key] = value;
        json!({
            "modules.json": third("2_Dense", "sentence_transformers.models.Dense"),
            "2_Dense/config.json": config, "2_Dense/model.safetensors": "@dense.safetensors",
        })
    };
    let pooling = |config: Value| json!({"1_Pooling/config.json": config});
    let beside = |config: Value| json!({"sentence_bert_config.json": config});
    let model = |config: Value| json!({"config_sentence_transformers.json": config});
    let mut cases = vec![
        (
            json!({"modules.json": third("2_WeightedLayerPooling", "sentence_transformers.models.WeightedLayerPooling")}),
            vec!["2_WeightedLayerPooling", "type", "models.WeightedLayerPooling"],
        ),
        (
            json!({"modules.json": third("2_Normalize", "own_code.Normalize")}),
            vec!["2_Normalize", "own_code.Normalize"],
        ),
        (
            json!({"modules.json": third("../2", "sentence_transformers.models.Normalize")}),
            vec!["modules.json", "inside the model", "../2"],
        ),
        (
            json!({"modules.json": third("/2", "sentence_transformers.models.Normalize")}),
            vec!["inside the model"],
        ),
        (
            json!({"modules.json": [{"name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"}]}),
            vec!["StaticEmbedding"],
        ),
        (
            json!({"modules.json": [{"name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]}),
            vec!["a Pooling", "1 modules"],
        ),
        (json!({"modules.json": {"0": 1}}), vec!["a list of modules"]),
        (
            dense("activation_function", json!("torch.nn.modules.activation.Mish")),
            vec!["2_Dense", "activation_function", "Mish"],
        ),
        (
            dense("activation_function", json!("transformers.activations.GELUTanh")),
            vec!["2_Dense", "activation_function"],
        ),
        (dense("activation_function", json!(null)), vec!["2_Dense", "activation_function"]),
        (
            dense("module_input_name", json!("token_embeddings")),
            vec!["2_Dense", "module_input_name"],
        ),
        (dense("scale", json!(2)), vec!["2_Dense", "scale"]),
        (
            dense("in_features", json!(32)),
            vec!["modules.2", "in_features", "expected 16", "found 32"],
        ),
        (dense("out_features", json!(1u64 << 40)), vec!["2_Dense", "linear.", "1099511627776"]),
        (dense("out_features", json!(u64::MAX)), vec!["too large"]),
        (dense("use_residual", json!(true)), vec!["2_Dense", "residual.weight"]),
        (dense("bias", json!(false)), vec!["2_Dense", "linear.bias"]),
        (
            pooling(json!({"embedding_dimension": 16, "pooling_mode": "median"})),
            vec!["1_Pooling", "pooling_mode", "median"],
        ),
        (
            pooling(json!({"embedding_dimension": 16, "pooling_mode": []})),
            vec!["1_Pooling", "pooling_mode"],
        ),
        (
            pooling(json!({"embedding_dimension": 16, "pooling_mode_geometric": true})),
            vec!["1_Pooling", "pooling_mode_geometric"],
        ),
        (pooling(json!({"pooling_mode": "mean"})), vec!["1_Pooling", "embedding_dimension"]),
        (
            beside(json!({"transformer_task": "fill-mask"})),
            vec!["sentence_bert_config.json", "transformer_task"],
        ),
        (beside(json!({"max_seq_length": 0})), vec!["max_seq_length", "found `0`"]),
        (beside(json!({"max_seq_length": "long"})), vec!["max_seq_length"]),
        (beside(json!({"config_args": {"hidden_act": "relu"}})), vec!["config_args", "relu"]),
        (
            beside(json!({"processing_kwargs": {"text": {"truncation": false}}})),
            vec!["processing_kwargs"],
        ),
        (beside(json!({"lower": true})), vec!["lower"]),
        (model(json!({"model_type": "SparseEncoder"})), vec!["model_type", "SparseEncoder"]),
        (model(json!({"default_prompt_name": "passage"})), vec!["default_prompt_name", "passage"]),
        (model(json!({"truncate_dim": 0})), vec!["truncate_dim"]),
        (model(json!({"prompts": ["query"]})), vec!["prompts"]),
    ];
    // Files that a module cannot be without.
    cases.push((
        json!({"modules.json": third("2_Dense", "sentence_transformers.models.Dense")}),
        vec!["2_Dense", "in_features"],
    ));
    let base = case("new mean");
    for (index, (more, needles)) in cases.into_iter().enumerate() {
        let mut files = base["files"].clone();
        files.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let place = directory(&format!("refused-{index}"), &files);
        let said = embedder(place.path(), EmbedOptions::default()).err();
        let said = said.unwrap_or_else(|| panic!("{more}: expected an error"));
        for needle in needles {
            assert!(said.contains(needle), "{more}: {said} lacks {needle}");
        }
    }
}

/// The files of a case with other weights: of the file names each gets the part, or with "" goes.
fn with_weights(name: &str, weights: &[(&str, &str)]) -> Scratch {
    let mut files = case("new mean")["files"].clone();
    for (file, part) in weights {
        files[*file] = json!(part);
    }
    directory(name, &files)
}

const SHARDS: [&str; 2] = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
const INDEX: &str = "pytorch_model.bin.index.json";

#[test]
fn weights_before_pytorch_1_6_and_in_indexed_pickles_are_the_same_model() {
    let expected = &case("new mean")["vectors"];
    let legacy = [("model.safetensors", ""), ("pytorch_model.bin", "@legacy.bin")];
    let place = with_weights("legacy", &legacy);
    check(&mut embedder(place.path(), EmbedOptions::default()).unwrap(), expected, "legacy");
    let parts: Vec<String> = [SHARDS[0], SHARDS[1], INDEX].map(|name| format!("@{name}")).to_vec();
    let sharded = [
        ("model.safetensors", ""),
        (SHARDS[0], &*parts[0]),
        (SHARDS[1], &*parts[1]),
        (INDEX, &*parts[2]),
    ];
    let place = with_weights("sharded", &sharded);
    check(&mut embedder(place.path(), EmbedOptions::default()).unwrap(), expected, "sharded");
}

#[test]
fn index_that_does_not_fit_its_files_is_refused_by_tensor() {
    let parts: Vec<String> = SHARDS.iter().map(|name| format!("@{name}")).collect();
    let index: Value = serde_json::from_str(
        &fs::read_to_string(places::parity().join("sentences/parts").join(INDEX)).unwrap(),
    )
    .unwrap();
    let bias = "encoder.layer.0.output.dense.bias";
    let holder = index["weight_map"][bias].as_str().unwrap();
    let other = SHARDS.iter().find(|name| **name != holder).unwrap();
    for (name, tensor, file, needles) in [
        ("outside", bias, "../x.bin", &["beside the index", "../x.bin", bias][..]),
        (
            "absent",
            bias,
            "pytorch_model-00003.bin",
            &["pytorch_model-00003.bin", "nothing of that name"],
        ),
        ("swapped", bias, other, &[bias, holder]),
        ("extra", "encoder.more", holder, &["encoder.more", "no such tensor"]),
    ] {
        let place = with_weights(
            &format!("index-{name}"),
            &[("model.safetensors", ""), (SHARDS[0], &parts[0]), (SHARDS[1], &parts[1])],
        );
        let mut index = index.clone();
        index["weight_map"][tensor] = json!(file);
        fs::write(place.path().join(INDEX), index.to_string()).unwrap();
        let said = embedder(place.path(), EmbedOptions::default()).err().expect(name);
        for needle in needles {
            assert!(said.contains(needle), "{name}: {said} lacks {needle}");
        }
    }
    // The same tensors in both files.
    let place = with_weights(
        "index-twice",
        &[("model.safetensors", ""), (SHARDS[0], &parts[0]), (SHARDS[1], &parts[0])],
    );
    fs::write(place.path().join(INDEX), index.to_string()).unwrap();
    let said = embedder(place.path(), EmbedOptions::default()).err().unwrap();
    assert!(said.contains("a second weight"), "{said}");
}

/// Writes the file's tensors under the names that `change` answers with, and with the values that it leaves.
fn rewrite(path: &Path, change: impl Fn(&str, &mut Vec<u8>) -> Option<String>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let (mut entries, mut data) = (json!({}), Vec::new());
    for (name, entry) in header.as_object().unwrap() {
        if name == "__metadata__" {
            continue;
        }
        let at = |k: usize| 8 + length + entry["data_offsets"][k].as_u64().unwrap() as usize;
        let mut values = bytes[at(0)..at(1)].to_vec();
        if let Some(name) = change(name, &mut values) {
            let offsets = [data.len(), data.len() + values.len()];
            entries[name] =
                json!({"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": offsets});
            data.extend(values);
        }
    }
    let header = entries.to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    fs::write(path, out).unwrap();
}

#[test]
fn weights_that_a_task_does_not_need_may_be_missing_or_there() {
    let expected = &case("new mean")["vectors"];
    let place = with_weights("without-pooler", &[]);
    let path = place.path().join("model.safetensors");
    // The pooler becomes an unknown head.
    rewrite(&path, |name, _| Some(name.replace("pooler.dense", "crf.transitions")));
    let mut mean = embedder(place.path(), EmbedOptions::default()).unwrap();
    check(&mut mean, expected, "without pooler");
    let report = &mean.network().load_report;
    assert_eq!(report.unknown, ["crf.transitions.bias", "crf.transitions.weight"]);
    assert_eq!(report.missing, ["pooler.dense.bias", "pooler.dense.weight"]);
    let pooled = EmbedOptions { pooling: Some("pooled".to_owned()), ..EmbedOptions::default() };
    let said = embedder(place.path(), pooled).err().unwrap();
    assert!(said.contains("`pooler.dense.weight`") && said.contains("another pooling"), "{said}");
    // What stands among the model's own weights belongs to another model.
    rewrite(&path, |name, _| Some(name.replace("crf.transitions", "encoder.layer.1.gate")));
    let said = embedder(place.path(), EmbedOptions::default()).err().unwrap();
    assert!(said.contains("encoder.layer.1.gate.weight"), "{said}");
    // And what it does need must be there; the error says what nothing knows.
    rewrite(&path, |name, _| {
        Some(
            name.replace("encoder.layer.1.gate", "gate")
                .replace("encoder.layer.0", "model.layers.0"),
        )
    });
    let said = embedder(place.path(), EmbedOptions::default()).err().unwrap();
    assert!(said.contains("encoder.layer.0") && said.contains("model.layers.0"), "{said}");
}

#[test]
fn weight_that_is_no_number_is_refused_by_name() {
    let place = with_weights("not-finite", &[]);
    rewrite(&place.path().join("model.safetensors"), |name, values| {
        if name == "encoder.layer.0.output.dense.weight" {
            values[8..12].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
        }
        Some(name.to_owned())
    });
    let said = embedder(place.path(), EmbedOptions::default()).err().unwrap();
    let needles = ["model.safetensors", "encoder.layer.0.output.dense.weight", "element 2"];
    assert!(needles.iter().all(|needle| said.contains(needle)), "{said}");
}

#[test]
fn configuration_that_fits_no_memory_or_not_its_weights_is_an_error() {
    let large = 1u64 << 40;
    for (key, value) in [
        ("num_hidden_layers", large),
        ("num_hidden_layers", 1_000_000),
        ("num_hidden_layers", 1_000),
        ("vocab_size", large),
        ("vocab_size", u64::MAX),
        ("hidden_size", large),
        ("hidden_size", 1 << 62),
        ("intermediate_size", large),
        ("intermediate_size", u64::MAX),
        ("max_position_embeddings", large),
        ("type_vocab_size", large),
        ("num_attention_heads", large),
    ] {
        let place = with_weights(&format!("large-{key}-{value}"), &[]);
        let path = place.path().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = json!(value);
        fs::write(&path, config.to_string()).unwrap();
        assert!(embedder(place.path(), EmbedOptions::default()).is_err(), "{key} {value}");
    }
}
