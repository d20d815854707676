//! Events of runs and of work on files in C and in C++: one callback for both, the same in both, and nothing half-written
//! where it ends the work. The data comes from memory.

use std::fs;
use std::path::Path;

use easytransfer_tests::hosts::{Scratch, build_program, command, demo, run};
use serde_json::{Value, json};

/// The first rows of a table of the demo.
fn records(name: &str, count: usize) -> Vec<Value> {
    let text = fs::read_to_string(demo(name)).unwrap();
    let cells = text.lines().skip(1).take(count).map(|line| line.split_once('\t').unwrap());
    cells.map(|(text, label)| json!({"text": text, "label": label})).collect()
}

fn printed(program: &Path, output: &Path, stop: &str) -> String {
    let (train, dev) = (records("messages.train.tsv", 200), records("messages.dev.tsv", 50));
    let fit = json!({
        "encoder": demo("encoder"), "train": train, "valid": dev, "output": output, "from_scratch": true, "overwrite": true,
        "config": {"epochs": 2, "lr": 0.001, "seed": 3, "batch": {"rows": 32}, "checkpoint_every": 5},
    });
    let file = |name: &str| json!({"data": dev, "output": output.join(name)}).to_string();
    let evaluate = json!({"data": dev, "report": output.join("page.html")}).to_string();
    let mut command = command(program, &[]);
    command.args([
        &fit.to_string(),
        output.to_str().unwrap(),
        &evaluate,
        &file("out.tsv"),
        &file("out.npy"),
    ]);
    run(command.arg(stop), b"").good("events")
}

#[test]
fn events_are_told_in_c_and_cpp() {
    let scratch = Scratch::new("events");
    let mut outputs = Vec::new();
    for (name, source) in [
        ("events.c", include_str!("hosts/events.c")),
        ("events.cpp", include_str!("hosts/events.cpp")),
    ] {
        let (file, program) =
            (scratch.path().join(name), scratch.path().join(name.replace('.', "-")));
        fs::write(&file, source).unwrap();
        build_program(&scratch, &file, &program);
        let output = scratch.path().join("bundle");
        let stopped = printed(&program, &output, "1");
        for what in ["evaluate", "predict", "embed"] {
            assert!(stopped.contains(&format!("\n{what} cancelled\n")), "{stopped}");
        }
        for name in ["page.html", "out.tsv", "out.npy"] {
            assert!(!output.join(name).exists(), "{name} was left");
        }
        outputs.push(printed(&program, &output, "0"));
        for name in ["page.html", "out.tsv", "out.npy"] {
            assert!(output.join(name).exists(), "{name} is missing");
            fs::remove_file(output.join(name)).unwrap();
        }
    }
    // Seconds differ.
    let without_times = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("\"seconds\"").next().unwrap().to_owned()).collect()
    };
    assert_eq!(without_times(&outputs[0]), without_times(&outputs[1]));
    let lines: Vec<Vec<&str>> = outputs[0]
        .lines()
        .map(|line| line.splitn(7, ' ').collect())
        .filter(|line: &Vec<_>| line.len() == 7)
        .collect();
    let events: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line[6]).unwrap()).collect();
    let count = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    // 200 rows in batches of 32 over two epochs.
    assert_eq!((count("start"), count("step"), count("epoch"), count("evaluation")), (1, 14, 2, 2));
    assert_eq!(count("checkpoint"), 3, "{events:?}");
    for (line, event) in lines.iter().zip(&events) {
        let number = |at: usize| line[at].parse::<u64>().unwrap();
        let said = |key: &str| event[key].as_u64().unwrap();
        match event["event"].as_str().unwrap() {
            "step" => assert_eq!((number(1), number(2), number(3)), (2, said("step"), 14)),
            "evaluation" => assert!(event["metrics"]["accuracy"].is_number()),
            "epoch" => assert_eq!((number(4), number(5)), (said("epoch"), 2)),
            "checkpoint" => assert!(event["path"].is_string()),
            "rows" => assert_eq!((number(1), number(4), number(5)), (7, said("done"), 50)),
            _ => {}
        }
    }
    assert!(outputs[0].contains("\npredict {\"rows\":50}\n"), "{}", outputs[0]);
}
