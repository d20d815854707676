//! `ops [FILTER]`: what the engine's fused operations cost on shapes of training and prediction, forward and
//! backward, through the C tables, beside what this machine can do (measured here). `RAYON_NUM_THREADS` says on how
//! many threads.
//!
//! Arithmetic is that of the operation, memory what must be read and written once; both are shares of the measured
//! peak.

use std::time::Instant;

use easytransfer::Rng;
use easytransfer::plugin::nn::{self, Activation, Attention};
use easytransfer::plugin::{DType, Init, Map, Params, Result, Tensor, abi, no_grad};
use easytransfer_bench::{machine, median};
use easytransfer_tests::linked;

/// An operation to measure.
struct Case {
    name: String,
    /// Runs the forward computation.
    run: Box<dyn Fn() -> Result<Tensor>>,
    /// Whether there is a backward computation.
    backward: bool,
    /// Floating point operations, forward; backward has twice as many.
    flop: f64,
    /// Values read and written, forward and backward.
    values: (f64, f64),
}

/// A set of parameters with one per shape, in arenas.
fn parameters(shapes: &[&[usize]]) -> Result<(Params, Vec<Tensor>)> {
    let mut params = Params::new(1)?;
    let root = params.root()?;
    let all: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| root.param(&format!("p{i}"), shape, Init::Normal(0.0, 0.02)))
        .collect::<Result<_>>()?;
    params.seal()?;
    let tensors = all.iter().map(|param| param.tensor()).collect::<Result<_>>()?;
    Ok((params, tensors))
}

fn random(shape: &[usize]) -> Result<Tensor> {
    Rng::new(3, 7)?.normal(DType::F32, shape, 0.0, 1.0)
}

/// Seconds of `f`, the median of as many calls as fit into a third of a second.
fn timed(mut f: impl FnMut() -> Result<f64>) -> Result<f64> {
    let begin = Instant::now();
    let mut times = Vec::new();
    f()?;
    while times.len() < 5 || (begin.elapsed().as_secs_f64() < 0.33 && times.len() < 2000) {
        times.push(f()?);
    }
    Ok(median(times))
}

fn linear(rows: usize, inputs: usize, outputs: usize, activation: Activation) -> Result<Case> {
    let (params, p) = parameters(&[&[outputs, inputs], &[outputs]])?;
    let x = random(&[rows, inputs])?.leaf()?;
    let (r, i, o) = (rows as f64, inputs as f64, outputs as f64);
    let kind = if activation == Activation::None { "" } else { " gelu" };
    Ok(Case {
        name: format!("linear{kind} {rows}x{inputs} -> {outputs}"),
        run: Box::new(move || {
            let _alive = &params;
            nn::linear(&x, &p[0], Some(&p[1]), activation)
        }),
        backward: true,
        flop: 2.0 * r * i * o,
        values: (r * i + i * o + r * o, 2.0 * (r * i + i * o + r * o)),
    })
}

fn attention(runs: usize, tokens: usize, heads: usize, size: usize) -> Result<Case> {
    let (rows, width) = (runs * tokens, heads * size);
    let [q, k, v] = [1, 2, 3].map(|_| random(&[rows, width]).and_then(|x| x.leaf()));
    let (q, k, v) = (q?, k?, v?);
    let starts: Vec<i64> = (0..=runs).map(|run| (run * tokens) as i64).collect();
    let starts = Tensor::from_slice(&starts, &[runs + 1])?;
    let rng = Rng::new(1, 1)?;
    let options = Attention { heads, scale: None, dropout: 0.1, causal: false };
    let x = (rows * width) as f64;
    Ok(Case {
        name: format!("attention {runs} runs of {tokens}, {heads} heads of {size}, dropout"),
        run: Box::new(move || nn::attention(&q, &k, &v, &starts, options, Some(&rng))),
        backward: true,
        flop: 4.0 * x * tokens as f64,
        values: (4.0 * x, 8.0 * x),
    })
}

