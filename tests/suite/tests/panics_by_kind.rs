//! A panic in any callback of any kind of component is an error that names plugin and callback; the process lives,
//! the instance is refused afterwards, and nothing that it held stays behind.

use easytransfer::plugin::abi::{ET_ERR_FAILED_PRECONDITION, ET_ERR_PANIC};
use easytransfer::plugin::{
    App, AppInfo, Asked, Call, Column, Context, Error, ExtraColumn, InputView, LoadedApp,
    LoadedLoss, LoadedMetric, LoadedModel, LoadedOptimizer, LoadedStrategy, Loss, Map, Metric,
    MetricInfo, Model, ModelInfo, NetHost, Op, Optimizer, OutputSpec, OutputView, Params, Phases,
    Record, Result, Rows, Scope, Session, Strategy, Stream, Tensor, Tokenizer, apply, live_handles,
};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_tests::no_trainer::NoTrainer;
use easytransfer_tests::places;
use serde::Deserialize;
use serde_json::{Map as Json, Value, json};
use std::ffi::CStr;
use std::sync::Mutex;

/// Where to panic.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    at: String,
}

/// A part of every component here: holds a handle, and panics in the callback that was asked for.
struct Fragile {
    at: String,
    _held: Tensor,
}

impl Fragile {
    fn new(options: At) -> Result<Self> {
        let made = Self { at: options.at, _held: Tensor::scalar(1.0)? };
        made.reach("create");
        Ok(made)
    }

    fn reach(&self, callback: &str) {
        assert!(self.at != callback, "broken on purpose in {callback}");
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.reach("release");
    }
}

const SCHEMA: &CStr = c"{\"type\":\"object\"}";

struct FragileModel(Fragile);
impl Model for FragileModel {
    const NAME: &'static CStr = c"fragile-model";
    const SCHEMA: &'static CStr = SCHEMA;
    type Config = At;
    fn new(config: At, scope: &Scope) -> Result<Self> {
        let _declared = scope.child("layer")?;
        Ok(Self(Fragile::new(config)?))
    }
    fn info(&self) -> ModelInfo {
        self.0.reach("describe");
        ModelInfo::default()
    }
    fn forward(&mut self, _: &Call<'_>, _: &Map, outputs: &mut Map) -> Result<()> {
        outputs.put("last", &Tensor::scalar(2.0)?)?;
        self.0.reach("forward");
        Ok(())
    }
}

struct FragileLoss(Fragile);
impl Loss for FragileLoss {
    const NAME: &'static CStr = c"fragile-loss";
    const SCHEMA: &'static CStr = SCHEMA;
    type Options = At;
    fn new(options: At) -> Result<Self> {
        Ok(Self(Fragile::new(options)?))
    }
    fn forward(&mut self, _: &Call<'_>, _: &Map, _: &Map) -> Result<Tensor> {
        let loss = Tensor::scalar(1.0)?;
        self.0.reach("forward");
        Ok(loss)
    }
    fn rows(&mut self, _: &Call<'_>, _: &Map, _: &Map) -> Result<Tensor> {
        let loss = Tensor::scalar(1.0)?;
        self.0.reach("rows");
        Ok(loss)
    }
    fn weight(&mut self, _: &Map) -> Result<f64> {
        self.0.reach("weight");
        Ok(1.0)
    }
}

struct FragileOptimizer(Fragile);
impl Optimizer for FragileOptimizer {
    const NAME: &'static CStr = c"fragile-optimizer";
    const SCHEMA: &'static CStr = SCHEMA;
    type Options = At;
    fn new(options: At, _: &Params) -> Result<Self> {
        Ok(Self(Fragile::new(options)?))
    }
    fn step(&mut self, _: &mut Params, _: f64, _: u64) -> Result<()> {
        self.0.reach("step");
        Ok(())
    }
    fn save(&self, _: &mut Stream) -> Result<()> {
        self.0.reach("state_save");
        Ok(())
    }
    fn load(&mut self, _: &mut Stream) -> Result<()> {
        self.0.reach("state_load");
        Ok(())
    }
}

