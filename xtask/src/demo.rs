//! `demo`: from nothing to predictions on `hosts/demo`: build, stage, train, evaluate, predict from the command line,
//! Rust and C.

use crate::{
    Context, Failure,
    process::{self, cargo},
    programs, stage,
};
use std::process::Command;

/// Programs of the demo after the build, in order, relative to `target/release`, with their arguments. `{data}` is
/// `hosts/demo`, `{run}` the folder of the trained app.
const STEPS: &[(&str, &[&str])] = &[
    ("easytransfer", &["plugin", "list"]),
    (
        "easytransfer",
        &[
            "train",
            "--app",
            "text-classify",
            "--encoder",
            "{data}/encoder",
            "--from-scratch",
            "--train",
            "{data}/messages.train.tsv",
            "--valid",
            "{data}/messages.dev.tsv",
            "--output",
            "{run}",
            "--config",
            "{data}/run.toml",
            // The demo may run again.
            "--overwrite",
        ],
    ),
    (
        "easytransfer",
        &[
            "evaluate",
            "--model",
            "{run}",
            "--data",
            "{data}/messages.test.tsv",
            "--report",
            "{run}/test.html",
        ],
    ),
    (
        "easytransfer",
        &["predict", "--model", "{run}", "--data", "{data}/questions.txt", "--output", "-"],
    ),
    ("predict", &["{run}", "{data}/questions.txt"]),
    ("hosts/c/predict", &["{run}", "{data}/questions.txt"]),
];

/// Runs the demo with its output shown.
pub fn run(context: &Context) -> Result<(), Failure> {
    process::show(&mut cargo(context, ["build", "--release", "--workspace"]))?;
    stage::run(context)?;
    for source in programs::sources(context, &programs::LANGUAGES[0]) {
        programs::build(context, &programs::LANGUAGES[0], &source)?;
    }
    let release = process::release(context);
    for (program, arguments) in STEPS {
        let arguments = arguments
            .iter()
            .map(|argument| argument.replace("{data}", "hosts/demo").replace("{run}", "runs/demo"));
        let arguments: Vec<String> = arguments.collect();
        println!("\n$ {program} {}", arguments.join(" "));
        let mut command = Command::new(release.join(program));
        command.env("ET_PLUGIN_PATH", release.join("plugins"));
        process::show(command.args(arguments).current_dir(&context.root))?;
    }
    Ok(())
}
