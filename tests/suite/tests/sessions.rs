//! What strategies can ask of a session: modules, parts of models, sources by name, columns of their own, and the
//! step.

use std::ffi::CStr;
use std::path::PathBuf;

use easytransfer::TrainJob;
use easytransfer::plugin::{
    ColumnKind, Error, ExtraColumn, Init, LogLevel, MODEL, Map, ModuleSpec, Phases, Result,
    Session, Strategy, log,
};
use easytransfer::train::options;
use easytransfer_tests::command::Place;
use easytransfer_tests::linked;
use serde::Deserialize;
use serde_json::{Map as Json, Value, json};

/// Fails with the place where something is not as it should be.
macro_rules! ensure {
    ($condition:expr, $($found:expr),*) => {
        let holds: bool = $condition;
        if !holds {
            let found = [$(format!("{:?}", $found)),*].join(", ");
            return Err(Error::invalid(format!("{}: {found}", stringify!($condition))));
        }
    };
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Which {
    which: String,
    path: String,
}

const WHICH: &CStr =
    cr#"{"type":"object","properties":{"which":{"type":"string"},"path":{"type":"string"}}}"#;

/// A strategy that drives the fit in one of several ways.
struct Driver(Which);

impl Driver {
    fn is(&self, which: &str) -> bool {
        self.0.which == which
    }
}

impl Strategy for Driver {
    const NAME: &'static CStr = c"driver";
    const SCHEMA: &'static CStr = WHICH;
    type Options = Which;

    fn new(options: Which) -> Result<Self> {
        Ok(Self(options))
    }

    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::FIT
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        session.set_total_steps(12)?;
        if self.is("student") {
            let spec = ModuleSpec { model: MODEL, head: true, copy: true, ..ModuleSpec::default() };
            session.module("student", &spec)?;
            session.keep("student")?;
        }
        Ok(())
    }

    fn fit(&mut self, session: &mut Session<'_>) -> Result<()> {
        let parts = if self.is("parts") {
            let model = session.params(MODEL)?;
            let encoder = model.part(&["embeddings.*", "encoder.*", "pooler.*"])?;
            let head = model.part(&["classifier.*"])?;
            ensure!(encoder.len() + head.len() == model.len(), encoder.len(), head.len());
            drop(model);
            let mut open = |part| session.optimizer_over("adamw", &json!({}), part);
            vec![open(&head)?, open(&encoder)?]
        } else if self.is("whole") {
            vec![session.optimizer("adamw", &json!({}), MODEL)?]
        } else {
            Vec::new()
        };
        loop {
            if parts.is_empty() {
                session.step_once("train")?;
            } else {
                let batch = session.next_batch("train")?;
                let outputs = session.forward(MODEL, &batch, true, 0)?;
                let loss = session.loss(&outputs, &batch)?;
                session.backward(&loss)?;
                for &part in &parts {
                    session.optimizer_step(part, session.lr())?;
                }
            }
            if self.is("student") {
                let teacher = session.params(MODEL)?.clone();
                session.params("student")?.copy_from(&teacher)?;
                let own = session.evaluate(MODEL, "more", 16)?;
                let students = session.evaluate("student", "more", 16)?;
                ensure!(own == students, own, students);
            }
            if !session.commit(&[], |_| Ok(()))? {
                return Ok(());
            }
        }
    }
}

/// A strategy of hooks that looks at sources and columns, and checks what it sees.
struct Looks(Which);

impl Strategy for Looks {
    const NAME: &'static CStr = c"looks";
    const SCHEMA: &'static CStr = WHICH;
    type Options = Which;

