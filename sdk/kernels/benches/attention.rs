//! `cargo bench -p easytransfer-kernels --bench attention [-- LENGTH...]`: attention over 32 runs of one length, 12
//! heads of 32 and of 64 columns, forward and backward, on two threads. `peer_attention.py` prints the same table for
//! PyTorch. Then attention with terms beside its products, at 128 and 512 tokens or the lengths asked for, as times of
//! plain attention.

use easytransfer_kernels::attention::backward::{
    AttentionGradients, AttentionSaved, attention_backward, attention_backward_with,
};
use easytransfer_kernels::attention::terms::{
    AttentionTerms, DistanceBias, Order, Positions, Segments, TermGradients,
};
use easytransfer_kernels::attention::{
    AttentionOutputs, AttentionShape, attention_forward, attention_forward_with,
};
use easytransfer_kernels::philox::{Counter, Dropout, fill_uniform};
use easytransfer_kernels::runs::RowsView;
use std::time::Instant;

const RUNS: usize = 32;
const HEADS: usize = 12;
/// Seconds for which each case is repeated.
const SECONDS: f64 = 0.2;

fn main() {
    // Cargo adds `--bench`.
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let asked: Vec<usize> = arguments.map(|text| text.parse().expect("a length")).collect();
    let lengths = |all: &[usize]| if asked.is_empty() { all.to_vec() } else { asked.clone() };
    println!("d len p | forward ms GFLOP/s | backward ms GFLOP/s");
    for head_size in [32, 64] {
        for len in lengths(&[8, 13, 20, 32, 50, 64, 128, 256, 384, 512]) {
            for p in [0.0, 0.1] {
                case(head_size, len, p);
            }
        }
    }
    println!("len terms | forward ms, times plain | backward ms, times plain");
    lengths(&[128, 512]).into_iter().for_each(with_terms);
}

