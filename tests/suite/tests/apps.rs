//! Apps that make rows of a record, run models as they like and join answers, beside reference implementations. The
//! goldens are made by `tests/parity/make_apps.py`.

use std::collections::HashMap;
use std::path::Path;

use easytransfer::plugin::{
    Call, LoadedApp, LoadedLoss, LoadedModel, Map, Params, Record, Row, Stream, no_grad,
};
use easytransfer_tests::{linked, places};
use easytransfer_train::model::network::{AppStage, Network, Running, Start, modules};
use easytransfer_train::model::weights;
use serde_json::{Value, json};

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn goldens(name: &str) -> std::path::PathBuf {
    places::parity().join("apps").join(name)
}

fn rows_of(value: &Value) -> Vec<Vec<i64>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The questions of a file in SQuAD's form, as records by id.
fn questions(path: &Path) -> HashMap<String, Record> {
    let mut records = HashMap::new();
    for article in read_json(path)["data"].as_array().unwrap() {
        for paragraph in article["paragraphs"].as_array().unwrap() {
            for question in paragraph["qas"].as_array().unwrap() {
                let record = json!({"question": question["question"], "context": paragraph["context"],
                    "answers": question["answers"]});
                let Value::Object(record) = record else { unreachable!() };
                records.insert(question["id"].as_str().unwrap().to_owned(), record);
            }
        }
    }
    records
}

#[test]
fn answers_over_windows_equal_the_question_answering_pipeline() {
    let runtime = linked::runtime();
    let files = HashMap::from([
        ("squad", questions(&places::shared().join("data/squad-v1.1/dev-v1.1.json"))),
        ("cmrc", questions(&places::shared().join("data/cmrc2018/dev.json"))),
    ]);
    let directory = goldens("comprehend");
    let golden = read_json(&directory.join("golden.json"));
    let golden = golden.as_array().unwrap();
    let mut windows = 0;
    for none in [false, true] {
        // The pipeline of fast tokenizers cuts no question.
        let options = json!({"answers": 3, "no_answer": none, "max_question_length": 300});
        let stage = AppStage::new(runtime.components(), "comprehend", options, None).unwrap();
        let none_replaced = serde_json::Map::new();
        let components = runtime.components();
        let network =
            Network::new(components, stage, &directory, &none_replaced, Start::Encoder, 0).unwrap();
        for case in golden.iter().filter(|case| case["no_answer"] == json!(none)) {
            let mut record =
                files[case["file"].as_str().unwrap()][case["id"].as_str().unwrap()].clone();
            record.remove("answers");
            let asked = std::slice::from_ref(&record);
            let starts = network.batch(asked).unwrap().get("starts").unwrap();
            windows += usize::from(starts.len() > 2);
            let answer = network.predict(asked).unwrap().remove(0);
            let found: Vec<(u64, u64, f64)> = answer["answers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|a| {
                    (
                        a["start"].as_u64().unwrap(),
                        a["end"].as_u64().unwrap(),
                        a["score"].as_f64().unwrap(),
                    )
                })
                .collect();
            let expected: Vec<(u64, u64, f64)> =
                serde_json::from_value(case["spans"].clone()).unwrap();
            assert_eq!(found.len(), expected.len(), "{case} {answer:?} {starts:?}");
            for (found, expected) in found.iter().zip(&expected) {
                let relative = (found.2 - expected.2).abs() / expected.2;
                assert!(
                    (found.0, found.1) == (expected.0, expected.1) && relative < 1e-4,
                    "{case}: found {found:?}"
                );
            }
        }
    }
    assert!(windows > 20, "only {windows} contexts of several windows");
}

