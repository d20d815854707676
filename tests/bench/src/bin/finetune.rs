//! `cargo run --release -p easytransfer-bench --bin finetune -- PYTHON [--lines N] [--seeds 1,2,3] [--lr RATE]
//! [--pooling model|mean] [--dropout P] [--layer-decay D] [--sides ours,torch]`: full fine-tuning of all-MiniLM-L6-v2
//! on SST-2 for one epoch, ours and PyTorch's in turn with the same settings, two threads each.
//!
//! PYTHON is the interpreter of a venv with `tests/parity/requirements.txt`. Prints a line per run, and the ratios
//! where both sides ran.

use easytransfer_bench::median;
use easytransfer_tests::places;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Most resident memory of a running process in MiB, read until it ends; and its standard output.
fn watch(mut child: Child) -> (f64, String) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0f64;
    while child.try_wait().expect("the child can be asked").is_none() {
        if let Ok(text) = std::fs::read_to_string(&status)
            && let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:"))
        {
            let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
            peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = child.wait_with_output().expect("the child has ended");
    assert!(output.status.success(), "{}", output.status);
    (peak, String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What both sides are told.
struct Settings {
    lr: String,
    pooling: String,
    /// Instead of the encoder's own.
    dropout: Option<String>,
    layer_decay: String,
}

struct Outcome {
    accuracy: f64,
    seconds: f64,
    peak_mib: f64,
}

fn ours(lines: Option<usize>, seed: &str, settings: &Settings, folder: &Path) -> Outcome {
    let data = places::shared().join("data/sst-2");
    let mut train = data.join("train.tsv");
    if let Some(lines) = lines {
        let text = std::fs::read_to_string(&train).expect("the training file");
        train = folder.join("train.tsv");
        let part: Vec<&str> = text.lines().take(lines + 1).collect();
        std::fs::write(&train, part.join("\n") + "\n").expect("a part of it");
    }
    let program = std::env::current_exe().expect("a path").with_file_name("easytransfer");
    let output = folder.join("bundle");
    let _ = std::fs::remove_dir_all(&output);
    let mut command = Command::new(program);
    command
        .args(["train", "--app", "text-classify", "--quiet", "--threads", "2", "--encoder"])
        .arg(places::shared().join("models/all-MiniLM-L6-v2"))
        .arg("--train")
        .arg(train)
        .arg("--valid")
        .arg(data.join("dev.tsv"))
        .arg("--output")
        .arg(&output)
        .args(["--set", "epochs=1", "--set", "batch.window=3200", "--set", "app.max_length=128"])
        .args(["--set", &format!("lr={}", settings.lr), "--set", &format!("seed={seed}")])
        .args(["--set", &format!("app.pooling={}", settings.pooling)])
        .args(["--set", &format!("strategy.finetune.layer_decay={}", settings.layer_decay)]);
    for name in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        if let Some(dropout) = &settings.dropout {
            command.args(["--set", &format!("encoder.{name}={dropout}")]);
        }
    }
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("easytransfer starts");
    let (peak_mib, text) = watch(child);
    let manifest = std::fs::read_to_string(output.join("easytransfer.json")).expect("a bundle");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    // The command prints "trained N steps in S s with evaluations"; the peer's time is without its one evaluation.
    let seconds = text
        .split_once(" steps in ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok())
        .unwrap_or(f64::NAN);
    Outcome {
        accuracy: manifest["metrics"]["accuracy"].as_f64().unwrap_or(f64::NAN),
        seconds,
        peak_mib,
    }
}

fn torch(python: &str, lines: Option<usize>, seed: &str, settings: &Settings) -> Outcome {
    let mut command = Command::new(python);
    command
        .arg(places::root().join("tests/bench/peer_finetune.py"))
        .args(["--seed", seed, "--lr", &settings.lr, "--pooling", &settings.pooling])
        .args(["--threads", "2", "--layer-decay", &settings.layer_decay])
        .env("ET_SHARED", places::shared())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(lines) = lines {
        command.args(["--train-lines", &lines.to_string()]);
    }
    if let Some(dropout) = &settings.dropout {
        command.args(["--dropout", dropout]);
    }
    let (peak_mib, text) = watch(command.spawn().expect("python starts"));
    let line = text.lines().rev().find(|line| line.starts_with('{')).expect("a JSON line");
    let value: Value = serde_json::from_str(line).expect("JSON");
    let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
    Outcome { accuracy: number("dev_accuracy"), seconds: number("train_seconds"), peak_mib }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let python = arguments.first().expect("usage: finetune PYTHON [--lines N] [--seeds 1,2,3]");
    let value = |flag: &str| {
        arguments.iter().position(|a| a == flag).and_then(|at| arguments.get(at + 1)).cloned()
    };
    let lines = value("--lines").and_then(|n| n.parse().ok());
    let seeds = value("--seeds").unwrap_or_else(|| "1".to_owned());
    let settings = Settings {
        lr: value("--lr").unwrap_or_else(|| "5e-5".to_owned()),
        pooling: value("--pooling").unwrap_or_else(|| "model".to_owned()),
        dropout: value("--dropout"),
        layer_decay: value("--layer-decay").unwrap_or_else(|| "1".to_owned()),
    };
    let sides = value("--sides").unwrap_or_else(|| "ours,torch".to_owned());
    let folder = std::env::temp_dir().join(format!("et-finetune-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    println!("| seed | side | dev accuracy | seconds | peak MiB |\n|---|---|---|---|---|");
    let mut runs: Vec<(&str, Vec<Outcome>)> =
        sides.split(',').map(|side| (side, Vec::new())).collect();
    for seed in seeds.split(',') {
        for (side, outcomes) in &mut runs {
            let run = match *side {
                "ours" => ours(lines, seed, &settings, &folder),
                "torch" => torch(python, lines, seed, &settings),
                other => panic!("--sides: expected ours and torch, found {other}"),
            };
            println!(
                "| {seed} | {side} | {:.4} | {:.1} | {:.0} |",
                run.accuracy, run.seconds, run.peak_mib
            );
            outcomes.push(run);
        }
    }
    for (side, outcomes) in &runs {
        let sum: f64 = outcomes.iter().map(|run| run.accuracy).sum();
        println!("\nmean accuracy, {side}: {:.4}", sum / outcomes.len() as f64);
    }
    if let [(_, a), (_, b)] = &runs[..] {
        let ratio = |figure: fn(&Outcome) -> f64| {
            median(a.iter().zip(b).map(|(a, b)| figure(b) / figure(a)).collect())
        };
        println!(
            "\nsecond side over first, median of the seeds: time {:.2}, memory {:.2}",
            ratio(|run| run.seconds),
            ratio(|run| run.peak_mib)
        );
    }
    std::fs::remove_dir_all(folder).expect("the folder goes");
}
