//! T5 and generation beside transformers. The goldens are made by `tests/parity/make_generate.py`.

use std::path::PathBuf;

use easytransfer::plugin::abi::{
    ET_ERR_FAILED_PRECONDITION, ET_ERR_INVALID_ARGUMENT, ET_ERR_NOT_FOUND, ET_WANT_HIDDEN_STATES,
    ET_WANT_LOGITS,
};
use easytransfer::plugin::{
    Call, DType, LoadedLoss, LoadedModel, Map, NetHost, Params, Record, Row, Tensor, nn, no_grad,
};
use easytransfer::{TrainConfig, TrainJob};
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::{linked, places};
use easytransfer_train::model::network::{AppStage, Network, Running, Start};
use easytransfer_train::model::weights::{self, Expect};
use serde_json::{Map as Json, Value, json};

const MODELS: [&str; 3] = ["t5", "t5-gated", "mt5"];

fn directory(name: &str) -> PathBuf {
    places::parity().join("generate").join(name)
}

fn read_json(path: PathBuf) -> Value {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn golden(name: &str) -> Value {
    read_json(directory(name).join("golden.json"))
}

fn rows_of(value: &Value) -> Vec<Vec<i64>> {
    serde_json::from_value(value.clone()).unwrap()
}

struct Loaded {
    model: LoadedModel,
    params: Params,
}

/// A model with its weights and `more` in its configuration, without dropout.
fn load_with(name: &str, more: &Value, dtype: DType) -> Loaded {
    let runtime = linked::runtime();
    let mut config = read_json(directory(name).join("config.json"));
    config["dropout_rate"] = json!(0.0);
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let model_type = config["model_type"].as_str().unwrap();
    let component = runtime.components().find("et.model/1", model_type).unwrap();
    let params = Params::with_dtype(0, dtype).unwrap();
    let root = params.root().unwrap();
    let model = LoadedModel::create(&component, &config.to_string(), &root).unwrap();
    let info = model.info().clone();
    weights::load(&directory(name), &params, &info, Expect::All).unwrap();
    Loaded { model, params }
}

fn load(name: &str) -> Loaded {
    load_with(name, &json!({}), DType::F32)
}

impl Loaded {
    fn forward(&mut self, call: &Call<'_>, batch: &Map) -> Map {
        let mut outputs = Map::new().unwrap();
        self.model.forward(call, batch, &mut outputs).unwrap();
        outputs
    }

    fn generate(&mut self, batch: &Map, options: &Value) -> easytransfer::plugin::Result<Map> {
        let mut outputs = Map::new()?;
        let Loaded { model, params } = self;
        let mut running = Running { model, modules: &mut [], params };
        running.generate("", batch, &options.to_string(), &mut outputs)?;
        Ok(outputs)
    }
}

fn batch(fields: &[(&str, Vec<Vec<i64>>)]) -> Map {
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

/// Texts whose answers hold the decoder's start.
fn begun(ids: Vec<Vec<i64>>) -> Map {
    let starts = vec![vec![0]; ids.len()];
    batch(&[("ids", ids), ("decoder/ids", starts)])
}

fn runs(outputs: &Map) -> Vec<Vec<i64>> {
    let ids = outputs.get("generated/ids").unwrap().to_vec::<i64>().unwrap();
    let starts = outputs.get("generated/starts").unwrap().to_vec::<i64>().unwrap();
    starts.windows(2).map(|run| ids[run[0] as usize..run[1] as usize].to_vec()).collect()
}

/// The goldens of outputs are in double precision, in which rounding does not hide a difference: with these weights
/// transformers itself is up to 8e-4 away in single precision.
fn assert_near(outputs: &Map, name: &str, expected: &Value, what: &str) {
    let found = outputs.get(name).unwrap().to_vec::<f64>().unwrap();
    let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len(), "{what} {name}");
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs()));
    let worst = worst.fold(0.0, f64::max);
    assert!(worst < 1e-6, "{what} {name}: differs by {worst:.1e}");
}

