//! Every operation: value and gradients in f32 against f64.

use std::sync::atomic::Ordering;

use easytransfer::plugin::nn::{self, Attention};
use easytransfer::plugin::{Activation, DType, Pool, Result};
use easytransfer::{EnginePrecision, Rng, Tensor};

use crate::compare::{COARSE, check, numbers};

type Inputs = Vec<(Vec<f64>, Vec<usize>)>;

fn inputs(shapes: &[&[usize]]) -> Inputs {
    let each = shapes.iter().enumerate();
    each.map(|(seed, shape)| (numbers(shape.iter().product(), seed as u64 + 1), shape.to_vec()))
        .collect()
}

fn integers(values: &[i64]) -> Result<Tensor> {
    Tensor::from_slice(values, &[values.len()])
}

/// Runs all checks; answers how many failed.
pub fn run(precision: EnginePrecision) -> Result<usize> {
    // What products may lose; everything else stays f32.
    let (product, exact) = match precision {
        EnginePrecision::F32 => (1e-5, 1e-5),
        EnginePrecision::Tf32 => (2e-3, 1e-5),
        EnginePrecision::Bf16 | EnginePrecision::F16 => (1e-2, 1e-5),
    };
    COARSE.store(precision != EnginePrecision::F32, Ordering::Relaxed);
    let mut failed = 0;
    failed += linear(product)?;
    failed += norms(exact)?;
    failed += attention(if precision == EnginePrecision::F32 { 1e-5 } else { product })?;
    failed += rows(exact, product)?;
    failed += fine(exact, product)?;
    Ok(failed)
}

fn linear(tolerance: f64) -> Result<usize> {
    let mut failed = 0;
    let activations = [
        (Activation::None, "none"),
        (Activation::Relu, "relu"),
        (Activation::Gelu, "gelu"),
        (Activation::GeluTanh, "gelu-tanh"),
        (Activation::Tanh, "tanh"),
        (Activation::Sigmoid, "sigmoid"),
        (Activation::Silu, "silu"),
    ];
    for (activation, name) in activations {
        let x = inputs(&[&[37, 48], &[64, 48], &[64]]);
        failed += check(&format!("linear {name}"), tolerance, &x, &|x| {
            nn::linear(&x[0], &x[1], Some(&x[2]), activation)
        })?;
    }
    for (rows, inner, outer) in [(1, 768, 768), (513, 384, 1536), (130, 33, 7), (64, 3072, 2)] {
        let x = inputs(&[&[rows, inner], &[outer, inner]]);
        // Sums of long rows reach beyond the numbers' own size: the tolerance is relative to the largest result.
        failed += check(&format!("linear {rows}x{inner}x{outer}"), tolerance, &x, &|x| {
            nn::linear(&x[0], &x[1], None, Activation::None)
        })?;
    }
    let x = inputs(&[&[3, 5, 16], &[8, 16], &[8]]);
    failed += check("linear of three axes", tolerance, &x, &|x| {
        nn::linear(&x[0], &x[1], Some(&x[2]), Activation::Gelu)
    })?;
    let x = inputs(&[&[16, 24], &[8, 16]]);
    failed += check("linear of a transposed x", tolerance, &x, &|x| {
        nn::linear(&x[0].transpose()?, &x[1], None, Activation::None)
    })?;
    Ok(failed)
}

fn norms(tolerance: f64) -> Result<usize> {
    let mut failed = 0;
    for (rows, cols) in [(5, 21), (70, 768), (300, 384), (3, 1024), (9, 1)] {
        let shapes: [&[usize]; 4] = [&[rows, cols], &[cols], &[cols], &[rows, cols]];
        for dropout in [0.0, 0.1] {
            let name = format!("layer_norm {rows}x{cols} dropout {dropout}");
            // Rows of one column have no variance; epsilon keeps the factor small.
            failed += check(&name, 10.0 * tolerance, &inputs(&shapes), &|x| {
                let rng = Rng::new(5, 6)?;
                nn::layer_norm(&x[0], Some(&x[3]), &x[1], &x[2], 1e-3, dropout, Some(&rng))
            })?;
        }
        failed += check(
            &format!("layer_norm {rows}x{cols} alone"),
            10.0 * tolerance,
            &inputs(&shapes[..3]),
            &|x| nn::layer_norm(&x[0], None, &x[1], &x[2], 1e-3, 0.0, None),
        )?;
        failed += check(
            &format!("rms_norm {rows}x{cols}"),
            10.0 * tolerance,
            &inputs(&shapes[..2]),
            &|x| nn::rms_norm(&x[0], &x[1], 1e-3),
        )?;
    }
    for len in [1usize, 5, 4096, 100_003] {
        failed += check(&format!("dropout {len}"), tolerance, &inputs(&[&[len]]), &|x| {
            let rng = Rng::new(7, 8)?;
            nn::dropout(&x[0], 0.3, Some(&rng))
        })?;
    }
    Ok(failed)
}

