//! Components of the program itself, made by closures: a run is made of nothing else, what they captured is the
//! program's, and their mistakes are errors.

use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use easytransfer::plugin::abi::{
    ET_ERR_FAILED_PRECONDITION, ET_ERR_PANIC, ET_OPTIM_ADAM, ET_WANT_POOLED, et_optim_step,
};
use easytransfer::plugin::{
    Activation, App, AppInfo, Call, Choice, Column, Context, Embedding, Error, Init, Linear,
    LinearConfig, Loss, Map, Metric, Model, ModelInfo, NoOptions, OWN_PLUGIN, Optimizer, Params,
    Phases, Pool, Record, Result, Rows, Scope, Session, Strategy, Stream, Tensor, Tokenizer, nn,
    text_of,
};
use easytransfer::{Runtime, RuntimeOptions, TrainJob};
use easytransfer_tests::command::Place;
use easytransfer_tests::linked;
use serde_json::{Map as Json, Value, json};

/// A count that the program shares with its components.
type Count = Arc<AtomicUsize>;

fn one_more(count: &Count) -> usize {
    count.fetch_add(1, Ordering::Relaxed) + 1
}

fn of(count: &Count) -> usize {
    count.load(Ordering::Relaxed)
}

/// Cross entropy times a factor that the closure was given.
struct Counted {
    calls: Count,
    factor: f64,
    panics: bool,
}

impl Loss for Counted {
    const NAME: &'static CStr = c"counted";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"factor":{"type":"number","default":1.0}}}"#;
    type Options = NoOptions;

    fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        one_more(&self.calls);
        assert!(!self.panics, "the loss of the program");
        let labels = batch.get("labels")?;
        let loss = nn::cross_entropy(&outputs.get("logits")?, &labels, None, -100, 0.0)?;
        loss.affine(self.factor, 0.0)
    }
}

/// Word vectors whose mean is "pooled".
struct Bag {
    words: Embedding,
    rows: usize,
    size: usize,
}

impl Model for Bag {
    const NAME: &'static CStr = c"bag";
    const SCHEMA: &'static CStr = cr#"{"type":"object"}"#;
    type Config = NoOptions;

    fn info(&self) -> ModelInfo {
        ModelInfo {
            hidden_size: self.size,
            vocab_size: self.rows,
            max_positions: 512,
            pooled: true,
            depth: vec!["words".to_owned()],
            ..ModelInfo::default()
        }
    }

    fn forward(&mut self, _: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let last = self.words.forward(&batch.get("ids")?)?;
        outputs.put("pooled", &nn::pool(&last, &batch.get("starts")?, Pool::Mean)?)?;
        outputs.put("last", &last)
    }
}

/// A classifier whose labels the program knows.
struct Sorter {
    labels: Arc<Vec<String>>,
    state: Value,
    head: Option<Linear>,
}

impl App for Sorter {
    const NAME: &'static CStr = c"sorter";
    type Options = NoOptions;

    fn columns(&self) -> Vec<Column> {
        let column = |role: &str, names: &[&str], target| Column {
            role: role.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            required: true,
            target,
        };
        vec![column("text", &["text"], false), column("label", &["label"], true)]
    }

    fn observe(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }

    fn observed(&mut self) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(self.state.clone())
    }

    fn info(&self) -> AppInfo {
        AppInfo {
            loss: Some(Choice::new("cross-entropy")),
            metrics: vec![Choice::new("rows-seen")],
            best: "rows".to_owned(),
            want: ET_WANT_POOLED,
            labels: self.labels.to_vec(),
            ..AppInfo::default()
        }
    }

    fn features(
        &self,
        _: &mut Context<'_>,
        tokenizer: &Tokenizer,
        record: &Record,
        rows: &mut Rows,
    ) -> Result<()> {
        let text = text_of(record, "text")?.ok_or_else(|| Error::bad_input("no text"))?;
        let mut row = rows.add()?;
        row.put_tokens("ids", tokenizer.encode(&text, None, 64)?.ids())?;
        let Some(label) = text_of(record, "label")? else { return Ok(()) };
        let index = self.labels.iter().position(|known| *known == label);
        row.put_i64("labels", &[index.ok_or_else(|| Error::bad_input(label))? as i64])
    }

    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        let head = LinearConfig::new(model.hidden_size, self.labels.len());
        self.head = Some(head.init(&scope.child("head")?)?);
        Ok(())
    }

    fn head(&self, _: &Call<'_>, _: &Map, outputs: &mut Map) -> Result<()> {
        let head = self.head.as_ref().ok_or_else(|| Error::invalid("no head"))?;
        outputs.put("logits", &head.forward(&outputs.get("pooled")?, Activation::None)?)
    }

    fn decode(&self, _: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let best = outputs.get("logits")?.argmax(1)?.to_vec::<i64>()?;
        let answer = |best: i64| {
            Record::from_iter([("label".to_owned(), json!(self.labels[best as usize]))])
        };
        Ok(best.into_iter().map(answer).collect())
    }
}

