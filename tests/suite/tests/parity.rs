//! The same numbers as Hugging Face transformers; the goldens and the scripts that make them are in `tests/parity`.

use std::path::Path;

use easytransfer::plugin::{
    Buffer, Call, DType, LoadedApp, LoadedLoss, LoadedModel, LoadedOptimizer, Map, Params, Row,
    Tensor, Tokenizer, no_grad,
};
use easytransfer_plugin::abi::{ET_WANT_HIDDEN_STATES, ET_WANT_POOLED};
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::{linked, places};
use easytransfer_train::files::safetensors::Header;
use easytransfer_train::model::network::Running;
use easytransfer_train::model::weights::{self, Expect};
use serde_json::{Value, json};

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        Value::Number(number) => vec![number.as_f64().unwrap()],
        other => panic!("expected numbers, found {other}"),
    }
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
}

fn largest_difference(found: &[f32], expected: impl IntoIterator<Item = f64>) -> f64 {
    let expected: Vec<f64> = expected.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// A batch of token ids and segments.
fn batch(texts: &[(Vec<i64>, Vec<i64>)]) -> Map {
    let rows: Vec<Row> = texts
        .iter()
        .map(|(ids, segments)| {
            let mut row = Row::new().unwrap();
            row.put_tokens("ids", ids).unwrap();
            row.put_tokens("segments", segments).unwrap();
            row
        })
        .collect();
    Map::from_rows(&rows.iter().collect::<Vec<_>>()).unwrap()
}

struct Loaded {
    model: LoadedModel,
    app: Option<LoadedApp>,
    params: Params,
}

/// A model with its weights; with `labels` also a classification head.
fn load(directory: &Path, labels: usize, head_in_file: bool) -> Loaded {
    let runtime = linked::runtime();
    let config = read_json(&directory.join("config.json"));
    let component =
        runtime.components().find("et.model/1", config["model_type"].as_str().unwrap()).unwrap();
    let params = Params::new(0).unwrap();
    let root = params.root().unwrap();
    let model = LoadedModel::create(&component, &config.to_string(), &root).unwrap();
    let info = model.info().clone();
    if !head_in_file {
        weights::load(directory, &params, &info, Expect::Encoder).unwrap();
    }
    let app = (labels > 0).then(|| {
        let component = runtime.components().find("et.app/1", "text-classify").unwrap();
        let names: Vec<String> = (0..labels).map(|i| i.to_string()).collect();
        let state = json!({ "labels": names }).to_string();
        let mut app = LoadedApp::create(&component, "{}", &state).unwrap();
        app.build(&root, &info).unwrap();
        app
    });
    if head_in_file {
        weights::load(directory, &params, &info, Expect::All).unwrap();
    }
    Loaded { model, app, params }
}

impl Loaded {
    fn forward(&mut self, batch: &Map) -> Map {
        let mut outputs = Map::new().unwrap();
        let call = Call::inference(ET_WANT_HIDDEN_STATES | ET_WANT_POOLED);
        if let Some(app) = &self.app {
            let net =
                &mut Running { model: &mut self.model, modules: &mut [], params: &self.params };
            app.forward(&call, net, batch, &mut outputs).unwrap();
        } else {
            self.model.forward(&call, batch, &mut outputs).unwrap();
        }
        outputs
    }
}

/// Rows of a tensor [T, h] that belong to run `index`.
fn run_of(tensor: &Tensor, starts: &[i64], index: usize) -> Vec<f32> {
    let (begin, end) = (starts[index] as usize, starts[index + 1] as usize);
    tensor.narrow(0, begin, end - begin).unwrap().contiguous().unwrap().to_vec::<f32>().unwrap()
}

#[test]
fn hidden_states_of_every_layer_equal_transformers() {
    let directory = places::shared().join("models/all-MiniLM-L6-v2");
    let mut loaded = load(&directory, 0, false);
    let tokenizer = Tokenizer::load(directory.to_str().unwrap()).unwrap();
    let texts = read_json(&places::parity().join("texts.json"));
    let texts = texts.as_array().unwrap();
    let path = places::parity().join("hidden.safetensors");
    let golden = Buffer::map_file(path.to_str().unwrap()).unwrap();
    let header = Header::parse(&path, golden.as_slice()).unwrap();
    let tensor = |name: &str| {
        let entry = header.entry(name).unwrap();
        floats(&golden.as_slice()[entry.range.clone()])
    };
    let mut encoded = Vec::new();
    for text in texts {
        let encoding =
            tokenizer.encode(text["text"].as_str().unwrap(), text["pair"].as_str(), 512).unwrap();
        assert_eq!(encoding.ids(), integers(&text["ids"]), "{}", text["name"]);
        assert_eq!(encoding.segments(), integers(&text["segments"]), "{}", text["name"]);
        encoded.push((encoding.ids().to_vec(), encoding.segments().to_vec()));
    }
    let projection = tensor("projection");
    let width = 384;
    let mut worst = (0.0f64, String::new());
    // All texts in one batch of runs: neighbours must not matter.
    let batch = batch(&encoded);
    let outputs = no_grad(|| loaded.forward(&batch));
    let starts = batch.get("starts").unwrap().to_vec::<i64>().unwrap();
    let pooled = outputs.get("pooled").unwrap().to_vec::<f32>().unwrap();
    for (index, text) in texts.iter().enumerate() {
        let name = text["name"].as_str().unwrap();
        let projected = tensor(&format!("{name}.projected"));
        let mut projected_at = 0;
        let mut note = |what: &str, difference: f64| {
            if difference > worst.0 {
                worst = (difference, format!("{name} {what}"));
            }
        };
        for layer in 0..=6 {
            let hidden = outputs.get(&format!("hidden_states/{layer}")).unwrap();
            let hidden = run_of(&hidden, &starts, index);
            let rows = tensor(&format!("{name}.layer{layer}.rows"));
            for (k, &position) in integers(&text["positions"]).iter().enumerate() {
                let found = &hidden[position as usize * width..(position as usize + 1) * width];
                let expected = rows[k * width..(k + 1) * width].iter().map(|v| f64::from(*v));
                note(&format!("layer {layer}"), largest_difference(found, expected));
            }
            for token in hidden.chunks_exact(width) {
                for direction in projection.chunks_exact(width) {
                    let found: f64 = token
                        .iter()
                        .zip(direction)
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                        .sum();
                    let difference = (found - f64::from(projected[projected_at])).abs();
                    note(&format!("layer {layer} projected"), difference);
                    projected_at += 1;
                }
            }
        }
        let expected = tensor(&format!("{name}.pooled"));
        let found = &pooled[index * width..(index + 1) * width];
        note("pooled", largest_difference(found, expected.iter().map(|v| f64::from(*v))));
    }
    println!("largest difference {:.2e} at {}", worst.0, worst.1);
    assert!(worst.0 <= 1e-5, "{:.2e} at {}", worst.0, worst.1);
}

#[test]
fn gradients_and_adamw_steps_equal_transformers() {
    let runtime = linked::runtime();
    let directory = places::shared().join("models/all-MiniLM-L6-v2");
    let golden = read_json(&places::parity().join("gradients.json"));
    let texts = read_json(&places::parity().join("texts.json"));
    let mut loaded = load(&directory, 2, false);
    let weight: Vec<f32> = (0..768).map(|k| (f64::from(k).sin() * 0.02) as f32).collect();
    let classifier = loaded.params.find("classifier.weight").unwrap();
    classifier.assign(&Tensor::from_slice(&weight, &[2, 384]).unwrap()).unwrap();
    let encoded: Vec<(Vec<i64>, Vec<i64>)> = golden["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| {
            let text = texts.as_array().unwrap().iter().find(|t| t["name"] == *name).unwrap();
            (integers(&text["ids"]), integers(&text["segments"]))
        })
        .collect();
    let mut batch = batch(&encoded);
    let labels = integers(&golden["labels"]);
    batch.put("labels", &Tensor::from_slice(&labels, &[labels.len()]).unwrap()).unwrap();
    loaded.params.seal().unwrap();
    let component = runtime.components().find("et.loss/1", "cross-entropy").unwrap();
    let mut loss = LoadedLoss::create(&component, "").unwrap();
    let component = runtime.components().find("et.optimizer/1", "adamw").unwrap();
    let adamw = &golden["adamw"];
    let options = json!({ "weight_decay": adamw["weight_decay"], "epsilon": adamw["eps"] });
    let mut optimizer =
        LoadedOptimizer::create(&component, &options.to_string(), &loaded.params).unwrap();
    let lr = adamw["lr"].as_f64().unwrap();
    let losses = numbers(&golden["losses"]);
    let parameters = golden["parameters"].as_object().unwrap();
    assert_eq!(parameters.len(), loaded.params.len());
    for step in 0..3u64 {
        loaded.params.zero_grads();
        let outputs = loaded.forward(&batch);
        let value = loss.forward(&Call::inference(0), &outputs, &batch).unwrap();
        let difference = (value.to_scalar().unwrap() - losses[step as usize]).abs();
        assert!(difference < 2e-6, "loss of step {step} differs by {difference:.1e}");
        if step == 0 {
            let logits = outputs.get("logits").unwrap().to_vec::<f32>().unwrap();
            assert!(largest_difference(&logits, numbers(&golden["logits"])) < 1e-5);
        }
        value.backward().unwrap();
        if step == 0 {
            for (name, expected) in parameters {
                // The gradient of a key's bias is zero in exact arithmetic.
                if expected["noise"].as_f64().unwrap() > 1e-2 {
                    continue;
                }
                let own = name.strip_prefix("bert.").unwrap_or(name);
                let param = loaded.params.find(own).unwrap();
                let grad = param.grad().unwrap().expect(name).to_vec::<f32>().unwrap();
                let l2 = expected["l2"].as_f64().unwrap();
                let found: f64 = grad.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
                let relative = (found.sqrt() - l2).abs() / l2;
                assert!(relative < 1e-4, "{name}: norm {} expected {l2}", found.sqrt());
                let at = integers(&expected["at"]);
                // Entries relative to the size that an entry of this gradient has.
                let scale =
                    numbers(&expected["gradient"]).iter().map(|g| g.abs()).fold(0.0, f64::max);
                for (i, g) in at.iter().zip(numbers(&expected["gradient"])) {
                    let difference = (f64::from(grad[*i as usize]) - g).abs();
                    assert!(
                        difference <= 1e-4 * scale,
                        "{name}[{i}]: {} expected {g}",
                        grad[*i as usize]
                    );
                }
            }
        }
        for param in loaded.params.iter() {
            let name = param.name();
            let full = if name.starts_with("classifier") { name } else { format!("bert.{name}") };
            assert_eq!(Some(param.has_decay()), parameters[&full]["decay"].as_bool(), "{full}");
        }
        optimizer.step(&mut loaded.params, lr, step + 1).unwrap();
        let key = match step {
            0 => "after_1",
            2 => "after_3",
            _ => continue,
        };
        for (name, expected) in parameters {
            if expected["noise"].as_f64().unwrap() > 1e-2 {
                continue;
            }
            let own = name.strip_prefix("bert.").unwrap_or(name);
            let values =
                loaded.params.find(own).unwrap().tensor().unwrap().to_vec::<f32>().unwrap();
            for (i, v) in integers(&expected["at"]).iter().zip(numbers(&expected[key])) {
                let difference = (f64::from(values[*i as usize]) - v).abs();
                // After the first step Adam divides a gradient by itself, so only entries whose sign is certain can
                // be compared at 1e-6; the goldens sample entries well above rounding.
                assert!(
                    difference < 1e-6,
                    "{name}[{i}] {key}: {} expected {v}",
                    values[*i as usize]
                );
            }
        }
    }
}

