//! `easytransfer plugin check`: the plugins of the tree pass, and each way of being wrong is found and named.

use std::ffi::CStr;
use std::process::Command;

use easytransfer::plugin::{
    Call, Loss, Map, Metric, NoOptions, Optimizer, Params, Result, Stream, Tensor,
};
use easytransfer_conformance::{CheckReport, Verdict, check_record};
use easytransfer_tests::hosts::{Outcome, run};
use easytransfer_tests::places;
use serde_json::{Map as Json, Value, json};
use std::sync::OnceLock;

fn check(id: &str) -> Outcome {
    let mut command = Command::new(places::staged().join("easytransfer"));
    run(command.args(["plugin", "check"]).arg(places::staged().join("plugins").join(id)), b"")
}

#[test]
fn plugins_of_the_tree_pass_every_check() {
    for (id, part) in [
        ("loss-basic", "loss cross-entropy: classes (F64): gradient equals finite differences: ok"),
        ("optim-basic", "optimizer lamb: state saved and loaded goes on with the same bits: ok"),
        ("zoo-bert", "model electra: gradient along a direction equals finite differences: ok"),
        ("zoo-bert", "model albert: gradient along a direction equals finite differences: ok"),
        ("zoo-t5", "model t5: gives back every handle: ok"),
        ("app-generate", "app text-generate: gives back every handle: ok"),
        ("app-classify", "app text-classify: answers every record with one prediction: ok"),
        ("app-embed", "app text-embed: gives back every handle: ok"),
        (
            "tl-finetune",
            "strategy finetune: a misspelled option is refused and the nearest is named: ok",
        ),
        (
            "tl-distill",
            "strategy distill: names hooks that exist: not run: it needs a value for \"teacher\"",
        ),
    ] {
        let said = check(id).good(id);
        assert!(!said.contains("FAILED"), "{said}");
        assert!(said.contains(part), "{part}: {said}");
        assert!(said.contains(" 0 failed"), "{said}");
    }
}

#[test]
fn plugin_that_cannot_be_loaded_ends_with_code_2() {
    let outcome = check("no-such-plugin");
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("no-such-plugin"), "{}", outcome.stderr);
}

/// Its gradient is twice what it should be, because half of its value hides from the tape.
struct HalfHidden;

impl Loss for HalfHidden {
    const NAME: &'static CStr = c"half-hidden";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let logits = outputs.get("logits")?;
        let labels = batch.get("labels")?.cast(logits.dtype())?.reshape(logits.shape())?;
        let value = logits.sub(&labels)?.sqr()?.mean(&[], false)?;
        value.affine(2.0, 0.0)?.sub(&value.detach()?)
    }
}

/// Counts its calls and adds them; its schema has a default that it does not allow; it panics without rows.
struct Drifting(f64);

impl Loss for Drifting {
    const NAME: &'static CStr = c"drifting";
    const SCHEMA: &'static CStr =
        cr#"{"type":"object","properties":{"factor":{"type":"number","minimum":1,"default":0}}}"#;
    type Options = Value;

    fn new(_: Value) -> Result<Self> {
        Ok(Self(0.0))
    }

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, _: &Map) -> Result<Tensor> {
        self.0 += 1.0;
        let logits = outputs.get("logits")?;
        assert!(!logits.is_empty(), "there are no rows");
        logits.sqr()?.mean(&[], false)?.affine(1.0, self.0)
    }
}

/// Moves frozen parameters too, climbs, and loses its state.
struct Backwards;

impl Optimizer for Backwards {
    const NAME: &'static CStr = c"backwards";
    type Options = NoOptions;

    fn new(_: NoOptions, _: &Params) -> Result<Self> {
        Ok(Self)
    }

    fn step(&mut self, params: &mut Params, lr: f64, _: u64) -> Result<()> {
        for param in params.iter() {
            param.assign(&param.tensor()?.detach()?.affine(1.0 + lr, 0.0)?)?;
        }
        Ok(())
    }

    fn save(&self, stream: &mut Stream) -> Result<()> {
        stream.write_u64(7)
    }

    fn load(&mut self, _: &mut Stream) -> Result<()> {
        Ok(())
    }
}

/// The mean of the means of the batches, which is not the mean.
#[derive(Default)]
struct MeanOfMeans(Vec<f64>);

impl Metric for MeanOfMeans {
    const NAME: &'static CStr = c"mean-of-means";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self::default())
    }

    fn update(&mut self, outputs: &Map, _: &Map) -> Result<()> {
        self.0.push(outputs.get("logits")?.mean(&[], false)?.to_scalar()?);
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        let mean = self.0.iter().sum::<f64>() / self.0.len() as f64;
        Ok(Json::from_iter([("mean".to_owned(), json!(mean))]))
    }
}

easytransfer::plugin::export! {
    id: "all-wrong",
    losses: [HalfHidden, Drifting],
    optimizers: [Backwards],
    metrics: [MeanOfMeans],
}

fn wrong() -> &'static CheckReport {
    static REPORT: OnceLock<CheckReport> = OnceLock::new();
    REPORT.get_or_init(|| check_record(PluginRecord::get()).unwrap())
}

/// The checks of one component that failed.
fn failures(component: &str) -> Vec<&'static str> {
    wrong()
        .failures()
        .filter(|line| line.component == component)
        .map(|line| line.check.as_str())
        .collect()
}

#[test]
fn what_is_wrong_is_found_and_nothing_else() {
    assert!(!wrong().is_good());
    let gradient = "numbers (F64): gradient equals finite differences";
    assert_eq!(failures("loss half-hidden")[0], gradient, "{}", wrong());
    let drifting = failures("loss drifting");
    for part in [
        "defaults of the options are valid",
        "same inputs give the same bits",
        "no rows are no panic",
    ] {
        assert!(drifting.iter().any(|check| check.ends_with(part)), "{part}: {}", wrong());
    }
    assert_eq!(
        failures("optimizer backwards"),
        [
            "a quadratic falls",
            "frozen parameters stay as they are",
            "a state that was cut off is refused"
        ],
        "{}",
        wrong()
    );
    assert!(
        failures("metric mean-of-means")
            .iter()
            .all(|check| check.ends_with("several batches count as one")),
        "{}",
        wrong()
    );
    assert!(!failures("metric mean-of-means").is_empty(), "{}", wrong());
    let said = wrong().to_string();
    assert!(said.contains("FAILED: element 0: expected"), "{said}");
    let passed = wrong().lines.iter().any(|line| line.verdict == Verdict::Passed);
    assert!(passed, "{said}");
}
