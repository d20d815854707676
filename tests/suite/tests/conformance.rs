//! `easytransfer plugin check`: the plugins of the tree pass, and each way of being wrong is found and named.

use std::ffi::CStr;
use std::process::Command;

use easytransfer::plugin::{
    App, AppInfo, Call, Column, Context, Error, Loss, Map, Metric, ModelInfo, NoOptions, Optimizer,
    Params, Record, Result, Rows, Scope, Stream, Tensor, Tokenizer, mean_of_rows, weight_of_rows,
};
use easytransfer_conformance::{CheckReport, Verdict, check_record};
use easytransfer_tests::hosts::{Outcome, run};
use easytransfer_tests::places;
use serde_json::{Map as Json, Value, json};
use std::sync::OnceLock;

fn check(id: &str) -> Outcome {
    let mut command = Command::new(places::staged().join("easytransfer"));
    run(
        command.args(["plugin", "check", "--all"]).arg(places::staged().join("plugins").join(id)),
        b"",
    )
}

#[test]
fn plugins_of_the_tree_pass_every_check() {
    for (id, part) in [
        ("loss-basic", "loss cross-entropy: classes (F64): gradient equals finite differences: ok"),
        ("optim-basic", "optimizer lamb: state saved and loaded goes on with the same bits: ok"),
        ("zoo-bert", "model electra: gradient along a direction equals finite differences: ok"),
        ("zoo-bert", "model albert: gradient along a direction equals finite differences: ok"),
        (
            "zoo-modernbert",
            "model modernbert: gradient along a direction equals finite differences: ok",
        ),
        (
            "zoo-deberta",
            "model deberta-v2: gradient along a direction equals finite differences: ok",
        ),
        ("zoo-xlnet", "model xlnet: a gradient reaches every parameter: ok"),
        ("zoo-t5", "model t5: gives back every handle: ok"),
        ("app-generate", "app text-generate: gives back every handle: ok"),
        ("zoo-t5", "model t5: going on with a cache is reading the whole: ok"),
        ("zoo-t5", "model mt5: what another model has kept is refused: ok"),
        ("zoo-imagebert", "model imagebert: a gradient reaches every parameter: ok"),
        (
            "zoo-imagebert",
            "model imagebert: gradient along a direction equals finite differences: ok",
        ),
        ("zoo-word", "model text-cnn: gradient along a direction equals finite differences: ok"),
        ("zoo-word", "model bigru-attention: a row does not see its neighbours: ok"),
        ("zoo-word", "model dam-plus: gradient along a direction equals finite differences: ok"),
        ("zoo-word", "model hcnn: gradient along a direction equals finite differences: ok"),
        ("app-classify", "app text-classify: answers every record with one prediction: ok"),
        ("app-embed", "app text-embed: gives back every handle: ok"),
        ("app-comprehend", "app comprehend: joins the rows of a record into one prediction: ok"),
        ("app-match", "app text-match: answers every record with one prediction: ok"),
        ("app-pretrain", "app masked-lm: answers every record with one prediction: ok"),
        ("loss-basic", "loss mse: numbers (F64): the value is the mean of its rows: ok"),
        ("loss-basic", "loss mse: numbers (F64): parts weighed by `weight` are the whole: ok"),
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

/// A mean of squares whose rows or weight are not what it is a mean of.
struct Aside<const FAULT: usize>;

const ASIDE: [&CStr; 3] = [c"rows-aside", c"weight-negative", c"weight-nan"];

impl<const FAULT: usize> Loss for Aside<FAULT> {
    const NAME: &'static CStr = ASIDE[FAULT];
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self)
    }

    fn forward(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        let factor = if FAULT == 0 { 2.0 } else { 1.0 };
        mean_of_rows(&self.rows(call, outputs, batch)?.affine(factor, 0.0)?, batch)
    }

    fn rows(&mut self, _: &Call<'_>, outputs: &Map, _: &Map) -> Result<Tensor> {
        outputs.get("logits")?.sqr()?.mean(&[1], false)
    }

    fn weight(&mut self, batch: &Map) -> Result<f64> {
        Ok([weight_of_rows(batch)?, -1.0, f64::NAN][FAULT])
    }
}

/// Counts rows, and those of others twice.
#[derive(Default)]
struct MergedTwice(u64);

impl Metric for MergedTwice {
    const NAME: &'static CStr = c"merged-twice";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self::default())
    }

    fn update(&mut self, outputs: &Map, _: &Map) -> Result<()> {
        self.0 += outputs.get("logits")?.extent(0)? as u64;
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        Ok(Json::from_iter([("rows".to_owned(), json!(self.0))]))
    }

    fn save(&self, stream: &mut Stream) -> Result<()> {
        stream.write_u64(self.0)
    }

    fn merge(&mut self, stream: &mut Stream) -> Result<()> {
        self.0 += 2 * stream.read_u64()?;
        Ok(())
    }
}

