//! The command line: `--profile`.

use easytransfer_tests::command::Place;
use serde_json::Value;

/// Categories and names of the events of a trace.
fn events(place: &Place, name: &str) -> Vec<(String, String)> {
    let trace: Vec<Value> = serde_json::from_value(place.read_json(name)).expect("an array");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    trace.iter().map(|event| (text(&event["cat"]), text(&event["name"]))).collect()
}

#[test]
fn profile_of_training_and_prediction_names_steps_and_operations() {
    let place = Place::new("profile");
    let trained = place.train("run", &["--profile", "train.json", "--set", "max_steps=3"]);
    assert!(trained.stderr.contains("own ms"), "{}", trained.stderr);
    trained.good("train");
    let found = events(&place, "train.json");
    let count = |category: &str, name: &str| {
        found.iter().filter(|(c, n)| c == category && n == name).count()
    };
    assert_eq!(count("train", "step"), 3);
    for (category, name) in [
        ("train", "evaluate"),
        ("train", "checkpoint"),
        ("data", "features"),
        ("engine", "encode"),
        ("engine", "collate"),
        ("engine", "optim_step"),
        ("forward", "linear"),
        ("forward", "attention"),
        ("backward", "linear"),
        ("backward", "attention"),
        ("backward", "embedding_sum"),
    ] {
        assert!(count(category, name) > 0, "no {category} {name}");
    }
    for arguments in [
        &["predict", "--model", "run", "--data", "dev.tsv", "--output", "out.tsv"][..],
        &["evaluate", "--model", "run", "--data", "dev.tsv"],
    ] {
        let arguments = [arguments, &["--profile", "answer.json"]].concat();
        place.easytransfer(&arguments).good(arguments[0]);
        let found = events(&place, "answer.json");
        assert!(found.contains(&("forward".into(), "linear".into())), "{}", arguments[0]);
        assert!(!found.iter().any(|(category, _)| category == "backward"), "{}", arguments[0]);
    }
}

#[test]
fn profile_that_cannot_be_written_ends_before_the_work() {
    let place = Place::new("profile-place");
    let refused = place.train("run", &["--profile", "missing/train.json"]);
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    assert!(refused.stderr.contains("missing/train.json"), "{}", refused.stderr);
    assert!(!place.at("run").exists());
}
