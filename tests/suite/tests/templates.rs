//! `cargo xtask new-plugin`: what it writes in Rust, C and C++ builds outside the workspace, is a plugin that `plugin
//! check` accepts, and does its work in a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use easytransfer::plugin::{LoadedMetric, LoadedOp, Map, Stream, Tensor};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Scratch, run};
use easytransfer_tests::places;
use xtask::new_plugin::{self, Language, native};
use xtask::{Context, stage};

const NAME: &str = "brand-new";

/// A folder with a plugin that was written and built.
struct Built {
    kind: &'static str,
    language: Language,
    folder: PathBuf,
}

impl Built {
    /// Writes the plugin of a kind in a language and builds it.
    fn new(scratch: &Scratch, kind: &'static str, language: Language) -> Built {
        let folder = scratch.path().join(format!("{kind}-{language:?}"));
        new_plugin::write(&Context::here(), kind, NAME, language, Some(&folder))
            .expect("write the plugin");
        let built = Built { kind, language, folder };
        if language == Language::Rust {
            built.cargo()
        } else {
            built.make()
        }
        built
    }

    /// Its id, the name of its manifest.
    fn id(&self) -> String {
        let files = fs::read_dir(&self.folder).expect("the plugin's folder").flatten();
        let names = files.map(|file| file.file_name().into_string().expect("UTF-8"));
        let mut ids =
            names.filter_map(|name| name.strip_suffix(&format!("-{NAME}.toml")).map(str::to_owned));
        format!("{}-{NAME}", ids.next().expect("a manifest"))
    }

    /// With warnings as errors, as nothing that is written for others may warn.
    fn make(&self) {
        let flags = "-O2 -pedantic -Werror";
        let mut command = Command::new("make");
        command.arg("-C").arg(&self.folder);
        command.args([format!("CFLAGS={flags}"), format!("CXXFLAGS={flags}")]);
        run(&mut command, b"").good(&format!("make {} {:?}", self.kind, self.language));
    }

    fn cargo(&self) {
        let (context, staged, id) = (Context::here(), places::staged(), self.id());
        // The workspace's own, because the SDK takes most of the time; and its versions, so that nothing is fetched.
        let target = staged.parent().expect("release lies in the target directory");
        fs::copy(context.root.join("Cargo.lock"), self.folder.join("Cargo.lock"))
            .expect("copy the lock");
        let cargo = |arguments: &[&str]| {
            let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
            let mut command = Command::new(program);
            command.args(arguments).arg("--offline").current_dir(&self.folder);
            command.env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS");
            run(&mut command, b"").good(&format!("cargo {arguments:?} for {id}"))
        };
        if ["loss", "op"].contains(&self.kind) {
            let said = cargo(&["test", "--release"]);
            assert!(said.contains("plugin_passes_the_suite ... ok"), "{id}: {said}");
        }
        cargo(&["build", "--profile", "plugin"]);
        // The plugin was built in another target directory than its own.
        let library = stage::library_file_name(&id);
        let place = self.folder.join("target/plugin");
        fs::create_dir_all(&place).expect("make the folder of the library");
        fs::copy(target.join("plugin").join(&library), place.join(&library)).expect("copy");
    }

    /// `plugin check` finds nothing wrong, and `plugin list` finds the plugin where the command says it is used from.
    fn check(&self) {
        let command = places::staged().join("easytransfer");
        let (kind, id) = (self.kind, self.id());
        let manifest = self.folder.join(format!("{id}.toml"));
        let mut check = Command::new(&command);
        let said = run(check.args(["plugin", "check"]).arg(manifest), b"");
        let said = said.good(&format!("plugin check of a new {kind} in {:?}", self.language));
        assert!(said.contains(&format!("{kind} {NAME}: ")), "{said}");
        assert!(!said.contains("FAILED"), "{said}");
        let mut list = Command::new(&command);
        let said = run(list.args(["plugin", "list", "--plugins"]).arg(&self.folder), b"");
        let said = said.good("list");
        assert!(said.contains(&format!("{id} 0.1.0: {kind} {NAME}")), "{said}");
        assert!(!said.contains("cannot be used"), "{said}");
    }

    /// Trains with the plugin, with more arguments.
    fn train(&self, place: &Place, output: &str, more: &[&str]) {
        let folder = self.folder.to_str().expect("UTF-8");
        let outcome = place.train(output, &[&["--plugins", folder], more].concat());
        outcome.good(&format!("train with a new {} in {:?}", self.kind, self.language));
    }

    /// A runtime that knows this plugin alone.
    fn runtime(&self) -> Runtime {
        let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
        let runtime = Runtime::new(options).expect("the engine starts");
        runtime.load_plugin(&self.folder).expect("the plugin loads");
        runtime
    }
}

