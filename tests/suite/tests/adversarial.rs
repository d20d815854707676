//! A strategy with a network of its own, two optimizers and sources with domains, which drives the fit: over a planted
//! shift of domain the critic is driven to chance where its gradient is reversed and not where it is not; a run that
//! was killed at any step ends with the same bytes.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use easytransfer::train::options;
use easytransfer::{Error, Event, TrainJob};
use easytransfer_tests::command::Place;
use easytransfer_tests::face::is_step;
use easytransfer_tests::linked;
use serde_json::{Value, json};

/// Numbers for texts: Knuth's linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

/// Texts of two classes, which one word tells apart, among words of the domain.
fn texts(numbers: &mut Numbers, domain: &[&str], rows: usize, labelled: bool) -> String {
    let mut all = String::from(if labelled { "label\ttext\n" } else { "text\n" });
    for _ in 0..rows {
        let class = numbers.below(2);
        let mut words: Vec<&str> = (0..5).map(|_| domain[numbers.below(domain.len())]).collect();
        words[numbers.below(5)] = ["thanks", "problem"][class];
        if labelled {
            all.push_str(["yes\t", "no\t"][class]);
        }
        all.push_str(&words.join(" "));
        all.push('\n');
    }
    all
}

/// Data of two domains that share the words of the classes alone.
fn shifted(place: &Place) {
    let numbers = &mut Numbers(5);
    let books = ["the", "a", "in", "of", "to"];
    let films = ["my", "is", "for", "on", "and"];
    place.write("books.tsv", texts(numbers, &books, 256, true));
    place.write("films.tsv", texts(numbers, &films, 256, false));
    place.write("films-dev.tsv", texts(numbers, &films, 128, true));
}

fn job(place: &Place, output: &str, more: Value) -> TrainJob {
    let mut config = json!({
        "max_steps": 300, "lr": 2e-3, "log_every": 1, "batch": {"rows": 32}, "evaluate_every": 100,
        "schedule": {"name": "constant", "warmup": 0}, "epochs": 1000, "seed": 3,
        "encoder": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        "strategy": {"adversarial": {"critic_lr": 1e-2, "weight": 0.3}},
        "source": {"films": {"path": place.at("films.tsv"), "domain": "films", "labelled": false}},
    });
    options::merge(&mut config, more);
    let mut job = place.job("text-classify", output, config);
    job.train = place.at("books.tsv").into();
    job.valid = Some(place.at("films-dev.tsv").into());
    job
}

#[test]
fn the_critic_falls_to_chance_where_its_gradient_is_reversed() {
    let place = Place::new("adversarial-shift");
    shifted(&place);
    let runtime = linked::runtime();
    let last = |output: &str| {
        let curve = place.curve(output, "train/critic/accuracy");
        assert_eq!(curve.len(), 300);
        curve[200..].iter().sum::<f64>() / 100.0
    };
    // Where both learn, their paths differ from seed to seed and machine to machine; what they come to does not.
    let run = |seed: u64| {
        let output = format!("with-{seed}");
        runtime.train(job(&place, &output, json!({ "seed": seed }))).unwrap();
        last(&output)
    };
    let mut with = [3, 4, 5].map(run);
    with.sort_by(f64::total_cmp);
    let without = json!({"strategy": {"adversarial": {"reversal": false}}});
    let plain = runtime.train(job(&place, "without", without)).unwrap();
    assert_eq!(plain.steps, 300);
    println!("with reversal {with:?}, without {}", last("without"));
    assert!(last("without") > 0.8, "without reversal the critic tells the domains apart");
    assert!((with[1] - 0.5).abs() < 0.2, "with reversal it guesses: {with:?}");
}

/// Copies what a killed process leaves.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn killed_at_any_step_it_ends_with_the_same_bytes() {
    let place = Place::new("adversarial-kill");
    shifted(&place);
    let runtime = linked::runtime();
    let more = json!({"max_steps": 60, "checkpoint_every": 7, "evaluate_every": 20});
    let numbers = &mut Numbers(11);
    let kills: Vec<u64> = (0..20).map(|_| 8 + numbers.below(52) as u64).collect();
    let whole = job(&place, "whole", more.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (folder, wanted, copied) = (place.at("."), kills.clone(), seen.clone());
    let whole = whole.on_event(move |event| {
        let Event::Step(info) = event else { return };
        if wanted.contains(&info.step) {
            copy(&folder.join("whole"), &folder.join(format!("killed-{}", info.step)));
            copied.lock().unwrap().push(info.step);
        }
    });
    runtime.train(whole).unwrap();
    let weights = place.read("whole/model.safetensors");
    for step in seen.lock().unwrap().iter() {
        let output = format!("killed-{step}");
        assert!(!place.at(&output).join("easytransfer.json").exists());
        let mut again = job(&place, &output, more.clone());
        again.resume = true;
        let result = runtime.train(again).unwrap();
        assert_eq!(result.steps, 60);
        assert!(place.read(&format!("{output}/model.safetensors")) == weights, "killed at {step}");
        assert_eq!(place.metrics(&output), place.metrics("whole"), "killed at {step}");
    }
}

#[test]
fn a_cancelled_fit_leaves_a_checkpoint_and_no_bundle() {
    let place = Place::new("adversarial-cancel");
    shifted(&place);
    let runtime = linked::runtime();
    let more = json!({"max_steps": 20});
    runtime.train(job(&place, "whole", more.clone())).unwrap();
    let first = job(&place, "stopped", more.clone());
    let first = first.on_event(|event| !is_step(event, 9));
    assert!(matches!(runtime.train(first), Err(Error::Cancelled)));
    assert!(!place.at("stopped/easytransfer.json").exists());
    assert!(place.at("stopped/checkpoint/state.json").exists());
    let mut second = job(&place, "stopped", more);
    second.resume = true;
    runtime.train(second).unwrap();
    assert!(place.read("stopped/model.safetensors") == place.read("whole/model.safetensors"));
    assert_eq!(place.metrics("stopped"), place.metrics("whole"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let place = Place::new("adversarial-refused");
    shifted(&place);
    let runtime = linked::runtime();
    let error = |more: Value| runtime.train(job(&place, "refused", more)).unwrap_err().to_string();
    let same = error(json!({"source": {"films": {"domain": "train"}}}));
    assert!(same.contains("expected a source of another domain"), "{same}");
    let key = error(json!({"source": {"films": {"domian": "films"}}}));
    assert!(key.contains("source.films: unknown field `domian`"), "{key}");
    let taken = error(json!({"source": {"valid": {"path": "x"}}}));
    assert!(taken.contains("source.valid: the name is that of the run's own data"), "{taken}");
    let gone = error(json!({"source": {"songs": {"path": "songs.tsv"}}}));
    assert!(gone.contains("songs.tsv"), "{gone}");
}
