//! One line for one binary: a crate outside of the tree that depends on `easytransfer` with the feature `builtin` has
//! all stock plugins in it, beside one of its own, and answers as a program does that loads them.

use std::fs;
use std::path::Path;
use std::process::Command;

use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_scaffold::{Language, NewPlugin};
use easytransfer_tests::face::{Face, RustFace};
use easytransfer_tests::hosts::{Scratch, run};
use easytransfer_tests::places;
use serde_json::json;
use xtask::Context;
use xtask::new_plugin;

const REQUEST: &str = r#"[{"text": "where is my parcel"}, "我要退款", ""]"#;

const MAIN: &str = r##"
use easytransfer::{Runtime, RuntimeOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (bundle, request) = (arguments.next().ok_or("a bundle")?, arguments.next().ok_or("a request")?);
    let runtime = Runtime::new(RuntimeOptions { only_these: true, ..RuntimeOptions::default() })?;
    runtime.register_plugin(loss_brand_new::PluginRecord::get())?;
    for plugin in runtime.plugins() {
        println!("{} {}: {}", plugin.id, plugin.version, plugin.description);
    }
    runtime.loss("brand-new", "")?;
    println!("{}", runtime.app(bundle.as_ref())?.predict_json(&request)?);
    Ok(())
}
"##;

/// A runtime that loads the staged libraries.
fn loaded() -> Runtime {
    let plugins = vec![places::staged().join("plugins")];
    Runtime::new(RuntimeOptions { plugins, only_these: true, ..RuntimeOptions::default() }).unwrap()
}

/// Writes the program and a plugin beside it, builds and answers with what it printed.
fn one_binary(folder: &Path, arguments: &[&str]) -> String {
    let (context, staged) = (Context::here(), places::staged());
    let root = context.root.canonicalize().unwrap();
    let plugin = NewPlugin::new("loss", "brand-new", Language::Rust).expect("a kind");
    plugin.write(&new_plugin::sdk(&context), &folder.join("plugin")).expect("write the plugin");
    let program = folder.join("program");
    fs::create_dir_all(program.join("src")).unwrap();
    fs::write(program.join("src/main.rs"), MAIN).unwrap();
    let manifest = format!(
        "[package]\nname = \"one-binary\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         easytransfer = {{ path = {:?}, features = [\"builtin\"] }}\nloss-brand-new = {{ path = \"../plugin\" }}\n\n\
         [patch.crates-io]\npaste = {{ path = {:?} }}\n\n[profile.release]\nstrip = \"symbols\"\ncodegen-units = 16\nincremental = true\n\n[workspace]\n",
        root.join("sdk/easytransfer"),
        root.join("sdk/paste")
    );
    fs::write(program.join("Cargo.toml"), manifest).unwrap();
    // The workspace's versions and folder, so that nothing is fetched and the engine is not compiled once more.
    fs::copy(root.join("Cargo.lock"), program.join("Cargo.lock")).unwrap();
    let target = staged.parent().unwrap().canonicalize().unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--offline"]).current_dir(&program);
    build.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
    run(&mut build, b"").good("cargo build of one binary");
    // Somewhere else, where no plugin lies beside it.
    let binary = folder.join("one-binary");
    fs::rename(target.join("release/one-binary"), &binary).unwrap();
    run(Command::new(&binary).args(arguments).env_remove("ET_PLUGIN_PATH"), b"").good("one binary")
}

#[test]
fn a_crate_outside_has_all_plugins_in_one_binary() {
    let scratch = Scratch::new("builtin");
    let demo = places::root().join("hosts/demo");
    let bundle = scratch.path().join("bundle");
    let face = RustFace(loaded());
    let config = json!({ "epochs": 1, "lr": 1e-3, "max_steps": 4, "seed": 3 });
    let (train, valid) = (demo.join("messages.train.tsv"), demo.join("messages.dev.tsv"));
    face.fit(&demo.join("encoder"), &train, &valid, &bundle, &config).unwrap();

    let printed = one_binary(scratch.path(), &[bundle.to_str().unwrap(), REQUEST]);
    let mut lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.pop().unwrap(), face.predict(&bundle, REQUEST).unwrap());
    let expected = loaded().plugins();
    assert!(expected.len() > 10);
    for plugin in expected {
        let start = format!("{} {}: ", plugin.id, plugin.version);
        let line = lines.iter().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{start} is not in {printed}"));
        assert!(line.len() > start.len(), "{line}: a description");
    }
    assert!(lines.iter().any(|line| line.starts_with("loss-brand-new 0.1.0: ")), "{printed}");
}
