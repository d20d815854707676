//! `cargo bench -p easytransfer-kernels --bench attention [-- LENGTH...]`: attention over 32 runs of one length, 12 heads of
//! 32 and of 64 columns, forward and backward, on two threads. `peer_attention.py` prints the same table for PyTorch.

use easytransfer_kernels::attention::backward::{
    AttentionGradients, AttentionSaved, attention_backward,
};
use easytransfer_kernels::attention::{AttentionOutputs, AttentionShape, attention_forward};
use easytransfer_kernels::philox::{Counter, Dropout, fill_uniform};
use easytransfer_kernels::runs::Rows;
use std::time::Instant;

const RUNS: usize = 32;
const HEADS: usize = 12;
/// Seconds for which each case is repeated.
const SECONDS: f64 = 0.2;

fn main() {
    // Cargo adds `--bench`.
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let asked: Vec<usize> = arguments.map(|text| text.parse().expect("a length")).collect();
    let lengths =
        if asked.is_empty() { vec![8, 13, 20, 32, 50, 64, 128, 256, 384, 512] } else { asked };
    println!("d len p | forward ms GFLOP/s | backward ms GFLOP/s");
    for head_size in [32, 64] {
        for &len in &lengths {
            for p in [0.0, 0.1] {
                case(head_size, len, p);
            }
        }
    }
}

/// Prints the medians for runs of `len` tokens.
fn case(head_size: usize, len: usize, p: f64) {
    let starts: Vec<i64> = (0..=RUNS).map(|run| (run * len) as i64).collect();
    let shape = AttentionShape {
        heads: HEADS,
        head_size,
        query_starts: &starts,
        key_starts: &starts,
        causal: false,
        scale: 1.0 / (head_size as f64).sqrt(),
    };
    let (rows, width) = (RUNS * len, shape.width());
    let n = rows * width;
    let mut qkv = vec![0f32; 3 * n];
    let mut do_ = vec![0f32; n];
    fill_uniform(Counter::new(1, 0, 0), -1.0, 1.0, &mut qkv);
    fill_uniform(Counter::new(1, 1, 0), -1.0, 1.0, &mut do_);
    let part = |i: usize| Rows::new(&qkv[i * n..(i + 1) * n], width);
    let (q, k, v) = (part(0), part(1), part(2));
    let dropout = (p > 0.0).then(|| Dropout::new(p, Counter::new(1, 2, 0)).expect("p is below 1"));
    let (mut o, mut lse) = (vec![0.0; n], vec![0.0; rows * HEADS]);
    let mut words = vec![0u16; shape.decisions_len().expect("sound")];
    let (mut dq, mut dk, mut dv) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while forward.len() < 5 || begin.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        let decisions = dropout.map(|_| &mut words[..]);
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions };
        attention_forward(shape, q, k, v, dropout, outputs).expect("sound");
        forward.push(start.elapsed().as_secs_f64());
        let decisions = dropout.map(|_| &words[..]);
        let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions };
        let into = AttentionGradients::Separate { q: &mut dq, k: &mut dk, v: &mut dv };
        let start = Instant::now();
        attention_backward(shape, saved, dropout, &do_, into).expect("sound");
        backward.push(start.elapsed().as_secs_f64());
    }
    let product = 2e-9 * (RUNS * len * len * width) as f64;
    let (forward, backward) = (median(forward), median(backward));
    println!(
        "{head_size} {len:3} {p} | {:8.3} {:4.0} | {:8.3} {:4.0}",
        forward * 1e3,
        2.0 * product / forward,
        backward * 1e3,
        5.0 * product / backward
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
