//! A strategy that asks for what a session refuses, or answers what a run cannot use, ends the command with an error
//! that names it and what was expected; the process is not taken down, and the run leaves no bundle.

use std::fs;
use std::path::PathBuf;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Scratch, build_plugin, install_loss};

/// A folder with the plugin of `hosts/hostile_strategy.cpp`.
fn installed(scratch: &Scratch) -> PathBuf {
    let source = scratch.path().join("hostile_strategy.cpp");
    fs::write(&source, include_str!("hosts/hostile_strategy.cpp")).unwrap();
    let library = build_plugin(scratch.path(), &source, "libtl_hostile.so");
    let requires = ["et.tensor/1", "et.data/1", "et.session/1"];
    let folder = install_loss(scratch.path(), "tl-hostile", &requires, &library).join("tl-hostile");
    let manifest = folder.join("tl-hostile.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let one = "[[provides]]\nkind = \"loss\"\nname = \"tl-hostile\"\n";
    assert!(text.contains(one), "{text}");
    let provides = ["hostile", "hostile-driver"]
        .map(|name| format!("[[provides]]\nkind = \"strategy\"\nname = {name:?}\n"));
    fs::write(manifest, text.replace(one, &provides.join("\n"))).unwrap();
    folder
}

#[test]
fn hostile_answers_of_a_strategy_are_errors() {
    let scratch = Scratch::new("hostile-strategy");
    let folder = installed(&scratch);
    let place = Place::new("hostile-strategy");
    place.write("empty.tsv", "text\tlabel\n");
    let train = |output: &str, strategy: &str, fault: &str| {
        let setting = format!("strategy.{strategy}.at={fault}");
        let plugins = ["--plugins", folder.to_str().unwrap(), "--set", "max_steps=2"];
        place.train(output, &[&plugins[..], &["--set", &setting]].concat())
    };
    for strategy in ["hostile", "hostile-driver"] {
        train("good", strategy, "none").good("train with the strategy as it should be");
    }
    for (strategy, fault, expected) in [
        ("hostile", "columns: an object", "columns: the answer is not the JSON that it promises"),
        ("hostile", "columns: no JSON", "columns: the answer is not the JSON that it promises"),
        ("hostile", "module: the model's name", "is taken"),
        ("hostile", "module: a name twice", "is taken"),
        ("hostile", "module: too late", "only in on_setup"),
        ("hostile", "source: no file", "no-such.tsv"),
        ("hostile", "source: no records", "empty.tsv"),
        ("hostile", "source: a name twice", "more"),
        ("hostile", "weights: of another number of rows", "weights"),
        ("hostile", "loss: no scalar", "add_loss: \"extra\": expected a scalar, found shape"),
        ("hostile", "loss: not a number", "its loss \"extra\" is not a finite number"),
        ("hostile", "batch: no such source", "more"),
        ("hostile", "record: beyond the last", "1099511627776"),
        ("hostile-driver", "module: a name twice", "is taken"),
        ("hostile-driver", "source: no records", "empty.tsv"),
        ("hostile-driver", "fit: an error", "thrown in fit"),
        ("hostile-driver", "step: no such source", "more"),
        ("hostile-driver", "commit: no JSON", "commit"),
        ("hostile-driver", "commit: no number", "commit: loss: expected a number, found \"low\""),
    ] {
        let outcome = train("out", strategy, fault);
        let what = format!("{strategy}, {fault}: {}{}", outcome.stdout, outcome.stderr);
        assert!([1, 2].contains(&outcome.code), "code {}, {what}", outcome.code);
        assert!(outcome.stderr.contains(expected), "{expected:?} is not in {what}");
        assert!(!place.at("out/model.safetensors").exists(), "a bundle was written: {what}");
    }
}
