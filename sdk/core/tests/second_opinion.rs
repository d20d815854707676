//! The engine's fused operations against candle-nn, which somebody else wrote: values and, where candle-nn's own
//! backward pass gives them, gradients. Both compute in f64 and differ by rounding only.
//!
//! candle-nn's fused layer norm and softmax record nothing, so that gradients vanish without a word; those made of
//! small operations are used here (`layer_norm_slow`, `softmax`), and every gradient that is compared must be there.
#![allow(
    clippy::macro_metavars_in_unsafe,
    reason = "the macro calls a slot of a table with arguments that each test vouches for"
)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "the handles are owned by `T`, whose contract all calls keep"
)]

mod common;

use std::collections::HashMap;
use std::ptr;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::rnn::{Direction, LSTM, LSTMConfig, LSTMState, RNN};
use candle_nn::{Module, Optimizer};
use common::{Answer, T, assert_close, done, f64s, i64s, interface, nn, noise};
use easytransfer_abi::*;

/// Rounding of sums of some ten terms in f64.
const TOLERANCE: f64 = 1e-12;

type Shape = &'static [usize];

/// Values and gradients of one function by both, from the same inputs and the same seed of the backward pass.
fn compare(
    name: &str,
    shapes: &[Shape],
    ours: impl Fn(&[T]) -> Answer,
    theirs: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) {
    let data: Vec<Vec<f64>> =
        (1..).zip(shapes).map(|(seed, shape)| noise(shape.iter().product(), seed)).collect();
    let leaves: Vec<T> =
        shapes.iter().zip(&data).map(|(shape, data)| f64s(shape, data).leaf()).collect();
    let vars: Vec<Var> = shapes
        .iter()
        .zip(&data)
        .map(|(shape, data)| Var::from_slice(data, *shape, &Device::Cpu).unwrap())
        .collect();
    let y = ours(&leaves).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let z = theirs(&tensors).unwrap();
    println!("{name}: values");
    assert_eq!(y.shape(), z.dims(), "{name}");
    assert_close(&y.values(), &flat(&z), TOLERANCE);

    let seed = noise(y.len(), 77);
    y.backward_from(&f64s(&y.shape(), &seed)).unwrap();
    let weights = Tensor::from_slice(&seed, z.dims(), &Device::Cpu).unwrap();
    let grads = (z * weights).unwrap().sum_all().unwrap().backward().unwrap();
    for (index, (leaf, var)) in leaves.iter().zip(&vars).enumerate() {
        println!("{name}: gradient of input {index}");
        let expected = grads.get(var).unwrap_or_else(|| panic!("{name}: candle-nn dropped it"));
        assert_close(&leaf.grad().unwrap().values(), &flat(expected), TOLERANCE);
    }
}

