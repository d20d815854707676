//! `easytransfer plugin new` and `cargo xtask new-plugin`: what they write in Rust, C and C++ builds outside the
//! workspace, is a plugin that `plugin check` accepts, and does its work in a run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use easytransfer::plugin::{LoadedMetric, LoadedOp, Map, Stream, Tensor};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_scaffold::{Language, NewPlugin, kinds, native_kinds};
use easytransfer_tests::authors;
use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Scratch, run};
use easytransfer_tests::places;
use xtask::{Context, new_plugin};

const NAME: &str = "brand-new";

/// A folder with a plugin that was written and built.
struct Built {
    kind: &'static str,
    language: Language,
    folder: PathBuf,
}

impl Built {
    /// Writes the plugin of a kind in a language, builds it and lets the command check it.
    fn new(scratch: &Scratch, kind: &'static str, language: Language) -> Built {
        let folder = scratch.path().join(format!("{kind}-{language:?}"));
        let plugin = NewPlugin::new(kind, NAME, language).expect("a kind");
        plugin.write(&new_plugin::sdk(&Context::here()), &folder).expect("write the plugin");
        let said = authors::build(&folder, language, None);
        assert!(said.contains(&format!("{kind} {NAME}: ")) && !said.contains("FAILED"), "{said}");
        let built = Built { kind, language, folder };
        built.is_listed(&plugin.id());
        built
    }

    /// `plugin list` finds the plugin where the command says that it is used from.
    fn is_listed(&self, id: &str) {
        let mut list = Command::new(places::staged().join("easytransfer"));
        let said = run(list.args(["plugin", "list", "--plugins"]).arg(&self.folder), b"");
        let said = said.good("list");
        assert!(said.contains(&format!("{id} 0.1.0: {} {NAME}", self.kind)), "{said}");
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
    let natives: Vec<&str> = native_kinds().collect();
    for kind in kinds() {
        let mut seen = Vec::new();
        for language in [Language::Rust, Language::C, Language::Cpp] {
            if language == Language::Rust || natives.contains(&kind) {
                let built = Built::new(&scratch, kind, language);
                seen.push((language, used(&built, &place)));
            }
        }
        for (language, what) in &seen {
            assert_eq!(*what, seen[0].1, "{kind} in {:?} and {language:?}", seen[0].0);
        }
    }
}
