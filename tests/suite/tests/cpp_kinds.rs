//! Plugins of every kind in C++17 pass `easytransfer plugin check`, and are used in runs.

use std::fs;
use std::path::{Path, PathBuf};

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Scratch, build_plugin, install};
use easytransfer_tests::places;
use serde_json::Value;

/// Builds and installs a plugin of the outsiders; answers with the folder of its search path.
fn installed(scratch: &Scratch, source: &str, provides: &[(&str, &str)]) -> PathBuf {
    let path = places::root().join("tests/outsiders/cpp").join(format!("{source}.cpp"));
    let source_file = fs::canonicalize(path).unwrap();
    let library = build_plugin(scratch.path(), &source_file, &format!("libcpp_{source}.so"));
    install(&scratch.path().join("plugins"), &format!("cpp-{source}"), provides, &library)
}

fn kinds(scratch: &Scratch) -> PathBuf {
    let provides = [
        ("model", "cpp-words"),
        ("optimizer", "cpp-momentum"),
        ("app", "cpp-classify"),
        ("metric", "cpp-right"),
    ];
    installed(scratch, "kinds", &provides)
}

/// `plugin check` finds nothing, and says of every kind that something holds.
fn passes(place: &Place, plugins: &Path, id: &str, kinds: &[&str]) {
    let manifest = plugins.join(id);
    let said = place.easytransfer(&["plugin", "check", manifest.to_str().unwrap()]).good("check");
    assert!(said.contains(" 0 failed"), "{said}");
    for kind in kinds {
        assert!(said.contains(kind), "{kind} is not in {said}");
    }
}

#[test]
fn models_optimizers_apps_and_metrics_in_cpp() {
    let scratch = Scratch::new("cpp-kinds");
    let plugins = kinds(&scratch);
    let place = Place::new("cpp-kinds");
    passes(
        &place,
        &plugins,
        "cpp-kinds",
        &["cpp-words", "cpp-momentum", "cpp-classify", "cpp-right"],
    );
    let mut config: Value = place.read_json("encoder/config.json");
    config["model_type"] = "cpp-words".into();
    place.write("encoder/config.json", config.to_string());
    let plugins = plugins.to_str().unwrap();
    let train = |output: &str, more: &[&str]| {
        let flags =
            ["--plugins", plugins, "--app", "cpp-classify", "--set", "optimizer.name=cpp-momentum"];
        place.train(output, &[&flags[..], more].concat())
    };
    train("out", &["--set", "max_steps=120", "--set", "epochs=20", "--set", "lr=0.2"])
        .good("train");
    let right = place.curve("out", "valid/right");
    // Eight classes: guessing is right in an eighth of the cases.
    assert!(right.last().is_some_and(|right| *right > 0.5), "{right:?}");
    place.write("one.tsv", "text\nwhere is my parcel\n");
    let answer = place
        .easytransfer(&["predict", "--plugins", plugins, "--model", "out", "--data", "one.tsv"])
        .good("predict");
    assert!(answer.contains("label"), "{answer}");
    // What an app has against a record names the file, the line and the column.
    place.write("bad.tsv", "text\tlabel\na text\tno-such-label\n");
    let refused = train("refused", &["--valid", "bad.tsv"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    for part in ["bad.tsv", "line 2", "label", "no-such-label"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
}

#[test]
fn strategy_in_cpp_drives_the_fit_with_modules_sources_and_parts() {
    let scratch = Scratch::new("cpp-average");
    let plugins = installed(&scratch, "average", &[("strategy", "cpp-average")]);
    let place = Place::new("cpp-average");
    passes(&place, &plugins, "cpp-average", &["cpp-average"]);
    let flags = ["--plugins", plugins.to_str().unwrap()];
    let settings = ["--set", "strategy.cpp-average.head=classifier.*", "--set", "evaluate_every=5"];
    place.train("out", &[&flags[..], &settings].concat()).good("train");
    let counts = place.curve("out", "counts");
    assert_eq!(counts.len(), 12, "{counts:?}");
    assert!(counts.iter().enumerate().all(|(at, count)| *count == at as f64 + 1.0), "{counts:?}");
    let report = place.read_text("out/report.html");
    assert!(report.contains("memory") && report.contains("average"), "the modules are not listed");
}
