//! Training steps and forward passes of an encoder with random weights over the batches of a file, which `peer.py`
//! runs too. One line of JSON per workload, and for training where the time of a step goes.

use std::collections::BTreeMap;
use std::time::Instant;

use easytransfer::plugin::{Map, Row, Tensor, abi, no_grad, step};
use easytransfer::{Error, Model, Optimizer, ProfileSummary, Result, Runtime};
use serde::Deserialize;
use serde_json::{Value, json};

/// Batches, each a list of lengths, for training or for a forward pass.
#[derive(Deserialize)]
struct Workload {
    work: String,
    shape: String,
    batches: Vec<Vec<usize>>,
}

/// What is run and how long.
pub struct Options<'a> {
    /// config.json of the model.
    pub config: &'a str,
    /// The workloads, as JSON.
    pub workloads: &'a str,
    /// Seconds of measuring a workload, after one round that warms up.
    pub seconds: f64,
    pub precision: &'a str,
    /// Whether to say where the time goes; the trace is left at this path.
    pub trace: Option<&'a str>,
}

/// Extents of the model.
struct Size {
    layers: f64,
    hidden: f64,
    intermediate: f64,
    vocab: usize,
}

impl Size {
    fn of(config: &Value) -> Result<Self> {
        let number = |key: &str| {
            config[key].as_f64().ok_or_else(|| Error::user(format!("--config: no number {key}")))
        };
        Ok(Self {
            layers: number("num_hidden_layers")?,
            hidden: number("hidden_size")?,
            intermediate: number("intermediate_size")?,
            vocab: number("vocab_size")? as usize,
        })
    }

    /// Floating point operations of the products of one pass forward: per layer and token four of h x h and two of h
    /// x i, per layer and pair of tokens 2 h multiply-adds.
    fn flops(&self, batch: &[usize]) -> f64 {
        let tokens: usize = batch.iter().sum();
        let pairs: usize = batch.iter().map(|len| len * len).sum();
        let weights = 4.0 * self.hidden * self.hidden + 2.0 * self.hidden * self.intermediate;
        2.0 * self.layers * (weights * tokens as f64 + 2.0 * self.hidden * pairs as f64)
    }
}

fn collate(lens: &[usize], vocab: usize) -> Result<Map> {
    let mut rows = Vec::new();
    for (index, &len) in lens.iter().enumerate() {
        let mut row = Row::new()?;
        let ids: Vec<i64> =
            (0..len).map(|i| ((i * 7919 + index * 104_729) % vocab) as i64).collect();
        row.put_tokens("ids", &ids)?;
        rows.push(row);
    }
    Ok(Map::from_rows(&rows.iter().collect::<Vec<_>>())?)
}

fn one_step(model: &mut Model, optimizer: &mut Optimizer, batch: &Map) -> Result<Tensor> {
    let outputs = model.forward(batch, true, abi::ET_WANT_POOLED)?;
    let loss = outputs.get("pooled")?.sqr()?.mean(&[], false)?;
    loss.backward()?;
    step::clip_grads(model.params(), 1.0)?;
    optimizer.step(model, 1e-5)?;
    Ok(loss)
}

/// All batches once, the next one on its way while one is computed; waits at the end.
fn round(
    model: &mut Model,
    optimizer: &mut Optimizer,
    workload: &Workload,
    vocab: usize,
) -> Result<()> {
    let mut batches = workload.batches.iter().map(|lens| -> Result<Map> {
        let batch = collate(lens, vocab)?;
        step::prefetch(&batch)?;
        Ok(batch)
    });
    let mut next = batches.next().transpose()?;
    let mut last: Option<Tensor> = None;
    while let Some(batch) = next {
        next = batches.next().transpose()?;
        last = Some(if workload.work == "train" {
            one_step(model, optimizer, &batch)?
        } else {
            no_grad(|| model.forward(&batch, false, abi::ET_WANT_POOLED))?
                .get("pooled")?
                .sum(&[], false)?
        });
    }
    let last = last.map(|last| last.to_scalar()).transpose()?;
    match last {
        Some(last) if !last.is_finite() => {
            Err(Error::other(format!("{}: the last number is {last}", workload.shape)))
        }
        _ => Ok(()),
    }
}

/// What an operation is about, by its name in the profile.
fn family(name: &str) -> &'static str {
    let name = name.split(' ').next().unwrap_or_default();
    match name {
        "linear" | "matmul" => "products",
        "attention" => "attention",
        "layer_norm" | "rms_norm" => "norms",
        "embedding_sum" => "embeddings",
        "optim_step" | "zero_grads" => "optimizer",
        "clip_grads" | "grad_norm" | "scale_grads" => "clipping",
        "cross_entropy" | "binary_cross_entropy" | "mean" | "sum" | "sqr" => "loss",
        _ => "rest",
    }
}

/// Milliseconds by family and direction, of the card where one computes.
fn families(summary: &ProfileSummary) -> BTreeMap<String, f64> {
    let on_card = summary.ops.iter().any(|op| op.card_ms > 0.0);
    let mut sums = BTreeMap::new();
    for op in summary.ops.iter().filter(|op| op.category != "train") {
        let time = if on_card { op.card_ms } else { op.self_ms };
        *sums.entry(format!("{} {}", family(&op.name), op.category)).or_default() += time;
    }
    sums
}

pub fn run(runtime: &Runtime, options: &Options<'_>) -> Result<()> {
    let json = |error: serde_json::Error| Error::user(format!("speed: {error}"));
    let config: Value = serde_json::from_str(options.config).map_err(json)?;
    let workloads: Vec<Workload> = serde_json::from_str(options.workloads).map_err(json)?;
    let size = Size::of(&config)?;
    let name =
        config["model_type"].as_str().ok_or_else(|| Error::user("--config: no text model_type"))?;
    let mut model = runtime.model(name, options.config, 1)?;
    let mut optimizer = runtime.optimizer("adamw", "{}", &mut model)?;
    for workload in &workloads {
        let train = workload.work == "train";
        let mut times = Vec::new();
        let begin = Instant::now();
        // The first round makes plans and fills the pool.
        while times.len() < 4 || begin.elapsed().as_secs_f64() < options.seconds {
            let start = Instant::now();
            round(&mut model, &mut optimizer, workload, size.vocab)?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.remove(0);
        times.sort_by(f64::total_cmp);
        let seconds = times[times.len() / 2];
        let tokens: usize = workload.batches.iter().flatten().sum();
        let flops: f64 = workload.batches.iter().map(|batch| size.flops(batch)).sum();
        let flops = if train { 3.0 * flops } else { flops };
        println!(
            "{}",
            json!({"side": "easytransfer", "way": options.precision, "work": workload.work, "shape": workload.shape,
                "ms_per_batch": seconds * 1e3 / workload.batches.len() as f64, "rounds": times.len(),
                "tokens_per_s": tokens as f64 / seconds, "tflops": flops / seconds / 1e12})
        );
        if let Some(path) = options.trace.filter(|_| train) {
            let profile = runtime.profile(path.as_ref(), 0)?;
            round(&mut model, &mut optimizer, workload, size.vocab)?;
            let summary = profile.finish()?;
            let each = |(name, ms): (String, f64)| (name, ms / workload.batches.len() as f64);
            let families: BTreeMap<String, f64> =
                families(&summary).into_iter().map(each).collect();
            println!(
                "{}",
                json!({"side": "easytransfer", "way": options.precision, "work": "families", "shape": workload.shape,
                    "ms_per_batch": families})
            );
        }
    }
    Ok(())
}
