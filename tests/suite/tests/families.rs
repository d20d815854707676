//! Families of models, exact to transformers: hidden states, heads of tasks, losses and gradients of configurations of
//! which half come from a seeded generator (`tests/parity/make_families.py`).

use std::path::PathBuf;

use easytransfer::plugin::{
    Call, LoadedLoss, LoadedModel, Map, Params, Row, TaskHead, Tensor, no_grad,
};
use easytransfer_plugin::abi::ET_WANT_HIDDEN_STATES;
use easytransfer_tests::{linked, places};
use serde_json::{Value, json};

/// Greatest difference of outputs, relative to the largest of them where that is above 1.
const FORWARD: f64 = 1e-5;
/// Greatest difference of a gradient's norm and product, relative to the norm.
const GRADIENT: f64 = 1e-4;

/// Where the goldens are: `ET_FAMILIES` names a folder made with another seed.
fn goldens() -> PathBuf {
    std::env::var_os("ET_FAMILIES").map_or(places::parity().join("families"), PathBuf::from)
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

fn floats(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.contiguous().unwrap().to_vec::<f32>().unwrap();
    values.into_iter().map(f64::from).collect()
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
    let apart = |(a, b): (&f64, &f64)| (a - b).abs();
    let worst = found.iter().zip(expected).map(apart).fold(0.0, f64::max);
    assert!(worst <= FORWARD * scale, "{what}: {worst:.1e} apart, the largest is {scale:.1e}");
}

/// CRC-32 as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// The values of a parameter: `fill` and `randomise` of the script.
fn values(name: &str, count: usize) -> Vec<f32> {
    let mut parts = name.rsplit('.');
    let is_weight = parts.next() == Some("weight");
    let is_norm =
        is_weight && parts.next().is_some_and(|part| part.to_lowercase().contains("norm"));
    let seed = crc32(name.as_bytes());
    (1..=count as u32)
        .map(|place| {
            let mut x = place.wrapping_mul(0x9e37_79b9).wrapping_add(seed);
            x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
            x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
            x ^= x >> 16;
            let value = f64::from(x) / 2f64.powi(31) - 1.0;
            (if is_norm { 1.0 + 0.3 * value } else { 0.4 * value }) as f32
        })
        .collect()
}

fn batch(texts: &[&Value]) -> Map {
    let rows: Vec<Row> = texts
        .iter()
        .map(|text| {
            let mut row = Row::new().unwrap();
            row.put_tokens("ids", &integers(&text["ids"])).unwrap();
            row.put_tokens("segments", &integers(&text["segments"])).unwrap();
            row
        })
        .collect();
    Map::from_rows(&rows.iter().collect::<Vec<_>>()).unwrap()
}

/// A model with a head, all with the script's weights.
struct Built {
    model: LoadedModel,
    head: TaskHead,
    params: Params,
}

impl Built {
    fn new(config: &Value, task: &str, outputs: usize) -> Self {
        let model_type = config["model_type"].as_str().unwrap();
        let runtime = linked::runtime();
        let component = runtime.components().find("et.model/1", model_type).unwrap();
        let params = Params::new(0).unwrap();
        let root = params.root().unwrap();
        let model = LoadedModel::create(&component, &config.to_string(), &root).unwrap();
        let info = model.info().clone();
        let layers = &info.tasks[task].layers;
        let head = TaskHead::new(&root, layers, info.hidden_size, outputs, info.vocab_size, None);
        let head = head.unwrap();
        for param in params.iter() {
            let values = values(&param.name(), param.len());
            param.assign(&Tensor::from_slice(&values, param.shape()).unwrap()).unwrap();
        }
        Self { model, head, params }
    }

    /// Outputs of the model, and what the head makes of the rows `places` of its last states, or of all.
    fn run(&mut self, batch: &Map, places: Option<&[i64]>) -> (Map, Tensor) {
        let call = Call::inference(ET_WANT_HIDDEN_STATES);
        let mut outputs = Map::new().unwrap();
        self.model.forward(&call, batch, &mut outputs).unwrap();
        let mut last = outputs.get("last").unwrap();
        if let Some(places) = places {
            let places = Tensor::from_slice(places, &[places.len()]).unwrap();
            last = last.index_select(0, &places).unwrap();
        }
        let params = &self.params;
        let mut param = |name: &str| params.find(name)?.tensor();
        let logits = self.head.forward(&call, &last, batch, &mut param).unwrap();
        (outputs, logits)
    }
}

/// Every third token of each text, from its second on.
fn places(texts: &[&Value]) -> (Vec<i64>, Vec<i64>) {
    let (mut places, mut own, mut first) = (Vec::new(), Vec::new(), 0);
    for text in texts {
        let length = text["ids"].as_array().unwrap().len() as i64;
        let picked: Vec<i64> = (1..length).step_by(3).collect();
        places.extend(picked.iter().map(|place| first + place));
        own.extend(picked);
        first += length;
    }
    (places, own)
}

/// Compares gradients of all parameters with a golden's, relative to the size of each.
fn assert_gradients(what: &str, params: &Params, golden: &Value) {
    let golden = golden.as_object().unwrap();
    let largest = golden.values().map(|pair| numbers(pair)[0]).fold(0.0, f64::max);
    let mut with = 0;
    for param in params.iter() {
        let name = param.name();
        let Some(expected) = golden.get(&name).map(numbers) else {
            let gradient = param.grad().unwrap().map(|gradient| floats(&gradient));
            let none = gradient.is_none_or(|gradient| gradient.iter().all(|g| *g == 0.0));
            assert!(none, "{what}: {name} has a gradient that transformers has not");
            continue;
        };
        with += 1;
        let gradient = floats(&param.grad().unwrap().expect(&name));
        let sum = |term: &dyn Fn(usize, f64) -> f64| -> f64 {
            gradient.iter().enumerate().map(|(k, g)| term(k, *g)).sum()
        };
        let found = [sum(&|_, g| g * g).sqrt(), sum(&|k, g| g * (k as f64).sin())];
        for (found, expected_value) in found.into_iter().zip(&expected) {
            // Some gradients are zero in exact arithmetic; then all are rounding.
            let limit = GRADIENT * expected[0].max(1e-2 * largest);
            let apart = (found - expected_value).abs();
            assert!(apart <= limit, "{what}: {name}: {found}, expected {expected_value}");
        }
    }
    assert_eq!(with, golden.len(), "{what}: {:?}", golden.keys().collect::<Vec<_>>());
}

fn check_task(what: &str, case: &Value, task: &str, golden: &Value) {
    let what = format!("{what}, {task}");
    let texts: Vec<&Value> = case["texts"].as_array().unwrap().iter().collect();
    let outputs = if task == "question-answering" { 2 } else { case["labels"].as_u64().unwrap() };
    let is_whole = task == "sequence-classification";
    let mut built = Built::new(&case["config"], task, outputs as usize);
    let mut batch = batch(&texts);
    let (rows, own) = places(&texts);
    let at = (!is_whole).then_some(&rows[..]);
    let (outputs, logits) = no_grad(|| built.run(&batch, at));
    assert_close(&format!("{what}: logits"), &floats(&logits), &numbers(&golden["logits"]));
    if is_whole {
        check_states(&what, case, &batch, &outputs, built.model.info().layers);
    }
    if golden["loss"].is_null() {
        return;
    }
    let width = logits.shape()[1] as i64;
    let labels: Vec<i64> = if is_whole {
        (0..texts.len() as i64).map(|text| text % width).collect()
    } else {
        own.iter().map(|place| (7 * place + 3) % width).collect()
    };
    batch.put("labels", &Tensor::from_slice(&labels, &[labels.len()]).unwrap()).unwrap();
    built.params.seal().unwrap();
    let (mut outputs, logits) = built.run(&batch, at);
    outputs.put("logits", &logits).unwrap();
    let component = linked::runtime().components().find("et.loss/1", "cross-entropy").unwrap();
    let mut loss = LoadedLoss::create(&component, "").unwrap();
    let loss = loss.forward(&Call::inference(0), &outputs, &batch).unwrap();
    let expected = numbers(&json!([golden["loss"]]));
    assert_close(&format!("{what}: loss"), &[loss.to_scalar().unwrap()], &expected);
    loss.backward().unwrap();
    assert_gradients(&what, &built.params, &golden["gradients"]);
}

/// Hidden states of a batch of runs, whose goldens are those of each text alone.
fn check_states(what: &str, case: &Value, batch: &Map, outputs: &Map, layers: usize) {
    let starts = batch.get("starts").unwrap().to_vec::<i64>().unwrap();
    for (index, run) in starts.windows(2).enumerate() {
        let (begin, len) = (run[0] as usize, (run[1] - run[0]) as usize);
        let state = |name: &str| outputs.get(name).unwrap().narrow(0, begin, len).unwrap();
        assert_eq!(case["states"][index].as_array().unwrap().len(), layers + 1, "{what}");
        for layer in 0..=layers {
            let state = state(&format!("hidden_states/{layer}"));
            let width = state.shape()[1];
            let sum = |row: &[f64]| -> f64 {
                row.iter().enumerate().map(|(k, value)| value * (k as f64).sin()).sum()
            };
            let found: Vec<f64> = floats(&state).chunks_exact(width).map(sum).collect();
            let expected = numbers(&case["states"][index][layer]);
            assert_close(&format!("{what}: text {index}, layer {layer}"), &found, &expected);
        }
        let (found, expected) = (floats(&state("last")), numbers(&case["last"][index]));
        assert_close(&format!("{what}: text {index}"), &found, &expected);
    }
}

fn check(family: &str) {
    let path = goldens().join(format!("{family}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let cases: Value = serde_json::from_str(&text).unwrap();
    let cases = cases.as_array().unwrap();
    for case in cases {
        let what = format!("{family}, {}", case["name"].as_str().unwrap());
        for (task, golden) in case["tasks"].as_object().unwrap() {
            check_task(&what, case, task, golden);
        }
    }
    assert!(cases.len() >= 6);
}

/// The error of a configuration with one more key.
fn refused(model_type: &str, key: &str, value: Value) -> String {
    let runtime = linked::runtime();
    let component = runtime.components().find("et.model/1", model_type).unwrap();
    let params = Params::new(0).unwrap();
    let mut config = json!({ "model_type": model_type });
    config[key] = value;
    match LoadedModel::create(&component, &config.to_string(), &params.root().unwrap()) {
        Ok(_) => panic!("{model_type}: {key} is passed over"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn modernbert_equals_transformers() {
    check("modernbert");
}

#[test]
fn modernbert_refuses_by_name_what_it_cannot_do() {
    for (key, value) in [
        ("rope_parameters", json!({"full_attention": {"rope_type": "yarn", "factor": 2.0}})),
        ("rope_parameters", json!({"rope_type": "linear", "factor": 2.0})),
        ("rope_scaling", json!({"rope_type": "linear"})),
        ("layer_types", json!(["full_attention"])),
        ("local_attention", json!(1)),
        ("num_attention_heads", json!(256)),
        ("classifier_pooling", json!("max")),
        ("hidden_activation", json!("mish")),
        ("norm_eps", json!(-1.0)),
        ("mlp_dropout", json!(1.0)),
        ("is_decoder", json!(true)),
    ] {
        let said = refused("modernbert", key, value);
        assert!(said.contains(key), "{key}: {said}");
    }
}

#[test]
fn deberta_equals_transformers() {
    check("deberta-v2");
}

#[test]
fn deberta_refuses_by_name_what_it_cannot_do() {
    for (key, value) in [
        ("pos_att_type", json!("c2p|p2p")),
        ("pos_att_type", json!(3)),
        ("norm_rel_ebd", json!("batch_norm")),
        ("conv_kernel_size", json!(4)),
        ("attention_head_size", json!(7)),
        ("pooler_hidden_size", json!(7)),
        ("num_attention_heads", json!(7)),
        ("z_steps", json!(2)),
        ("hidden_act", json!("mish")),
        ("cls_dropout", json!(1.0)),
        ("num_hidden_layers", json!(5000)),
    ] {
        let said = refused("deberta-v2", key, value);
        assert!(said.contains(key), "{key}: {said}");
    }
}

#[test]
fn xlnet_equals_transformers() {
    check("xlnet");
}

fn xlnet_cases() -> Vec<Value> {
    let text = std::fs::read_to_string(goldens().join("xlnet.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn xlnet_predicts_over_permutations_as_transformers_does() {
    for case in xlnet_cases() {
        let what = format!("xlnet, {}, permutation", case["name"].as_str().unwrap());
        let golden = &case["permutation"];
        let (texts, asked) = (case["texts"].as_array().unwrap(), golden["asked"].as_array());
        let mut labels = Vec::new();
        let mut built = Built::new(&case["config"], "permutation-lm", 0);
        let words = built.model.info().vocab_size as i64;
        let rows: Vec<Row> = texts
            .iter()
            .zip(asked.unwrap())
            .map(|(text, asked)| {
                let mut row = Row::new().unwrap();
                row.put_tokens("ids", &integers(&text["ids"])).unwrap();
                row.put_tokens("segments", &integers(&text["segments"])).unwrap();
                for name in ["order", "key_order"] {
                    row.put_tokens(name, &integers(&asked[name])).unwrap();
                }
                let targets = integers(&asked["targets"]);
                row.put_tokens("target/places", &targets).unwrap();
                labels.extend(targets.iter().map(|place| (7 * place + 3) % words));
                row
            })
            .collect();
        let mut batch = Map::from_rows(&rows.iter().collect::<Vec<_>>()).unwrap();
        batch.put("labels", &Tensor::from_slice(&labels, &[labels.len()]).unwrap()).unwrap();
        built.params.seal().unwrap();
        let (call, mut outputs) = (Call::inference(0), Map::new().unwrap());
        built.model.forward(&call, &batch, &mut outputs).unwrap();
        let (params, last) = (&built.params, outputs.get("target/last").unwrap());
        let mut param = |name: &str| params.find(name)?.tensor();
        let logits = built.head.forward(&call, &last, &batch, &mut param).unwrap();
        assert_close(&format!("{what}: logits"), &floats(&logits), &numbers(&golden["logits"]));
        outputs.put("logits", &logits).unwrap();
        let component = linked::runtime().components().find("et.loss/1", "cross-entropy").unwrap();
        let mut loss = LoadedLoss::create(&component, "").unwrap();
        let loss = loss.forward(&call, &outputs, &batch).unwrap();
        let expected = numbers(&json!([golden["loss"]]));
        assert_close(&format!("{what}: loss"), &[loss.to_scalar().unwrap()], &expected);
        loss.backward().unwrap();
        assert_gradients(&what, &built.params, &golden["gradients"]);
    }
}

/// Both texts of a case go on in one batch, of different lengths.
#[test]
fn xlnet_goes_on_from_its_memory_as_transformers_does() {
    for case in xlnet_cases() {
        let what = format!("xlnet, {}, memory", case["name"].as_str().unwrap());
        let built = Built::new(&case["config"], "token-classification", 2);
        let texts = case["memory"].as_array().unwrap();
        let (mut cache, mut before) = (Map::new().unwrap(), vec![0i64; texts.len()]);
        for part in 0..3 {
            let parts: Vec<&Value> = texts.iter().map(|text| &text[part]).collect();
            let mut batch = batch(&parts);
            let mut positions = Vec::new();
            for (before, part) in before.iter_mut().zip(&parts) {
                let length = integers(&part["ids"]).len() as i64;
                positions.extend(*before..*before + length);
                *before += length;
            }
            let positions = Tensor::from_slice(&positions, &[positions.len()]).unwrap();
            batch.put("positions", &positions).unwrap();
            let call = Call::generation(0, &mut cache).unwrap();
            let mut outputs = Map::new().unwrap();
            no_grad(|| built.model.forward(&call, &batch, &mut outputs)).unwrap();
            let expected: Vec<f64> = parts.iter().flat_map(|part| numbers(&part["last"])).collect();
            let found = floats(&outputs.get("last").unwrap());
            assert_close(&format!("{what}: part {part}"), &found, &expected);
        }
    }
}

#[test]
fn xlnet_refuses_by_name_what_it_cannot_do() {
    for (key, value) in [
        ("bi_data", json!(true)),
        ("reuse_len", json!(4)),
        ("same_length", json!(true)),
        ("d_head", json!(7)),
        ("d_model", json!(1023)),
        ("n_head", json!(7)),
        ("attn_type", json!("tri")),
        ("summary_type", json!("attn")),
        ("summary_proj_to_labels", json!(true)),
        ("untie_r", json!(false)),
        ("dropout", json!(1.0)),
        ("hidden_size", json!("wide")),
    ] {
        let said = refused("xlnet", key, value);
        let key = if key == "hidden_size" { "d_model" } else { key };
        assert!(said.contains(key), "{key}: {said}");
    }
}