fn attention(tolerance: f64) -> Result<usize> {
    let mut failed = 0;
    let lens: [&[i64]; 5] = [&[7], &[1, 64, 65, 3], &[130, 20, 0, 257], &[512], &[33, 33]];
    for (heads, size) in [(2, 32), (3, 64), (2, 96), (2, 128), (4, 20), (1, 80)] {
        for lens in lens {
            for (causal, dropout) in [(false, 0.0), (true, 0.0), (false, 0.2)] {
                let mut starts = vec![0i64];
                for len in lens {
                    starts.push(starts[starts.len() - 1] + len);
                }
                let rows = starts[starts.len() - 1] as usize;
                let shape: &[usize] = &[rows, heads * size];
                let name =
                    format!("attention {heads}x{size} {lens:?} causal {causal} dropout {dropout}");
                failed += check(&name, 2.0 * tolerance, &inputs(&[shape; 3]), &|x| {
                    let options = Attention { heads, scale: None, dropout, causal };
                    let rng = Rng::new(3, 4)?;
                    nn::attention(&x[0], &x[1], &x[2], &integers(&starts)?, options, Some(&rng))
                })?;
            }
        }
    }
    // Thirds of one matrix, as a fused projection gives them.
    let x = inputs(&[&[50, 3 * 64]]);
    failed += check("attention over thirds", 2.0 * tolerance, &x, &|x| {
        let part = |i: usize| x[0].narrow(1, 64 * i, 64);
        let options = Attention { heads: 2, scale: None, dropout: 0.0, causal: false };
        nn::attention(&part(0)?, &part(1)?, &part(2)?, &integers(&[0, 20, 50])?, options, None)
    })?;
    Ok(failed)
}

fn rows(tolerance: f64, product: f64) -> Result<usize> {
    let mut failed = 0;
    for (rows, cols) in [(4, 3), (33, 1000), (128, 2), (5, 30_522)] {
        let x = inputs(&[&[rows, cols]]);
        failed += check(&format!("softmax {rows}x{cols}"), tolerance, &x, &|x| nn::softmax(&x[0]))?;
        failed += check(&format!("log_softmax {rows}x{cols}"), tolerance, &x, &|x| {
            nn::log_softmax(&x[0])
        })?;
        let labels: Vec<i64> =
            (0..rows).map(|row| if row == 1 { -100 } else { (row * 7 % cols) as i64 }).collect();
        for smoothing in [0.0, 0.1] {
            let name = format!("cross_entropy {rows}x{cols} smoothing {smoothing}");
            failed += check(&name, 2.0 * tolerance, &x, &|x| {
                nn::cross_entropy(&x[0], &integers(&labels)?, None, -100, smoothing)
            })?;
        }
        let weighted = inputs(&[&[rows, cols], &[rows]]);
        failed += check(&format!("cross_entropy {rows}x{cols} weighted"), 1e-4, &weighted, &|x| {
            let weights = x[1].sqr()?;
            nn::cross_entropy(&x[0], &integers(&labels)?, Some(&weights), -100, 0.0)
        })?;
        let two = inputs(&[&[rows, cols], &[rows, cols]]);
        failed += check(&format!("binary_cross_entropy {rows}x{cols}"), tolerance, &two, &|x| {
            nn::binary_cross_entropy(&x[0], &x[1].detach()?.abs()?, None)
        })?;
    }
    let ids: Vec<i64> = (0..300).map(|i| i * i % 97).collect();
    let x = inputs(&[&[97, 40], &[300, 40], &[2, 40]]);
    // A card keeps the sums in 16 bits where it multiplies in 16 bits.
    failed += check("embedding_sum", product, &x, &|x| {
        let positions: Vec<i64> = (0..300).collect();
        let zeros = vec![0i64; 300];
        nn::embedding_sum(&[
            (&x[0], &integers(&ids)?),
            (&x[1], &integers(&positions)?),
            (&x[2], &integers(&zeros)?),
        ])
    })?;
    for (kind, name) in [(Pool::Mean, "mean"), (Pool::First, "first"), (Pool::Max, "max")] {
        failed += check(&format!("pool {name}"), tolerance, &inputs(&[&[41, 24]]), &|x| {
            nn::pool(&x[0], &integers(&[0, 1, 1, 30, 41])?, kind)
        })?;
    }
    failed += check("to_padded, from_padded", tolerance, &inputs(&[&[9, 4]]), &|x| {
        let starts = integers(&[0, 4, 9])?;
        nn::from_padded(&nn::to_padded(&x[0], &starts, 6)?.sqr()?, &starts)
    })?;
    failed += check("conv1d", product, &inputs(&[&[20, 6], &[5, 6, 3], &[5]]), &|x| {
        nn::conv1d(&x[0], &x[1], Some(&x[2]), &integers(&[0, 8, 20])?, 1)
    })?;
    Ok(failed)
}

