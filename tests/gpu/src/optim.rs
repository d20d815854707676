//! Ten steps of every optimizer over a small arena, in f32 against f64, with the norm of the gradients.

use easytransfer::plugin::abi;
use easytransfer::plugin::nn::{self, optim_state, optim_step};
use easytransfer::plugin::{Activation, DType, Init, Params, Result, step};

use crate::compare::{distance, numbers, tensor};

/// Parameters after ten steps, and the norms on the way.
fn train(kind: i32, dtype: DType) -> Result<Vec<f64>> {
    let mut params = Params::with_dtype(3, dtype)?;
    let root = params.root()?;
    let w = root.param("w", &[40, 30], Init::Zeros)?;
    let b = root.param("b", &[40], Init::Zeros)?;
    let frozen = root.param("frozen", &[7], Init::Zeros)?;
    for (param, seed) in [(&w, 1), (&b, 2), (&frozen, 3)] {
        param.assign(&tensor(&numbers(param.len(), seed), param.shape(), dtype)?)?;
    }
    frozen.set_trainable(false)?;
    w.set_lr_scale(0.5)?;
    params.seal()?;
    let mut state = optim_state(&params, kind)?;
    let mut all = Vec::new();
    for number in 1..=10u64 {
        params.zero_grads();
        let x = tensor(&numbers(60 * 30, 10 + number), &[60, 30], dtype)?;
        // Two uses of one weight: the second gradient is added to the first.
        let y = nn::linear(&x, &w.tensor()?, Some(&b.tensor()?), Activation::Tanh)?;
        let z = nn::linear(&x, &w.tensor()?, None, Activation::None)?;
        y.sqr()?.mean(&[], false)?.add(&z.sqr()?.mean(&[], false)?)?.backward()?;
        all.push(params.grad_norm()?);
        params.scale_grads(0.7)?;
        all.push(params.grad_norm()?);
        // Clips in some of the steps.
        all.push(step::clip_grads(&mut params, 0.05)?.to_scalar()?);
        all.push(params.grad_norm()?);
        let adafactor = kind == abi::ET_OPTIM_ADAFACTOR;
        optim_step(
            &mut params,
            &mut state,
            &abi::et_optim_step {
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
                begin: 0,
                end: 0,
            },
        )?;
    }
    for param in [&w, &b, &frozen] {
        all.extend(param.tensor()?.detach()?.cast(DType::F64)?.to_vec::<f64>()?);
    }
    Ok(all)
}

/// Runs all checks; answers how many failed.
pub fn run() -> Result<usize> {
    let mut failed = 0;
    for (kind, name) in [
        (abi::ET_OPTIM_ADAMW, "adamw"),
        (abi::ET_OPTIM_ADAM, "adam"),
        (abi::ET_OPTIM_SGD, "sgd"),
        (abi::ET_OPTIM_LAMB, "lamb"),
        (abi::ET_OPTIM_ADAFACTOR, "adafactor"),
    ] {
        let expected = train(kind, DType::F64)?;
        let (text, good) = match train(kind, DType::F32) {
            Ok(found) => {
                let apart = distance(&found, &expected);
                (format!("{apart:.1e}"), apart < 1e-4)
            }
            Err(error) => (error.to_string(), false),
        };
        println!("{} {name}: {text}", if good { "ok    " } else { "FAILED" });
        failed += usize::from(!good);
        let again = train(kind, DType::F32)?;
        if again != train(kind, DType::F32)? {
            println!("FAILED {name}: two runs differ");
            failed += 1;
        }
    }
    Ok(failed)
}