struct FragileMetric(Fragile);
impl Metric for FragileMetric {
    const NAME: &'static CStr = c"fragile-metric";
    const SCHEMA: &'static CStr = SCHEMA;
    type Options = At;
    fn new(options: At) -> Result<Self> {
        Ok(Self(Fragile::new(options)?))
    }
    fn update(&mut self, outputs: &Map, _: &Map) -> Result<()> {
        let _held = outputs.get("logits")?;
        self.0.reach("update");
        Ok(())
    }
    fn compute(&self) -> Result<Json<String, Value>> {
        self.0.reach("compute");
        Ok(Json::new())
    }
    fn info(&self) -> MetricInfo {
        self.0.reach("describe");
        MetricInfo::default()
    }
    fn answers(&mut self, _: &[Record], _: &[Record]) -> Result<()> {
        self.0.reach("answers");
        Ok(())
    }
    fn save(&self, _: &mut Stream) -> Result<()> {
        self.0.reach("state_save");
        Ok(())
    }
    fn merge(&mut self, _: &mut Stream) -> Result<()> {
        self.0.reach("state_merge");
        Ok(())
    }
}

struct FragileStrategy(Fragile);
impl Strategy for FragileStrategy {
    const NAME: &'static CStr = c"fragile-strategy";
    const SCHEMA: &'static CStr = SCHEMA;
    type Options = At;
    fn new(options: At) -> Result<Self> {
        Ok(Self(Fragile::new(options)?))
    }
    fn phases(&self) -> Phases {
        self.0.reach("phases");
        Phases::SETUP
    }
    fn on_setup(&mut self, _: &mut Session<'_>) -> Result<()> {
        self.0.reach("on_setup");
        Ok(())
    }
    fn on_batch(&mut self, _: &mut Session<'_>, batch: &mut Map) -> Result<()> {
        batch.put("weights", &Tensor::scalar(1.0)?)?;
        self.0.reach("on_batch");
        Ok(())
    }
    fn on_outputs(&mut self, _: &mut Session<'_>, _: &Map, outputs: &Map) -> Result<()> {
        let _held = outputs.get("logits")?;
        self.0.reach("on_outputs");
        Ok(())
    }
    fn combine(&mut self, _: &mut Session<'_>, losses: &Map) -> Result<Tensor> {
        let loss = losses.get("logits")?;
        self.0.reach("combine");
        Ok(loss)
    }
    fn on_gradients(&mut self, _: &mut Session<'_>) -> Result<()> {
        self.0.reach("on_gradients");
        Ok(())
    }
    fn on_epoch(&mut self, _: &mut Session<'_>, _: u64, _: &Json<String, Value>) -> Result<()> {
        self.0.reach("on_epoch");
        Ok(())
    }
    fn columns(&self) -> Vec<ExtraColumn> {
        self.0.reach("columns");
        Vec::new()
    }
    fn fit(&mut self, session: &mut Session<'_>) -> Result<()> {
        assert_eq!(session.total_steps(), 7);
        self.0.reach("fit");
        Ok(())
    }
    fn save(&self, _: &mut Stream) -> Result<()> {
        self.0.reach("state_save");
        Ok(())
    }
    fn load(&mut self, _: &mut Stream) -> Result<()> {
        self.0.reach("state_load");
        Ok(())
    }
}

struct FragileApp(Fragile);
impl App for FragileApp {
    const NAME: &'static CStr = c"fragile-app";
    const SCHEMA: &'static CStr = SCHEMA;
    type Options = At;
    fn new(options: At, _: Option<Value>) -> Result<Self> {
        Ok(Self(Fragile::new(options)?))
    }
    fn columns(&self) -> Vec<Column> {
        self.0.reach("columns");
        Vec::new()
    }
    fn observe(&mut self, _: &Record) -> Result<()> {
        self.0.reach("observe");
        Ok(())
    }
    fn observed(&mut self) -> Result<()> {
        self.0.reach("observed");
        Ok(())
    }
    fn state(&self) -> Result<Value> {
        self.0.reach("state");
        Ok(json!({}))
    }
    fn info(&self) -> AppInfo {
        self.0.reach("describe");
        AppInfo::default()
    }
    fn features(
        &self,
        _: &mut Context<'_>,
        tokenizer: &Tokenizer,
        _: &Record,
        rows: &mut Rows,
    ) -> Result<()> {
        let mut row = rows.add()?;
        row.put_tokens("ids", tokenizer.encode("hello", None, 8)?.ids())?;
        self.0.reach("features");
        Ok(())
    }
    fn build(&mut self, scope: &Scope, _: &ModelInfo) -> Result<()> {
        let _declared = scope.child("classifier")?;
        self.0.reach("build");
        Ok(())
    }
    fn head(&self, _: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        outputs.put("extra", &batch.get("logits")?)?;
        self.0.reach("forward");
        Ok(())
    }
    fn decode(&self, _: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let _held = outputs.get("logits")?;
        self.0.reach("decode");
        Ok(Vec::new())
    }
    fn finish(&self, _: &Record, parts: Vec<Record>) -> Result<Record> {
        self.0.reach("finish");
        Ok(parts.into_iter().next().unwrap_or_default())
    }
}

