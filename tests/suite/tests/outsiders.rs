//! The same loss in Rust, C99 and C++17, each built outside the workspace, trains to the same curve to the last byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_tests::hosts::{Scratch, command, compile, demo, install_loss, run};
use easytransfer_tests::places;

/// Puts a library under a manifest of its own, where the search path finds it.
fn install(scratch: &Scratch, language: &str, library: &Path) -> PathBuf {
    let requires = ["et.tensor/1", "et.data/1"];
    let id = format!("outsider-{language}");
    install_loss(&scratch.path().join("plugins"), &id, &requires, library)
}

fn sources() -> PathBuf {
    fs::canonicalize(places::root().join("tests/outsiders")).unwrap()
}

/// Builds the Rust plugin as somebody else would: a package of its own, with the SDK as its only dependency from here.
fn build_rust(scratch: &Scratch) -> PathBuf {
    let package = scratch.path().join("rust");
    fs::create_dir_all(package.join("src")).unwrap();
    let root = fs::canonicalize(places::root()).unwrap();
    let manifest = fs::read_to_string(sources().join("rust/Cargo.toml")).unwrap();
    let manifest = manifest.replace("../../..", root.to_str().unwrap());
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::copy(sources().join("rust/src/lib.rs"), package.join("src/lib.rs")).unwrap();
    // The versions of the workspace, so that nothing has to be fetched.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    // Kept between runs: the dependencies take most of the time.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outsider-target");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.args(["build", "--offline", "--release"]).current_dir(&package);
    build.env("CARGO_TARGET_DIR", &target);
    run(&mut build, b"").good("cargo build of the outsider in Rust");
    target.join("release/liboutsider_rust.so")
}

fn build_c(scratch: &Scratch, language: &str, compiler: &str, flags: &[&str]) -> PathBuf {
    let source = sources().join(language).join(format!("loss.{language}"));
    let library = scratch.path().join(format!("liboutsider_{language}.so"));
    let files = [source.to_str().unwrap(), "-o", library.to_str().unwrap()];
    compile(compiler, &[&["-shared", "-fPIC", "-O2"], flags, &files].concat());
    library
}

fn curve(scratch: &Scratch, plugins: &Path, loss: &str) -> String {
    let output = scratch.path().join(format!("run-{loss}"));
    let config = format!(
        r#"{{"max_steps": 20, "lr": 0.001, "log_every": 1, "evaluate_every": 10, "loss": {{"name": "{loss}"}}}}"#
    );
    let mut train = command(&places::staged().join("train"), &[plugins]);
    train.args(["--scratch", &demo("encoder"), &demo("messages.train.tsv")]);
    train.args([&demo("messages.dev.tsv"), output.to_str().unwrap(), &config]);
    run(&mut train, b"").good(loss);
    fs::read_to_string(output.join("logs/metrics.jsonl")).unwrap()
}

#[test]
fn outsiders_in_three_languages_train_to_the_same_curve() {
    let scratch = Scratch::new("outsiders");
    let hidden = "-fvisibility=hidden";
    let libraries = [
        ("rust", build_rust(&scratch)),
        ("c", build_c(&scratch, "c", "gcc", &["-std=c99"])),
        ("cpp", build_c(&scratch, "cpp", "g++", &["-std=c++17", hidden])),
    ];
    let mut curves = Vec::new();
    for (language, library) in libraries {
        let plugins = install(&scratch, language, &library);
        curves.push((language, curve(&scratch, &plugins, &format!("outsider-{language}"))));
    }
    let steps = curves[0].1.lines().filter(|line| line.contains("train/loss")).count();
    assert_eq!(steps, 20, "{}", curves[0].1);
    for (language, curve) in &curves[1..] {
        for (a, b) in curves[0].1.lines().zip(curve.lines()) {
            assert_eq!(a, b, "rust and {language}");
        }
        assert_eq!(curves[0].1, *curve, "rust and {language}");
    }
    let usual = curve(&scratch, &scratch.path().join("plugins"), "cross-entropy");
    assert_ne!(usual, curves[0].1, "the loss that was asked for was not the one that was used");
}

#[test]
fn outsiders_export_their_entry_and_need_nothing_of_the_host() {
    let scratch = Scratch::new("outsider-symbols");
    for (language, compiler, flags) in [
        ("c", "gcc", &["-std=c99"][..]),
        ("cpp", "g++", &["-std=c++17", "-fvisibility=hidden"]),
        ("cpp", "g++", &["-std=c++20", "-fvisibility=hidden"]),
    ] {
        let library = build_c(&scratch, language, compiler, flags);
        let mut nm = Command::new("nm");
        let symbols = run(nm.args(["-D", "-C"]).arg(&library), b"").good("nm");
        let ours: Vec<&str> = symbols
            .lines()
            .filter(|line| line.contains("et_") || line.contains("easytransfer"))
            .collect();
        assert_eq!(ours.len(), 1, "{language}: {ours:?}");
        assert!(ours[0].ends_with(" T et_plugin_entry"), "{language}: {ours:?}");
    }
}
