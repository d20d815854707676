//! Training steps and forward passes of BERT-base with random weights, tokens per second. One line of JSON per shape, for `peer.py`'s table.

use std::time::Instant;

use easytransfer::plugin::{Map, Row, abi, no_grad};
use easytransfer::{Error, Result, Runtime};

const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
"num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "initializer_range": 0.02}"#;

/// Lengths of SST-2's training lines in order of frequency: mean 13, as measured on the data set.
const SHORT: [usize; 16] = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 19, 23, 29, 40];

fn batch(lens: &[usize]) -> Result<Map> {
    let mut rows = Vec::new();
    for (index, &len) in lens.iter().enumerate() {
        let mut row = Row::new()?;
        let ids: Vec<i64> =
            (0..len).map(|i| (999 + (i * 7919 + index * 104_729) % 29_000) as i64).collect();
        row.put_tokens("ids", &ids)?;
        rows.push(row);
    }
    Ok(Map::from_rows(&rows.iter().collect::<Vec<_>>())?)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

pub fn run(runtime: &Runtime) -> Result<()> {
    let bert = |layers: f64, tokens: f64, pairs: f64| {
        // Multiply-adds of the products of one pass forward: 12 h^2 per layer and token, 2 h per layer and pair of tokens.
        2.0 * layers * (12.0 * 768.0 * 768.0 * tokens + 2.0 * 768.0 * pairs)
    };
    let shapes: Vec<(String, Vec<usize>)> = vec![
        ("32x128".to_owned(), vec![128; 32]),
        ("16x512".to_owned(), vec![512; 16]),
        ("sst2 1024 rows".to_owned(), SHORT.repeat(64)),
    ];
    let mut model = runtime.model("bert", CONFIG, 1)?;
    let mut optimizer = runtime.optimizer("adamw", "{}", &mut model)?;
    for (name, lens) in &shapes {
        let batch = batch(lens)?;
        let tokens: usize = lens.iter().sum();
        let pairs: usize = lens.iter().map(|len| len * len).sum();
        let mut times = Vec::new();
        for round in 0..13 {
            let start = Instant::now();
            model.params().zero_grads();
            let outputs = model.forward(&batch, true, abi::ET_WANT_POOLED)?;
            let loss = outputs.get("pooled")?.sqr()?.mean(&[], false)?;
            loss.backward()?;
            optimizer.step(&mut model, 1e-5)?;
            // The number makes the host wait for the step.
            let loss = loss.to_scalar()?;
            if !loss.is_finite() {
                return Err(Error::other(format!("{name}: the loss is {loss}")));
            }
            if round >= 3 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
        let seconds = median(times);
        let flops = 3.0 * bert(12.0, tokens as f64, pairs as f64);
        println!(
            "{}",
            serde_json::json!({"side": "easytransfer", "work": "train", "shape": name, "ms": seconds * 1e3,
                "tokens_per_s": tokens as f64 / seconds, "tflops": flops / seconds / 1e12})
        );
    }
    for rows in [1usize, 32, 256] {
        let batch = batch(&vec![128; rows])?;
        let mut times = Vec::new();
        for round in 0..23 {
            let start = Instant::now();
            let outputs = no_grad(|| model.forward(&batch, false, abi::ET_WANT_POOLED))?;
            outputs.get("pooled")?.sum(&[], false)?.to_scalar()?;
            if round >= 3 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
        let seconds = median(times);
        println!(
            "{}",
            serde_json::json!({"side": "easytransfer", "work": "forward", "shape": format!("{rows}x128"), "ms": seconds * 1e3,
                "tokens_per_s": (rows * 128) as f64 / seconds})
        );
    }
    Ok(())
}