easytransfer::plugin::export! {
    id: "all-fragile",
    models: [FragileModel],
    losses: [FragileLoss],
    optimizers: [FragileOptimizer],
    strategies: [FragileStrategy],
    apps: [FragileApp],
    metrics: [FragileMetric],
}

/// A net whose encoder computes nothing.
struct NoModel;

impl NetHost for NoModel {
    fn run(&mut self, _: &str, _: &Call<'_>, _: &Map, _: &mut Map) -> Result<()> {
        Ok(())
    }
    fn param(&mut self, name: &str) -> Result<Tensor> {
        Err(Error::invalid(name))
    }
}

/// The tests count live handles, so they run one after the other.
static ONE: Mutex<()> = Mutex::new(());

fn runtime() -> Runtime {
    let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
    let runtime = Runtime::new(options).unwrap();
    runtime.register_plugin(PluginRecord::get()).unwrap();
    runtime
}

/// Makes an instance that panics in `at`, runs `call`, and checks what came out of it; then again, which must be
/// refused without running anything.
fn expect_panic<T>(
    runtime: &Runtime,
    kind: &str,
    at: &str,
    make: impl Fn(&easytransfer::plugin::ComponentRef, &str) -> Result<T>,
    call: impl Fn(&mut T) -> Result<()>,
) {
    let before = live_handles();
    let component =
        runtime.components().find(&format!("et.{kind}/1"), &format!("fragile-{kind}")).unwrap();
    let options = json!({ "at": at }).to_string();
    let check = |error: Error| {
        assert_eq!(error.code(), ET_ERR_PANIC, "{kind}.{at}: {error}");
        let text = error.message();
        for part in [
            &format!("{kind} fragile-{kind} (plugin all-fragile 0.1.0): {at}: panic"),
            "on purpose",
        ] {
            assert!(text.contains(part), "{kind}.{at}: {text:?} lacks {part:?}");
        }
    };
    match make(&component, &options) {
        Err(error) => check(error),
        Ok(mut instance) => {
            check(call(&mut instance).expect_err("the callback panics"));
            let again = call(&mut instance).expect_err("the instance is poisoned");
            assert_eq!(again.code(), ET_ERR_FAILED_PRECONDITION, "{kind}.{at}: {again}");
        }
    }
    assert_eq!(live_handles(), before, "{kind}.{at} left handles behind");
    // The same component works where it is not asked to panic.
    let whole = json!({ "at": "" }).to_string();
    let mut instance = make(&component, &whole).unwrap();
    call(&mut instance).unwrap_or_else(|error| panic!("{kind}.{at} without a panic: {error}"));
    drop(instance);
    assert_eq!(live_handles(), before, "{kind}.{at} left handles behind");
}

fn logits() -> Map {
    let mut map = Map::new().unwrap();
    map.put("logits", &Tensor::scalar(0.5).unwrap()).unwrap();
    map
}

