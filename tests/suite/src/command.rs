//! The `easytransfer` command in a folder of its own, with a tiny encoder and the demo's messages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use easytransfer::{Start, TrainConfig, TrainJob};
use serde_json::{Value, json};

use crate::hosts::{Outcome, Scratch, run};
use crate::places;

/// A scratch folder with `encoder/` (one layer of width 32 without weights), `train.tsv` and `dev.tsv`, in which the
/// command runs, so that relative names in messages are short.
pub struct Place(Scratch);

impl Place {
    /// A new folder. `name` must be another one for every test.
    pub fn new(name: &str) -> Place {
        let place = Place(Scratch::new(&format!("command-{name}")));
        let demo = places::root().join("hosts/demo");
        fs::create_dir(place.at("encoder")).expect("make the encoder's folder");
        for file in ["vocab.txt", "tokenizer_config.json"] {
            fs::copy(demo.join("encoder").join(file), place.at("encoder").join(file))
                .expect("copy the demo's encoder");
        }
        for (from, to) in [("messages.train.tsv", "train.tsv"), ("messages.dev.tsv", "dev.tsv")] {
            fs::copy(demo.join(from), place.at(to)).expect("copy the demo's messages");
        }
        let text = place.read_text_at(&demo.join("encoder/config.json"));
        let mut config: Value =
            serde_json::from_str(&text).expect("the demo's config.json is JSON");
        for (key, value) in [
            ("num_hidden_layers", 1),
            ("hidden_size", 32),
            ("num_attention_heads", 2),
            ("intermediate_size", 64),
        ] {
            config[key] = json!(value);
        }
        place.write("encoder/config.json", config.to_string());
        place
    }

    /// The path of a file in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(name), content).unwrap_or_else(|error| panic!("write {name}: {error}"));
    }

    /// The bytes of a file.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_else(|error| panic!("read {name}: {error}"))
    }

    /// The text of a file.
    pub fn read_text(&self, name: &str) -> String {
        self.read_text_at(&self.at(name))
    }

    fn read_text_at(&self, path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    /// The JSON value in a file.
    pub fn read_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read_text(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The command with arguments, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let staged = places::staged();
        let program = staged.join("easytransfer");
        assert!(program.exists(), "no command is built; `cargo xtask test` builds and stages it");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("ET_PLUGIN_PATH", staged.join("plugins"))
            .env("RAYON_NUM_THREADS", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the command to its end.
    pub fn easytransfer(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments), b"")
    }

    /// Runs the command with `input` on standard input.
    pub fn with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        run(&mut self.command(arguments), input.as_bytes())
    }

    /// Arguments of a training run of twelve steps from random weights, which replaces what an earlier one of the test
    /// left; `more` comes after them and wins.
    pub fn train_arguments<'a>(&self, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments =
            vec!["train", "--encoder", "encoder", "--output", output, "--quiet", "--overwrite"];
        for (flag, value) in [("--train", "train.tsv"), ("--valid", "dev.tsv")] {
            if !more.contains(&flag) {
                arguments.extend([flag, value]);
            }
        }
        for setting in ["max_steps=12", "lr=1e-3", "log_every=1"] {
            arguments.extend(["--set", setting]);
        }
        if !more.contains(&"--encoder") {
            arguments.push("--from-scratch");
        } else {
            arguments.drain(1..3);
        }
        arguments.extend(more);
        arguments
    }

    /// Trains as [`Place::train_arguments`] says.
    pub fn train(&self, output: &str, more: &[&str]) -> Outcome {
        self.easytransfer(&self.train_arguments(output, more))
    }

    /// A run within this process over the same data, from random weights.
    pub fn job(&self, app: &str, output: &str, config: Value) -> TrainJob {
        TrainJob::new(self.at("encoder"), self.at("train.tsv"), self.at(output))
            .with_app(app)
            .with_start(Start::Scratch)
            .with_valid(self.at("dev.tsv"))
            .with_config(TrainConfig::from_value(config, "").expect("the options are valid"))
    }

    /// The lines of metrics that a run wrote.
    pub fn metrics(&self, output: &str) -> Vec<Value> {
        let lines = self.read_text(&format!("{output}/logs/metrics.jsonl"));
        lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The values of one figure over a run.
    pub fn curve(&self, output: &str, name: &str) -> Vec<f64> {
        self.metrics(output).iter().filter_map(|line| line.get(name)?.as_f64()).collect()
    }

    /// The bytes of a bundle's tensors by name.
    pub fn tensors(&self, output: &str) -> BTreeMap<String, Vec<u8>> {
        let bytes = self.read(&format!("{output}/model.safetensors"));
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let header: Value =
            serde_json::from_slice(&bytes[8..8 + length]).expect("the header is JSON");
        let header = header.as_object().expect("the header is an object");
        let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
        tensors
            .map(|(name, entry)| {
                let offset =
                    |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
                (name.clone(), bytes[8 + length + offset(0)..8 + length + offset(1)].to_vec())
            })
            .collect()
    }

    /// Names of everything in the folder and below, sorted, but for TensorBoard files, whose names hold the time.
    pub fn listing(&self, below: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.at(below)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for path in entries.map(|entry| entry.expect("read a folder").path()) {
                let name = path.strip_prefix(self.at(below)).expect("it is below");
                if !name.to_string_lossy().contains("tfevents") {
                    names.push(name.to_string_lossy().into_owned());
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        names.sort();
        names
    }
}