/// An app of texts that breaks one promise.
struct Odd<const FAULT: usize>;

const ODD: [&CStr; 4] = [c"no-rows", c"own-record", c"few-parts", c"empty-finish"];

impl<const FAULT: usize> App for Odd<FAULT> {
    const NAME: &'static CStr = ODD[FAULT];
    type Options = NoOptions;

    fn new(_: NoOptions, _: Option<Value>) -> Result<Self> {
        Ok(Self)
    }
    fn columns(&self) -> Vec<Column> {
        let text = || "text".to_owned();
        vec![Column { role: text(), names: vec![text()], required: true, target: false }]
    }
    fn observe(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }
    fn observed(&mut self) -> Result<()> {
        Ok(())
    }
    fn state(&self) -> Result<Value> {
        Ok(json!({}))
    }
    fn info(&self) -> AppInfo {
        AppInfo { finish: FAULT == 3, ..AppInfo::default() }
    }
    fn features(
        &self,
        _: &mut Context<'_>,
        tokenizer: &Tokenizer,
        record: &Record,
        rows: &mut Rows,
    ) -> Result<()> {
        let Some(text) = record.get("text").and_then(Value::as_str) else {
            return Err(Error::record("text", "a text", "nothing"));
        };
        if FAULT == 0 {
            return Ok(());
        }
        let mut row = rows.add()?;
        if FAULT == 1 {
            row.put_i64("record", &[7])?;
        }
        row.put_tokens("ids", tokenizer.encode(text, None, 0)?.ids())
    }
    fn build(&mut self, _: &Scope, _: &ModelInfo) -> Result<()> {
        Ok(())
    }
    fn decode(&self, batch: &Map, _: &Map) -> Result<Vec<Record>> {
        let rows = batch.get("starts")?.len() - 1 - usize::from(FAULT == 2);
        Ok(vec![Record::from_iter([("value".to_owned(), json!(1))]); rows])
    }
    fn finish(&self, _: &Record, _: Vec<Record>) -> Result<Record> {
        Ok(Record::new())
    }
}

easytransfer::plugin::export! {
    id: "all-wrong",
    losses: [HalfHidden, Drifting, Aside<0>, Aside<1>, Aside<2>],
    optimizers: [Backwards],
    apps: [Odd<0>, Odd<1>, Odd<2>, Odd<3>],
    metrics: [MeanOfMeans, MergedTwice],
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
    let backwards = failures("optimizer backwards");
    for part in [
        "a quadratic falls",
        "frozen parameters stay as they are",
        "a state that was cut off is refused",
        "a parameter's own rate (lr_scale) multiplies the rate",
    ] {
        assert!(backwards.contains(&part), "{part}: {}", wrong());
    }
    let means = failures("metric mean-of-means");
    assert!(means[0].ends_with("several batches count as one"), "{}", wrong());
    let said = wrong().to_string();
    assert!(said.contains("FAILED: element 0: expected"), "{said}");
    let passed = wrong().lines.iter().any(|line| line.verdict == Verdict::Passed);
    assert!(passed, "{said}");
}

/// What a failed check of a component says.
fn said(component: &str, check: &str) -> &'static str {
    let line = wrong().lines.iter().find(|line| line.component == component && line.check == check);
    match line.map(|line| &line.verdict) {
        Some(Verdict::Failed(found)) => found,
        other => panic!("{component}: {check}: {other:?}\n{}", wrong()),
    }
}

#[test]
fn losses_whose_rows_or_weight_are_of_something_else_are_found() {
    for form in ["classes (F64)", "numbers (F64)"] {
        let rows = format!("{form}: the value is the mean of its rows");
        assert!(said("loss rows-aside", &rows).contains("mean of `rows`: expected"));
        let weight = format!("{form}: parts weighed by `weight` are the whole");
        for (loss, found) in [("weight-negative", "-1"), ("weight-nan", "NaN")] {
            let expected = format!("weight: expected a number from 0, found {found}");
            let said = said(&format!("loss {loss}"), &weight);
            assert!(said.contains(&expected), "{said}");
        }
    }
    let merged = "classes: parts counted apart and merged are the whole";
    assert!(
        said("metric merged-twice", merged).contains("rows: 12 in one batch, Some(Number(19))")
    );
}

#[test]
fn apps_that_break_a_promise_are_found() {
    let predictions = "answers every record with one prediction";
    let joined = "joins the rows of a record into one prediction";
    for (app, check, found) in [
        ("no-rows", predictions, "features: expected at least one row, found none"),
        ("own-record", predictions, "the field \"record\" is the host's to fill"),
        ("few-parts", predictions, "expected 4, found 3"),
        ("empty-finish", joined, "the prediction is empty"),
    ] {
        let said = said(&format!("app {app}"), check);
        assert!(said.contains(found), "{said}");
    }
}
