//! What is done to parts of parameter sets and between sets, in f32 against f64; and two half steps against a whole
//! one, to the bit.

use std::ops::Range;

use easytransfer::plugin::nn::{optim_state, optim_step};
use easytransfer::plugin::{DType, Init, Map, Params, Result, Tensor, abi, step};

use crate::compare::{distance, numbers, tensor};

/// Parameters lie at 0, 1200 and 1248 of the arena, which ends at 4320.
const SHAPES: [(&str, &[usize]); 3] =
    [("body.weight", &[40, 30]), ("body.bias", &[40]), ("head", &[96, 32])];

fn set(seed: u64, dtype: DType) -> Result<Params> {
    let mut params = Params::with_dtype(seed, dtype)?;
    let root = params.root()?;
    for (at, (name, shape)) in SHAPES.into_iter().enumerate() {
        let param = root.param(name, shape, Init::Zeros)?;
        param.assign(&tensor(&numbers(param.len(), seed + at as u64), shape, dtype)?)?;
    }
    params.seal()?;
    Ok(params)
}

/// Gradients of all parameters but the bias.
fn pass(params: &Params, seed: u64) -> Result<()> {
    for param in params.iter().filter(|param| param.name() != "body.bias") {
        let value = param.tensor()?;
        let grad = tensor(&numbers(param.len(), seed), param.shape(), value.dtype())?;
        value.mul(&grad)?.sum(&[], false)?.backward()?;
    }
    Ok(())
}

fn push(all: &mut Vec<f64>, x: &Tensor) -> Result<()> {
    all.extend(x.detach()?.cast(DType::F64)?.to_vec::<f64>()?);
    Ok(())
}

/// Values after each operation.
fn between(dtype: DType) -> Result<Vec<f64>> {
    let (mut a, mut b) = (set(1, dtype)?, set(5, dtype)?);
    let mut all = Vec::new();
    a.lerp(&b, 0.25)?;
    push(&mut all, &a.arena_values()?)?;
    a.part(&["head"])?.copy_from(&b)?;
    push(&mut all, &a.arena_values()?)?;
    pass(&a, 11)?;
    pass(&b, 12)?;
    b.scale_grads(0.5)?;
    a.add_grads(&b, 0.3)?;
    let mut body = a.part(&["body.*"])?;
    body.scale_grads(1.5)?;
    all.extend([body.grad_norm()?, a.grad_norm()?]);
    all.push(step::clip_grads(&mut body, 0.5)?.to_scalar()?);
    push(&mut all, &a.arena_grads()?)?;
    body.zero_grads();
    pass(&a, 13)?;
    push(&mut all, &a.arena_grads()?)?;
    push(&mut all, &b.arena_grads()?)?;
    Ok(all)
}

/// Values after three steps, each cut at `bounds`.
fn train(kind: i32, bounds: &[usize]) -> Result<Vec<f64>> {
    let mut params = set(1, DType::F32)?;
    let mut state = optim_state(&params, kind)?;
    for number in 1..=3u64 {
        params.zero_grads();
        pass(&params, 20 + number)?;
        params.scale_grads(0.7)?;
        let cuts: Vec<usize> = [&[0], bounds, &[params.arena_len()]].concat();
        for part in cuts.windows(2).map(|pair| pair[0]..pair[1]) {
            one_step(&mut params, &mut state, kind, number, part)?;
        }
    }
    let mut all = Vec::new();
    push(&mut all, &params.arena_values()?)?;
    Ok(all)
}

fn one_step(
    params: &mut Params,
    state: &mut Map,
    kind: i32,
    number: u64,
    part: Range<usize>,
) -> Result<()> {
    let adafactor = kind == abi::ET_OPTIM_ADAFACTOR;
    let options = abi::et_optim_step {
        struct_size: size_of::<abi::et_optim_step>(),
        kind,
        nesterov: 1,
        lr: 0.01,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: if adafactor { -0.8 } else { 0.999 },
        epsilon: if adafactor { 1e-30 } else { 1e-6 },
        momentum: if adafactor { 1.0 } else { 0.9 },
        step: number,
        begin: part.start,
        end: part.end,
    };
    optim_step(params, state, &options)
}

fn said(good: bool, what: &str, text: &str) -> usize {
    println!("{} {what}: {text}", if good { "ok    " } else { "FAILED" });
    usize::from(!good)
}

/// Runs all checks; answers how many failed.
pub fn run() -> Result<usize> {
    let apart = distance(&between(DType::F32)?, &between(DType::F64)?);
    let mut failed = said(apart < 1e-6, "between sets", &format!("{apart:.1e}"));
    for kind in abi::ET_OPTIM_ADAMW..=abi::ET_OPTIM_ADAFACTOR {
        let elementwise = !matches!(kind, abi::ET_OPTIM_LAMB | abi::ET_OPTIM_ADAFACTOR);
        let bounds: &[usize] = if elementwise { &[7, 1201, 3001] } else { &[1200, 1248] };
        let (whole, parts) = (train(kind, &[])?, train(kind, bounds)?);
        let text = if whole == parts { "the same bits" } else { "they differ" };
        failed += said(whole == parts, &format!("steps of parts, kind {kind}"), text);
    }
    Ok(failed)
}
