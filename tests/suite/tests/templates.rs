//! `cargo xtask new-plugin`: what it writes builds outside the workspace, passes its own tests, and is a plugin that
//! `plugin check` accepts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_tests::hosts::{Outcome, Scratch, run};
use easytransfer_tests::places;
use xtask::{Context, new_plugin, stage};

fn cargo(folder: &Path, target: &Path, arguments: &[&str]) -> String {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(program);
    command.args(arguments).arg("--offline").current_dir(folder);
    command.env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS");
    run(&mut command, b"").good(&format!("cargo {arguments:?} in {}", folder.display()))
}

/// The manifest, with the library where it says. The plugin was built in another target directory than its own.
fn installed(folder: &Path, library: &Path, id: &str) -> PathBuf {
    let manifest = folder.join(format!("{id}.toml"));
    let place = folder.join("target/plugin");
    fs::create_dir_all(&place).expect("make the folder of the library");
    fs::copy(library, place.join(stage::library_file_name(id))).expect("copy the library");
    manifest
}

fn check(manifest: &Path) -> Outcome {
    let mut command = Command::new(places::staged().join("easytransfer"));
    run(command.args(["plugin", "check"]).arg(manifest), b"")
}

#[test]
fn every_kind_of_new_plugin_builds_and_passes_the_suite() {
    let scratch = Scratch::new("templates");
    let context = Context::here();
    // The workspace's own, because the SDK takes most of the time.
    let staged = places::staged();
    let target = staged.parent().expect("release lies in the target directory");
    for kind in new_plugin::kinds() {
        let folder = scratch.path().join(kind);
        new_plugin::write(&context, kind, "brand-new", Some(&folder)).expect("write the plugin");
        // The versions of the workspace, so that nothing has to be fetched.
        fs::copy(context.root.join("Cargo.lock"), folder.join("Cargo.lock"))
            .expect("copy the lock");
        let text = fs::read_to_string(folder.join("Cargo.toml")).expect("read Cargo.toml");
        let id = text.lines().find_map(|line| line.strip_prefix("name = ")).expect("it has a name");
        let id = id.trim_matches('"').to_owned();
        if ["loss", "op"].contains(&kind) {
            let said = cargo(&folder, target, &["test", "--release"]);
            assert!(said.contains("plugin_passes_the_suite ... ok"), "{kind}: {said}");
        }
        cargo(&folder, target, &["build", "--profile", "plugin"]);
        let library = target.join("plugin").join(stage::library_file_name(&id));
        let outcome = check(&installed(&folder, &library, &id));
        let said = outcome.good(&format!("plugin check of a new {kind}"));
        assert!(said.contains(&format!("{kind} brand-new: ")), "{said}");
        assert!(!said.contains("FAILED"), "{said}");
        // As the command says it is used: its folder is a place of plugins.
        let mut list = Command::new(staged.join("easytransfer"));
        let said = run(list.args(["plugin", "list", "--plugins"]).arg(&folder), b"").good("list");
        assert!(said.contains(&format!("{id} 0.1.0: {kind} brand-new")), "{said}");
        assert!(!said.contains("cannot be used"), "{said}");
    }
}