/// The tokens that a decoder reads to learn these.
fn shifted(labels: &[Vec<i64>]) -> Vec<Vec<i64>> {
    labels
        .iter()
        .map(|row| [0].into_iter().chain(row[..row.len() - 1].iter().copied()).collect())
        .collect()
}

#[test]
fn outputs_and_gradients_equal_those_of_transformers() {
    for name in MODELS {
        let golden = &golden(name)["forward"];
        let mut loaded = load_with(name, &json!({}), DType::F64);
        loaded.params.seal().unwrap();
        let labels = rows_of(&golden["labels"]);
        let batch = batch(&[
            ("ids", rows_of(&golden["ids"])),
            ("decoder/ids", shifted(&labels)),
            ("decoder/labels", labels),
        ]);
        let call = Call::inference(ET_WANT_LOGITS | ET_WANT_HIDDEN_STATES);
        let outputs = loaded.forward(&call, &batch);
        for (output, key) in [
            ("last", "last"),
            ("hidden_states/0", "encoder_0"),
            ("hidden_states/1", "encoder_1"),
            ("hidden_states/3", "last"),
            ("decoder/last", "decoder_last"),
            ("logits", "logits"),
        ] {
            assert_near(&outputs, output, &golden[key], name);
        }
        let component = linked::runtime().components().find("et.loss/1", "cross-entropy").unwrap();
        let options = json!({"labels": "decoder/labels"}).to_string();
        let mut loss = LoadedLoss::create(&component, &options).unwrap();
        let value = loss.forward(&call, &outputs, &batch).unwrap();
        let found = value.to_scalar().unwrap();
        assert!((found - golden["loss"].as_f64().unwrap()).abs() < 1e-5, "{name}: {found}");
        value.backward().unwrap();
        let gradients = golden["gradients"].as_object().unwrap();
        assert_eq!(gradients.len(), loaded.params.len(), "{name}");
        for param in loaded.params.iter() {
            let expected = &gradients[&param.name()];
            let gradient = param.grad().unwrap().unwrap().to_vec::<f64>().unwrap();
            let sum = |term: fn(usize, f64) -> f64| -> f64 {
                gradient.iter().enumerate().map(|(k, g)| term(k, *g)).sum()
            };
            let found = [sum(|_, g| g * g).sqrt(), sum(|k, g| g * (k as f64).sin())];
            for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                let difference = (found - expected).abs() / (1.0 + expected.abs());
                assert!(difference < 1e-6, "{name} {}: {found}, {expected}", param.name());
            }
        }
    }
}

#[test]
fn generated_ids_equal_those_of_transformers() {
    for name in MODELS {
        let golden = golden(name);
        let mut loaded = load(name);
        let ids = rows_of(&golden["ids"]);
        for (case, expected) in golden["cases"].as_object().unwrap() {
            for (cache, count) in [(true, ids.len()), (false, ids.len()), (true, 1)] {
                let what = format!("{name} {case}, {count} runs, cache {cache}");
                let mut options = expected["options"].clone();
                options["cache"] = json!(cache);
                let outputs = loaded.generate(&begun(ids[..count].to_vec()), &options).unwrap();
                let found = runs(&outputs);
                let expected_ids = rows_of(&expected["ids"]);
                let returned = expected_ids.len() / ids.len();
                assert_eq!(found, expected_ids[..count * returned], "{what}");
                let scores = outputs.get("generated/scores").unwrap().to_vec::<f32>().unwrap();
                assert_eq!(scores.len(), found.len(), "{what}");
                for (index, found) in scores.into_iter().enumerate() {
                    let expected = expected["scores"][index].as_f64().unwrap_or(0.0);
                    let difference = (f64::from(found) - expected).abs();
                    assert!(
                        difference < 1e-4 * (1.0 + expected.abs()),
                        "{what}: {found} {expected}"
                    );
                }
            }
        }
        assert!(golden["cases"].as_object().unwrap().len() >= 15);
    }
}