/// Counts rows for the program and for the run.
struct RowsSeen(Count, usize);

impl Metric for RowsSeen {
    const NAME: &'static CStr = c"rows-seen";
    type Options = NoOptions;

    fn update(&mut self, _: &Map, batch: &Map) -> Result<()> {
        let rows = batch.get("labels")?.len();
        self.1 += rows;
        self.0.fetch_add(rows, Ordering::Relaxed);
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        Ok(Json::from_iter([("rows".to_owned(), json!(self.1))]))
    }
}

/// Adam by the engine's fused step, over a state that the closure made for the set.
struct Descent(Count, Map);

impl Optimizer for Descent {
    const NAME: &'static CStr = c"descent";
    type Options = NoOptions;

    fn step(&mut self, params: &mut Params, lr: f64, step: u64) -> Result<()> {
        one_more(&self.0);
        let step = et_optim_step {
            struct_size: size_of::<et_optim_step>(),
            kind: ET_OPTIM_ADAM,
            nesterov: 0,
            lr,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            momentum: 0.0,
            step,
            begin: 0,
            end: 0,
        };
        nn::optim_step(params, &mut self.1, &step)
    }

    fn save(&self, _: &mut Stream) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _: &mut Stream) -> Result<()> {
        Ok(())
    }
}

/// Hands the norm of the gradients of each step to the program.
struct Watches(Arc<Mutex<Vec<f64>>>);

impl Strategy for Watches {
    const NAME: &'static CStr = c"watches";
    type Options = NoOptions;

    fn phases(&self) -> Phases {
        Phases::GRADIENTS
    }

    fn on_gradients(&mut self, session: &mut Session<'_>) -> Result<()> {
        let norm = session.params("model")?.grad_norm()?;
        self.0.lock().unwrap().push(norm);
        Ok(())
    }
}

fn bare_runtime() -> Runtime {
    let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
    Runtime::new(options).unwrap()
}

/// Registers a [`Counted`] under a name, and answers with the counts of its makings and calls.
fn counted(runtime: &Runtime, name: &str) -> (Count, Count) {
    let (made, calls) = (Count::default(), Count::default());
    let shared = (made.clone(), calls.clone());
    let register = runtime.register_loss(name, move |options: &Value| {
        one_more(&shared.0);
        let factor = options["factor"].as_f64().unwrap_or(1.0);
        Ok(Counted { calls: shared.1.clone(), factor, panics: false })
    });
    register.unwrap();
    (made, calls)
}

fn job(place: &Place, app: &str, output: &str, config: Value) -> TrainJob {
    TrainJob { valid: None, ..place.job(app, output, config) }
}

