//! `cargo run --release -p easytransfer-bench --bin boundary`: what a call through the C tables costs over a direct
//! call.

use easytransfer::plugin::{DType, Map, Row, Tensor};
use easytransfer_bench::{Pair, alternate, median};
use easytransfer_core::{handle, ops, tensor};
use easytransfer_tests::linked;
use std::hint::black_box;
use std::time::Instant;

/// Makes the compiler believe that the result is used. Of the pointer in it, as a caller would: a whole `Result` that
/// is forced through memory costs more than the call.
fn kept<T>(result: &T) {
    black_box(result);
}

fn main() {
    let runtime = linked::runtime();
    println!("| op | direct ns | through the table ns | difference ns |");
    println!("|---|---|---|---|");
    let mut cost = Vec::new();
    let mut line = |name: &str, times: Pair| {
        let [direct, table, difference] =
            [times.first, times.second, times.difference].map(|seconds| seconds * 1e9);
        println!("| {name} | {direct:.1} | {table:.1} | {difference:.1} |");
        cost.push(times.difference);
    };
    for side in [1usize, 8, 32] {
        let through = Tensor::full(1.5, DType::F32, &[side, side]).expect("a tensor");
        // The same object on both sides, so that its place in memory makes no difference.
        // SAFETY: `through` outlives the borrow.
        let direct =
            unsafe { handle::borrow::<tensor::Tensor>(through.as_raw()) }.expect("a tensor");
        let calls = 500 / side;
        let times = alternate(
            2001,
            calls,
            || kept(&direct.detach()),
            || kept(&through.detach().expect("a tensor").as_raw()),
        );
        line(&format!("detach {side}x{side}"), times);
        let flat = [side * side];
        let times = alternate(
            2001,
            calls,
            || kept(&ops::shape::reshape(direct, black_box(&flat)).expect("a view")),
            || kept(&through.reshape(black_box(&flat)).expect("a view").as_raw()),
        );
        line(&format!("reshape {side}x{side}"), times);
        let neg = easytransfer_plugin::abi::ET_UNARY_NEG;
        let times = alternate(
            2001,
            calls,
            || kept(&ops::unary::unary(black_box(neg), direct).expect("a tensor")),
            || kept(&through.neg().expect("a tensor").as_raw()),
        );
        line(&format!("neg {side}x{side}"), times);
        let add = easytransfer_plugin::abi::ET_BINARY_ADD;
        let times = alternate(
            2001,
            calls,
            || kept(&ops::binary::binary(black_box(add), direct, direct).expect("a sum")),
            || kept(&through.add(&through).expect("a sum").as_raw()),
        );
        line(&format!("add {side}x{side}"), times);
    }

    // A training step of a small BERT, and how many calls it makes.
    let config = r#"{"model_type":"bert","vocab_size":1000,"hidden_size":256,"num_hidden_layers":4,"num_attention_heads":4,"intermediate_size":1024}"#;
    let mut model = runtime.model("bert", config, 1).expect("a model");
    let rows: Vec<Row> = (0..32)
        .map(|i| {
            let mut row = Row::new().expect("a row");
            let ids: Vec<i64> = (0..32).map(|k| (i * 37 + k * 11) % 1000).collect();
            row.put_tokens("ids", &ids).expect("ids");
            row
        })
        .collect();
    let batch = Map::from_rows(&rows.iter().collect::<Vec<_>>()).expect("a batch");
    let mut optimizer = runtime.optimizer("adamw", "", &mut model).expect("an optimizer");
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        let outputs = model.forward(&batch, true, 2).expect("forward");
        let loss = outputs.get("pooled").and_then(|x| x.sqr()?.mean(&[], false)).expect("a loss");
        loss.backward().expect("backward");
        drop((outputs, loss));
        optimizer.step(&mut model, 1e-5).expect("a step");
        times.push(start.elapsed().as_secs_f64());
    }
    // Forward of a layer: 16 parameters fetched, 10 operations; embeddings, pooler, optimizer and maps add about 40
    // calls. Each has a handle to release.
    let calls = 2.0 * (4.0 * 26.0 + 40.0);
    let step = median(times);
    println!();
    println!(
        "training step of BERT-mini (32 rows of 32 tokens): {:.1} ms; about {calls:.0} calls at the measured {:.0} ns are {:.4} % of it",
        step * 1e3,
        median(cost.clone()) * 1e9,
        calls * median(cost) / step * 100.0
    );
}