fn layer_norm(rows: usize, cols: usize) -> Result<Case> {
    let (params, p) = parameters(&[&[cols], &[cols]])?;
    let (x, residual) = (random(&[rows, cols])?.leaf()?, random(&[rows, cols])?.leaf()?);
    let rng = Rng::new(1, 1)?;
    let len = (rows * cols) as f64;
    Ok(Case {
        name: format!("layer_norm {rows}x{cols} with residual and dropout"),
        run: Box::new(move || {
            let _alive = &params;
            nn::layer_norm(&x, Some(&residual), &p[0], &p[1], 1e-12, 0.1, Some(&rng))
        }),
        backward: true,
        flop: 8.0 * len,
        values: (4.0 * len, 4.0 * len),
    })
}

fn cross_entropy(rows: usize, classes: usize) -> Result<Case> {
    let x = random(&[rows, classes])?.leaf()?;
    let labels: Vec<i64> = (0..rows).map(|row| (row * 7919 % classes) as i64).collect();
    let labels = Tensor::from_slice(&labels, &[rows])?;
    let len = (rows * classes) as f64;
    Ok(Case {
        name: format!("cross_entropy {rows}x{classes}"),
        run: Box::new(move || nn::cross_entropy(&x, &labels, None, -100, 0.0)),
        backward: true,
        flop: 5.0 * len,
        values: (len, 2.0 * len),
    })
}

fn embedding(tokens: usize, width: usize) -> Result<Case> {
    let (params, p) = parameters(&[&[30522, width], &[512, width], &[2, width]])?;
    let ids = |modulo: usize| {
        let ids: Vec<i64> = (0..tokens).map(|t| (t * 7919 % modulo) as i64).collect();
        Tensor::from_slice(&ids, &[tokens])
    };
    let (a, b, c) = (ids(30522)?, ids(512)?, ids(2)?);
    let len = (tokens * width) as f64;
    Ok(Case {
        name: format!("embedding_sum of three, {tokens} tokens, {width} wide"),
        run: Box::new(move || {
            let _alive = &params;
            nn::embedding_sum(&[(&p[0], &a), (&p[1], &b), (&p[2], &c)])
        }),
        backward: true,
        flop: 2.0 * len,
        values: (4.0 * len, 7.0 * len),
    })
}

fn gelu(rows: usize, cols: usize) -> Result<Case> {
    let x = random(&[rows, cols])?.leaf()?;
    let len = (rows * cols) as f64;
    Ok(Case {
        name: format!("gelu {rows}x{cols}"),
        run: Box::new(move || x.gelu()),
        backward: true,
        flop: 10.0 * len,
        values: (2.0 * len, 3.0 * len),
    })
}

/// The optimizer's passes over an arena of `len` values; these are no operations on the tape.
fn arena(len: usize, peak: f64, memory: f64, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let (mut params, p) = parameters(&[&[len / 1024, 1024]])?;
    let gradient = random(&[len / 1024, 1024])?;
    p[0].backward_from(&gradient)?;
    let mut state = nn::optim_state(&params, abi::ET_OPTIM_ADAMW)?;
    let mut step = abi::et_optim_step {
        struct_size: size_of::<abi::et_optim_step>(),
        kind: abi::ET_OPTIM_ADAMW,
        nesterov: 0,
        lr: 1e-5,
        weight_decay: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        momentum: 0.0,
        step: 0,
        begin: 0,
        end: 0,
    };
    let mut line = |name: &str,
                    flop: f64,
                    values: f64,
                    f: &mut dyn FnMut(&mut Params, &mut Map) -> Result<()>| {
        if !wanted(name) {
            return Ok(());
        }
        let seconds = timed(|| {
            let begin = Instant::now();
            f(&mut params, &mut state)?;
            Ok(begin.elapsed().as_secs_f64())
        })?;
        let len = len as f64;
        row(
            &format!("{name}, {:.1} million values", len / 1e6),
            "step",
            seconds,
            flop * len,
            values * len,
            peak,
            memory,
        );
        Ok::<(), easytransfer::plugin::Error>(())
    };
    line("adamw", 12.0, 7.0, &mut |params, state| {
        step.step += 1;
        nn::optim_step(params, state, &step)
    })?;
    line("grad_norm", 2.0, 1.0, &mut |params, _| params.grad_norm().map(drop))?;
    line("scale_grads", 1.0, 2.0, &mut |params, _| params.scale_grads(0.999_999))
}

