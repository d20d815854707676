//! The command line: encoders as transformers saves them, with their own tokenizers and configurations.

use std::collections::BTreeSet;
use std::fs;

use easytransfer_tests::command::Place;
use easytransfer_tests::places;
use serde_json::{Value, json};

/// A place with the tiny ALBERT of the goldens as `albert/`: six passes through the four layers of two groups.
fn with_albert(name: &str) -> Place {
    let place = Place::new(name);
    fs::create_dir(place.at("albert")).unwrap();
    for entry in fs::read_dir(places::parity().join("tiny/albert")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.at("albert").join(entry.file_name())).unwrap();
    }
    let rows = [
        "the train is late\trail",
        "thanks to you\tthanks",
        "no train\trail",
        "he said thanks\tthanks",
    ];
    place.write("few.tsv", format!("text\tlabel\n{}\n", rows.join("\n")));
    place
}

/// Fine-tunes it, one step an epoch.
fn train(place: &Place, output: &str, settings: &[&str]) {
    let mut more = vec!["--encoder", "albert", "--train", "few.tsv", "--valid", "few.tsv"];
    more.extend(
        ["max_steps=0", "epochs=40", "lr=3e-3"].iter().chain(settings).flat_map(|s| ["--set", s]),
    );
    place.train(output, &more).good(output);
}

#[test]
fn albert_is_fine_tuned_and_saved_under_the_names_of_transformers() {
    let place = with_albert("albert");
    train(&place, "run", &[]);
    let losses = place.curve("run", "train/loss");
    assert!(losses[39] < 0.5 * losses[0], "{losses:?}");
    let (before, after) = (place.tensors("albert"), place.tensors("run"));
    assert!(before.keys().eq(after.keys()), "{:?} and {:?}", before.keys(), after.keys());
    let config = place.read_json("run/config.json");
    assert_eq!(config["architectures"], json!(["AlbertForSequenceClassification"]));
    assert_eq!(config["num_hidden_groups"], 2);
    assert_eq!(place.read_json("run/tokenizer.json")["model"]["type"], "Unigram");
    // The first of the rows, all of which it has learned.
    assert_eq!(place.read_json("run/easytransfer.json")["metrics"]["accuracy"], 1.0);
    let said = place.with_input(&["predict", "--model", "run"], "the train is late\n");
    assert!(said.good("predict").contains("\"rail\""));
}

#[test]
fn albert_computes_shared_layers_again_to_the_same_bytes() {
    let place = with_albert("albert-recompute");
    let mut config = place.read_json("albert/config.json");
    for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        config[key] = json!(0.2);
    }
    place.write("albert/config.json", config.to_string());
    for level in ["none", "layer"] {
        train(&place, level, &[&format!("recompute={level}")]);
    }
    assert!(place.tensors("none") == place.tensors("layer"));
    assert_eq!(place.metrics("none"), place.metrics("layer"));
}

#[test]
fn albert_freezes_a_shared_layer_with_the_highest_that_uses_it() {
    let place = with_albert("albert-freeze");
    let changed = |output: &str, setting: &str| -> BTreeSet<String> {
        train(&place, output, &[setting]);
        let (before, after) = (place.tensors("albert"), place.tensors(output));
        after.into_iter().filter(|(name, v)| before[name] != *v).map(|(name, _)| name).collect()
    };
    let layer = |group: usize, layer: usize| {
        format!("albert.encoder.albert_layer_groups.{group}.albert_layers.{layer}.")
    };
    // Layers 1 and 3 are the first of the first group, 2 and 4 the second.
    let top = changed("three", "strategy.finetune.freeze_layers=3");
    let has = |scope: &str| top.iter().any(|name| name.starts_with(scope));
    assert!(!has("albert.embeddings.") && !has("albert.encoder.embedding"), "{top:?}");
    assert!(!has(&layer(0, 0)) && has(&layer(0, 1)) && has(&layer(1, 0)), "{top:?}");
    let lora = changed("lora", "strategy.finetune.lora_rank=2");
    assert!(lora.contains(&format!("{}attention.query.weight", layer(0, 0))), "{lora:?}");
    let is_target = |name: &str| name.ends_with("query.weight") || name.ends_with("value.weight");
    assert!(lora.iter().all(|name| is_target(name) || name.starts_with("classifier.")), "{lora:?}");
}

#[test]
fn unknown_activation_is_refused_with_the_known_ones() {
    let place = with_albert("encoder-activation");
    let config = place.read_text("albert/config.json").replace("gelu_new", "gelo");
    place.write("albert/config.json", config);
    let outcome = place.train("out", &["--encoder", "albert"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    for needle in ["albert/config.json", "`gelo`", "`gelu_new`", "`relu`"] {
        assert!(outcome.stderr.contains(needle), "{needle}: {}", outcome.stderr);
    }
}

#[test]
fn configuration_out_of_range_is_refused_by_its_own_key() {
    let place = with_albert("encoder-config");
    let distilbert = places::parity().join("tiny/distilbert/config.json");
    let distilbert: Value = serde_json::from_slice(&fs::read(distilbert).unwrap()).unwrap();
    let albert = place.read_json("albert/config.json");
    for (config, key, value, needles) in [
        (&albert, "num_hidden_groups", json!(0), &["from 1 to num_hidden_layers 3", "found 0"][..]),
        (&albert, "num_hidden_groups", json!(4), &["from 1 to num_hidden_layers 3", "found 4"]),
        (&albert, "inner_group_num", json!(0), &["at least 1"]),
        (&albert, "embedding_size", json!(0), &["at least 1"]),
        (&albert, "num_attention_heads", json!(3), &["a divisor of hidden_size 16", "found 3"]),
        (&albert, "classifier_dropout_prob", json!(1), &["0 <= p < 1", "found 1"]),
        (&albert, "hidden_dropout_prob", json!(-0.1), &["0 <= p < 1", "found -0.1"]),
        (&albert, "position_embedding_type", json!("relative_key"), &["absolute", "relative_key"]),
        (&distilbert, "n_heads", json!(5), &["a divisor of dim 32", "found 5"]),
        (&distilbert, "seq_classif_dropout", json!(2), &["0 <= p < 1", "found 2"]),
    ] {
        let mut config = config.clone();
        config[key] = value;
        place.write("albert/config.json", config.to_string());
        let outcome = place.train("out", &["--encoder", "albert"]);
        assert_eq!(outcome.code, 2, "{key}: {}", outcome.stderr);
        for needle in [&[key], needles].concat() {
            assert!(outcome.stderr.contains(needle), "{key}: {needle}: {}", outcome.stderr);
        }
    }
}