    fn new(options: Which) -> Result<Self> {
        Ok(Self(options))
    }

    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::OUTPUTS
    }

    fn columns(&self) -> Vec<ExtraColumn> {
        let column = |role: &str, kind| ExtraColumn {
            role: role.to_owned(),
            names: vec![role.to_owned()],
            required: false,
            kind,
        };
        vec![column("domain", ColumnKind::Category), column("share", ColumnKind::Number)]
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        let refused = |what: &str, result: Result<()>| match result {
            Ok(()) => Err(Error::invalid(format!("{what}: expected a refusal"))),
            Err(error) => {
                log(LogLevel::Info, "looks", error.message());
                Ok(error.message().to_owned())
            }
        };
        let bare = ModuleSpec::default();
        let scope = session.module("bare", &bare)?;
        scope.param("weight", &[3], Init::Zeros)?;
        for taken in ["bare", MODEL] {
            let said = refused("module", session.module(taken, &bare).map(drop))?;
            ensure!(said.contains("is taken"), said);
        }
        let said = refused("module", session.module("a/b", &bare).map(drop))?;
        ensure!(said.contains("without '/'"), said);
        let unknown = ModuleSpec { model: "no-such", ..ModuleSpec::default() };
        let said = refused("module", session.module("other", &unknown).map(drop))?;
        ensure!(said.contains("no-such"), said);
        let said = refused("keep", session.keep("bare"))?;
        ensure!(said.contains("a model and a head"), said);
        let said = refused("sources", session.sources().map(drop))?;
        ensure!(said.contains("only after on_setup"), said);
        let said = refused("commit", session.commit(&[], |_| Ok(())).map(drop))?;
        ensure!(said.contains("only in fit"), said);
        if !self.0.path.is_empty() {
            session.load_model("teacher", &self.0.path)?;
            let opened = session.optimizer("adamw", &json!({}), "teacher").map(drop);
            let said = refused("optimizer", opened)?;
            ensure!(said.contains("parameters that can be trained, found none"), said);
        }
        Ok(())
    }

    fn on_outputs(&mut self, session: &mut Session<'_>, batch: &Map, outputs: &Map) -> Result<()> {
        let sources = session.sources()?;
        let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        ensure!(names == ["train", "valid", "more"], names);
        let more = &sources[2];
        ensure!((more.domain.as_str(), more.weight) == ("films", 3.0), more);
        let domains = more.categories["domain"].clone();
        ensure!(domains == json!(["x", "y"]), domains);
        // Fields of columns are those of the records.
        let integers = |name| batch.get(name)?.to_vec::<i64>();
        let shares = batch.get("share")?.to_vec::<f32>()?;
        for ((record, domain), share) in
            integers("record")?.into_iter().zip(integers("domain")?).zip(shares)
        {
            let record = session.record("train", record as u64)?;
            let expected = domains[domain as usize].clone();
            ensure!(record["domain"] == expected, record, domain);
            let said = record["share"].as_str().and_then(|text| text.parse().ok());
            ensure!(said == Some(share), record, share);
        }
        let picked = session.records("more", &[5, 2, 5])?;
        let numbers = picked.get("record")?.to_vec::<i64>()?;
        ensure!(numbers == [5, 2, 5], numbers);
        let source = picked.get("source")?.to_vec::<i64>()?;
        ensure!(source == [2, 2, 2], source);
        ensure!(session.records("more", &[1 << 40]).is_err(), "beyond the last");
        ensure!(session.next_batch("mroe").is_err(), "no such source");
        // Three of four batches come from the source of weight three.
        let mut of_more = 0;
        for _ in 0..40 {
            let drawn = session.draw_batch(&["train", "more"], None)?;
            of_more += drawn.get("source")?.to_vec::<i64>()?[0] / 2;
        }
        ensure!((22..=38).contains(&of_more), of_more);
        ensure!(session.draw_batch(&["train"], Some(&[0.0])).is_err(), "no weight");
        let rows = session.loss_rows(outputs, batch)?.to_vec::<f32>()?;
        let mean = rows.iter().sum::<f32>() / rows.len() as f32;
        let loss = session.loss(outputs, batch)?.to_scalar()? as f32;
        ensure!((mean - loss).abs() < 1e-5, mean, loss);
        Ok(())
    }
}

/// Commits figures without making steps.
struct Figures;
impl Strategy for Figures {
    const NAME: &'static CStr = c"figures";
    type Options = Json<String, Value>;
    fn new(_: Self::Options) -> Result<Self> {
        Ok(Self)
    }
    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::FIT
    }
    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        session.set_total_steps(3)
    }
    fn fit(&mut self, session: &mut Session<'_>) -> Result<()> {
        loop {
            session.log_scalar("own/logged", session.step() as f64)?;
            let loss = 1.0 / (1.0 + session.step() as f64);
            if !session.commit(&[("loss", loss), ("given", 2.0 * loss)], |_| Ok(()))? {
                return Ok(());
            }
        }
    }
}

