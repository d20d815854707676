//! An app that breaks a promise of `et.app/1` ends the command with an error that names plugin, slot, what was
//! expected and what was found; the process is not taken down, and the run leaves no bundle.

use std::fs;
use std::path::PathBuf;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Outcome, Scratch, build_plugin, install_loss, run};

/// A folder with the plugin of `hosts/hostile_app.c`.
fn installed(scratch: &Scratch) -> PathBuf {
    let source = scratch.path().join("hostile_app.c");
    fs::write(&source, include_str!("hosts/hostile_app.c")).unwrap();
    let library = build_plugin(scratch.path(), &source, "libhostile.so");
    let requires = ["et.tensor/1", "et.nn/1", "et.data/1", "et.net/1"];
    let folder = install_loss(scratch.path(), "hostile", &requires, &library).join("hostile");
    let manifest = folder.join("hostile.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(manifest, text.replace("kind = \"loss\"", "kind = \"app\"")).unwrap();
    folder
}

/// What came of a command whose app breaks the promise `fault`: an end with an error, and no signal.
fn failed(place: &Place, arguments: &[&str], fault: &str) -> Outcome {
    let mut command = place.command(arguments);
    let outcome = run(command.env("ET_HOSTILE", fault), b"a text\nanother one\n");
    let what = format!("{fault}: {}{}", outcome.stdout, outcome.stderr);
    assert!([1, 2].contains(&outcome.code), "code {}, {what}", outcome.code);
    assert!(outcome.stdout.is_empty(), "{what}");
    outcome
}

#[test]
fn hostile_answers_of_an_app_are_errors() {
    let scratch = Scratch::new("hostile-app");
    let folder = installed(&scratch);
    let plugins = ["--plugins", folder.to_str().unwrap()];
    let place = Place::new("hostile-app");
    let more = [&plugins[..], &["--app", "hostile", "--set", "max_steps=2"]].concat();
    place.train("good", &more).good("train with the app as it should be");

    for (fault, expected) in [
        ("columns: an object", "columns: the answer is not the JSON that it promises"),
        ("describe: no JSON", "describe: the answer is not the JSON that it promises"),
        ("describe: nothing", "hostile"),
        ("features: no row", "features: expected at least one row, found none"),
        ("features: a released row", "expected a live row, found one that was released"),
        ("features: the host's name", "the field \"source\" is the host's to fill"),
        ("forward: another module", "run: module \"tower\": expected \"\" (the encoder)"),
        ("forward: no logits", "there is no entry \"logits\""),
    ] {
        let outcome = failed(&place, &place.train_arguments("out", &more), fault);
        let said = &outcome.stderr;
        assert!(said.contains(expected), "{fault}: {said}");
        assert!(!place.at("out/model.safetensors").exists(), "{fault}: a bundle was written");
    }

    let predict = [&["predict", "--model", "good"][..], &plugins].concat();
    let said = place.with_input(&predict, "a text\nanother one\n").good("predict");
    assert_eq!(said.matches("\"value\":1").count(), 2, "{said}");
    for (fault, expected) in [
        ("features: no row", "features: expected at least one row, found none"),
        (
            "decode: too few parts",
            "decode: expected 2 parts, one for each row of the batch, found 1",
        ),
        ("decode: no JSON", "decode: the answer is not the JSON that it promises"),
        ("decode: nothing", "decode"),
        ("finish: an error", "finish: thrown in finish"),
        ("finish: no object", "finish: the answer is not the JSON that it promises"),
        ("finish: no text", "finish"),
        ("finish: nothing", "finish"),
    ] {
        let outcome = failed(&place, &predict, fault);
        assert!(outcome.stderr.contains("hostile"), "{fault}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{fault}: {}", outcome.stderr);
    }
}
