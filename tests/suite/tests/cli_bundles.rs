//! The command line: a bundle whose files are not of one run is refused, and what becomes of its files later does not
//! matter to a program that has loaded it.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::Command;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::Outcome;
use serde_json::{Value, json};

/// A place with a bundle `app` and a file of one text.
fn with_app(name: &str) -> Place {
    let place = Place::new(name);
    place.train("app", &["--set", "max_steps=2"]).good("train");
    place.write("q.txt", "where is my parcel\n");
    place
}

/// A copy of the bundle `from`.
fn copy(place: &Place, from: &str, to: &str) {
    let _ = fs::remove_dir_all(place.at(to));
    fs::create_dir(place.at(to)).unwrap();
    for entry in fs::read_dir(place.at(from)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, place.at(to).join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn predict(place: &Place, model: &str) -> Outcome {
    place.easytransfer(&["predict", "--model", model, "--data", "q.txt"])
}

fn refused(what: &str, outcome: &Outcome, needles: &[&str]) {
    assert_eq!(outcome.code, 2, "{what}: {}", outcome.stderr);
    assert!(outcome.stdout.is_empty(), "{what}: {}", outcome.stdout);
    for needle in needles {
        assert!(outcome.stderr.contains(needle), "{what}: {needle:?} is not in {}", outcome.stderr);
    }
}

fn edit(place: &Place, file: &str, change: impl FnOnce(&mut Value)) {
    let mut value = place.read_json(file);
    change(&mut value);
    place.write(file, value.to_string());
}

fn reversed(labels: &Value) -> Value {
    Value::Array(labels.as_array().unwrap().iter().rev().cloned().collect())
}

#[test]
fn labels_of_another_run_are_refused() {
    let place = with_app("labels");
    let expected = predict(&place, "app").good("as it was written");
    copy(&place, "app", "b");
    assert_eq!(predict(&place, "b").good("copied"), expected);
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 6] = [
        (
            "easytransfer.json",
            |m| m["app_state"]["labels"] = reversed(&m["app_state"]["labels"]),
            "labels",
        ),
        ("easytransfer.json", |m| m["labels"] = reversed(&m["labels"]), "labels"),
        ("easytransfer.json", |m| drop(m["labels"].as_array_mut().unwrap().pop()), "labels"),
        (
            "easytransfer.json",
            |m| {
                m["labels"] = reversed(&m["labels"]);
                m["app_state"]["labels"] = reversed(&m["app_state"]["labels"]);
            },
            "id2label",
        ),
        ("config.json", |c| c["id2label"]["0"] = json!("another"), "id2label"),
        ("config.json", |c| c["id2label"]["99"] = json!("another"), "id2label"),
    ];
    for (index, (file, change, needle)) in cases.into_iter().enumerate() {
        copy(&place, "app", "b");
        edit(&place, &format!("b/{file}"), change);
        refused(&format!("case {index}"), &predict(&place, "b"), &["b/easytransfer.json", needle]);
        // Also where nobody knows any checksums.
        edit(&place, "b/easytransfer.json", |m| drop(m.as_object_mut().unwrap().remove("files")));
        refused(&format!("case {index}"), &predict(&place, "b"), &[needle]);
    }
}

#[test]
fn files_of_another_run_are_refused_by_name() {
    let place = with_app("mixed");
    place.train("other", &["--set", "max_steps=2", "--set", "seed=7"]).good("train");
    let expected = predict(&place, "app").good("as it was written");
    for file in ["model.safetensors", "easytransfer.json"] {
        copy(&place, "app", "b");
        fs::copy(place.at("other").join(file), place.at("b").join(file)).unwrap();
        refused(
            file,
            &predict(&place, "b"),
            &["b/model.safetensors", "checksum", "easytransfer.json"],
        );
        let evaluate = ["evaluate", "--model", "b", "--data", "dev.tsv"];
        refused(file, &place.easytransfer(&evaluate), &["b/model.safetensors"]);
        let embed = ["embed", "--encoder", "b", "--data", "q.txt", "--output", "-"];
        refused(file, &place.easytransfer(&embed), &["b/model.safetensors"]);
    }
    // One bit, a new order of the vocabulary, a file more, a file less.
    copy(&place, "app", "b");
    let mut weights = place.read("b/model.safetensors");
    let middle = weights.len() / 2;
    weights[middle] ^= 1;
    place.write("b/model.safetensors", weights);
    refused("one bit", &predict(&place, "b"), &["b/model.safetensors", "checksum"]);
    copy(&place, "app", "b");
    let config = place.read_text("b/config.json").replace("0.1", "0.2");
    place.write("b/config.json", config);
    refused("config.json", &predict(&place, "b"), &["b/config.json", "checksum"]);
    copy(&place, "app", "b");
    let tokenizer = place.read_text("b/tokenizer.json").replacen("refund", "refudn", 1);
    place.write("b/tokenizer.json", tokenizer);
    refused("tokenizer.json", &predict(&place, "b"), &["b/tokenizer.json", "checksum"]);
    copy(&place, "app", "b");
    fs::remove_file(place.at("b/vocab.txt")).unwrap();
    refused("a file less", &predict(&place, "b"), &["b/vocab.txt"]);
    copy(&place, "app", "b");
    edit(&place, "b/easytransfer.json", |m| {
        drop(m["files"].as_object_mut().unwrap().remove("tokenizer_config.json"))
    });
    refused("a file more", &predict(&place, "b"), &["b/tokenizer_config.json"]);
    // Bundles of older versions have no checksums.
    copy(&place, "app", "old");
    edit(&place, "old/easytransfer.json", |m| drop(m.as_object_mut().unwrap().remove("files")));
    assert_eq!(predict(&place, "old").good("an older bundle"), expected);
}

#[test]
fn changing_files_under_a_running_program_changes_nothing() {
    let place = with_app("changing");
    let zeros = vec![0; place.read("app/model.safetensors").len()];
    type Harm<'a> = &'a dyn Fn(&Place);
    let harms: [(&str, Harm<'_>); 3] = [
        ("cut off", &|place| {
            let file = fs::OpenOptions::new().write(true).open(place.at("b/model.safetensors"));
            file.unwrap().set_len(100).unwrap();
        }),
        ("written over", &|place| {
            let file = fs::OpenOptions::new().write(true).open(place.at("b/model.safetensors"));
            file.unwrap().write_all(&zeros).unwrap();
        }),
        ("all gone", &|place| fs::remove_dir_all(place.at("b")).unwrap()),
    ];
    for (name, harm) in harms {
        copy(&place, "app", "b");
        let mut child = place
            .command(&["predict", "--model", "b"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        // The first window is full, so it is answered while the input goes on.
        let line = "{\"text\": \"where is my parcel\"}\n";
        input.write_all(line.repeat(256).as_bytes()).unwrap();
        let first = answers.next().unwrap().unwrap();
        harm(&place);
        // Another text, whose tokens the first ones did not touch.
        input.write_all("{\"text\": \"我要退款 cancel my order please\"}\n".as_bytes()).unwrap();
        input.write_all(line.as_bytes()).unwrap();
        drop(input);
        let rest: Vec<String> = answers.map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
        assert_eq!((rest.len(), rest.last()), (257, Some(&first)), "{name}");
        place.write("other.txt", "我要退款 cancel my order please\n");
        let other = ["predict", "--model", "app", "--data", "other.txt"];
        let other: Value = serde_json::from_str(&place.easytransfer(&other).good(name)).unwrap();
        let answered: Value = serde_json::from_str(&rest[255]).unwrap();
        assert_eq!(answered["probabilities"], other["probabilities"], "{name}");
    }
}

/// Runs the command, which must not wait for anybody, within minutes and 4 GB.
fn promptly(place: &Place, arguments: &[&str]) -> Outcome {
    let command = place.command(arguments);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("ulimit -v 4000000; exec timeout 300 \"$0\" \"$@\"");
    shell.arg(command.get_program()).args(arguments).current_dir(place.at(""));
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    easytransfer_tests::hosts::run(&mut shell, b"")
}

#[test]
fn only_regular_files_are_read_where_a_file_is_expected() {
    let place = with_app("regular");
    assert!(Command::new("mkfifo").arg(place.at("pipe")).status().unwrap().success());
    let files = [
        "easytransfer.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ];
    for target in ["../pipe", "/dev/zero", "/dev/null", "/dev/stdin", ".."] {
        for file in files {
            copy(&place, "app", "b");
            let path = place.at("b").join(file);
            fs::remove_file(&path).unwrap();
            symlink(target, &path).unwrap();
            let predict = ["predict", "--model", "b", "--data", "q.txt"];
            refused(&format!("{file} at {target}"), &promptly(&place, &predict), &[file]);
            if file != "easytransfer.json" {
                let train = place.train_arguments("out", &["--encoder", "b"]);
                refused(&format!("{file} at {target}"), &promptly(&place, &train), &[file]);
            }
        }
        let at = target.trim_start_matches("../");
        if target == "/dev/null" {
            continue;
        }
        let train = place.train_arguments("out", &["--config", at]);
        refused(at, &promptly(&place, &train), &[at]);
        let index = place.at("b/model.safetensors.index.json");
        copy(&place, "app", "b");
        fs::remove_file(place.at("b/model.safetensors")).unwrap();
        symlink(target, index).unwrap();
        let predict = ["predict", "--model", "b", "--data", "q.txt"];
        refused(at, &promptly(&place, &predict), &["model.safetensors.index.json"]);
    }
    assert!(!place.at("out").exists());
    // A folder of plugins with a pipe among its manifests.
    fs::create_dir(place.at("pl")).unwrap();
    symlink("../pipe", place.at("pl/x.toml")).unwrap();
    let with_plugins = ["predict", "--plugins", "pl", "--model", "app", "--data", "q.txt"];
    promptly(&place, &with_plugins).good("the other plugins are found");
    let list = promptly(&place, &["plugin", "list", "--plugins", "pl"]).good("list");
    assert!(list.contains("pl/x.toml") && list.contains("cannot be used"), "{list}");
}

#[test]
fn texts_that_are_not_utf8_and_absurdly_long_ones_are_bad_input() {
    let place = with_app("utf8");
    for file in
        ["easytransfer.json", "config.json", "tokenizer_config.json", "vocab.txt", "tokenizer.json"]
    {
        copy(&place, "app", "b");
        place.write(&format!("b/{file}"), b"{\"format\":1,\"x\":\"\xff\"}");
        if file == "vocab.txt" {
            // Read only where it is alone.
            fs::remove_file(place.at("b/tokenizer.json")).unwrap();
        }
        refused(file, &predict(&place, "b"), &[file]);
    }
    place.write("run.toml", b"a = \"\xff\"\n");
    refused("run.toml", &place.train("out", &["--config", "run.toml"]), &["run.toml", "UTF-8"]);
    for file in ["easytransfer.json", "config.json"] {
        copy(&place, "app", "b");
        let long = fs::OpenOptions::new().append(true).open(place.at("b").join(file)).unwrap();
        long.set_len(1 << 40).unwrap();
        refused(
            file,
            &promptly(&place, &["predict", "--model", "b", "--data", "q.txt"]),
            &[file, "at most"],
        );
    }
    copy(&place, "app", "b");
    let long = fs::OpenOptions::new().append(true).open(place.at("b/model.safetensors")).unwrap();
    long.set_len(1 << 43).unwrap();
    let outcome = promptly(&place, &["predict", "--model", "b", "--data", "q.txt"]);
    assert!(
        outcome.code > 0 && outcome.stderr.contains("b/model.safetensors"),
        "{}",
        outcome.stderr
    );
}
