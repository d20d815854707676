//! Whose component a name means in a run and in a bundle, metrics of any plugin, and messages about components that
//! fail: which plugin, which component, which slot, and how.

use std::ffi::CStr;

use easytransfer::plugin::{
    Call, Loss, Map, Metric, MetricInfo, NoOptions, Optimizer, Params, Result, Stream, Tensor, nn,
};
use easytransfer::{
    AppOptions, DataSource, Event, Named, PluginChoice, Runtime, RuntimeOptions, Watch,
};
use easytransfer_tests::command::Place;
use easytransfer_tests::linked;
use serde::Deserialize;
use serde_json::{Map as Json, Value, json};

/// A loss under the name of a stock one, a metric, and components that go wrong as they are told.
mod rival {
    use super::*;

    pub struct CrossEntropy;
    impl Loss for CrossEntropy {
        const NAME: &'static CStr = c"cross-entropy";
        type Options = NoOptions;
        fn new(_: NoOptions) -> Result<Self> {
            Ok(Self)
        }
        fn rows(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
            let labels = batch.get("labels")?;
            let places = labels.reshape(&[labels.len(), 1])?;
            let log_p = nn::log_softmax(&outputs.get("logits")?)?.gather(1, &places)?;
            log_p.neg()?.reshape(&[labels.len()])
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Scaled {
        #[serde(default = "one")]
        scale: f64,
    }

    fn one() -> f64 {
        1.0
    }

    /// The part of the rows whose answer is wrong, times a scale.
    pub struct Errors {
        scale: f64,
        wrong: f64,
        rows: f64,
    }
    impl Metric for Errors {
        const NAME: &'static CStr = c"errors";
        const SCHEMA: &'static CStr =
            c"{\"type\":\"object\",\"properties\":{\"scale\":{\"type\":\"number\",\"default\":1}}}";
        type Options = Scaled;
        fn new(Scaled { scale }: Scaled) -> Result<Self> {
            Ok(Self { scale, wrong: 0.0, rows: 0.0 })
        }
        fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
            let logits = outputs.get("logits")?;
            let classes = logits.extent(1)?;
            let rows = logits.to_vec::<f32>()?;
            for (row, label) in
                rows.chunks_exact(classes).zip(batch.get("labels")?.to_vec::<i64>()?)
            {
                let best =
                    (1..classes).fold(0, |best, k| if row[k] > row[best] { k } else { best });
                self.wrong += f64::from(u8::from(best as i64 != label));
                self.rows += 1.0;
            }
            Ok(())
        }
        fn info(&self) -> MetricInfo {
            MetricInfo { lower_is_better: vec!["errors".to_owned()], ..MetricInfo::default() }
        }
        fn compute(&self) -> Result<Json<String, Value>> {
            Ok(Json::from_iter([("errors".to_owned(), json!(self.scale * self.wrong / self.rows))]))
        }
    }

    /// Has a figure of the app's.
    pub struct Accuracy;
    impl Metric for Accuracy {
        const NAME: &'static CStr = c"another-accuracy";
        type Options = NoOptions;
        fn new(_: NoOptions) -> Result<Self> {
            Ok(Self)
        }
        fn update(&mut self, _: &Map, _: &Map) -> Result<()> {
            Ok(())
        }
        fn compute(&self) -> Result<Json<String, Value>> {
            Ok(Json::from_iter([("accuracy".to_owned(), json!(1))]))
        }
    }

    /// A loss that is not what it should be.
    pub struct Wrong(String);
    #[derive(Deserialize)]
    pub struct How {
        how: String,
    }
    impl Loss for Wrong {
        const NAME: &'static CStr = c"wrong";
        const SCHEMA: &'static CStr =
            c"{\"type\":\"object\",\"properties\":{\"how\":{\"type\":\"string\"}}}";
        type Options = How;
        fn new(How { how }: How) -> Result<Self> {
            Ok(Self(how))
        }
        fn forward(&mut self, _: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
            let logits = outputs.get("logits")?;
            let sum = logits.sum(&[], false)?;
            match self.0.as_str() {
                "nan" => sum.affine(0.0, f64::NAN),
                "shape" => Ok(logits),
                "mismatch" => logits.add(&batch.get("labels")?.reshape(&[
                    1,
                    1,
                    batch.get("labels")?.len(),
                ])?),
                _ => Ok(sum),
            }
        }
    }

