//! `check`: what a contributor runs before a change goes out, cheapest first. The first failure ends it.

use crate::{
    Context, Failure, edges, header, licences, names,
    process::{self, cargo},
};
use std::time::Instant;

/// The crates whose documentation people read.
const DOCUMENTED: [&str; 9] = [
    "easytransfer",
    "easytransfer-abi",
    "easytransfer-conformance",
    "easytransfer-core",
    "easytransfer-kernels",
    "easytransfer-loader",
    "easytransfer-plugin",
    "easytransfer-text",
    "easytransfer-train",
];

/// Runs all checks.
pub fn run(context: &Context) -> Result<(), Failure> {
    step("format", || process::show(&mut cargo(context, ["fmt", "--all", "--check"])))?;
    step("headers", || header::run(context, true))?;
    step("dependency edges", || edges::run(context))?;
    step("names of types", || names::run(context))?;
    step("clippy", || {
        let arguments =
            ["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
        process::show(&mut cargo(context, arguments))
    })?;
    // With as little as it can have, and with what is not on by default.
    for features in ["", "log"] {
        step("features", || {
            let mut command = cargo(context, ["clippy", "--release", "--package", "easytransfer"]);
            command.args(["--no-default-features", "--features", features, "--", "-D", "warnings"]);
            process::show(&mut command)
        })?;
    }
    step("documentation", || {
        let mut command = cargo(context, ["doc", "--release", "--no-deps"]);
        command.args(DOCUMENTED.iter().flat_map(|name| ["--package", *name]));
        process::show(command.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("examples of the documentation", || {
        let packages = ["--package", "easytransfer", "--package", "easytransfer-plugin"];
        process::show(cargo(context, ["test", "--release", "--doc"]).args(packages))
    })?;
    step("licences", || licences::run(context))?;
    step("bans", || {
        if process::has("cargo-deny") {
            return process::show(&mut cargo(context, ["deny", "check", "bans"]));
        }
        println!(
            "cargo-deny is not installed; crates that deny.toml bans altogether are looked for all the same"
        );
        licences::bans(context)
    })?;
    step("unit tests", || {
        process::show(&mut cargo(context, ["test", "--release", "--workspace", "--lib"]))
    })?;
    step("boundary tests", || {
        let arguments = ["test", "--release", "--package", "easytransfer-abi-tests"];
        process::show(&mut cargo(context, arguments))
    })
}

fn step(name: &str, body: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    println!("== {name}");
    let start = Instant::now();
    body()?;
    println!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
