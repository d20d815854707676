//! A run that is ended from the progress callback, in C and in C++, leaves a checkpoint and nothing half-written, and
//! goes on from there to the same bytes as a run that nobody ended.

use std::fs;
use std::path::{Path, PathBuf};

use easytransfer_tests::hosts::{Outcome, Scratch, build_program, command, demo, run};
use serde_json::{Value, json};

fn fit(program: &Path, output: &Path, resume: bool, stop: &str) -> Outcome {
    let options = json!({
        "encoder": demo("encoder"), "train": demo("messages.train.tsv"), "valid": demo("messages.dev.tsv"),
        "output": output, "from_scratch": true, "resume": resume,
        "config": {"max_steps": 10, "lr": 0.001, "seed": 3, "batch": {"rows": 8}, "evaluate_every": 4},
    });
    let mut command = command(program, &[]);
    command.args([&options.to_string(), output.to_str().unwrap(), stop]);
    run(&mut command, b"")
}

fn build(scratch: &Scratch, name: &str, source: &str) -> PathBuf {
    let (file, program) = (scratch.path().join(name), scratch.path().join(name.replace('.', "-")));
    fs::write(&file, source).unwrap();
    build_program(scratch, &file, &program);
    program
}

/// Names of all files below a folder, and whether one looks like the beginning of a file.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.file_name().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn cancelled_runs_leave_a_checkpoint_and_go_on_to_the_same_bytes() {
    let scratch = Scratch::new("cancel");
    let c = build(&scratch, "cancel.c", include_str!("hosts/cancel.c"));
    let cpp = build(&scratch, "cancel.cpp", include_str!("hosts/cancel.cpp"));
    let whole = scratch.path().join("whole");
    let printed = fit(&c, &whole, false, "0").good("a whole run in C");
    let result: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(result["steps"], 10, "{printed}");
    let weights = fs::read(whole.join("model.safetensors")).unwrap();
    let metrics = fs::read_to_string(whole.join("logs/metrics.jsonl")).unwrap();

    // Before and after the first evaluation, at an evaluation, and twice in a row.
    type Case<'a> = (&'a str, &'a Path, &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 5] = [
        ("c-1", &c, &[("1", "cancelled after 1 calls")]),
        ("c-4-7", &c, &[("4", "cancelled after 4 calls"), ("7", "cancelled after 3 calls")]),
        ("cpp-throw", &cpp, &[("5", "threw enough after 5 calls")]),
        ("cpp-false", &cpp, &[("-6", "cancelled after 6 calls")]),
        ("both", &cpp, &[("2", "threw enough after 2 calls"), ("-9", "cancelled after 7 calls")]),
    ];
    for (name, program, stops) in cases {
        let output = scratch.path().join(name);
        for (index, (stop, expected)) in stops.iter().enumerate() {
            let printed = fit(program, &output, index > 0, stop).good(name);
            assert_eq!(printed.lines().last(), Some(*expected), "{name}: {printed}");
            let left = files(&output);
            for file in &left {
                let partial =
                    file.contains(".tmp") || file.contains(".new") || file.contains("partial");
                assert!(!partial, "{name}: {file} was left");
            }
            assert!(!output.join("model.safetensors").exists(), "{name}: {left:?}");
        }
        let printed = fit(program, &output, true, "0").good(name);
        assert!(printed.lines().last().unwrap().contains("\"steps\":10"), "{name}: {printed}");
        assert!(fs::read(output.join("model.safetensors")).unwrap() == weights, "{name}: weights");
        let resumed = fs::read_to_string(output.join("logs/metrics.jsonl")).unwrap();
        assert_eq!(resumed, metrics, "{name}");
    }
}

#[test]
fn runtime_cancels_its_runs_from_another_thread() {
    let scratch = Scratch::new("cancel-thread");
    let program = build(&scratch, "cancel_thread.c", include_str!("hosts/cancel_thread.c"));
    let output = scratch.path().join("run");
    // So many steps that the thread comes in between, and an end that a resumed run reaches at once.
    let options = |resume: bool| {
        json!({
            "encoder": demo("encoder"), "train": demo("messages.train.tsv"), "output": output,
            "from_scratch": true, "resume": resume,
            "config": {"epochs": 2, "lr": 0.001, "seed": 3, "batch": {"rows": 16}},
        })
    };
    let mut command = command(&program, &[]);
    command.args([options(false).to_string(), options(true).to_string()]);
    let printed = run(&mut command, b"").good("cancel by the runtime");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "1 after three steps", "{printed}");
    let result = lines.last().unwrap();
    assert!(result.ends_with(" steps, 1"), "{printed}");
    assert!(output.join("model.safetensors").exists(), "{printed}");
}
