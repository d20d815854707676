use super::*;
use serde_json::json;
use std::collections::BTreeSet;

const FAMILIES: [(&str, Family); 5] = [
    ("bert", Family::BERT),
    ("roberta", Family::ROBERTA),
    ("electra", Family::ELECTRA),
    ("distilbert", Family::DISTILBERT),
    ("albert", Family::ALBERT),
];

/// What transformers has for a family: `tests/parity/make_config.py`.
fn golden(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity/config.json");
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[name].take()
}

fn honoured(family: &Family) -> Map<String, Value> {
    Reader::new(&Map::new(), family).unwrap().honoured
}

fn read(family: &Family, config: Value) -> Result<Shape> {
    Shape::read(config.as_object().unwrap(), family)
}

fn message(family: &Family, config: Value) -> String {
    match read(family, config) {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.message().to_owned(),
    }
}

#[test]
fn keys_of_transformers_are_honoured_fixed_or_idle_with_its_defaults() {
    for (name, family) in FAMILIES {
        let golden = golden(name);
        let honoured = honoured(&family);
        let keys = golden["keys"].as_object().unwrap();
        for (key, default) in keys {
            if let Some(property) = honoured.get(key) {
                assert_eq!(property["default"].as_f64(), default.as_f64(), "{name}: {key}");
                assert!(default.is_number() || property["default"] == *default, "{name}: {key}");
            } else if let Some((_, harmless)) = keys::FIXED.iter().find(|(fixed, _)| fixed == key) {
                let text = default.to_string();
                assert!(default.is_null() || harmless.contains(&&*text), "{name}: {key}: {text}");
            } else {
                assert!(keys::IDLE.contains(&key.as_str()), "{name}: nothing is said of {key}");
            }
        }
        for key in honoured.keys() {
            assert!(keys.contains_key(key), "{name}: transformers has no {key}");
        }
        let aliases = golden["aliases"].as_object().unwrap();
        let own: BTreeSet<(&str, &str)> =
            family.aliases.iter().map(|key| (*key, family.own(key))).collect();
        let theirs = aliases.iter().map(|(key, own)| (&**key, own.as_str().unwrap())).collect();
        assert_eq!(own, theirs, "{name}");
    }
}

#[test]
fn key_is_in_one_list_only() {
    let mut seen = BTreeSet::new();
    for key in keys::FIXED.iter().map(|(key, _)| *key).chain(keys::IDLE.iter().copied()) {
        assert!(seen.insert(key), "{key} twice");
    }
}

#[test]
fn empty_configuration_is_that_of_transformers() {
    let shape = read(&Family::ROBERTA, json!({})).unwrap();
    assert_eq!((shape.vocab_size, shape.pad_token_id, shape.segments), (50265, 1, 2));
    let shape = read(&Family::ELECTRA, json!({})).unwrap();
    assert_eq!((shape.embedding_size, shape.hidden_size, shape.heads), (128, 256, 4));
    let shape = read(&Family::DISTILBERT, json!({})).unwrap();
    assert_eq!((shape.layers, shape.classifier_dropout, shape.segments), (6, 0.2, 0));
    let shape = read(&Family::BERT, json!({"hidden_dropout_prob": 0.3})).unwrap();
    assert_eq!((shape.embedding_size, shape.classifier_dropout), (768, 0.3));
}

#[test]
fn embedding_size_counts_only_where_transformers_reads_it() {
    let config = json!({"embedding_size": 64});
    assert_eq!(read(&Family::BERT, config.clone()).unwrap().embedding_size, 768);
    assert_eq!(read(&Family::ALBERT, config).unwrap().embedding_size, 64);
}

#[test]
fn keys_that_change_the_arithmetic_are_refused_by_name() {
    for (key, value) in [
        ("is_decoder", json!(true)),
        ("add_cross_attention", json!(true)),
        ("position_embedding_type", json!("relative_key_query")),
        ("pruned_heads", json!({"0": [1]})),
        ("quantization_config", json!({"bits": 4})),
        ("rope_theta", json!(10000.0)),
        ("auto_map", json!({"AutoModel": "own.Model"})),
        ("is_decoder", json!("yes")),
        ("hidden_act", json!("mish")),
        ("hidden_size", json!(768.5)),
        ("hidden_size", json!(null)),
        ("hidden_size", json!("768")),
        ("vocab_size", json!(-1)),
        ("layer_norm_eps", json!(-1e-5)),
        ("initializer_range", json!(null)),
        ("num_hidden_layers", json!(1u64 << 40)),
        ("num_hidden_layers", json!(1_000_000)),
        ("max_position_embeddings", json!(0)),
    ] {
        let mut config = Map::new();
        config.insert(key.to_owned(), value.clone());
        let said = message(&Family::BERT, Value::Object(config));
        assert!(said.starts_with(&format!("config.json: {key}: ")), "{key} {value}: {said}");
    }
    for harmless in
        [json!({"is_decoder": false}), json!({"pruned_heads": {}}), json!({"is_decoder": null})]
    {
        assert!(read(&Family::BERT, harmless).is_ok());
    }
    let said = message(&Family::ALBERT, json!({"num_hidden_layers": 512, "inner_group_num": 4}));
    assert!(said.contains("at most 1024 layers, found 512 times inner_group_num 4"), "{said}");
    let said = message(&Family::ROBERTA, json!({"pad_token_id": 60_000}));
    assert!(said.starts_with("config.json: pad_token_id: "), "{said}");
    assert!(message(&Family::ROBERTA, json!({"pad_token_id": null})).contains("pad_token_id"));
}

#[test]
fn other_names_of_a_key_count_as_in_transformers() {
    let family = Family::DISTILBERT;
    let shape = read(&family, json!({"hidden_size": 96, "num_attention_heads": 3})).unwrap();
    assert_eq!((shape.hidden_size, shape.heads), (96, 3));
    let said = message(&family, json!({"dim": 96, "hidden_size": 48}));
    assert!(said.starts_with("config.json: hidden_size: expected the same as dim"), "{said}");
    assert!(message(&family, json!({"num_hidden_layers": "x"})).contains("num_hidden_layers"));
}