fn flat(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn layer_norm_equals_candle_nn() {
    // Exact in f32, which candle-nn takes; larger than usual, so that it matters.
    let epsilon = 0.0078125;
    compare(
        "layer_norm",
        &[&[5, 7], &[7], &[7]],
        |x| {
            let args = et_layer_norm {
                struct_size: size_of::<et_layer_norm>(),
                x: x[0].0,
                residual: ptr::null(),
                gamma: x[1].0,
                beta: x[2].0,
                epsilon,
                dropout: 0.0,
                rng: ptr::null_mut(),
            };
            call!(nn().layer_norm, &args)
        },
        |x| candle_nn::ops::layer_norm_slow(&x[0], &x[1], &x[2], epsilon as f32),
    );
}

#[test]
fn softmax_and_its_logarithm_equal_candle_nn() {
    compare(
        "softmax",
        &[&[3, 4, 5]],
        |x| call!(nn().softmax, x[0].0),
        |x| candle_nn::ops::softmax(&x[0], 2),
    );
    compare(
        "log_softmax",
        &[&[3, 4, 5]],
        |x| call!(nn().log_softmax, x[0].0),
        |x| candle_nn::ops::log_softmax(&x[0], 2),
    );
}

#[test]
fn losses_equal_candle_nn() {
    let labels = [2i64, 0, 3, 3, 1, 2];
    compare(
        "cross_entropy",
        &[&[6, 4]],
        |x| {
            let labels = i64s(&labels);
            call!(nn().cross_entropy, x[0].0, labels.0, ptr::null(), -100, 0.0)
        },
        |x| {
            let labels = Tensor::from_slice(&labels, 6, &Device::Cpu)?;
            candle_nn::loss::cross_entropy(&x[0], &labels)
        },
    );
    let targets = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    compare(
        "binary_cross_entropy",
        &[&[2, 3]],
        |x| {
            let targets = f64s(&[2, 3], &targets);
            call!(nn().binary_cross_entropy, x[0].0, targets.0, ptr::null())
        },
        |x| {
            let targets = Tensor::from_slice(&targets, (2, 3), &Device::Cpu)?;
            candle_nn::loss::binary_cross_entropy_with_logit(&x[0], &targets)
        },
    );
}

/// Two runs of 4 and 3 tokens; the engine reads them as rows, candle-nn each as a batch of one.
const STARTS: [i64; 3] = [0, 4, 7];

fn by_run(
    x: &Tensor,
    f: impl Fn(Tensor) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Tensor> {
    let runs =
        STARTS.windows(2).map(|run| f(x.narrow(0, run[0] as usize, (run[1] - run[0]) as usize)?));
    Tensor::cat(&runs.collect::<candle_core::Result<Vec<_>>>()?, 0)
}

#[test]
fn lstm_equals_candle_nn() {
    let (inputs, hidden) = (3, 2);
    for reverse in [false, true] {
        compare(
            &format!("lstm, reverse {reverse}"),
            &[&[7, 3], &[8, 3], &[8, 2], &[8], &[8]],
            |x| {
                let starts = i64s(&STARTS);
                let reverse = i32::from(reverse);
                call!(nn().lstm, x[0].0, x[1].0, x[2].0, x[3].0, x[4].0, starts.0, reverse)
            },
            |x| {
                let suffix = if reverse { "_reverse" } else { "" };
                let names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
                let weights: HashMap<String, Tensor> = names
                    .iter()
                    .zip(&x[1..])
                    .map(|(name, x)| (format!("{name}_l0{suffix}"), x.clone()))
                    .collect();
                let weights =
                    candle_nn::VarBuilder::from_tensors(weights, DType::F64, &Device::Cpu);
                let direction = if reverse { Direction::Backward } else { Direction::Forward };
                let config = LSTMConfig { direction, ..LSTMConfig::default() };
                let lstm = LSTM::new(inputs, hidden, config, weights)?;
                by_run(&x[0], |run| {
                    // candle-nn's `direction` names the weights only; the order of the steps is the caller's.
                    let mut order: Vec<usize> = (0..run.dim(0)?).collect();
                    if reverse {
                        order.reverse();
                    }
                    let mut state: LSTMState = lstm.zero_state(1)?;
                    let mut outputs = vec![None; order.len()];
                    for at in order {
                        state = lstm.step(&run.narrow(0, at, 1)?, &state)?;
                        outputs[at] = Some(state.h().clone());
                    }
                    Tensor::cat(&outputs.into_iter().flatten().collect::<Vec<_>>(), 0)
                })
            },
        );
    }
}

#[test]
fn conv1d_equals_candle_nn() {
    for dilation in [1, 2] {
        compare(
            &format!("conv1d, dilation {dilation}"),
            &[&[7, 4], &[5, 4, 3], &[5]],
            |x| {
                let starts = i64s(&STARTS);
                call!(nn().conv1d, x[0].0, x[1].0, x[2].0, starts.0, dilation)
            },
            |x| {
                // Three taps, so that this padding keeps lengths.
                let config = candle_nn::Conv1dConfig {
                    padding: dilation,
                    dilation,
                    ..candle_nn::Conv1dConfig::default()
                };
                let conv = candle_nn::Conv1d::new(x[1].clone(), Some(x[2].clone()), config);
                by_run(&x[0], |run| {
                    conv.forward(&run.t()?.unsqueeze(0)?.contiguous()?)?.squeeze(0)?.t()
                })
            },
        );
    }
}

#[test]
fn adamw_equals_candle_nn() {
    let params_table: &et_host_param = interface(c"et.param/1");
    let data_table: &et_host_data = interface(c"et.data/1");
    let text = |text: &str| et_str { ptr: text.as_ptr().cast(), len: text.len() };
    let shape = [3usize, 5];
    let init = et_init { kind: ET_INIT_NORMAL, reserved: 0, a: 0.0, b: 1.0 };
    let mut set = ptr::null_mut();
    let mut weight = ptr::null_mut();
    let mut state = ptr::null_mut();
    let root = unsafe {
        done(params_table.params_new.unwrap()(3, ET_DTYPE_F64, &mut set)).unwrap();
        let root = params_table.params_root.unwrap()(set);
        let declare = params_table.scope_param.unwrap();
        done(declare(root, text("weight"), shape.as_ptr(), 2, &init, &mut weight)).unwrap();
        done(params_table.params_seal.unwrap()(set)).unwrap();
        done(nn().optim_state.unwrap()(set, ET_OPTIM_ADAMW, &mut state)).unwrap();
        root
    };
    let values = || call!(params_table.tensor, weight).unwrap().values();
    let var = Var::from_slice(&values(), &shape[..], &Device::Cpu).unwrap();
    let params =
        candle_nn::ParamsAdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.05 };
    let mut theirs = candle_nn::AdamW::new(vec![var.clone()], params).unwrap();
    for step in 1..=5u64 {
        let gradient = noise(15, 40 + step);
        let args = et_optim_step {
            struct_size: size_of::<et_optim_step>(),
            kind: ET_OPTIM_ADAMW,
            nesterov: 0,
            lr: 0.1,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            momentum: 0.0,
            step,
            begin: 0,
            end: 0,
        };
        unsafe {
            params_table.params_zero_grads.unwrap()(set);
            let gradient = f64s(&shape, &gradient);
            done(params_table.set_grad.unwrap()(weight, gradient.0)).unwrap();
            done(nn().optim_step.unwrap()(set, state, &args)).unwrap();
        }
        let weights = Tensor::from_slice(&gradient, &shape[..], &Device::Cpu).unwrap();
        let loss = (var.as_tensor() * weights).unwrap().sum_all().unwrap();
        theirs.step(&loss.backward().unwrap()).unwrap();
        println!("step {step}");
        assert_close(&values(), &flat(&var), TOLERANCE);
    }
    unsafe {
        data_table.map_release.unwrap()(state);
        params_table.release.unwrap()(weight);
        params_table.scope_release.unwrap()(root);
        params_table.params_release.unwrap()(set);
    }
}