#[test]
fn models_losses_and_metrics_that_panic_are_errors() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let runtime = runtime();
    let start = live_handles();
    {
        let params = Params::new(1).unwrap();
        let (scope, batch) = (params.root().unwrap(), logits());
        let call = Call::inference(0);
        for at in ["create", "describe", "forward"] {
            let make =
                |component: &_, options: &str| LoadedModel::create(component, options, &scope);
            expect_panic(&runtime, "model", at, make, |model| {
                model.forward(&call, &batch, &mut Map::new()?)
            });
        }
        for at in ["create", "forward", "rows", "weight"] {
            expect_panic(&runtime, "loss", at, LoadedLoss::create, |loss| match at {
                "rows" => loss.rows(&call, &batch, &batch).map(|_| ()),
                "weight" => loss.weight(&batch).map(|_| ()),
                _ => loss.forward(&call, &batch, &batch).map(|_| ()),
            });
        }
        let slots =
            ["create", "describe", "update", "compute", "answers", "state_save", "state_merge"];
        for at in slots {
            expect_panic(&runtime, "metric", at, LoadedMetric::create, |metric| match at {
                "compute" => metric.compute().map(|_| ()),
                "answers" => metric.answers(&[], &[]),
                "state_save" => metric.save(&mut Stream::writer()?),
                "state_merge" => metric.merge(&mut Stream::reader(&[])?),
                _ => metric.update(&batch, &batch),
            });
        }
    }
    assert_eq!(live_handles(), start);
}

#[test]
fn optimizers_that_panic_are_errors() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let runtime = runtime();
    let start = live_handles();
    {
        let params = Mutex::new(Params::new(1).unwrap());
        let set = || params.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        set().seal().unwrap();
        for at in ["create", "step", "state_save", "state_load"] {
            let make =
                |component: &_, options: &str| LoadedOptimizer::create(component, options, &set());
            expect_panic(&runtime, "optimizer", at, make, |optimizer| match at {
                "state_save" => optimizer.save(&mut Stream::writer()?),
                "state_load" => optimizer.load(&mut Stream::reader(&[])?),
                _ => optimizer.step(&mut set(), 0.1, 1),
            });
        }
    }
    assert_eq!(live_handles(), start);
}

#[test]
fn strategies_that_panic_are_errors() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let runtime = runtime();
    let start = live_handles();
    let hooks = [
        "create",
        "on_setup",
        "on_batch",
        "on_outputs",
        "combine",
        "on_gradients",
        "on_epoch",
        "fit",
        "columns",
        "state_save",
        "state_load",
    ];
    for at in hooks {
        expect_panic(&runtime, "strategy", at, LoadedStrategy::create, |strategy| {
            let host = &mut NoTrainer;
            match at {
                "on_batch" => strategy.on_batch(host, &mut logits()),
                "on_outputs" => strategy.on_outputs(host, &logits(), &logits()),
                "combine" => strategy.combine(host, &logits()).map(|_| ()),
                "on_gradients" => strategy.on_gradients(host),
                "on_epoch" => strategy.on_epoch(host, 1, &Json::new()),
                "fit" => strategy.fit(host),
                "columns" => strategy.columns().map(|_| ()),
                "state_save" => strategy.save(&mut Stream::writer()?),
                "state_load" => strategy.load(&mut Stream::reader(&[])?),
                _ => strategy.on_setup(host),
            }
        });
    }
    assert_eq!(live_handles(), start);
}

#[test]
fn apps_that_panic_are_errors() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let runtime = runtime();
    let start = live_handles();
    {
        let encoder = places::root().join("hosts/demo/encoder");
        let tokenizer = Tokenizer::load(encoder.to_str().unwrap()).unwrap();
        let params = Params::new(1).unwrap();
        let (scope, batch) = (params.root().unwrap(), logits());
        let (call, record) = (Call::inference(0), Record::new());
        let callbacks = [
            "create", "columns", "observe", "observed", "state", "describe", "features", "build",
            "forward", "decode", "finish",
        ];
        for at in callbacks {
            let make = |component: &_, options: &str| LoadedApp::create(component, options, "");
            expect_panic(&runtime, "app", at, make, |app| match at {
                "columns" => app.columns().map(|_| ()),
                "observe" => app.observe(&record),
                "observed" => app.observed(),
                "state" => app.state().map(|_| ()),
                "describe" => app.info().map(|_| ()),
                "features" => app.features(&mut Asked::new(0), &tokenizer, &record).map(|_| ()),
                "build" => app.build(&scope, &ModelInfo::default()),
                "forward" => app.forward(&call, &mut NoModel, &batch, &mut Map::new()?),
                "finish" => app.finish(&record, vec![record.clone()]).map(|_| ()),
                _ => app.decode(&batch, &batch).map(|_| ()),
            });
        }
    }
    assert_eq!(live_handles(), start);
}

