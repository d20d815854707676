//! `check`: what a contributor runs before a change goes out, cheapest first. The first failure ends it.

use crate::{
    Context, Failure, edges, header, licences, names,
    process::{self, cargo},
};
use std::time::Instant;

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
    step("licences", || licences::run(context))?;
    step("bans", || {
        if process::has("cargo-deny") {
            return process::show(&mut cargo(context, ["deny", "check", "bans"]));
        }
        println!("not run: cargo-deny is not installed");
        Ok(())
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