#[test]
fn longer_beginnings_are_continued_as_they_would_be_from_the_start() {
    let golden = golden("mt5");
    let mut loaded = load("mt5");
    let ids = rows_of(&golden["ids"]);
    let whole = rows_of(&golden["cases"]["greedy"]["ids"]);
    // Runs of different lengths go on from different places.
    let given = |index: usize| index % whole[index].len().min(5);
    let begun: Vec<Vec<i64>> = (0..ids.len())
        .map(|index| [0].into_iter().chain(whole[index][..given(index)].iter().copied()).collect())
        .collect();
    let batch = batch(&[("ids", ids), ("decoder/ids", begun)]);
    for cache in [true, false] {
        let options = json!({"eos": [1], "max_new_tokens": 14, "cache": cache});
        let found = runs(&loaded.generate(&batch, &options).unwrap());
        for (index, found) in found.into_iter().enumerate() {
            let expected = &whole[index][given(index)..];
            assert_eq!(found[..expected.len()], *expected, "run {index}, cache {cache}");
        }
    }
}

#[test]
fn draws_depend_on_the_seed_and_the_record_alone() {
    let ids = rows_of(&golden("t5-gated")["ids"]);
    let mut loaded = load("t5-gated");
    let options = |seed: u64, cache: bool| {
        json!({"sample": true, "seed": seed, "return": 2, "top_k": 20, "top_p": 0.95, "eos": [1],
            "max_new_tokens": 8, "cache": cache})
    };
    let whole = begun(ids.clone());
    let first = runs(&loaded.generate(&whole, &options(3, true)).unwrap());
    assert_eq!(first.len(), 80);
    assert_eq!(first, runs(&loaded.generate(&whole, &options(3, true)).unwrap()));
    assert_eq!(first, runs(&loaded.generate(&whole, &options(3, false)).unwrap()));
    let other = runs(&loaded.generate(&whole, &options(4, true)).unwrap());
    let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same < 20, "{same} of 80 runs are the same with another seed");
    let twins = first.chunks_exact(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(twins < 10, "{twins} of 40 texts were drawn twice");
    let few = runs(&loaded.generate(&begun(ids[..3].to_vec()), &options(3, true)).unwrap());
    assert_eq!(few, first[..6]);
}

#[test]
fn first_tokens_are_drawn_by_their_probabilities() {
    const DRAWS: usize = 20_000;
    let prompt = rows_of(&golden("t5-gated")["ids"])[3].clone();
    let mut loaded = load("t5-gated");
    let one = begun(vec![prompt.clone()]);
    let outputs = no_grad(|| loaded.forward(&Call::inference(ET_WANT_LOGITS), &one));
    for temperature in [1.0, 2.0] {
        let logits = outputs.get("logits").unwrap().affine(1.0 / temperature, 0.0).unwrap();
        let expected = nn::softmax(&logits).unwrap().to_vec::<f32>().unwrap();
        let options = json!({"sample": true, "temperature": temperature, "return": DRAWS / 20,
            "max_new_tokens": 1, "seed": 11});
        let drawn = runs(&loaded.generate(&begun(vec![prompt.clone(); 20]), &options).unwrap());
        let mut counts = vec![0.0; expected.len()];
        drawn.iter().for_each(|run| counts[run[0] as usize] += 1.0);
        // Pearson's statistic over tokens that are expected five times or more, the others taken together.
        let (mut statistic, mut cells, mut rest) = (0.0, 0, (0.0, 0.0));
        for (count, p) in counts.into_iter().zip(expected) {
            let expected = f64::from(p) * DRAWS as f64;
            if expected >= 5.0 {
                statistic += (count - expected) * (count - expected) / expected;
                cells += 1;
            } else {
                rest = (rest.0 + count, rest.1 + expected);
            }
        }
        assert!((rest.0 - rest.1).abs() < 5.0 * rest.1.sqrt() + 3.0, "{rest:?}");
        // Six deviations above the mean of chi square with as many degrees of freedom.
        let degrees = f64::from(cells);
        assert!(cells >= 8, "{cells} tokens are too few to tell");
        assert!(statistic < degrees + 6.0 * (2.0 * degrees).sqrt(), "{statistic}, {cells} cells");
    }
}

