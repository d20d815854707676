//! The CUDA engine on a card of paper (`paper/card.cpp`): its kernels run on the emulator, the driver and cuBLAS are
//! stand-ins in host memory. Runs where `cargo xtask engine cuda` has built the engine; says so where it has not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Outcome, run};
use easytransfer_tests::places;
use serde_json::Value;

/// A folder with the stand-ins under the names of NVIDIA's libraries.
struct Card {
    place: Place,
    engine: PathBuf,
}

/// The names of kernels in the engine's sources: every literal that begins with `et_`.
fn kernel_names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("the engine's sources").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(entry.path()).expect("a source");
            names.extend(text.split('"').filter(|part| part.starts_with("et_")).map(str::to_owned));
        }
    }
    names.retain(|name| {
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    });
    names.sort();
    names.dedup();
    names
}

/// What the engine asks of NVIDIA's libraries.
fn asked(engine: &Path) -> Option<Vec<String>> {
    let output = Command::new("nm").args(["-D", "--undefined-only"]).arg(engine).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split_whitespace().last());
    let ours = |name: &&str| {
        !name.contains('@') && ["cu", "nvrtc"].iter().any(|start| name.starts_with(start))
    };
    Some(names.filter(ours).map(str::to_owned).collect())
}

impl Card {
    /// The card, or `None` with a line that says what is missing.
    fn new(name: &str) -> Option<Card> {
        let engine = places::staged().join("libeasytransfer_engine_cuda.so");
        let runtime = places::staged().join("../cuda-link/libcudart.so");
        let symbols = asked(&engine);
        let (true, true, Some(symbols)) = (engine.exists(), runtime.exists(), symbols) else {
            println!("not run: `cargo xtask engine cuda` has not built the engine here");
            return None;
        };
        let place = Place::new(name);
        let crate_folder = places::root().join("sdk/cuda");
        let names = kernel_names(&crate_folder.join("src"));
        assert!(names.len() > 20, "{names:?}");
        let lines = |list: &[String], line: &dyn Fn(&str) -> String| {
            list.iter().map(|item| line(item)).collect::<Vec<_>>().join("\n")
        };
        place.write("names.inc", lines(&names, &|name| format!("KERNEL({name})")));
        place.write(
            "stubs.c",
            lines(&symbols, &|name| {
                format!(
                    "__attribute__((weak)) int {name}(void);\nint {name}(void) {{ return 801; }}"
                )
            }),
        );
        let mut kernels: Vec<String> = fs::read_dir(crate_folder.join("kernels"))
            .expect("the kernels")
            .flatten()
            .map(|entry| entry.path().display().to_string())
            .filter(|path| path.ends_with(".cu"))
            .collect();
        kernels.sort();
        place.write(
            "kernels.inc",
            lines(&kernels, &|path| format!("#include \"{path}\"\n#undef KERNELS")),
        );
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let mut build = Command::new(compiler);
        build.args(["-std=c++17", "-O2", "-shared", "-fPIC", "-Wno-unknown-pragmas"]);
        for name in ["kernels", "names"] {
            let path = place.at(&format!("{name}.inc"));
            build.arg(format!("-D{}_INC=\"{}\"", name.to_uppercase(), path.display()));
        }
        build.arg(places::root().join("tests/suite/tests/paper/card.cpp"));
        build.args(["-x", "c"]).arg(place.at("stubs.c"));
        run(build.arg("-o").arg(place.at("libcuda.so.1")), b"").good("compile the card");
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            for name in
                ["libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libnvrtc.so.13"]
            {
                symlink("libcuda.so.1", place.at(name)).expect("link a library");
            }
            let runtime = fs::canonicalize(runtime).expect("CUDA's run-time library");
            symlink(runtime, place.at("libcudart.so.13")).expect("link a library");
        }
        Some(Card { place, engine })
    }

    /// Lets a command see the card.
    fn seen_by(&self, command: &mut Command) -> Outcome {
        let command = command
            .env("LD_LIBRARY_PATH", self.place.at(""))
            .env("ET_ENGINE_PATH", &self.engine)
            .env("ET_PLUGIN_PATH", places::staged().join("plugins"));
        run(command, b"")
    }

    fn easytransfer(&self, arguments: &[&str]) -> Outcome {
        self.seen_by(&mut self.place.command(arguments))
    }

    fn check(&self, arguments: &[&str]) -> Outcome {
        self.seen_by(&mut self.checks(arguments))
    }

    fn checks(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(places::staged().join("gpu-check"));
        command.args(arguments).current_dir(self.place.at(""));
        command
    }
}

/// The first lines of a text.
fn few(text: &str, lines: usize) -> String {
    text.lines().take(lines).map(|line| format!("{line}\n")).collect()
}

/// What the engine says at the end of `gpu-check`.
fn report(text: &str) -> Value {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("engine "));
    serde_json::from_str(line.expect("a report")).expect("JSON")
}

#[test]
fn operations_and_optimizers_compute_what_the_host_computes() {
    let Some(card) = Card::new("paper-ops") else { return };
    // With memory of its own for every tensor, which the card fills with NaN first, and with memory that is used
    // again.
    for (pool, arguments) in [
        ("1", &["optim"][..]),
        ("0", &["ops", "--precision", "f32"]),
        ("0", &["ops", "--precision", "bf16"]),
        ("1", &["ops", "--precision", "bf16"]),
    ] {
        let mut command = card.checks(&[arguments, &["--device", "cuda"]].concat());
        let outcome = card.seen_by(command.env("ET_CARD_POOL", pool));
        let failed: Vec<&str> =
            outcome.stdout.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert!(outcome.code == 0, "{arguments:?}: {failed:#?}\n{}", outcome.stderr);
        assert!(outcome.stdout.matches("ok    ").count() >= 5, "{}", outcome.stdout);
    }
}