#[allow(clippy::too_many_arguments, reason = "the columns of a table")]
fn row(name: &str, pass: &str, seconds: f64, flop: f64, values: f64, peak: f64, memory: f64) {
    let (gflops, gbps) = (flop / seconds / 1e9, values * 4.0 / seconds / 1e9);
    println!(
        "| {name} | {pass} | {:.1} | {gflops:.1} | {:.0} % | {gbps:.1} | {:.0} % |",
        seconds * 1e6,
        gflops / peak * 100.0,
        gbps / memory * 100.0
    );
}

fn main() -> Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let _runtime = linked::runtime();
    easytransfer::keep_pages();
    let threads = machine::threads();
    let peak = machine::peak_gflops(threads).unwrap_or(f64::NAN);
    let memory = machine::memory_gbps(threads);
    println!(
        "{threads} threads; this machine: {peak:.0} GFLOP/s in single precision ({:.0} on one thread), {memory:.1} GB/s.\n",
        machine::peak_gflops(1).unwrap_or(f64::NAN)
    );
    println!("| operation | pass | µs | GFLOP/s | of peak | GB/s | of memory |");
    println!("|---|---|---|---|---|---|---|");
    let none = Activation::None;
    type Maker = Box<dyn Fn() -> Result<Case>>;
    let makers: Vec<(&str, Maker)> = vec![
        ("linear", Box::new(move || linear(4096, 384, 384, none))),
        ("linear", Box::new(|| linear(4096, 384, 1536, Activation::Gelu))),
        ("linear", Box::new(move || linear(4096, 1536, 384, none))),
        ("linear", Box::new(|| linear(4096, 256, 1024, Activation::Gelu))),
        ("linear", Box::new(|| linear(1024, 768, 3072, Activation::Gelu))),
        ("linear", Box::new(|| linear(416, 384, 1536, Activation::Gelu))),
        ("linear", Box::new(move || linear(32, 384, 384, none))),
        ("attention", Box::new(|| attention(32, 128, 12, 32))),
        ("attention", Box::new(|| attention(32, 13, 12, 32))),
        ("attention", Box::new(|| attention(8, 128, 12, 64))),
        ("attention", Box::new(|| attention(4, 384, 12, 32))),
        ("layer_norm", Box::new(|| layer_norm(4096, 384))),
        ("layer_norm", Box::new(|| layer_norm(416, 384))),
        ("gelu", Box::new(|| gelu(4096, 1536))),
        ("embedding_sum", Box::new(|| embedding(4096, 384))),
        ("cross_entropy", Box::new(|| cross_entropy(512, 30522))),
        ("cross_entropy", Box::new(|| cross_entropy(32, 2))),
    ];
    for (kind, make) in makers {
        if !kind.contains(&filter) {
            continue;
        }
        let case = make()?;
        let seconds = timed(|| {
            let begin = Instant::now();
            let y = no_grad(&case.run)?;
            let seconds = begin.elapsed().as_secs_f64();
            drop(y);
            Ok(seconds)
        })?;
        row(&case.name, "forward", seconds, case.flop, case.values.0, peak, memory);
        if !case.backward {
            continue;
        }
        let shape = (case.run)()?.shape().to_vec();
        let seed = random(&shape)?;
        let seconds = timed(|| {
            let y = (case.run)()?;
            let begin = Instant::now();
            y.backward_from(&seed)?;
            Ok(begin.elapsed().as_secs_f64())
        })?;
        row(&case.name, "backward", seconds, 2.0 * case.flop, case.values.1, peak, memory);
    }
    arena(22_700_032, peak, memory, |name| name.contains(&filter))
}