#[test]
fn caches_of_other_models_and_wrong_requests_are_refused_by_name() {
    let ids = rows_of(&golden("t5")["ids"]);
    let mut loaded = load("t5");
    let mut step = Map::new().unwrap();
    for (name, values) in [
        ("decoder/ids", vec![5i64, 6]),
        ("decoder/positions", vec![1, 1]),
        ("decoder/starts", vec![0, 1, 2]),
    ] {
        step.put(name, &Tensor::from_slice(&values, &[values.len()]).unwrap()).unwrap();
    }
    let mut read = |runs: usize| {
        let mut cache = Map::new().unwrap();
        let call = Call::generation(ET_WANT_LOGITS, &mut cache).unwrap();
        no_grad(|| loaded.forward(&call, &begun(ids[..runs].to_vec())));
        drop(call);
        cache
    };
    let (two, three) = (read(2), read(3));
    let mut narrow = read(2);
    let rows = narrow.get("decoder.0.self/1").unwrap().narrow(1, 0, 4).unwrap();
    narrow.put("decoder.0.self/1", &rows.contiguous().unwrap()).unwrap();
    let mut unnamed = read(2);
    unnamed.remove("decoder.1.self/0");
    let mut deeper = read(2);
    deeper.put("decoder.7.self/0", &two.get("decoder.0.self/0").unwrap()).unwrap();
    for (mut cache, expected) in [
        (two, None),
        (three, Some("expected 2 runs under \"decoder.0.self\"")),
        (narrow, Some("under \"decoder.0.self\", found those of Tensor(F32 [2, 4])")),
        (unnamed, Some("expected 2 tensors under \"decoder.1.self\"")),
        (deeper, Some("nothing in this model reads \"decoder.7.self/0\"")),
    ] {
        let call = Call::generation(ET_WANT_LOGITS, &mut cache).unwrap();
        let mut outputs = Map::new().unwrap();
        let found = no_grad(|| loaded.model.forward(&call, &step, &mut outputs));
        match (found, expected) {
            (Ok(()), None) => assert_eq!(outputs.get("logits").unwrap().shape()[0], 2),
            (Err(error), Some(expected)) => {
                let message = error.message();
                assert!(
                    message.contains(expected) && message.contains("another model"),
                    "{message}"
                );
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    let whole = begun(ids[..2].to_vec());
    for (options, code, expected) in [
        (json!({"beam": 4}), ET_ERR_INVALID_ARGUMENT, "generate.beam"),
        (json!({"temperature": -1}), ET_ERR_INVALID_ARGUMENT, "generate.temperature"),
        (json!({"forced_first": 99_999}), ET_ERR_INVALID_ARGUMENT, "generate.forced_first"),
        (json!({"return": 2}), ET_ERR_INVALID_ARGUMENT, "generate.return"),
    ] {
        let error = loaded.generate(&whole, &options).err().unwrap();
        assert!(error.code() == code && error.message().contains(expected), "{error}");
    }
    let empty = batch(&[("ids", ids[..2].to_vec()), ("decoder/ids", vec![vec![0], vec![]])]);
    let error = loaded.generate(&empty, &json!({})).err().unwrap();
    assert!(error.message().contains("run 1 of \"decoder/ids\" has no token"), "{error}");
    let mut encoder = load_with("t5", &json!({"is_encoder_decoder": false}), DType::F32);
    for (options, expected) in [(json!({}), "cache"), (json!({"cache": false}), "logits")] {
        let error = encoder.generate(&whole, &options).err().unwrap();
        assert_eq!(error.code(), ET_ERR_FAILED_PRECONDITION, "{error}");
        assert!(error.message().contains(expected), "{error}");
    }
    let Loaded { model, params } = &mut loaded;
    let mut running = Running { model, modules: &mut [], params };
    let error = running.generate("writer", &whole, "", &mut Map::new().unwrap()).unwrap_err();
    assert_eq!(error.code(), ET_ERR_NOT_FOUND, "{error}");
}

#[test]
fn the_encoder_stands_alone() {
    let golden = &golden("t5-gated")["forward"];
    let mut encoder = load_with("t5-gated", &json!({"is_encoder_decoder": false}), DType::F64);
    let names: Vec<String> = encoder.params.iter().map(|param| param.name()).collect();
    assert!(names.iter().all(|name| name == "shared.weight" || name.starts_with("encoder.")));
    assert_eq!(encoder.model.info().class, "T5EncoderModel");
    assert_eq!(encoder.model.info().decoder_start, None);
    let batch = batch(&[("ids", rows_of(&golden["ids"]))]);
    let outputs = no_grad(|| encoder.forward(&Call::inference(ET_WANT_LOGITS), &batch));
    assert_near(&outputs, "last", &golden["last"], "encoder");
    assert!(!outputs.has("logits"));
}

fn network(name: &str, options: Value) -> Network {
    let runtime = linked::runtime();
    let stage = AppStage::new(runtime.components(), "text-generate", options, None).unwrap();
    let (none, start) = (Json::new(), Start::Encoder);
    Network::new(runtime.components(), stage, &directory(name), &none, start, 0).unwrap()
}

fn asked(texts: &[String]) -> Vec<Record> {
    texts.iter().map(|text| Record::from_iter([("text".to_owned(), json!(text))])).collect()
}

#[test]
fn texts_become_texts_as_transformers_writes_them() {
    for name in MODELS {
        let golden = golden(name);
        let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
        let network = network(name, json!({"max_new_tokens": 14}));
        assert!(network.load_report.unknown.is_empty() && network.load_report.missing.is_empty());
        let records = asked(&texts);
        let ids = network.batch(&records).unwrap().get("ids").unwrap().to_vec::<i64>().unwrap();
        assert_eq!(ids, rows_of(&golden["ids"]).concat(), "{name}");
        let answers = network.predict(&records).unwrap();
        for (index, answer) in answers.iter().enumerate() {
            assert_eq!(answer["target"], golden["greedy_texts"][index], "{name}");
            assert_eq!(answer.len(), 1);
        }
    }
}

#[test]
fn several_texts_come_with_their_scores_and_known_targets_with_a_loss() {
    let golden = golden("mt5");
    let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
    let options = json!({"max_new_tokens": 14, "beams": 4, "return": 3, "length_penalty": 0.6});
    let several = network("mt5", options);
    let mut records = asked(&texts[..5]);
    for (index, answer) in several.predict(&records).unwrap().iter().enumerate() {
        let scores: Vec<f64> = serde_json::from_value(answer["scores"].clone()).unwrap();
        assert!(scores[0] >= scores[1] && scores[1] >= scores[2]);
        assert_eq!(answer["score"], answer["scores"][0]);
        assert_eq!(answer["target"], answer["targets"][0]);
        assert_eq!(answer["targets"].as_array().unwrap().len(), 3);
        let expected = golden["cases"]["beams-several"]["scores"][3 * index].as_f64().unwrap();
        assert!((scores[0] - expected).abs() < 1e-4);
    }
    for (record, target) in records.iter_mut().zip(&texts[20..]) {
        record.insert("target".to_owned(), json!(target));
    }
    for write_known in [true, false] {
        let network = network("mt5", json!({"write_known": write_known}));
        let (batch, outputs) = network.infer(&records, 0).unwrap();
        assert_eq!(outputs.has("generated/ids"), write_known);
        let labels = batch.get("decoder/labels").unwrap().to_vec::<i64>().unwrap();
        let read = batch.get("decoder/ids").unwrap().to_vec::<i64>().unwrap();
        let starts = batch.get("decoder/starts").unwrap().to_vec::<i64>().unwrap();
        for run in starts.windows(2) {
            let (first, end) = (run[0] as usize, run[1] as usize);
            assert_eq!((read[first], labels[end - 1]), (0, 1));
            assert_eq!(read[first + 1..end], labels[first..end - 1]);
        }
        let logits = outputs.get("logits").unwrap();
        assert_eq!(logits.shape()[0], labels.len());
        assert_eq!(network.predict(&records).unwrap().len(), records.len());
    }
}

#[test]
fn a_trained_model_writes_what_it_was_taught_and_its_bundle_does_so_too() {
    let scratch = Scratch::new("generate");
    let pairs = [("one red hat", "tea"), ("a cold day", "nine"), ("to the moon", "sea and ten")];
    let file = |name: &str, times: usize| {
        let rows: String =
            pairs.iter().map(|(text, target)| format!("{text}\t{target}\n")).collect();
        let path = scratch.path().join(name);
        std::fs::write(&path, format!("text\ttarget\n{}", rows.repeat(times))).unwrap();
        path
    };
    let config = json!({"epochs": 50, "lr": 0.01, "seed": 5, "batch": {"rows": 6},
        "evaluate_every": 300, "app": {"max_new_tokens": 12}});
    let output = scratch.path().join("bundle");
    let job = TrainJob::new(directory("t5-gated"), file("train.tsv", 20), &output)
        .with_app("text-generate")
        .with_start(Start::Scratch)
        .with_valid(file("dev.tsv", 1))
        .with_config(TrainConfig::from_value(config, "").unwrap());
    let runtime = linked::runtime();
    let result = runtime.train(job).unwrap();
    let loss = result.metrics["loss"].as_f64().unwrap();
    assert!(loss < 0.1, "{loss}");
    let app = runtime.app(&output).unwrap();
    let answers = app.predict(&pairs.map(|(text, _)| text)).unwrap();
    for ((_, target), answer) in pairs.iter().zip(&answers) {
        assert_eq!(answer["target"], *target, "{answers:?}");
    }
    let config = read_json(output.join("config.json"));
    assert_eq!(config["architectures"], json!(["T5ForConditionalGeneration"]));
}

#[test]
fn the_plugins_pass_the_suite_for_plugins() {
    for record in [linked::zoo_t5::PluginRecord::get(), linked::app_generate::PluginRecord::get()] {
        let report = easytransfer_conformance::check_record(record).unwrap();
        // Handles are counted for the whole process, in which other tests run beside this one.
        let failures = report.failures().filter(|line| !line.check.contains("every handle"));
        let failures: Vec<String> = failures
            .map(|line| format!("{} {}: {:?}", line.component, line.check, line.verdict))
            .collect();
        assert!(failures.is_empty(), "{failures:#?}");
    }
}

/// Weights of rows become those of their tokens, and the mean is over tokens.
#[test]
fn token_losses_are_weighted_by_rows() {
    let component = linked::runtime().components().find("et.loss/1", "cross-entropy").unwrap();
    let options = json!({"labels": "decoder/labels"}).to_string();
    let mut loss = LoadedLoss::create(&component, &options).unwrap();
    let mut batch = batch(&[("decoder/labels", vec![vec![0], vec![1, 1, 0]])]);
    let mut outputs = Map::new().unwrap();
    let logits = [0.0f32, 1.0, 2.0, 0.5, -1.0, 1.0, 0.0, 3.0];
    outputs.put("logits", &Tensor::from_slice(&logits, &[4, 2]).unwrap()).unwrap();
    let each: Vec<f64> = logits
        .chunks_exact(2)
        .zip([0usize, 1, 1, 0])
        .map(|(row, label)| {
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            (row[0].exp() + row[1].exp()).ln() - row[label]
        })
        .collect();
    let call = Call::inference(0);
    let mean = each.iter().sum::<f64>() / 4.0;
    let found = loss.forward(&call, &outputs, &batch).unwrap().to_scalar().unwrap();
    assert!((found - mean).abs() < 1e-6 && loss.weight(&batch).unwrap() == 4.0);
    batch.put("weights", &Tensor::from_slice(&[2.0f32, 0.5], &[2]).unwrap()).unwrap();
    let mean = (2.0 * each[0] + 0.5 * each[1..].iter().sum::<f64>()) / 3.5;
    let found = loss.forward(&call, &outputs, &batch).unwrap().to_scalar().unwrap();
    assert!((found - mean).abs() < 1e-6 && (loss.weight(&batch).unwrap() - 3.5).abs() < 1e-9);
}
