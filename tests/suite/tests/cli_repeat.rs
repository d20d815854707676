//! The command line: the same run gives the same bytes, also when it was killed or cancelled and resumed.
#![cfg(unix)]

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use easytransfer_tests::command::Place;

/// A run that is long enough to be killed in, with a checkpoint after every step.
const LONG: [&str; 6] =
    ["--set", "max_steps=300", "--set", "epochs=20", "--set", "checkpoint_every=1"];

fn start(place: &Place, output: &str, more: &[&str]) -> Child {
    let arguments = place.train_arguments(output, &[&LONG, more].concat());
    place.command(&arguments).spawn().expect("the command starts")
}

/// Waits until the run has written a checkpoint. Panics when the run ends before.
fn wait_for_checkpoint(place: &Place, output: &str, child: &mut Child) {
    let begin = Instant::now();
    while !place.at(output).join("checkpoint/state.json").exists() {
        let ended = child.try_wait().expect("the state of the child");
        assert!(ended.is_none(), "the run ended without a checkpoint: {ended:?}");
        assert!(begin.elapsed() < Duration::from_secs(600), "no checkpoint within ten minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill(child: &mut Child) {
    child.kill().expect("the child can be killed");
    child.wait().expect("the child ends");
}

/// Step of the checkpoint; panics when the checkpoint is not whole.
fn checkpoint_step(place: &Place, output: &str, params: usize) -> u64 {
    let state = place.read_json(&format!("{output}/checkpoint/state.json"));
    assert_eq!(place.read(&format!("{output}/checkpoint/params.bin")).len(), params);
    state["progress"]["step"].as_u64().expect("the step is a number")
}

/// Resumes a run to its end and compares all that it leaves with an uninterrupted one.
fn finish_and_compare(place: &Place, output: &str) {
    place.train(output, &[&LONG[..], &["--resume"]].concat()).good("resume");
    compare(place, output);
}

fn compare(place: &Place, output: &str) {
    assert!(
        place.read(&format!("{output}/model.safetensors")) == place.read("whole/model.safetensors"),
        "{output}: the resumed run has other weights"
    );
    assert_eq!(place.metrics(output), place.metrics("whole"), "{output}");
    assert_eq!(
        place.listing(output),
        place.listing("whole"),
        "{output}: something is left or missing"
    );
}

#[test]
fn same_seed_same_bytes_other_seed_other_bytes() {
    let place = Place::new("seed");
    for (output, seed) in [("a", "seed=5"), ("b", "seed=5"), ("c", "seed=6")] {
        place.train(output, &["--set", seed]).good(output);
    }
    let model = |output: &str| place.read(&format!("{output}/model.safetensors"));
    assert!(model("a") == model("b"), "two runs with one seed differ");
    assert!(model("a") != model("c"), "the seed changes nothing");
    assert_eq!(place.metrics("a"), place.metrics("b"));
    let one_thread = place.train_arguments("d", &["--set", "seed=5", "--threads", "1"]);
    place.easytransfer(&one_thread).good("one thread");
    assert!(model("a") == model("d"), "the number of threads changes the result");
}

#[test]
fn what_is_computed_again_changes_no_byte() {
    let place = Place::new("recompute");
    for level in ["none", "cheap", "layer", "true"] {
        place.train(level, &["--set", &format!("recompute={level}")]).good(level);
    }
    let model = |output: &str| place.read(&format!("{output}/model.safetensors"));
    for level in ["cheap", "layer", "true"] {
        assert!(model(level) == model("none"), "recompute={level} changes the result");
        assert_eq!(place.metrics(level), place.metrics("none"), "recompute={level}");
    }
    let wrong = place.train("wrong", &["--set", "recompute=layers"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("did you mean `layer`?"), "{}", wrong.stderr);
}

#[test]
fn killed_at_any_time_the_run_resumes_to_the_same_bytes() {
    let place = Place::new("kill");
    place.train("whole", &LONG).good("uninterrupted");
    let mut child = start(&place, "killed", &[]);
    wait_for_checkpoint(&place, "killed", &mut child);
    kill(&mut child);
    assert!(!place.at("killed/easytransfer.json").exists(), "the run was not killed in the middle");
    let bf16 = place.train("killed", &[&LONG[..], &["--resume", "--precision", "bf16"]].concat());
    assert!(bf16.code == 2 && bf16.stderr.contains("precision"), "{}", bf16.stderr);
    let params = place.read("killed/checkpoint/params.bin").len();
    let mut last = checkpoint_step(&place, "killed", params);
    // With a checkpoint after every step, most of these hit a save.
    for delay in [1, 3, 7, 12, 18, 25, 33, 42] {
        let mut child = start(&place, "killed", &["--resume"]);
        std::thread::sleep(Duration::from_millis(120 + delay));
        kill(&mut child);
        let is_finished = place.at("killed/easytransfer.json").exists();
        // Killed between the two renames of a save, the checkpoint waits under its old name until the next run puts
        // it back.
        if place.at("killed/checkpoint").exists() {
            let step = checkpoint_step(&place, "killed", params);
            assert!(step >= last, "the checkpoint went back from step {last} to {step}");
            last = step;
        } else if !is_finished {
            let names = place.listing("killed");
            assert!(names.iter().any(|name| name.starts_with("checkpoint.old-")), "{names:?}");
        }
        if place.at("killed/model.safetensors").exists() {
            assert_eq!(place.tensors("killed").len(), place.tensors("whole").len());
        }
        if is_finished {
            break;
        }
    }
    if place.at("killed/checkpoint").exists() || !place.at("killed/easytransfer.json").exists() {
        finish_and_compare(&place, "killed");
    } else {
        compare(&place, "killed");
    }
    let again = place.train("killed", &[&LONG[..], &["--resume"]].concat());
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(
        again.stderr.contains("killed") && again.stderr.contains("finished"),
        "{}",
        again.stderr
    );
    compare(&place, "killed");
}

#[test]
fn cancelled_run_says_how_to_go_on() {
    let place = Place::new("cancel");
    place.train("whole", &LONG).good("uninterrupted");
    let mut child = start(&place, "stopped", &[]);
    wait_for_checkpoint(&place, "stopped", &mut child);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    let output = child.wait_with_output().expect("the child ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped/checkpoint") && said.contains("--resume"), "{said}");
    assert!(!place.at("stopped/easytransfer.json").exists());
    finish_and_compare(&place, "stopped");
}

#[test]
fn resuming_with_other_options_names_the_option() {
    let place = Place::new("other");
    let mut child = start(&place, "run", &[]);
    wait_for_checkpoint(&place, "run", &mut child);
    kill(&mut child);
    let before = (place.listing("run"), place.read_text("run/logs/metrics.jsonl"));
    for (setting, key) in [
        ("lr=2e-3", "lr"),
        ("batch.rows=16", "batch.rows"),
        ("optimizer.weight_decay=0.5", "weight_decay"),
    ] {
        let other = place.train("run", &[&LONG[..], &["--resume", "--set", setting]].concat());
        assert_eq!(other.code, 2, "{}", other.stderr);
        assert!(
            other.stderr.contains(key) && other.stderr.contains("run/checkpoint"),
            "{}",
            other.stderr
        );
    }
    // Other rows, as many as before.
    let rows = place.read_text("train.tsv").replacen("parcel", "letter", 1);
    assert!(rows != place.read_text("train.tsv"));
    place.write("other.tsv", rows);
    let other = ["--resume", "--train", "other.tsv"];
    let before = (place.listing("run"), before.1);
    let other = place.train("run", &[&LONG[..], &other].concat());
    assert!(other.code == 2 && other.stderr.contains("data.train was"), "{}", other.stderr);
    assert_eq!((place.listing("run"), place.read_text("run/logs/metrics.jsonl")), before);
}

#[test]
fn killed_distillation_resumes_to_the_same_bytes() {
    let place = Place::new("kill-distill");
    place.train("teacher", &["--set", "seed=9"]).good("teacher");
    let distill =
        ["--set", "strategy.distill.teacher=teacher", "--set", "strategy.distill.alpha=0.5"];
    place.train("whole", &[&LONG[..], &distill].concat()).good("uninterrupted");
    let mut child = start(&place, "killed", &distill);
    wait_for_checkpoint(&place, "killed", &mut child);
    kill(&mut child);
    assert!(!place.at("killed/easytransfer.json").exists(), "the run was not killed in the middle");
    place
        .train("killed", &[&LONG[..], &distill, &["--resume"]].concat())
        .good("resumed distillation");
    compare(&place, "killed");
}
