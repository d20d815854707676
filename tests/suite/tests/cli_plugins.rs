//! Plugins from the command line: which are trusted, whose component is meant, and metrics of any plugin.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Outcome, run};
use easytransfer_tests::places;

/// A copy of a staged plugin.
fn copied(place: &Place, id: &str) -> PathBuf {
    let folder = place.at(id);
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(places::staged().join("plugins").join(id)).unwrap().flatten() {
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    folder
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn refused(outcome: &Outcome, words: &[&str]) {
    assert_eq!(outcome.code, 2, "{}{}", outcome.stdout, outcome.stderr);
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is not in: {}", outcome.stderr);
    }
}

#[test]
fn trust_is_asked_for_by_flag_or_variable() {
    let place = Place::new("trust");
    let folder = copied(&place, "loss-basic");
    let info = |more: &[&str], variable: Option<&str>| {
        let arguments = ["plugin", "info", "loss-basic", "--plugins", folder.to_str().unwrap()];
        let mut command = place.command(&[&arguments[..], more].concat());
        command.env("ET_PLUGIN_PATH", "").env_remove("ET_TRUST");
        if let Some(trust) = variable {
            command.env("ET_TRUST", trust);
        }
        // Beside the command there is the staged one, which must not stand in for it.
        run(&mut command, b"")
    };
    let shows = |outcome: Outcome, words: &str| {
        let said = format!("\n{}", outcome.good("plugin info"));
        let block = said.split("\nplugin ").find(|block| block.contains(folder.to_str().unwrap()));
        let block = block.unwrap_or_else(|| panic!("the copy is missing: {said}"));
        assert!(block.contains(words), "{words:?} is not in: {block}");
    };
    shows(info(&[], None), "loss cross-entropy");
    mode(&folder, 0o777);
    shows(info(&[], None), "others could change the manifest");
    shows(info(&["--trust", "pinned"], Some("any")), "others could change the manifest");
    shows(info(&["--trust", "any"], None), "loss cross-entropy");
    shows(info(&[], Some("any")), "loss cross-entropy");
    mode(&folder, 0o755);
    shows(info(&["--trust", "hash-required"], None), "loss cross-entropy");
    refused(&info(&["--trust", "everybody"], None), &["--trust", "hash-required", "everybody"]);
    refused(&info(&[], Some("everybody")), &["ET_TRUST", "everybody"]);
    let manifest = folder.join("loss-basic.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let (without, _) = text.split_once("[sha256]").expect("a staged manifest has a hash");
    fs::write(&manifest, without).unwrap();
    // The staged one, which states its hash, is used instead, and that is told.
    let outcome = info(&["--trust", "hash-required"], None);
    let staged = places::staged().join("plugins/loss-basic/loss-basic.toml");
    for word in [folder.to_str().unwrap(), "[sha256]", staged.to_str().unwrap()] {
        assert!(outcome.stderr.contains(word), "{word:?} is not in: {}", outcome.stderr);
    }
    shows(info(&[], None), "loss cross-entropy");
}

#[test]
fn a_plugin_that_cannot_be_used_is_told_of_and_the_next_one_used() {
    let place = Place::new("hidden");
    let folder = copied(&place, "loss-basic");
    fs::write(folder.join("libloss_basic.so"), "no library").unwrap();
    let plugins = ["--plugins", folder.to_str().unwrap()];
    let outcome = place.train("out", &[&plugins[..], &["--set", "max_steps=1"]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let staged = places::staged().join("plugins/loss-basic/loss-basic.toml");
    for word in [folder.to_str().unwrap(), staged.to_str().unwrap(), "sha256"] {
        assert!(outcome.stderr.contains(word), "{word:?} is not in: {}", outcome.stderr);
    }
}

#[test]
fn names_choices_and_metrics_are_arguments() {
    let place = Place::new("choose");
    let steps = ["--set", "max_steps=2", "--set", "loss.name=loss-basic/cross-entropy"];
    place.train("out", &steps).good("train by the full name of a loss");
    let bad = place.train("out", &[&steps[..], &["--choose", "loss=mse"]].concat());
    refused(&bad, &["--choose", "KIND=PLUGIN/NAME"]);
    let bad = place.train("out", &[&steps[..], &["--metric", "clasification"]].concat());
    refused(&bad, &["did you mean \"classification\"?"]);
    let evaluate = |more: &[&str]| {
        place.easytransfer(&[&["evaluate", "--model", "out", "--data", "dev.tsv"], more].concat())
    };
    let plain = evaluate(&[]).good("evaluate");
    assert_eq!(evaluate(&["--metric", "app-classify/classification"]).good("evaluate"), plain);
    refused(&evaluate(&["--metric", "nobodys/classification"]), &["nobodys"]);
    refused(
        &evaluate(&["--metric", "{\"name\":\"classification\",\"x\":1}"]),
        &["metrics.classification"],
    );
    // A bundle of another plugin's app is refused, and taken when that is said.
    let text = place.read_text("out/easytransfer.json");
    place.write(
        "out/easytransfer.json",
        text.replacen("\"plugin\": \"app-classify\"", "\"plugin\": \"somebodys\"", 1),
    );
    refused(&evaluate(&[]), &["somebodys", "app-classify/text-classify"]);
    let chosen = evaluate(&["--choose", "app=app-classify/text-classify"]);
    assert!(chosen.stderr.contains("somebodys"), "{}", chosen.stderr);
    chosen.good("evaluate by the choice");
    let said = place.easytransfer(&["plugin", "info", "loss-basic/cross-entropy"]).good("info");
    assert!(said.contains("loss cross-entropy") && !said.contains("loss mse"), "{said}");
}
