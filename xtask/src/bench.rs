//! `bench`: runs benches against their peers and prints their tables.
//!
//! The peers are Python packages from `tests/bench/requirements.txt`, in a virtual environment under `target/`, which
//! is made the first time; `--python` names another interpreter that has them.

use crate::{
    Context, Failure,
    process::{self, cargo},
    stage,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A program of `tests/bench`.
struct Bench {
    name: &'static str,
    /// Whether it takes `--python` with an interpreter that has the peers.
    has_peer: bool,
}

const BENCHES: &[Bench] = &[
    Bench { name: "boundary", has_peer: false },
    Bench { name: "ops", has_peer: false },
    Bench { name: "train_step", has_peer: true },
    Bench { name: "epoch", has_peer: true },
];

/// Runs the named benches, or all of `BENCHES`. What stands after `--` goes to each of them.
pub fn run(context: &Context, arguments: &[&str]) -> Result<(), Failure> {
    let (own, passed) = match arguments.iter().position(|&argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[][..]),
    };
    let mut names = Vec::new();
    let mut python = None;
    let mut rest = own.iter();
    while let Some(&argument) = rest.next() {
        match argument {
            "--python" => {
                let value =
                    rest.next().ok_or(Failure("--python: expected an interpreter".into()))?;
                python = Some(PathBuf::from(value));
            }
            flag if flag.starts_with('-') => {
                return Err(Failure(format!(
                    "unknown option `{flag}`; options of a bench stand after --, as in `cargo xtask bench epoch -- --lines 1000`"
                )));
            }
            name => names.push(name),
        }
    }
    let chosen = choose(context, &names)?;
    process::show(&mut cargo(context, ["build", "--release", "--workspace"]))?;
    stage::run(context)?;
    let release = process::release(context);
    for bench in chosen {
        let mut command = Command::new(release.join(&bench.name));
        command.current_dir(&context.root);
        if bench.has_peer {
            if python.is_none() {
                python = Some(environment(context)?);
            }
            command.arg("--python").args(&python);
        }
        println!("\n### {}\n", bench.name);
        process::show(command.args(passed))?;
    }
    Ok(())
}

/// A bench that was asked for.
struct Chosen {
    name: String,
    has_peer: bool,
}

fn choose(context: &Context, names: &[&str]) -> Result<Vec<Chosen>, Failure> {
    if names.is_empty() {
        let all = BENCHES.iter();
        return Ok(all.map(|b| Chosen { name: b.name.to_owned(), has_peer: b.has_peer }).collect());
    }
    let sources = context.root.join("tests/bench/src/bin");
    names
        .iter()
        .map(|name| {
            let name = name.replace('-', "_");
            if !sources.join(format!("{name}.rs")).exists() {
                return Err(Failure(format!("no bench `{name}` in tests/bench/src/bin")));
            }
            let known = BENCHES.iter().find(|bench| bench.name == name);
            let has_peer = match known {
                Some(bench) => bench.has_peer,
                // Those that are not run by default say in their source what they take.
                None => std::fs::read_to_string(sources.join(format!("{name}.rs")))
                    .is_ok_and(|text| text.contains("--python")),
            };
            Ok(Chosen { name, has_peer })
        })
        .collect()
}

/// The interpreter of the environment with the peers; made and filled when its packages are not those of the
/// requirements.
fn environment(context: &Context) -> Result<PathBuf, Failure> {
    let folder = process::release(context)
        .parent()
        .map_or_else(|| context.root.join("target/bench-venv"), |target| target.join("bench-venv"));
    let requirements = context.root.join("tests/bench/requirements.txt");
    let read = |path: &Path| std::fs::read(path).ok();
    let python = folder.join("bin/python");
    let installed = folder.join("requirements.txt");
    if read(&installed).is_some() && read(&installed) == read(&requirements) {
        return Ok(python);
    }
    println!("installing the peers into {}", process::shown(context, &folder));
    process::show(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    process::show(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(&requirements),
    )?;
    // Last, so that an interrupted installation is begun again.
    std::fs::copy(&requirements, &installed)
        .map_err(|error| Failure(format!("write {}: {error}", installed.display())))?;
    Ok(python)
}
