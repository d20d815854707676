//! What is computed again in the backward pass belongs to a run: others beside it keep their own choice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use easytransfer::Runtime;
use easytransfer::TrainJob;
use easytransfer::plugin::{
    Call, Loss, Map, NoOptions, Recompute, RecomputeScope, Result, Tensor, nn, recomputed,
};
use easytransfer_tests::command::Place;
use easytransfer_tests::linked;
use serde_json::{Value, json};

/// Cross entropy of logits that go through a segment, which counts its runs. Each forward pass waits for that of the
/// other run, so the two are under way all the time.
struct Segmented {
    runs: Arc<AtomicUsize>,
    together: Arc<Barrier>,
}

impl Loss for Segmented {
    const NAME: &'static std::ffi::CStr = c"segmented";
    type Options = NoOptions;

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        self.together.wait();
        let runs = self.runs.clone();
        let [logits] = recomputed(&[&outputs.get("logits")?], None, move |inputs, _| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok([inputs[0].affine(1.0, 0.0)?])
        })?;
        self.together.wait();
        nn::cross_entropy(&logits, &batch.get("labels")?, None, -100, 0.0)
    }
}

const STEPS: usize = 6;

fn job(place: &Place, output: &str, recompute: &str, loss: &str) -> TrainJob {
    let config = json!({"max_steps": STEPS, "lr": 1e-3, "batch": {"rows": 8},
        "recompute": recompute, "loss": {"name": loss}});
    TrainJob { valid: None, ..place.job("text-classify", output, config) }
}

fn register(runtime: &Runtime, name: &str, together: &Arc<Barrier>) -> Arc<AtomicUsize> {
    let runs = Arc::new(AtomicUsize::new(0));
    let (shared, together) = (runs.clone(), together.clone());
    let make = move |_: &Value| Ok(Segmented { runs: shared.clone(), together: together.clone() });
    runtime.register_loss(name, make).unwrap();
    runs
}

#[test]
fn runs_beside_each_other_keep_what_each_was_told() {
    let place = Place::new("recompute-runs");
    let runtime = linked::runtime();
    let together = Arc::new(Barrier::new(2));
    let runs = ["none", "layer"].map(|level| register(&runtime, level, &together));
    thread::scope(|scope| {
        for level in ["none", "layer"] {
            let job = job(&place, level, level, level);
            let runtime = &runtime;
            scope.spawn(move || runtime.train(job).unwrap());
        }
    });
    let runs = runs.map(|runs| runs.load(Ordering::Relaxed));
    assert_eq!(runs, [STEPS, 2 * STEPS], "segments run once, and again by layer");
    let weights = |output: &str| place.read(&format!("{output}/model.safetensors"));
    assert!(weights("none") == weights("layer"), "the same bits");
}

/// How often a segment of this thread runs for one backward pass.
fn runs_of_a_segment() -> usize {
    let x = Tensor::from_slice(&[1f32, 2.0], &[2]).unwrap().leaf().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let shared = runs.clone();
    let [y] = recomputed(&[&x], None, move |inputs, _| {
        shared.fetch_add(1, Ordering::Relaxed);
        Ok([inputs[0].tanh()?])
    })
    .unwrap();
    y.sum(&[], false).unwrap().backward().unwrap();
    runs.load(Ordering::Relaxed)
}

#[test]
fn a_run_leaves_the_thread_as_it_found_it() {
    let place = Place::new("recompute-after");
    let runtime = linked::runtime();
    let by_layer = RecomputeScope::new(Recompute::Layer).unwrap();
    assert_eq!(runs_of_a_segment(), 2);
    assert_eq!(thread::spawn(runs_of_a_segment).join().unwrap(), 1, "another thread's choice");
    runtime.train(job(&place, "out", "none", "cross-entropy")).unwrap();
    assert_eq!(runs_of_a_segment(), 2, "after a run without");
    {
        let _none = RecomputeScope::new(Recompute::None).unwrap();
        assert_eq!(runs_of_a_segment(), 1);
    }
    assert_eq!(runs_of_a_segment(), 2);
    // A run that fails ends its choice, too.
    drop(by_layer);
    assert!(runtime.train(job(&place, "bad", "layer", "no-such-loss")).is_err());
    assert_eq!(runs_of_a_segment(), 1);
}