/// The fine-grained operations, by candle's kernels.
fn fine(tolerance: f64, product: f64) -> Result<usize> {
    let mut failed = 0;
    type Unary = fn(&Tensor) -> Result<Tensor>;
    let unary: [(&str, Unary); 16] = [
        ("neg", Tensor::neg),
        ("exp", Tensor::exp),
        ("sqr", Tensor::sqr),
        ("abs", Tensor::abs),
        ("sin", Tensor::sin),
        ("cos", Tensor::cos),
        ("tanh", Tensor::tanh),
        ("sigmoid", Tensor::sigmoid),
        ("relu", Tensor::relu),
        ("gelu", Tensor::gelu),
        ("gelu_tanh", Tensor::gelu_tanh),
        ("silu", Tensor::silu),
        ("erf", Tensor::erf),
        ("log", |x| x.sqr()?.affine(1.0, 0.5)?.log()),
        ("sqrt", |x| x.sqr()?.affine(1.0, 0.5)?.sqrt()),
        ("recip", |x| x.sqr()?.affine(1.0, 0.5)?.recip()),
    ];
    for (name, f) in unary {
        failed += check(name, tolerance, &inputs(&[&[7, 300]]), &|x| f(&x[0]))?;
    }
    type Binary = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let binary: [(&str, Binary); 6] = [
        ("add", Tensor::add),
        ("sub", Tensor::sub),
        ("mul", Tensor::mul),
        ("div", |a, b| a.div(&b.sqr()?.affine(1.0, 0.5)?)),
        ("maximum", Tensor::maximum),
        ("minimum", Tensor::minimum),
    ];
    for (name, f) in binary {
        failed += check(name, tolerance, &inputs(&[&[7, 30], &[7, 30]]), &|x| f(&x[0], &x[1]))?;
        let broadcast = inputs(&[&[4, 1, 30], &[7, 1]]);
        failed += check(&format!("{name} broadcast"), tolerance, &broadcast, &|x| f(&x[0], &x[1]))?;
    }
    let x = inputs(&[&[6, 5, 40]]);
    failed += check("sum", tolerance, &x, &|x| x[0].sum(&[0, 2], false))?;
    failed += check("mean", tolerance, &x, &|x| x[0].mean(&[], false))?;
    failed += check("max", tolerance, &x, &|x| x[0].max(&[1], true))?;
    failed += check("min", tolerance, &x, &|x| x[0].min(&[2], false))?;
    failed += check("power, clamp, affine", 5.0 * tolerance, &x, &|x| {
        x[0].affine(0.5, 1.0)?.power(1.5)?.clamp(0.4, 1.6)
    })?;
    failed += check("permute, reshape, narrow", tolerance, &x, &|x| {
        x[0].permute(&[2, 0, 1])?.reshape(&[40, 30])?.narrow(1, 3, 20)?.contiguous()
    })?;
    failed += check("concat, broadcast_to", tolerance, &inputs(&[&[3, 4], &[1, 4]]), &|x| {
        Tensor::concat(&[&x[0], &x[1].broadcast_to(&[2, 4])?], 0)
    })?;
    failed += check("index_select", tolerance, &inputs(&[&[9, 4]]), &|x| {
        x[0].index_select(0, &integers(&[3, 3, 0, 8])?)
    })?;
    failed += check("index_add", tolerance, &inputs(&[&[9, 4], &[3, 4]]), &|x| {
        x[0].index_add(0, &integers(&[3, 3, 8])?, &x[1])
    })?;
    failed += check("gather", tolerance, &inputs(&[&[3, 4]]), &|x| {
        x[0].gather(1, &integers(&[0, 3, 3, 1, 2, 2])?.reshape(&[3, 2])?)
    })?;
    failed += check("compare, select", tolerance, &inputs(&[&[8, 9], &[8, 9]]), &|x| {
        x[0].gt(&x[1])?.select(&x[0], &x[1].affine(2.0, 0.0)?)
    })?;
    failed += check("cast of labels", tolerance, &inputs(&[&[4]]), &|x| {
        x[0].sub(&integers(&[1, 0, 2, 5])?.cast(x[0].dtype())?)?.sqr()
    })?;
    failed += check("argmax as a constant", tolerance, &inputs(&[&[4, 6]]), &|x| {
        x[0].index_select(1, &x[0].narrow(0, 0, 1)?.argmax(1)?.reshape(&[1])?)
    })?;
    failed += check("bf16 and back", 1e-2, &inputs(&[&[40]]), &|x| {
        x[0].cast(DType::Bf16)?.cast(x[0].dtype())
    })?;
    for (a, b) in [(&[5, 6][..], &[6, 7][..]), (&[3, 5, 6], &[3, 6, 2]), (&[3, 5, 6], &[6, 4])] {
        failed += check(&format!("matmul {a:?} {b:?}"), product, &inputs(&[a, b]), &|x| {
            x[0].matmul(&x[1])
        })?;
    }
    Ok(failed)
}