#[test]
fn a_loss_with_captured_state_trains_as_that_of_a_plugin() {
    let place = Place::new("own-loss");
    let runtime = linked::runtime();
    let (made, calls) = counted(&runtime, "mine");
    let config =
        |loss: Value| json!({"max_steps": 5, "lr": 1e-3, "batch": {"rows": 8}, "loss": loss});
    let weights = |output: &str, loss| {
        runtime.train(job(&place, "text-classify", output, config(loss))).unwrap();
        place.read(&format!("{output}/model.safetensors"))
    };
    let own = weights("own", json!({"name": "mine"}));
    assert_eq!((of(&made), of(&calls)), (1, 5));
    assert!(own == weights("plugin", json!({"name": "cross-entropy"})));
    // Options arrive, those that the schema does not know are refused, and the nearest name is found.
    let twice = weights("twice", json!({"name": "mine", "factor": 100.0}));
    assert!(own != twice);
    let wrong = |loss| {
        let failed = runtime.train(job(&place, "text-classify", "wrong", config(loss)));
        failed.map(|_| ()).unwrap_err().to_string()
    };
    let error = wrong(json!({"name": "mine", "factr": 1.0}));
    assert!(error.contains("factr") && error.contains("factor"), "{error}");
    let error = wrong(json!({"name": "mina"}));
    assert!(error.contains("mina") && error.contains("\"mine\""), "{error}");
    // By itself.
    let mut loss = runtime.loss("mine", r#"{"factor": 2.0}"#).unwrap();
    let (mut outputs, mut batch) = (Map::new().unwrap(), Map::new().unwrap());
    outputs.put("logits", &Tensor::from_slice(&[0f32, 0.0], &[1, 2]).unwrap()).unwrap();
    batch.put("labels", &Tensor::from_slice(&[1i64], &[1]).unwrap()).unwrap();
    let value = loss.forward(&Call::inference(0), &outputs, &batch).unwrap().to_scalar().unwrap();
    assert!((value - 2.0 * 2f64.ln()).abs() < 1e-6, "{value}");
}

#[test]
fn a_run_is_made_of_the_programs_own_components_alone() {
    let place = Place::new("own-everything");
    place.write("encoder/config.json", r#"{"model_type": "bag", "rows": 30522, "size": 16}"#);
    let text = place.read_text("train.tsv");
    let labels = text.lines().skip(1).filter_map(|line| line.split('\t').nth(1));
    let mut labels: Vec<String> = labels.map(str::to_owned).collect();
    labels.sort();
    labels.dedup();
    let labels = Arc::new(labels);
    let norms: Arc<Mutex<Vec<f64>>> = Arc::default();
    let (steps, rows, states) = (Count::default(), Count::default(), Count::default());

    let register = |runtime: &Runtime| {
        let (labels, norms) = (labels.clone(), norms.clone());
        let (steps, rows, states) = (steps.clone(), rows.clone(), states.clone());
        runtime
            .register_model("bag", |config: &Value, scope: &Scope| {
                let number = |key: &str| config[key].as_u64().unwrap() as usize;
                let (rows, size) = (number("rows"), number("size"));
                let words = scope.child("words")?;
                let words = Embedding::new(&words, rows, size, Init::Normal(0.0, 0.1))?;
                Ok(Bag { words, rows, size })
            })
            .unwrap();
        runtime
            .register_app("sorter", move |_: &Value, state: Option<&Value>| {
                if let Some(state) = state {
                    assert_eq!(state["said"], json!("in training"));
                    one_more(&states);
                }
                let state = json!({"said": "in training"});
                Ok(Sorter { labels: labels.clone(), state, head: None })
            })
            .unwrap();
        runtime.register_metric("rows-seen", move |_| Ok(RowsSeen(rows.clone(), 0))).unwrap();
        runtime
            .register_optimizer("descent", move |_: &Value, params: &Params| {
                assert!(params.arena_len() > 0, "the set is sealed");
                Ok(Descent(steps.clone(), nn::optim_state(params, ET_OPTIM_ADAM)?))
            })
            .unwrap();
        runtime.register_strategy("watches", move |_| Ok(Watches(norms.clone()))).unwrap();
    };
    let runtime = bare_runtime();
    register(&runtime);
    let (_, calls) = counted(&runtime, "mine");
    let config = json!({
        "max_steps": 60, "lr": 0.02, "batch": {"rows": 16}, "log_every": 1,
        "loss": {"name": "mine"}, "optimizer": {"name": "descent"}, "strategy": {"watches": {}},
    });
    let result = runtime.train(place.job("sorter", "out", config)).unwrap();
    assert_eq!(result.steps, 60);
    assert_eq!(of(&steps), 60);
    assert!(of(&calls) >= 60, "evaluation calls the loss, too");
    let norms = norms.lock().unwrap().clone();
    assert!(norms.len() == 60 && norms.iter().all(|norm| *norm > 0.0), "{norms:?}");
    assert!(of(&rows) > 0 && result.metrics["rows"].as_u64().is_some_and(|seen| seen > 0));
    let curve = place.curve("out", "train/loss");
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&curve[50..]) < mean(&curve[..10]), "{curve:?}");
    // The bundle is of the program's components; a program that has them reads it, another one says what it lacks.
    assert_eq!(place.read_json("out/easytransfer.json")["model"]["plugin"], json!(OWN_PLUGIN));
    let one_text = |runtime: &Runtime| -> std::result::Result<String, String> {
        let app = runtime.app(&place.at("out")).map_err(|error| error.to_string())?;
        app.predict_json(r#"["hello"]"#).map_err(|error| error.to_string())
    };
    let first = one_text(&runtime).unwrap();
    assert_eq!(of(&states), 1);
    let other = bare_runtime();
    let error = one_text(&other).unwrap_err();
    assert!(error.contains("sorter"), "{error}");
    register(&other);
    assert_eq!(one_text(&other).unwrap(), first);

    let listed = runtime.plugins();
    let own = listed.iter().find(|plugin| plugin.id == OWN_PLUGIN).unwrap();
    let names: Vec<&str> = own.provides.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["bag", "mine", "descent", "watches", "sorter", "rows-seen"]);
}