#[test]
fn token_ids_equal_the_reference_on_ten_thousand_lines() {
    // A host must run before tokenizers exist.
    let _runtime = linked::runtime();
    let golden = read_json(&places::parity().join("tokens.json"));
    let sums = std::fs::read(places::parity().join("tokens.bin")).unwrap();
    let sums: Vec<u32> =
        sums.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(sums.len(), golden["lines"].as_u64().unwrap() as usize);
    let mut wrong = Vec::new();
    for block in golden["blocks"].as_array().unwrap() {
        let text = |key: &str| block[key].as_str().unwrap();
        let number = |key: &str| block[key].as_u64().unwrap() as usize;
        let folder = places::shared().join("models").join(text("model"));
        let source = folder.join(text("load"));
        let tokenizer = match text("load") {
            // A vocabulary does not say whether it is of lower-case text.
            "vocab.txt" => {
                let place = std::env::temp_dir()
                    .join(format!("easytransfer-parity-{}", std::process::id()));
                std::fs::create_dir_all(&place).unwrap();
                std::fs::copy(source, place.join("vocab.txt")).unwrap();
                let config = json!({ "do_lower_case": block["lowercase"] }).to_string();
                std::fs::write(place.join("tokenizer_config.json"), config).unwrap();
                let tokenizer = Tokenizer::load(place.to_str().unwrap()).unwrap();
                std::fs::remove_dir_all(place).unwrap();
                tokenizer
            }
            _ => Tokenizer::load(source.to_str().unwrap()).unwrap(),
        };
        let file = places::shared().join("data").join(text("file"));
        let content = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = content.split('\n').collect();
        for k in 0..number("count") {
            let at = number("first_line") - 1 + k * number("stride");
            let line = lines[at].strip_suffix('\r').unwrap_or(lines[at]);
            let cell = match block["column"].as_u64() {
                Some(column) => line.split('\t').nth(column as usize).unwrap(),
                None => line,
            };
            let encoding = tokenizer.encode(cell, None, 0).unwrap();
            let bytes: Vec<u8> =
                encoding.ids().iter().flat_map(|id| (*id as u32).to_le_bytes()).collect();
            if crc32(&bytes) != sums[number("start") + k] {
                wrong.push(format!("{} {} line {}: {cell:?}", text("model"), text("file"), at + 1));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} lines differ, first {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
}

/// CRC-32 as zlib computes it (ISO 3309, reflected polynomial edb88320).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn tiny(directory: &str, golden: &str) {
    let tiny = places::parity().join("tiny");
    let mut loaded = load(&tiny.join(directory), 3, true);
    let gradients = read_json(&tiny.join(golden).join("gradients.json"));
    let golden = read_json(&tiny.join(golden).join("golden.json"));
    let mut texts = Vec::new();
    for case in golden.as_array().unwrap() {
        let ids = integers(&case["ids"]);
        let segments = match &case["segments"] {
            Value::Array(_) => integers(&case["segments"]),
            _ => vec![0; ids.len()],
        };
        if let Some(text) = case["text"].as_str() {
            let tokenizer = Tokenizer::load(tiny.join(directory).to_str().unwrap()).unwrap();
            let encoding = tokenizer.encode(text, case["pair"].as_str(), 0).unwrap();
            assert_eq!((encoding.ids(), encoding.segments()), (&ids[..], &segments[..]), "{text}");
        }
        texts.push((ids, segments));
        let outputs = no_grad(|| loaded.forward(&batch(&texts[texts.len() - 1..])));
        let states = loaded.model.info().layers + 1;
        assert_eq!(case["hidden"].as_array().unwrap().len(), states, "{directory}");
        for (layer, hidden) in case["hidden"].as_array().unwrap().iter().enumerate() {
            let found =
                outputs.get(&format!("hidden_states/{layer}")).unwrap().to_vec::<f32>().unwrap();
            let difference = largest_difference(&found, numbers(hidden));
            assert!(difference < 1e-5, "{directory} layer {layer}: {difference:.1e}");
        }
        if case["pooled"].is_array() && outputs.has("pooled") {
            let found = outputs.get("pooled").unwrap().to_vec::<f32>().unwrap();
            assert!(largest_difference(&found, numbers(&case["pooled"])) < 1e-5);
        }
        let logits = outputs.get("logits").unwrap();
        assert_eq!(logits.dtype(), DType::F32);
        let difference =
            largest_difference(&logits.to_vec::<f32>().unwrap(), numbers(&case["logits"]));
        assert!(difference < 1e-5, "{directory} logits: {difference:.1e}");
    }
    tiny_gradients(&mut loaded, &texts, &gradients);
}

/// Gradients of the mean cross entropy when text k has label k.
fn tiny_gradients(loaded: &mut Loaded, texts: &[(Vec<i64>, Vec<i64>)], golden: &Value) {
    let mut batch = batch(texts);
    let labels: Vec<i64> = (0..texts.len() as i64).collect();
    batch.put("labels", &Tensor::from_slice(&labels, &[labels.len()]).unwrap()).unwrap();
    loaded.params.seal().unwrap();
    let component = linked::runtime().components().find("et.loss/1", "cross-entropy").unwrap();
    let mut loss = LoadedLoss::create(&component, "").unwrap();
    let outputs = loaded.forward(&batch);
    loss.forward(&Call::inference(0), &outputs, &batch).unwrap().backward().unwrap();
    let golden = golden.as_object().unwrap();
    // XLNet has a parameter for what this loss does not predict.
    assert_eq!(golden.len(), loaded.params.iter().filter(|param| param.has_grad()).count());
    assert!(golden.len() + 1 >= loaded.params.len());
    let prefix = format!("{}.", loaded.model.info().base_prefix);
    for (name, expected) in golden {
        let own = name.strip_prefix(&prefix).unwrap_or(name);
        let param = loaded.params.find(own).unwrap();
        let gradient = param.grad().unwrap().expect(name).to_vec::<f32>().unwrap();
        let sum = |term: fn(usize, f64) -> f64| -> f64 {
            gradient.iter().enumerate().map(|(k, g)| term(k, f64::from(*g))).sum()
        };
        let found = [sum(|_, g| g * g).sqrt(), sum(|k, g| g * (k as f64).sin())];
        for (found, expected) in found.into_iter().zip(numbers(expected)) {
            assert!((found - expected).abs() < 1e-5, "{name}: {found}, expected {expected}");
        }
    }
}

#[test]
fn tiny_bert_equals_transformers() {
    tiny("bert", "bert");
}

#[test]
fn tiny_bert_from_a_pickle_equals_transformers() {
    tiny("bert-bin", "bert");
}

#[test]
fn tiny_bert_in_shards_equals_transformers() {
    tiny("bert-sharded", "bert");
}

#[test]
fn tiny_roberta_equals_transformers() {
    tiny("roberta", "roberta");
}

#[test]
fn roberta_counts_positions_past_padding_inside_a_text() {
    let place = Scratch::new("parity-padding");
    let tiny = places::parity().join("tiny/roberta");
    std::fs::copy(tiny.join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
    let mut config = read_json(&tiny.join("config.json"));
    // Its default is 1.
    config.as_object_mut().unwrap().remove("pad_token_id");
    std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
    let mut loaded = load(place.path(), 0, false);
    let golden = read_json(&places::parity().join("padding.json"));
    let rows = golden.as_array().unwrap();
    let texts: Vec<_> = rows
        .iter()
        .map(|row| (integers(&row["ids"]), vec![0; row["ids"].as_array().unwrap().len()]))
        .collect();
    let outputs = no_grad(|| loaded.forward(&batch(&texts)));
    let last = outputs.get("last").unwrap().to_vec::<f32>().unwrap();
    let expected: Vec<f64> = rows.iter().flat_map(|row| numbers(&row["last"])).collect();
    let difference = largest_difference(&last, expected);
    assert!(difference < 1e-5, "{difference:.1e}");
}

#[test]
fn tiny_distilbert_equals_transformers() {
    tiny("distilbert", "distilbert");
}

#[test]
fn tiny_electra_equals_transformers() {
    tiny("electra", "electra");
}

#[test]
fn tiny_albert_equals_transformers() {
    tiny("albert", "albert");
}

#[test]
fn tiny_modernbert_equals_transformers() {
    tiny("modernbert", "modernbert");
}

#[test]
fn tiny_deberta_equals_transformers() {
    tiny("deberta-v2", "deberta-v2");
}

#[test]
fn tiny_xlnet_equals_transformers() {
    tiny("xlnet", "xlnet");
}
