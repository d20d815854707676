//! `epoch --python PYTHON [--sets sst-2,mrpc,squad] [--lines 10000] [--peers grouped,grouped-bf16,padded,trainer]
//! [--precisions f32,bf16] [--rounds 5]`: one epoch of fine-tuning all-MiniLM-L6-v2 on real lines, ours and PyTorch's
//! in turn, two threads each.
//!
//! The time begins before the model is loaded and ends after the last step: loading, reading, tokenising, training;
//! without evaluation and without writing anything. The evaluation on other lines is a time of its own. Peers:
//! `grouped` pads to the longest of a batch of rows of like length, `padded` pads every row to the model's usual 128
//! tokens (SQuAD: 384) in random order, as most examples do; `trainer` is transformers' Trainer with dynamic padding
//! and length grouping. The first two are plain loops, which are faster than Trainer. With `-bf16` they train under
//! autocast, and stand beside our bf16.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use easytransfer::{Event, Runtime, RuntimeOptions, TrainConfig, TrainJob};
use easytransfer_bench::peer::{self, Peer, Spread, flag, number, shown};
use easytransfer_bench::sets::{self, Set};
use easytransfer_tests::places;
use serde_json::{Value, json};

fn model() -> PathBuf {
    places::shared().join("models/all-MiniLM-L6-v2")
}

/// Our side: an epoch per request, from the pretrained weights each time.
fn ours(folder: &Path) {
    let precision = peer::begin_own();
    let options = RuntimeOptions { precision, ..RuntimeOptions::default() };
    let runtime = Runtime::new(options).expect("a runtime");
    let (train, valid) = (flag("--train").expect("--train"), flag("--valid").expect("--valid"));
    let max_length = number("--max-length", 128);
    let output = folder.join("bundle");
    peer::serve(json!({}), |_| match epoch(&runtime, &train, &valid, &output, max_length) {
        Ok(answer) => answer,
        Err(error) => json!({ "error": error.to_string() }),
    });
}

fn epoch(
    runtime: &Runtime,
    train: &str,
    valid: &str,
    output: &Path,
    max_length: usize,
) -> easytransfer::Result<Value> {
    let _ = std::fs::remove_dir_all(output);
    let options = json!({
        "epochs": 1, "lr": 5e-5, "seed": 1, "checkpoint_every": 1_000_000_000,
        "batch": {"rows": 32, "tokens": 32 * max_length, "window": 3200}, "app": {"max_length": max_length},
    });
    let last = Arc::new(Mutex::new(Instant::now()));
    let seen = last.clone();
    let job = TrainJob::new(model(), train, output)
        .with_config(TrainConfig::from_value(options, "bench")?)
        .on_event(move |event| {
            if matches!(event, Event::Step(_)) {
                *seen.lock().expect("no panic in between") = Instant::now();
            }
        });
    let began = Instant::now();
    let result = runtime.train(job)?;
    let seconds = last.lock().expect("no panic in between").duration_since(began).as_secs_f64();
    let app = runtime.app(output)?;
    let began = Instant::now();
    let found = app.evaluate(&valid.into(), None)?;
    Ok(json!({
        "seconds": seconds, "tokens": result.tokens, "steps": result.steps, "evaluate_seconds": began.elapsed().as_secs_f64(),
        "evaluated": found.rows, "accuracy": found.metrics.get("accuracy"),
    }))
}

/// Our side in each precision, then the peers.
fn sides(set: &Set, precisions: &str, peers: &str, folder: &Path) -> Vec<Peer> {
    let file = |command: &mut Command| {
        command.arg("--train").arg(&set.train).arg("--valid").arg(&set.valid);
        command.args(["--max-length", &set.max_length.to_string()]);
    };
    let mut sides = peer::own_sides(precisions, |command, precision| {
        command.arg("--ours").arg(folder.join(precision));
        file(command);
    });
    for kind in peers.split(',') {
        let mut command = Command::new(peer::python());
        command.arg(places::root().join("tests/bench/peer_epoch.py"));
        command.args(["--kind", kind, "--threads", "2", "--model"]).arg(model());
        command.env("ET_BENCH_OUTPUT", folder);
        file(&mut command);
        match Peer::start(&format!("PyTorch {kind}"), &mut command) {
            Ok(side) => sides.push(side),
            Err(error) => println!("left out: {error}\n"),
        }
    }
    sides
}

fn main() {
    if let Some(folder) = flag("--ours") {
        return ours(Path::new(&folder));
    }
    let names = flag("--sets").unwrap_or_else(|| "sst-2,mrpc,squad".to_owned());
    let peers = flag("--peers").unwrap_or_else(|| "grouped,grouped-bf16,padded".to_owned());
    let precisions = flag("--precisions").unwrap_or_else(|| "f32,bf16".to_owned());
    let precisions: Vec<&str> = precisions.split(',').collect();
    let (lines, rounds) = (number("--lines", 10_000), number("--rounds", 5));
    let folder = std::env::temp_dir().join(format!("et-epoch-{}", std::process::id()));
    println!(
        "One epoch of all-MiniLM-L6-v2 over {lines} lines, median (least..most) of {rounds} alternated rounds.\n"
    );
    println!(
        "| set | side | s | tokens/s | evaluation s | accuracy | peak MiB | theirs over ours of the same precision: time | evaluation | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for name in names.split(',') {
        let set = sets::prepare(name, &folder, lines, lines.min(1000));
        let mut sides = sides(&set, &precisions.join(","), &peers, &folder);
        let mut answers: Vec<Vec<Value>> = vec![Vec::new(); sides.len()];
        for _ in 0..rounds {
            for (side, answers) in sides.iter_mut().zip(&mut answers) {
                let answer = side.round(1).expect("a round");
                assert!(answer.get("error").is_none(), "{}: {answer}", side.name);
                answers.push(answer);
            }
        }
        let column = |side: usize, key: &str| -> Vec<f64> {
            answers[side].iter().map(|answer| answer[key].as_f64().unwrap_or(f64::NAN)).collect()
        };
        for (index, side) in sides.iter().enumerate() {
            let (seconds, evaluation) =
                (column(index, "seconds"), column(index, "evaluate_seconds"));
            let rates: Vec<f64> =
                column(index, "tokens").iter().zip(&seconds).map(|(t, s)| t / s).collect();
            let (mut time, mut evaluated, mut memory) =
                (String::new(), String::new(), String::new());
            if index >= precisions.len() {
                let alike = precisions.iter().position(|p| side.name.ends_with(p)).unwrap_or(0);
                let (own, own_evaluation) =
                    (column(alike, "seconds"), column(alike, "evaluate_seconds"));
                time = format!("**{}**", shown(Spread::ratio(&seconds, &own), 2));
                evaluated = shown(Spread::ratio(&evaluation, &own_evaluation), 2);
                memory = format!("{:.2}", side.peak_mib() / sides[alike].peak_mib());
            }
            println!(
                "| {} | {} | {} | {:.0} | {} | {:.4} | {:.0} | {time} | {evaluated} | {memory} |",
                set.name,
                side.name,
                shown(Spread::of(&seconds), 1),
                Spread::of(&rates).median,
                shown(Spread::of(&evaluation), 2),
                Spread::of(&column(index, "accuracy")).median,
                side.peak_mib(),
            );
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}