#[test]
fn panics_and_errors_of_the_programs_own_code_are_errors() {
    let place = Place::new("own-panics");
    let runtime = linked::runtime();
    runtime
        .register_loss("fragile", |options: &Value| {
            let calls = Count::default();
            Ok(Counted { calls, factor: options["factor"].as_f64().unwrap_or(1.0), panics: true })
        })
        .unwrap();
    let stillborn = |_: &Value| -> Result<Counted> { panic!("not made") };
    runtime.register_loss("stillborn", stillborn).unwrap();
    let refuses = |_: &Value| -> Result<Counted> { Err(Error::bad_input("not today")) };
    runtime.register_loss("refuses", refuses).unwrap();
    let config = |name: &str| json!({"max_steps": 2, "loss": {"name": name}});
    for (name, words) in [
        ("fragile", "the loss of the program"),
        ("stillborn", "not made"),
        ("refuses", "not today"),
    ] {
        let failed = runtime.train(job(&place, "text-classify", name, config(name)));
        let error = failed.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(error.contains(name) && error.contains(OWN_PLUGIN), "{error}");
    }
    let (outputs, batch) = (Map::new().unwrap(), Map::new().unwrap());
    let mut loss = runtime.loss("fragile", "").unwrap();
    let mut code =
        || loss.forward(&Call::inference(0), &outputs, &batch).map(|_| ()).unwrap_err().code();
    assert_eq!((code(), code()), (ET_ERR_PANIC, ET_ERR_FAILED_PRECONDITION));
    // Nothing is broken: the same runtime trains.
    runtime.train(job(&place, "text-classify", "good", config("cross-entropy"))).unwrap();
}

#[test]
fn a_name_has_one_owner() {
    let runtime = linked::runtime();
    let calls = Count::default();
    let register = |runtime: &Runtime, name: &str| {
        let calls = calls.clone();
        let make =
            move |_: &Value| Ok(Counted { calls: calls.clone(), factor: 1.0, panics: false });
        runtime.register_loss(name, make).map_err(|error| error.to_string())
    };
    let error = register(&runtime, "cross-entropy").unwrap_err();
    assert!(error.contains("cross-entropy") && error.contains("loss-basic"), "{error}");
    register(&runtime, "mine").unwrap();
    let error = register(&runtime, "mine").unwrap_err();
    assert!(error.contains("\"mine\" is registered already"), "{error}");
    for bad in ["", "two words", "a\nb", "a/b"] {
        let error = register(&runtime, bad).unwrap_err();
        assert!(error.contains("a text without spaces and slashes"), "{error}");
    }
    // The same name in another kind is another component.
    runtime.register_metric("mine", move |_| Ok(RowsSeen(Count::default(), 0))).unwrap();
    assert!(runtime.metric("mine", "").is_ok());

    // A plugin that comes later does not take the name either.
    let later = bare_runtime();
    register(&later, "mse").unwrap();
    let plugin = linked::loss_basic::PluginRecord::get();
    let error = later.register_plugin(plugin).unwrap_err().to_string();
    assert!(error.contains("mse") && error.contains("the program itself provides it"), "{error}");
    assert!(later.loss("mse", "").is_ok());
    assert!(later.loss("cross-entropy", "").is_err());
}