#[test]
fn exact_match_and_f1_are_the_official_scorers() {
    let runtime = linked::runtime();
    let records = questions(&places::shared().join("data/squad-v1.1/dev-v1.1.json"));
    let golden = read_json(&goldens("squad-metric.json"));
    let mut whole = runtime.metric("squad", "{}").unwrap();
    let mut merged = runtime.metric("squad", "{}").unwrap();
    let (mut exact, mut f1) = (0.0, 0.0);
    let cases = golden.as_array().unwrap();
    for case in cases {
        let answer = Record::from_iter([("answer".to_owned(), case["answer"].clone())]);
        let record = records[case["id"].as_str().unwrap()].clone();
        let mut one = runtime.metric("squad", "{}").unwrap();
        one.answers(std::slice::from_ref(&answer), std::slice::from_ref(&record)).unwrap();
        let figures = one.compute().unwrap();
        for (name, figure) in [("exact", "exact_match"), ("f1", "f1")] {
            let (expected, found) =
                (case[name].as_f64().unwrap(), figures[figure].as_f64().unwrap());
            assert!((100.0 * expected - found).abs() < 1e-9, "{case}: {figures:?}");
        }
        exact += case["exact"].as_f64().unwrap();
        f1 += case["f1"].as_f64().unwrap();
        whole.answers(&[answer], &[record]).unwrap();
        // Parts that were counted apart are as the whole.
        let mut stream = Stream::writer().unwrap();
        one.save(&mut stream).unwrap();
        let bytes = stream.bytes().unwrap();
        merged.merge(&mut Stream::reader(bytes.as_slice()).unwrap()).unwrap();
    }
    assert_eq!(whole.compute().unwrap(), merged.compute().unwrap());
    let figures = whole.compute().unwrap();
    let count = cases.len() as f64;
    assert!((figures["exact_match"].as_f64().unwrap() - 100.0 * exact / count).abs() < 1e-9);
    assert!((figures["f1"].as_f64().unwrap() - 100.0 * f1 / count).abs() < 1e-9);
}

/// A model with an app's modules and head on it, without a tokenizer.
struct Built {
    model: LoadedModel,
    modules: Vec<(String, LoadedModel)>,
    app: LoadedApp,
    params: Params,
}

impl Built {
    fn new(directory: &Path, app: &str, options: &Value) -> Self {
        let runtime = linked::runtime();
        let mut config = read_json(&directory.join("config.json"));
        // Gradients are compared, so nothing is dropped.
        for key in
            ["hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"]
        {
            if config.get(key).is_some() {
                config[key] = json!(0.0);
            }
        }
        let model_type = config["model_type"].as_str().unwrap().to_owned();
        let component = runtime.components().find("et.model/1", &model_type).unwrap();
        let params = Params::new(0).unwrap();
        let model =
            LoadedModel::create(&component, &config.to_string(), &params.root().unwrap()).unwrap();
        let found = runtime.components().find("et.app/1", app).unwrap();
        let mut app = LoadedApp::create(&found, &options.to_string(), "").unwrap();
        let info = model.info().clone();
        let missing = weights::load_where_there(directory, params.iter().collect(), &info).unwrap();
        assert!(missing.iter().all(|name| name.contains("pooler")), "{missing:?}");
        let modules = modules(&app, &component, &config, &params, true).unwrap();
        let before = params.len();
        app.build(&params.root().unwrap(), &info).unwrap();
        let head = params.iter().skip(before).collect();
        assert_eq!(weights::load_where_there(directory, head, &info).unwrap(), [""; 0]);
        Self { model, modules, app, params }
    }

    fn forward(&mut self, batch: &Map) -> Map {
        let mut outputs = Map::new().unwrap();
        let Self { model, modules, app, params } = self;
        let net = &mut Running { model, modules, params };
        app.forward(&Call::inference(0), net, batch, &mut outputs).unwrap();
        outputs
    }

    /// The loss of a batch, and the norm and the product with sin(0), sin(1), … of each parameter's gradient.
    fn gradients(
        &mut self,
        loss: &str,
        options: &str,
        batch: &Map,
    ) -> (f64, HashMap<String, [f64; 2]>) {
        let component = linked::runtime().components().find("et.loss/1", loss).unwrap();
        let mut loss = LoadedLoss::create(&component, options).unwrap();
        self.params.zero_grads();
        let outputs = self.forward(batch);
        let value = loss.forward(&Call::inference(0), &outputs, batch).unwrap();
        value.backward().unwrap();
        let gradients = self.params.iter().filter_map(|param| {
            let gradient = param.grad().unwrap()?.to_vec::<f32>().unwrap();
            let sum = |term: fn(usize, f64) -> f64| -> f64 {
                gradient.iter().enumerate().map(|(k, g)| term(k, f64::from(*g))).sum()
            };
            Some((param.name(), [sum(|_, g| g * g).sqrt(), sum(|k, g| g * (k as f64).sin())]))
        });
        (value.to_scalar().unwrap(), gradients.collect())
    }
}