#[test]
fn training_follows_the_curve_of_the_cpu() {
    let Some(card) = Card::new("paper-train") else { return };
    let mut curves = Vec::new();
    for device in ["cpu", "cuda"] {
        card.place.write("dev.tsv", few(&card.place.read_text("dev.tsv"), 9));
        let more = ["--device", device, "--set", "max_steps=8", "--set", "batch.rows=4"];
        card.easytransfer(&card.place.train_arguments(device, &more)).good(device);
        curves.push(card.place.curve(device, "train/loss"));
    }
    assert_eq!(curves[0].len(), 8);
    for (step, (cpu, cuda)) in curves[0].iter().zip(&curves[1]).enumerate() {
        assert!((cpu - cuda).abs() <= 1e-4 * cpu.abs(), "step {}: {cpu} and {cuda}", step + 1);
    }
}

#[test]
fn a_step_waits_for_nothing_and_copies_nothing_back() {
    let Some(card) = Card::new("paper-step") else { return };
    let batches = vec![vec![5, 3], vec![4, 4], vec![2, 6], vec![3, 3], vec![5, 1]];
    let measure = |name: &str, batches: &[Vec<usize>], more: &[&str]| {
        let work = serde_json::json!([{"work": "train", "shape": "real", "batches": batches}]);
        card.place.write(name, work.to_string());
        let arguments = ["speed", "--device", "cuda", "--config", "encoder/config.json"];
        let work = ["--seconds", "0", "--workloads", name];
        card.check(&[&arguments[..], &work, more].concat()).good("speed")
    };
    let said = measure("once.json", &batches, &["--trace", "trace.json"]);
    let twice = measure("twice.json", &[&batches[..], &batches].concat(), &[]);
    let lines: Vec<Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let rounds = lines[0]["rounds"].as_u64().expect("rounds");
    let report = report(&said);
    assert_eq!(report["host_fallbacks"], serde_json::json!({}), "{report}");
    // One number a round: those that are measured, one before and one that is recorded.
    assert_eq!(report["waits"], serde_json::json!({"copies to the host": rounds + 2}), "{report}");
    // Batches that are like those before ask the driver for no memory.
    let again = self::report(&twice);
    assert!(again["launches"].as_u64() > report["launches"].as_u64(), "{again} {report}");
    assert_eq!(again["allocations"], report["allocations"], "{again} {report}");
    let families = &lines[1]["ms_per_batch"];
    for family in ["products forward", "products backward", "attention forward", "optimizer engine"]
    {
        assert!(families[family].as_f64().is_some_and(|ms| ms > 0.0), "{family}: {families}");
    }
}

#[test]
fn a_full_card_says_who_holds_its_memory() {
    let Some(card) = Card::new("paper-full") else { return };
    let more = ["--device", "cuda"];
    let mut command = card.place.command(&card.place.train_arguments("run", &more));
    // Enough for cuBLAS's workspace, not for the model.
    let outcome = card.seen_by(command.env("PAPER_MIB", "33"));
    assert_ne!(outcome.code, 0);
    for needle in ["out of memory", "parameters hold", "optimizer states", "smaller batches"] {
        assert!(outcome.stderr.contains(needle), "{needle}: {}", outcome.stderr);
    }
}

/// Not a check: how long the host takes to give a card a step of BERT-base. A card that needs less time for the step
/// waits for the host.
#[test]
#[ignore = "a measurement"]
fn time_of_the_host_for_a_step() {
    let Some(card) = Card::new("paper-host") else { return };
    let config = places::root().join("tests/gpu/bert-base.json");
    let config = config.to_string_lossy();
    println!(
        "| precision | work | rows x tokens | host ms | launches | allocations |\n|---|---|---|---|---|---|"
    );
    for (precision, work) in
        [("f32", "train"), ("bf16", "train"), ("f32", "forward"), ("bf16", "forward")]
    {
        let batches = vec![vec![13; 32]; 2];
        let shape = "32x13";
        let workload = serde_json::json!([{"work": work, "shape": shape, "batches": batches}]);
        card.place.write("work.json", workload.to_string());
        let mut command = Command::new(places::staged().join("gpu-check"));
        command.current_dir(card.place.at("")).env("PAPER_IDLE", "1");
        command.args(["speed", "--device", "cuda", "--precision", precision]);
        command.args(["--config", &config, "--workloads", "work.json", "--seconds", "5"]);
        let said = card.seen_by(&mut command).good("speed");
        let mut lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.next().expect("a line of figures");
        let number = |value: &Value| value.as_f64().expect("a number");
        // One round more than counted warms up.
        let steps = (number(&line["rounds"]) + 1.0) * batches.len() as f64;
        let report = report(&said);
        let [launches, allocations] =
            ["launches", "allocations"].map(|count| number(&report[count]) / steps);
        let ms = number(&line["ms_per_batch"]);
        println!("| {precision} | {work} | {shape} | {ms:.2} | {launches:.0} | {allocations:.1} |");
    }
}
