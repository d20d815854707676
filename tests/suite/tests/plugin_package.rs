//! A plugin author has the package and nothing else: the command of it starts plugins in Rust, C and C++ that build
//! beside it and pass its check, and the crates that it carries are fit to be published.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_scaffold::{CRATES, Language};
use easytransfer_tests::authors;
use easytransfer_tests::hosts::{Scratch, run};
use easytransfer_tests::places;
use xtask::{Context, crates, dist};

/// A package in a folder whose name has a space, moved after it was laid out.
fn unpacked(scratch: &Scratch) -> PathBuf {
    let first = scratch.path().join("first");
    dist::collect(&Context::here(), &places::staged(), &first).expect("lay out a package");
    let folder = scratch.path().join("moved to");
    fs::rename(&first, &folder).expect("move the package");
    folder
}

/// The command of a package, which finds no other plugins than those of it.
fn command(package: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(package.join("bin/easytransfer"));
    command.args(arguments);
    command.env_remove("ET_PLUGIN_PATH").env_remove("HOME").env_remove("XDG_DATA_HOME");
    command
}

#[test]
fn plugins_are_made_from_the_package_alone() {
    let scratch = Scratch::new("plugin-package");
    let package = unpacked(&scratch);
    for (word, language) in [("rust", Language::Rust), ("c", Language::C), ("c++", Language::Cpp)] {
        let folder = scratch.path().join(format!("in-{language:?}"));
        let mut new =
            command(&package, &["plugin", "new", "loss", "brand-new", "--language", word]);
        let said = run(new.arg("--out").arg(&folder), b"").good("plugin new");
        for words in ["written: ", "the first build takes", "loss.name=brand-new"] {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
        // Nothing in it leads to the tree in which the command was built.
        let tree = places::root().canonicalize().expect("the tree").display().to_string();
        for entry in fs::read_dir(&folder).expect("the plugin").flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            assert!(!text.contains(&tree), "{}: {text}", entry.path().display());
        }
        let said = authors::build(&folder, language, None);
        assert!(said.contains("loss brand-new: ") && !said.contains("FAILED"), "{said}");
        let mut list = command(&package, &["plugin", "list", "--plugins"]);
        let said = run(list.arg(&folder), b"").good("plugin list");
        assert!(said.contains("loss-brand-new 0.1.0: loss brand-new"), "{said}");
        assert!(!said.contains("cannot be used"), "{said}");
        // A folder that is there stays as it is.
        let mut again = command(&package, &["plugin", "new", "loss", "brand-new"]);
        let again = run(again.arg("--out").arg(&folder), b"");
        assert!(again.code == 2 && again.stderr.contains("exists already"), "{}", again.stderr);
    }
    let manifest = package.join("share/doc/easytransfer/plugin-manifest.md");
    assert!(fs::read_to_string(manifest).expect("the page").contains("manifest_version"));
}

#[test]
fn a_plugin_that_does_wrong_fails_its_test() {
    let scratch = Scratch::new("plugin-wrong");
    let folder = scratch.path().join("loss");
    let mut new = Command::new(places::staged().join("easytransfer"));
    new.args(["plugin", "new", "loss", "brand-new", "--language", "c", "--out"]).arg(&folder);
    run(&mut new, b"").good("plugin new");
    let source = folder.join("loss.c");
    let text = fs::read_to_string(&source).expect("the source");
    assert!(text.contains("ET_REDUCE_SUM, weighted"));
    fs::write(&source, text.replace(".release = drop,", ".release = NULL,")).expect("break it");
    let made = run(Command::new("make").arg("-C").arg(&folder).arg("check"), b"");
    assert!(made.code != 0, "{}{}", made.stdout, made.stderr);
    // Another command is taken when it is said.
    let mut other = Command::new("make");
    other.arg("-C").arg(&folder).arg("check").env("EASYTRANSFER", "/nowhere/easytransfer");
    let said = run(&mut other, b"").stderr;
    assert!(said.contains("/nowhere/easytransfer"), "{said}");
}

#[test]
fn crates_of_the_sdk_can_be_packaged() {
    let scratch = Scratch::new("crates");
    crates::collect(&Context::here(), scratch.path()).expect("lay out the crates");
    // In the tree they are packaged as they are, in the package as they lie there.
    let beside = scratch.path().join(CRATES);
    fs::copy(places::root().join("Cargo.lock"), beside.join("Cargo.lock")).expect("the lock");
    for (folder, more) in [
        (places::root(), &["--no-verify", "--allow-dirty"][..]),
        // Each is built from nothing but what is in its archive.
        (beside, &["--allow-dirty"]),
    ] {
        let mut package = authors::cargo(&folder, &["package"]);
        package.args(crates::ALL.iter().flat_map(|(_, name)| ["--package", name])).args(more);
        let done = run(&mut package, b"");
        assert!(done.code == 0, "{}: {}", folder.display(), done.stderr);
        for (_, name) in crates::ALL {
            let archive = authors::target()
                .join(format!("package/{name}-{}.crate", env!("CARGO_PKG_VERSION")));
            assert!(archive.exists(), "{}", archive.display());
        }
        let mut list = authors::cargo(&folder, &["package", "--list", "--allow-dirty"]);
        let list =
            run(list.args(["--package", "easytransfer-plugin"]), b"").good("cargo package --list");
        assert!(list.contains("src/export.rs") && list.contains("Cargo.toml"), "{list}");
    }
}