/// Prints the medians with each kind of terms, runs of `len` tokens and heads of 64 columns.
fn with_terms(len: usize) {
    const HEAD_SIZE: usize = 64;
    let width = HEADS * HEAD_SIZE;
    // As many tokens in all as at 128.
    let runs = (RUNS * 128 / len).clamp(1, RUNS);
    let starts: Vec<i64> = (0..=runs).map(|run| (run * len) as i64).collect();
    let (query_starts, key_starts) = (&starts[..], &starts[..]);
    let (heads, head_size, scale) = (HEADS, HEAD_SIZE, 0.125);
    let shape = AttentionShape { heads, head_size, query_starts, key_starts, causal: false, scale };
    let causal = AttentionShape { causal: true, ..shape };
    let rows = runs * len;
    let uniform = |len: usize, stream: u64| {
        let mut values = vec![0f32; len];
        fill_uniform(Counter::new(1, stream, 0), -1.0, 1.0, &mut values);
        values
    };
    let inputs: [Vec<f32>; 3] = std::array::from_fn(|i| uniform(rows * width, i as u64));
    let [q, k, v] = [0, 1, 2].map(|i| RowsView::new(&inputs[i], width));
    let do_ = uniform(rows * width, 3);
    // DeBERTa's buckets: distances up to 128 each, then logarithms up to 512, to both sides.
    let bucket = |distance: i64| {
        let far = distance.unsigned_abs() as f64;
        let log = 128.0 + ((far / 128.0).ln() / (511f64 / 128.0).ln() * 127.0).ceil();
        let bucket = if far <= 128.0 { far } else { log.min(255.0) };
        256 - distance.signum() * bucket as i64
    };
    let buckets: Vec<i64> = (-511..=511).map(bucket).collect();
    let table = uniform(512 * width, 4);
    // Every distance has its own row: XLNet.
    let distances = 2 * len - 1;
    let relative: Vec<i64> = (0..distances as i64).collect();
    let relative_table = uniform(distances * width, 5);
    let bias = uniform(32 * HEADS, 6);
    let bias_buckets: Vec<i64> = (-128..=128).map(|d: i64| (d / 8).clamp(-16, 15) + 16).collect();
    let pairs = uniform(rows * HEADS * 2, 7);
    let numbers: Vec<i64> = (0..rows as i64).map(|t| t * 7919 % len as i64).collect();
    let halves: Vec<i64> = numbers.iter().map(|n| n % 2).collect();

    let plain = AttentionTerms::default();
    let bias = Some(DistanceBias { table: &bias, buckets: &bias_buckets });
    let deberta = |keys: bool, queries: bool| {
        let table = RowsView::new(&table, width);
        let (keys, queries) = (keys.then_some(table), queries.then_some(table));
        Some(Positions { rows: 512, buckets: &buckets, keys, query: None, queries })
    };
    let xlnet = Positions {
        rows: distances,
        buckets: &relative,
        keys: Some(RowsView::new(&relative_table, width)),
        query: Some(q),
        queries: None,
    };
    let segments = Segments { scores: &pairs, of_queries: &halves, of_keys: &halves };
    let order = Some(Order { of_queries: &numbers, of_keys: &numbers, inclusive: true });
    let all: [(&str, AttentionShape<'_>, AttentionTerms<'_, f32>); 10] = [
        ("plain", shape, plain),
        ("plain, causal", causal, plain),
        ("bias", shape, AttentionTerms { bias, ..plain }),
        ("bias, causal", causal, AttentionTerms { bias, ..plain }),
        ("window 64", shape, AttentionTerms { window: Some(64), ..plain }),
        ("order", shape, AttentionTerms { order, ..plain }),
        ("content to position", shape, AttentionTerms { positions: deberta(true, false), ..plain }),
        ("position to content", shape, AttentionTerms { positions: deberta(false, true), ..plain }),
        ("DeBERTa", shape, AttentionTerms { positions: deberta(true, true), ..plain }),
        (
            "XLNet",
            shape,
            AttentionTerms { positions: Some(xlnet), segments: Some(segments), order, ..plain },
        ),
    ];
    let mut first = None;
    for (name, shape, terms) in all {
        let (mut o, mut lse) = (vec![0.0; rows * width], vec![0.0; rows * HEADS]);
        let mut gradients: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0.0; rows * width]);
        let positions = terms.positions.map_or(0, |positions| positions.rows * width);
        let mut tables: [Vec<f32>; 2] = std::array::from_fn(|_| vec![0.0; positions]);
        let (mut dbias, mut dpairs) = (vec![0.0; 32 * HEADS], vec![0.0; pairs.len()]);
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        while forward.len() < 5 || begin.elapsed().as_secs_f64() < SECONDS {
            let start = Instant::now();
            let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions: None };
            attention_forward_with(shape, terms, [q, k, v], None, outputs).expect("sound");
            forward.push(start.elapsed().as_secs_f64());
            let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions: None };
            let [q, k, v, query] = &mut gradients;
            let [keys, queries] = &mut tables;
            let into = AttentionGradients::Separate { q, k, v };
            let given = terms.positions;
            let more = TermGradients {
                bias: terms.bias.map(|_| &mut dbias[..]),
                position_keys: given.and_then(|term| term.keys).map(|_| &mut keys[..]),
                position_query: given.and_then(|term| term.query).map(|_| &mut query[..]),
                position_queries: given.and_then(|term| term.queries).map(|_| &mut queries[..]),
                segments: terms.segments.map(|_| &mut dpairs[..]),
            };
            let start = Instant::now();
            attention_backward_with(shape, terms, saved, None, &do_, into, more).expect("sound");
            backward.push(start.elapsed().as_secs_f64());
        }
        let times = [median(forward), median(backward)];
        let plain = *first.get_or_insert(times);
        let [forward, backward] = [0, 1].map(|i| (times[i] * 1e3, times[i] / plain[i]));
        println!(
            "{len:3} {name:20} | {:8.3} {:4.2} | {:8.3} {:4.2}",
            forward.0, forward.1, backward.0, backward.1
        );
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
    let part = |i: usize| RowsView::new(&qkv[i * n..(i + 1) * n], width);
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
