//! Building plugins that were started from a template, as their authors would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_scaffold::Language;

use crate::hosts::run;
use crate::places;

/// Where all such crates are built, by CARGO_TARGET_DIR: what they share is compiled once.
pub fn target() -> PathBuf {
    places::staged().with_file_name("authors")
}

/// Cargo in a folder of an author's, without the network and the settings of this workspace. It is refused where its
/// dependencies are not there.
pub fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(program);
    command.args(arguments).arg("--offline").current_dir(folder);
    command.env("CARGO_TARGET_DIR", target()).env_remove("RUSTFLAGS");
    command
}

/// Builds and checks the plugin in a folder, and answers with what was said; by `command` instead of the one that it
/// remembers. Warnings of a compiler are errors, as nothing that is written for others may warn.
///
/// # Panics
/// If something fails.
pub fn build(folder: &Path, language: Language, command: Option<&Path>) -> String {
    let mut built = match language {
        Language::Rust => {
            let mut test = cargo(folder, &["test"]);
            test.args(["--", "--nocapture"]).env("RUSTFLAGS", "-D warnings");
            test
        }
        _ => {
            let flags = "-O2 -pedantic -Werror";
            let mut make = Command::new("make");
            make.arg("-C").arg(folder).arg("check");
            make.args([format!("CFLAGS={flags}"), format!("CXXFLAGS={flags}")]);
            make
        }
    };
    if let Some(command) = command {
        built.env("EASYTRANSFER", command);
    }
    // Versions of crates that are on this machine, so that nothing is fetched.
    if language == Language::Rust {
        fs::copy(places::root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("the lock");
    }
    run(&mut built, b"").good(&format!("build and check {}", folder.display()))
}