/// Slots that answer without an error: the log says what happened.
#[test]
fn panics_without_a_way_out_are_logged() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let runtime = runtime();
    let start = live_handles();
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    easytransfer_core::log::set_sink(Some(Box::new(|_, _, message| {
        LINES.lock().unwrap().push(message.to_owned());
    })))
    .unwrap();
    let find = |kind: &str| {
        runtime.components().find(&format!("et.{kind}/1"), &format!("fragile-{kind}")).unwrap()
    };
    let release = r#"{"at":"release"}"#;
    drop(LoadedLoss::create(&find("loss"), release).unwrap());
    drop(LoadedMetric::create(&find("metric"), release).unwrap());
    drop(LoadedStrategy::create(&find("strategy"), release).unwrap());
    drop(LoadedApp::create(&find("app"), release, "").unwrap());
    let refused = LoadedStrategy::create(&find("strategy"), r#"{"at":"phases"}"#).map(|_| ());
    easytransfer_core::log::set_sink(None).unwrap();
    let refused = refused.expect_err("no hook is known").to_string();
    assert!(
        refused.contains("strategy fragile-strategy (plugin all-fragile 0.1.0): phases"),
        "{refused}"
    );
    let lines = LINES.lock().unwrap();
    for part in [
        "FragileLoss, release",
        "FragileMetric, release",
        "FragileStrategy, release",
        "FragileApp, release",
        "FragileStrategy, phases",
    ] {
        let found = lines.iter().any(|line| line.contains(part) && line.contains("on purpose"));
        assert!(found, "no line has {part:?}: {lines:?}");
    }
    assert_eq!(live_handles(), start, "a panic in release left handles behind");
}

/// Panics in the callback that its field names.
struct FragileOp(&'static str);
impl FragileOp {
    fn reach(&self, callback: &str) {
        assert!(self.0 != callback, "broken on purpose in {callback}");
    }
}
impl Op for FragileOp {
    const NAME: &'static CStr = c"fragile-op";
    const INPUTS: usize = 1;
    const OUTPUTS: usize = 1;
    fn infer(&self, inputs: &[OutputSpec]) -> Result<Vec<OutputSpec>> {
        self.reach("infer");
        Ok(inputs.to_vec())
    }
    fn forward(&self, inputs: &[InputView<'_>], outputs: &mut [OutputView<'_>]) -> Result<()> {
        outputs[0].as_mut_slice::<f32>()?.copy_from_slice(inputs[0].as_slice::<f32>()?);
        self.reach("forward");
        Ok(())
    }
    fn backward(
        &self,
        _: &[&Tensor],
        _: &[&Tensor],
        output_grads: &[Option<&Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let grads = output_grads.iter().map(|grad| grad.cloned()).collect();
        self.reach("backward");
        Ok(grads)
    }
}

#[test]
fn operations_that_panic_are_errors() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _runtime = runtime();
    let start = live_handles();
    static OPS: [FragileOp; 4] =
        [FragileOp("infer"), FragileOp("forward"), FragileOp("backward"), FragileOp("")];
    for op in &OPS {
        let run = || -> Result<f64> {
            let x = Tensor::from_slice(&[1.0f32, 2.0], &[2])?.leaf()?;
            apply(op, &[&x])?[0].sum(&[], false)?.backward()?;
            x.leaf_grad()?.map_or(Ok(0.0), |grad| grad.sum(&[], false)?.to_scalar())
        };
        match (op.0, run()) {
            ("", sum) => assert_eq!(sum.unwrap(), 2.0),
            (callback, result) => {
                let error = result.expect_err(callback);
                assert_eq!(error.code(), ET_ERR_PANIC, "{error}");
                let text = error.message();
                assert!(text.contains("fragile-op") && text.contains(callback), "{text}");
                assert!(text.contains("on purpose"), "{text}");
            }
        }
        assert_eq!(live_handles(), start, "{} left handles behind", op.0);
    }
}