easytransfer::plugin::export! { id: "tl-sessions", strategies: [Driver, Looks, Figures] }

fn place(name: &str) -> Place {
    let place = Place::new(name);
    let text = place.read_text("train.tsv");
    let mut lines = text.lines();
    let mut with = format!("{}\tdomain\tshare\n", lines.next().unwrap());
    for (number, line) in lines.enumerate() {
        let domain = ["x", "y"][number * number % 3 % 2];
        with.push_str(&format!("{line}\t{domain}\t{}.5\n", number % 4));
    }
    place.write("train.tsv", with);
    place
}

fn job(place: &Place, output: &str, more: Value) -> TrainJob {
    let mut config = json!({"max_steps": 12, "lr": 1e-3, "log_every": 1, "batch": {"rows": 16},
        "source": {"more": {"path": place.at("dev.tsv"), "domain": "films", "weight": 3.0}}});
    options::merge(&mut config, more);
    TrainJob { valid: None, ..place.job("text-classify", output, config) }
}

fn runtime() -> easytransfer::Runtime {
    let runtime = linked::runtime();
    runtime.register_plugin(PluginRecord::get()).unwrap();
    runtime
}

fn driver(which: &str) -> Value {
    json!({"strategy": {"driver": {"which": which}}})
}

#[test]
fn a_driven_fit_by_the_trainers_own_step_is_the_ordinary_run() {
    let place = place("sessions-own-step");
    let runtime = runtime();
    let plain = runtime.train(job(&place, "plain", json!({}))).unwrap();
    let weights = |output| place.read(&format!("{output}/model.safetensors"));
    for which in ["own", "student"] {
        let driven = runtime.train(job(&place, which, driver(which))).unwrap();
        assert_eq!((driven.steps, driven.mean_loss), (plain.steps, plain.mean_loss), "{which}");
        assert!(weights(which) == weights("plain"), "{which}");
        assert_eq!(place.curve(which, "train/loss"), place.curve("plain", "train/loss"), "{which}");
        assert_eq!(place.curve(which, "train/lr"), place.curve("plain", "train/lr"), "{which}");
    }
    let report = place.read_text("student/report.html");
    assert!(report.contains("parameters of modules.student"), "the report lists modules");
    // What was kept is a whole bundle.
    let app = runtime.app(&place.at("student")).unwrap();
    drop(app);
}

#[test]
fn optimizers_over_the_parts_of_a_model_are_one_over_all_of_it() {
    let place = place("sessions-parts");
    let runtime = runtime();
    let of = |which: &str| {
        let mut more = driver(which);
        options::merge(&mut more, json!({"clip": 0.0}));
        runtime.train(job(&place, which, more)).unwrap();
        place.read(&format!("{which}/model.safetensors"))
    };
    assert!(of("parts") == of("whole"));
}

#[test]
fn sources_columns_and_modules_are_what_strategies_ask_for() {
    let place = place("sessions-looks");
    let runtime = runtime();
    runtime.train(job(&place, "teacher", json!({}))).unwrap();
    let path: PathBuf = place.at("teacher");
    let mut looks = job(&place, "looks", json!({"strategy": {"looks": {"path": path}}}));
    looks.valid = Some(place.at("dev.tsv").into());
    runtime.train(looks).unwrap_or_else(|error| panic!("{error}"));
    // A column whose value is none is the record's fault.
    let text = place.read_text("train.tsv").replacen(".5\n", ".many\n", 1);
    place.write("train.tsv", text);
    let bad = job(&place, "bad", json!({"strategy": {"looks": {}}}));
    let error = runtime.train(bad).unwrap_err().to_string();
    assert!(error.contains("line 2, column `share`: expected a number"), "{error}");
}

#[test]
fn figures_that_are_logged_and_committed_are_written() {
    let place = place("sessions-figures");
    let runtime = runtime();
    let result = runtime.train(job(&place, "out", json!({"strategy": {"figures": {}}}))).unwrap();
    assert_eq!(result.steps, 3);
    assert_eq!(place.curve("out", "train/loss"), [1.0, 0.5, 1.0 / 3.0]);
    assert_eq!(place.curve("out", "train/given"), [2.0, 1.0, 2.0 / 3.0]);
    assert_eq!(place.curve("out", "own/logged"), [0.0, 1.0, 2.0]);
}