/// What the plugin of a kind does, as something that is the same in every language.
fn used(built: &Built, place: &Place) -> String {
    let setting = |text: &str| ["--set".to_owned(), text.to_owned()];
    match built.kind {
        "loss" => {
            built.train(place, "out", &["--set", "loss.name=brand-new", "--set", "max_steps=4"]);
            let losses = place.curve("out", "train/loss");
            assert!(losses.len() == 4 && losses.iter().all(|loss| *loss > 0.0), "{losses:?}");
            format!("{losses:?}")
        }
        "strategy" => {
            let after = |steps: &str| -> BTreeMap<String, Vec<u8>> {
                let [set, steps] = setting(&format!("max_steps={steps}"));
                let freeze = "strategy.brand-new.freeze=embeddings";
                built.train(place, "out", &["--set", freeze, &set, &steps]);
                place.tensors("out")
            };
            let (first, last) = (after("1"), after("3"));
            let mut moved = 0;
            for (name, values) in &first {
                if name.contains("embeddings.") {
                    assert_eq!(Some(values), last.get(name), "{name} moved");
                } else {
                    moved += usize::from(Some(values) != last.get(name));
                }
            }
            assert!(moved > 10, "only {moved} tensors moved");
            format!("{:?}", last.iter().map(|(name, values)| (name, checksum(values))))
        }
        "metric" => {
            let runtime = built.runtime();
            let component = runtime.components().find("et.metric/1", NAME).unwrap();
            let make = || LoadedMetric::create(&component, "").unwrap();
            let count = |metric: &mut LoadedMetric, logits: &[f32], labels: &[f32]| {
                let (mut outputs, mut batch) = (Map::new().unwrap(), Map::new().unwrap());
                let rows = logits.len();
                outputs.put("logits", &Tensor::from_slice(logits, &[rows, 1]).unwrap()).unwrap();
                batch.put("labels", &Tensor::from_slice(labels, &[rows]).unwrap()).unwrap();
                metric.update(&outputs, &batch).unwrap();
            };
            // (|1 - 2| + |3 - 1|) / 2, then (3 + |-1 - 4|) / 3.
            let mut metric = make();
            count(&mut metric, &[1.0, 3.0], &[2.0, 1.0]);
            assert_eq!(metric.compute().unwrap()[NAME], 1.5);
            let mut other = make();
            count(&mut other, &[-1.0], &[4.0]);
            assert_eq!(metric.info().lower_is_better, [NAME]);
            if built.language != Language::Rust {
                let mut stream = Stream::writer().unwrap();
                other.save(&mut stream).unwrap();
                let state = stream.bytes().unwrap().as_slice().to_vec();
                metric.merge(&mut Stream::reader(&state).unwrap()).unwrap();
                let figure = metric.compute().unwrap()[NAME].as_f64().unwrap();
                assert!((figure - 8.0 / 3.0).abs() < 1e-12, "{figure}");
            }
            String::new()
        }
        "op" => {
            let runtime = built.runtime();
            let component = runtime.components().find("et.op/1", NAME).unwrap();
            let op = LoadedOp::create(&component).unwrap();
            let x = Tensor::from_slice(&[1.0f32, -2.0, 0.5], &[3]).unwrap().leaf().unwrap();
            let y = op.apply(&[&x]).unwrap().remove(0);
            assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, -8.0, 0.125]);
            y.sum(&[], false).unwrap().backward().unwrap();
            let gradient = x.leaf_grad().unwrap().unwrap();
            assert_eq!(gradient.to_vec::<f32>().unwrap(), [3.0, 12.0, 0.75]);
            let integers = Tensor::from_slice(&[1i64], &[1]).unwrap();
            let error = op.apply(&[&integers]).map(|_| ()).unwrap_err();
            assert!(error.message().contains("expected f32 or f64"), "{error}");
            String::new()
        }
        "app" => {
            let rows: Vec<String> = (0..64)
                .map(|at| format!("{}\t{}\n", ["good", "bad"][at % 2], [1.0, -1.0][at % 2]))
                .collect();
            place.write("numbers.tsv", format!("text\tlabel\n{}", rows.concat()));
            let data = ["--train", "numbers.tsv", "--valid", "numbers.tsv", "--app", NAME];
            let steps = ["--set", "max_steps=30", "--set", "lr=1e-2", "--set", "batch.rows=16"];
            built.train(place, "out", &[&data[..], &steps].concat());
            let losses = place.curve("out", "train/loss");
            assert!(losses[losses.len() - 1] < 0.5 * losses[0], "{losses:?}");
            let folder = built.folder.to_str().unwrap();
            let arguments = ["predict", "--plugins", folder, "--model", "out"];
            let said = place.with_input(&arguments, "good\nbad\n").good("predict");
            assert_eq!(said.matches("value").count(), 2, "{said}");
            String::new()
        }
        // `plugin check` computes with them.
        "model" | "optimizer" => String::new(),
        other => panic!("nothing uses a new {other}"),
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

#[test]
fn every_kind_of_new_plugin_builds_passes_the_suite_and_is_used() {
    let scratch = Scratch::new("templates");
    let place = Place::new("templates");
    let natives: Vec<&str> = native::kinds().collect();
    for kind in new_plugin::kinds() {
        let mut seen = Vec::new();
        for language in [Language::Rust, Language::C, Language::Cpp] {
            if language == Language::Rust || natives.contains(&kind) {
                let built = Built::new(&scratch, kind, language);
                built.check();
                seen.push((language, used(&built, &place)));
            }
        }
        for (language, what) in &seen {
            assert_eq!(*what, seen[0].1, "{kind} in {:?} and {language:?}", seen[0].0);
        }
    }
}