/// Compares gradients under the names of the golden, which may have the base prefix.
fn assert_gradients(found: &HashMap<String, [f64; 2]>, golden: &Value, prefix: &str) {
    let golden = golden.as_object().unwrap();
    for (name, expected) in golden {
        let own = name.strip_prefix(prefix).unwrap_or(name);
        let found = found.get(own).unwrap_or_else(|| panic!("no gradient of {name}"));
        for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() < 1e-4, "{name}: {found}, expected {expected}");
        }
    }
    assert!(golden.len() >= 10);
}

fn batch(fields: &[(&str, &[Vec<i64>])]) -> Map {
    let rows: Vec<Row> = (0..fields[0].1.len())
        .map(|index| {
            let mut row = Row::new().unwrap();
            for (name, values) in fields {
                row.put_tokens(name, &values[index]).unwrap();
            }
            row.put_i64("record", &[index as i64]).unwrap();
            row
        })
        .collect();
    Map::from_rows(&rows.iter().collect::<Vec<_>>()).unwrap()
}

fn zeros(like: &[Vec<i64>]) -> Vec<Vec<i64>> {
    like.iter().map(|row| vec![0; row.len()]).collect()
}

#[test]
fn two_towers_have_the_gradients_of_pytorch() {
    let golden = read_json(&goldens("match.json"));
    let (rows, pairs) = (rows_of(&golden["rows"]), rows_of(&golden["pairs"]));
    let batch = batch(&[
        ("text/ids", &rows),
        ("text/segments", &zeros(&rows)),
        ("pair/ids", &pairs),
        ("pair/segments", &zeros(&pairs)),
    ]);
    let directory = places::parity().join("tiny/bert");
    for (shared, name) in [(true, "shared"), (false, "separate")] {
        let mut built = Built::new(&directory, "text-match", &json!({"shared": shared}));
        built.params.seal().unwrap();
        for symmetric in [false, true] {
            let key = if symmetric { format!("{name}-symmetric") } else { name.to_owned() };
            let options = json!({"symmetric": symmetric}).to_string();
            let (loss, gradients) = built.gradients("in-batch-negatives", &options, &batch);
            let golden = &golden[&key];
            assert!((loss - golden["loss"].as_f64().unwrap()).abs() < 1e-5, "{key}: {loss}");
            assert_gradients(&gradients, &golden["gradients"], "");
        }
        // Cosines of the right pairs, and the vectors of one side alone.
        let answers = no_grad(|| {
            let outputs = built.forward(&batch);
            built.app.decode(&batch, &outputs).unwrap()
        });
        for (index, answer) in answers.iter().enumerate() {
            let expected = golden[name]["scores"][index][index].as_f64().unwrap();
            assert!((answer["score"].as_f64().unwrap() - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn masked_language_models_of_every_family_have_the_gradients_of_transformers() {
    for family in ["bert", "roberta", "distilbert", "electra", "albert", "modernbert", "deberta-v2"]
    {
        let directory = goldens(&format!("masked-lm-{family}"));
        let golden = read_json(&directory.join("golden.json"));
        let (ids, labels) = (rows_of(&golden["ids"]), rows_of(&golden["labels"]));
        let batch = batch(&[("ids", &ids), ("segments", &zeros(&ids)), ("token_labels", &labels)]);
        let mut built = Built::new(&directory, "masked-lm", &json!({}));
        let outputs = no_grad(|| built.forward(&batch));
        let found = outputs.get("masked_logits").unwrap().to_vec::<f32>().unwrap();
        let expected: Vec<Vec<Vec<f64>>> =
            serde_json::from_value(golden["logits"].clone()).unwrap();
        let expected: Vec<f64> = expected.concat().concat();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{family}: {found}, {expected}");
        }
        built.params.seal().unwrap();
        let (loss, gradients) = built.gradients("masked-tokens", "", &batch);
        assert!((loss - golden["loss"].as_f64().unwrap()).abs() < 1e-5, "{family}: {loss}");
        let prefix = format!("{}.", built.model.info().base_prefix);
        assert_gradients(&gradients, &golden["gradients"], &prefix);
    }
}