    /// Makes all parameters no numbers.
    pub struct Spoils;
    impl Optimizer for Spoils {
        const NAME: &'static CStr = c"spoils";
        type Options = NoOptions;
        fn new(_: NoOptions, _: &Params) -> Result<Self> {
            Ok(Self)
        }
        fn step(&mut self, params: &mut Params, _: f64, _: u64) -> Result<()> {
            for param in params.iter().filter(|param| param.is_trainable()) {
                let value = param.tensor()?;
                param.assign(&Tensor::full(f64::NAN, value.dtype(), value.shape())?)?;
            }
            Ok(())
        }
        fn save(&self, _: &mut Stream) -> Result<()> {
            Ok(())
        }
        fn load(&mut self, _: &mut Stream) -> Result<()> {
            Ok(())
        }
    }

    easytransfer::plugin::export! {
        id: "rival",
        losses: [CrossEntropy, Wrong],
        optimizers: [Spoils],
        metrics: [Errors, Accuracy],
    }
}

/// The stock plugins and the rival one.
fn runtime(choices: &[&str]) -> Runtime {
    let choose: Vec<PluginChoice> = choices.iter().map(|c| c.parse().expect("a choice")).collect();
    let runtime =
        Runtime::new(RuntimeOptions { only_these: true, choose, ..RuntimeOptions::default() })
            .unwrap();
    for record in [
        linked::zoo_bert::PluginRecord::get(),
        linked::app_classify::PluginRecord::get(),
        linked::app_embed::PluginRecord::get(),
        linked::loss_basic::PluginRecord::get(),
        linked::optim_basic::PluginRecord::get(),
        linked::tl_finetune::PluginRecord::get(),
        rival::PluginRecord::get(),
    ] {
        runtime.register_plugin(record).unwrap();
    }
    runtime
}

/// A run of a few steps with these options more.
fn train(
    runtime: &Runtime,
    place: &Place,
    output: &str,
    more: Value,
) -> easytransfer::Result<easytransfer::TrainResult> {
    let mut config = json!({"max_steps": 4, "lr": 1e-3, "log_every": 1, "overwrite": true});
    easytransfer::train::options::merge(&mut config, more);
    runtime.train(place.job("text-classify", output, config))
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn a_loss_of_two_plugins_must_be_said_in_full() {
    let place = Place::new("two-losses");
    let plain = runtime(&[]);
    let error = train(&plain, &place, "out", json!({})).unwrap_err().to_string();
    says(&error, &["loss-basic/cross-entropy", "rival/cross-entropy", "2 plugins offer a loss"]);
    let used = |name: &str| -> String {
        let components = &place.read_json(&format!("{name}/easytransfer.json"))["components"];
        let of = |c: &&Value| c["kind"] == "loss" && c["name"] == "cross-entropy";
        let found = components.as_array().unwrap().iter().find(of).expect("the loss is kept");
        assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
        found["plugin"].as_str().unwrap().to_owned()
    };
    for id in ["loss-basic", "rival"] {
        let name = format!("{id}/cross-entropy");
        train(&plain, &place, "out", json!({"loss": {"name": name}})).unwrap();
        assert_eq!(used("out"), id);
        train(&runtime(&[&format!("loss={name}")]), &place, "out", json!({})).unwrap();
        assert_eq!(used("out"), id);
        assert!(plain.loss(&name, "").is_ok());
        assert!(plain.schema("loss", &name).is_ok());
    }
    assert!(plain.loss("cross-entropy", "").is_err());
    // Names of options and of other components may be written so too.
    let full = json!({"loss": {"name": "rival/cross-entropy"}, "optimizer": {"name": "optim-basic/adamw"},
        "strategy": {"tl-finetune/finetune": {}}, "encoder": {"model_type": "zoo-bert/bert"}});
    train(&plain, &place, "full", full).unwrap();
    assert_eq!(place.read_json("full/config.json")["model_type"], "bert");
}

#[test]
fn a_run_goes_on_with_the_plugins_that_began_it() {
    let place = Place::new("resume-rival");
    let job = |resume| {
        let config = json!({"max_steps": 4, "lr": 1e-3, "log_every": 1, "overwrite": true});
        let mut job = place.job("text-classify", "out", config);
        job.resume = resume;
        job
    };
    let first =
        job(false).on_event(|event: &Event| !matches!(event, Event::Step(step) if step.step == 2));
    runtime(&["loss=loss-basic/cross-entropy"]).train(first).unwrap_err();
    let error = runtime(&["loss=rival/cross-entropy"]).train(job(true)).unwrap_err().to_string();
    says(&error, &["plugins.loss cross-entropy was \"loss-basic\", is \"rival\""]);
    runtime(&["loss=loss-basic/cross-entropy"]).train(job(true)).unwrap();
}

#[test]
fn a_bundle_gets_the_plugins_that_it_was_trained_with() {
    let place = Place::new("bundle-plugins");
    let loss = json!({"loss": {"name": "loss-basic/cross-entropy"}});
    train(&runtime(&[]), &place, "out", loss.clone()).unwrap();
    let written = place.read_json("out/easytransfer.json");
    let load = |choices: &[&str]| runtime(choices).app(&place.at("out"));
    load(&[]).unwrap();
    let change = |key: &str, field: &str, value: &str| {
        let mut other = written.clone();
        other[key][field] = json!(value);
        place.write("out/easytransfer.json", other.to_string());
    };
    for (key, name, id) in [("app", "text-classify", "app-classify"), ("model", "bert", "zoo-bert")]
    {
        change(key, "plugin", "somebodys");
        let error = load(&[]).err().expect("another plugin's").to_string();
        says(
            &error,
            &[name, "another plugin's", "plugin somebodys 0.1.0", &format!("{id}/{name}")],
        );
        // Stated, it is accepted.
        load(&[&format!("{key}={id}/{name}")]).unwrap();
        change(key, "version", "7.0.0");
        let error = load(&[]).err().expect("another major version").to_string();
        says(&error, &[id, "7.0.0", "0.1.0", "another major version"]);
        load(&[&format!("{key}={id}/{name}")]).unwrap();
        change(key, "version", "0.0.9");
        load(&[]).unwrap();
    }
    // An encoder that is taken from the bundle is asked in the same way, by vectors and by another run.
    change("model", "plugin", "somebodys");
    let error = runtime(&[]).embedder(&place.at("out"), Default::default()).err().expect("model");
    says(&error.to_string(), &["bert", "plugin somebodys 0.1.0"]);
    let mut job = place.job("text-classify", "again", loss.clone());
    job.encoder = place.at("out");
    let error = runtime(&[]).train(job).unwrap_err().to_string();
    says(&error, &["bert", "plugin somebodys 0.1.0"]);
}

#[test]
fn a_metric_of_any_plugin_is_computed_beside_the_apps() {
    let place = Place::new("metrics");
    let runtime = runtime(&["loss=loss-basic/cross-entropy"]);
    let asked = |metrics: Value, more: Value| {
        let mut config =
            json!({"metrics": metrics, "evaluate_every": 1, "max_steps": 8, "lr": 1e-2});
        easytransfer::train::options::merge(&mut config, more);
        train(&runtime, &place, "out", config)
    };
    let result = asked(json!(["errors"]), json!({"best": "errors"})).unwrap();
    let figure = |figures: &Json<String, Value>, name: &str| figures[name].as_f64().unwrap();
    let accuracy = figure(&result.metrics, "accuracy");
    assert!((figure(&result.metrics, "errors") - (1.0 - accuracy)).abs() < 1e-12);
    let curve = place.curve("out", "valid/errors");
    assert_eq!(curve.len(), 8, "{curve:?}");
    assert_eq!(figure(&result.metrics, "errors"), curve.iter().copied().fold(f64::MAX, f64::min));
    assert!(curve.iter().any(|e| *e > figure(&result.metrics, "errors")), "{curve:?}");
    assert!(place.read_text("out/report.html").contains("errors"));
    let kept = place.read_json("out/easytransfer.json");
    assert_eq!(kept["metrics"]["errors"], result.metrics["errors"]);
    // Asked of a bundle, by its full name and with options.
    let app = runtime.app_with(&place.at("out"), AppOptions::default()).unwrap();
    let data = DataSource::from(place.at("dev.tsv"));
    assert!(!app.evaluate(&data, None).unwrap().metrics.contains_key("errors"));
    let options = json!({"scale": 100}).as_object().unwrap().clone();
    let metric = Named { name: "rival/errors".to_owned(), options };
    let found = app
        .evaluate_by(&data, Some(&place.at("page.html")), &[metric], &mut Watch::nobody())
        .unwrap()
        .metrics;
    assert!((figure(&found, "errors") - 100.0 * (1.0 - accuracy)).abs() < 1e-9, "{found:?}");
    assert_eq!(figure(&found, "accuracy"), accuracy);
    assert!(place.read_text("page.html").contains("errors"));
    // What is asked for though the app asks for it already is computed once.
    app.evaluate_by(&data, None, &[Named::plain("classification")], &mut Watch::nobody()).unwrap();
    for (metrics, words) in [
        (json!(["errrors"]), &["did you mean \"errors\"?"][..]),
        (json!([{"name": "errors", "scal": 1}]), &["metrics.errors", "scale"]),
        (
            json!(["another-accuracy"]),
            &["metric another-accuracy (plugin rival 0.1.0)", "accuracy"],
        ),
    ] {
        says(&train_error(asked(metrics, json!({}))), words);
    }
    let mut job =
        place.job("text-classify", "out", json!({"metrics": ["errors"], "overwrite": true}));
    job.valid = None;
    says(&train_error(runtime.train(job)), &["metrics", "errors", "validation data"]);
}

fn train_error(result: easytransfer::Result<easytransfer::TrainResult>) -> String {
    result.expect_err("the run cannot be made").to_string()
}

#[test]
fn a_component_that_fails_is_named_with_its_plugin_and_slot() {
    let place = Place::new("blame");
    let runtime = runtime(&[]);
    let wrong = |how: &str| json!({"loss": {"name": "wrong", "how": how}});
    let error = train_error(train(&runtime, &place, "out", wrong("nan")));
    says(&error, &["step 1", "loss wrong (plugin rival 0.1.0): forward: not a finite number"]);
    let error = train_error(train(&runtime, &place, "out", wrong("shape")));
    says(&error, &["loss wrong (plugin rival 0.1.0): forward: expected a scalar"]);
    let error = train_error(train(&runtime, &place, "out", wrong("mismatch")));
    says(
        &error,
        &[
            "loss wrong (plugin rival 0.1.0): forward:",
            "app text-classify (plugin app-classify 0.1.0)",
        ],
    );
    says(&error, &["model bert (plugin zoo-bert 0.1.0)", "logits ["]);
    let spoils = json!({"loss": {"name": "rival/cross-entropy"}, "optimizer": {"name": "spoils"}});
    let error = train_error(train(&runtime, &place, "out", spoils));
    says(&error, &["step 2", "parameters", "optimizer spoils (plugin rival 0.1.0)"]);
    assert!(!place.at("out/model.safetensors").exists());
}
