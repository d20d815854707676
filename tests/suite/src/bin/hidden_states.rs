//! `hidden_states OUTPUT.safetensors`: every hidden state of all-MiniLM-L6-v2 on the texts of
//! `tests/parity/texts.json`, and its pooled output, for `tests/parity/check_full.py`. All texts are in one batch of
//! runs.

use std::path::PathBuf;

use easytransfer::plugin::abi::{ET_WANT_HIDDEN_STATES, ET_WANT_POOLED};
use easytransfer::plugin::{Call, LoadedModel, Map, Params, Row, no_grad};
use easytransfer::train::Result;
use easytransfer::train::files::safetensors::{F32Bytes, write_f32};
use easytransfer::train::model::network::read_json;
use easytransfer::train::model::weights::{self, Expect};
use easytransfer_tests::{linked, places};
use serde_json::Value;

fn main() -> Result<()> {
    let output = PathBuf::from(std::env::args().nth(1).expect("usage: hidden_states OUTPUT"));
    let texts = std::fs::read_to_string(places::parity().join("texts.json")).expect("the texts");
    let texts: Vec<Value> = serde_json::from_str(&texts).expect("texts.json is JSON");
    write_f32(&output, &states(&texts)?)
}

/// `NAME.layerK` [T, h] for every text and layer, and `NAME.pooled` [h].
fn states(texts: &[Value]) -> Result<Vec<F32Bytes>> {
    let directory = places::shared().join("models/all-MiniLM-L6-v2");
    let runtime = linked::runtime();
    let component = runtime.components().find("et.model/1", "bert")?;
    let params = Params::new(0)?;
    let config = read_json(&directory.join("config.json"))?.to_string();
    let model = LoadedModel::create(&component, &config, &params.root()?)?;
    let info = model.info().clone();
    weights::load(&directory, &params, &info, Expect::Encoder)?;
    let mut rows = Vec::new();
    for text in texts {
        let mut row = Row::new()?;
        for name in ["ids", "segments"] {
            let values = text[name].as_array().into_iter().flatten();
            let values: Vec<i64> = values.filter_map(Value::as_i64).collect();
            row.put_tokens(name, &values)?;
        }
        rows.push(row);
    }
    let batch = Map::from_rows(&rows.iter().collect::<Vec<_>>())?;
    let starts = batch.get("starts")?.to_vec::<i64>()?;
    let mut outputs = Map::new()?;
    let call = Call::inference(ET_WANT_HIDDEN_STATES | ET_WANT_POOLED);
    no_grad(|| model.forward(&call, &batch, &mut outputs))?;
    let width = info.hidden_size;
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let name = |index: usize| texts[index]["name"].as_str().unwrap_or_default().to_owned();
    let mut tensors: Vec<F32Bytes> = Vec::new();
    for layer in 0..=info.layers {
        let states = outputs.get(&format!("hidden_states/{layer}"))?.to_vec::<f32>()?;
        for (index, run) in starts.windows(2).enumerate() {
            let (begin, end) = (run[0] as usize, run[1] as usize);
            let part = bytes(&states[begin * width..end * width]);
            tensors.push((format!("{}.layer{layer}", name(index)), vec![end - begin, width], part));
        }
    }
    let pooled = outputs.get("pooled")?.to_vec::<f32>()?;
    for (index, row) in pooled.chunks_exact(width).enumerate() {
        tensors.push((format!("{}.pooled", name(index)), vec![width], bytes(row)));
    }
    Ok(tensors)
}
