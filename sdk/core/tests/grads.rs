//! Every operation that has a gradient against central differences, through the C tables.
#![allow(
    clippy::macro_metavars_in_unsafe,
    reason = "the macro calls a slot of a table with arguments that each test vouches for"
)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "the handles are owned by `T`, whose contract all calls keep"
)]

mod common;

use std::ptr;

use common::{
    T, attention_args, autograd, check_gradients, done, f64s, i64s, i64s_of, nn, noise, rng_table,
    tensor,
};
use easytransfer_abi::*;

fn values(shape: &[usize], seed: u64) -> Vec<f64> {
    noise(shape.iter().product(), seed)
}

fn positive(shape: &[usize], seed: u64) -> Vec<f64> {
    values(shape, seed).iter().map(|x| x.abs() + 0.3).collect()
}

const S: &[usize] = &[3, 4];

#[test]
fn unary_operations() {
    for op in ET_UNARY_NEG..=ET_UNARY_ERF {
        let data = if matches!(op, ET_UNARY_LOG | ET_UNARY_SQRT | ET_UNARY_RECIP) {
            positive(S, 1)
        } else {
            values(S, 1).iter().map(|x| x * 2.0).collect()
        };
        check_gradients(&format!("unary {op}"), &[(S, data)], |x| {
            call!(tensor().unary, op, x[0].0)
        });
    }
    check_gradients("affine", &[(S, values(S, 2))], |x| call!(tensor().affine, x[0].0, -1.5, 2.0));
    check_gradients("power", &[(S, positive(S, 3))], |x| call!(tensor().power, x[0].0, 2.5));
    check_gradients("clamp", &[(S, values(S, 4))], |x| call!(tensor().clamp, x[0].0, -0.4, 0.6));
    check_gradients("contiguous", &[(S, values(S, 5))], |x| {
        // A view first, so that there is something to copy.
        let turned = x[0].permute(&[1, 0]);
        call!(tensor().contiguous, turned.0)
    });
}

#[test]
fn casts_convert_gradients_back() {
    let x = f64s(&[2], &[0.5, -0.25]).leaf();
    let y = x.cast(ET_DTYPE_F32);
    y.backward_from(&common::f32s(&[2], &[1.5, 2.0])).unwrap();
    let grad = x.grad().unwrap();
    assert_eq!((grad.dtype(), grad.values()), (ET_DTYPE_F64, vec![1.5, 2.0]));
    assert!(!x.cast(ET_DTYPE_I64).is_tracked());
    assert!(!call!(tensor().unary, ET_UNARY_SIGN, x.0).unwrap().is_tracked());
}

#[test]
fn binary_operations_broadcast() {
    let shapes: [(&[usize], &[usize]); 5] = [
        (&[3, 4], &[3, 4]),
        (&[3, 4], &[4]),
        (&[2, 1, 4], &[3, 1]),
        (&[], &[2, 2]),
        (&[1], &[1, 1]),
    ];
    for (a, b) in shapes {
        for op in ET_BINARY_ADD..=ET_BINARY_MINIMUM {
            check_gradients(
                &format!("binary {op} {a:?} {b:?}"),
                &[(a, values(a, 1)), (b, positive(b, 2))],
                |x| call!(tensor().binary, op, x[0].0, x[1].0),
            );
        }
        let condition = common::make(ET_DTYPE_U8, &[1], &[1u8]);
        check_gradients("select", &[(a, values(a, 1)), (b, values(b, 2))], |x| {
            call!(tensor().select, condition.0, x[0].0, x[1].0)
        });
    }
    let condition = common::make(ET_DTYPE_U8, &[3, 1], &[1u8, 0, 2]);
    check_gradients("select rows", &[(S, values(S, 1)), (S, values(S, 2))], |x| {
        call!(tensor().select, condition.0, x[0].0, x[1].0)
    });
    check_gradients("x * x", &[(S, values(S, 1))], |x| {
        call!(tensor().binary, ET_BINARY_MUL, x[0].0, x[0].0)
    });
}

#[test]
fn reductions() {
    let shape: &[usize] = &[2, 3, 4];
    for op in [ET_REDUCE_SUM, ET_REDUCE_MEAN, ET_REDUCE_MAX, ET_REDUCE_MIN] {
        for axes in [&[][..], &[0], &[-1], &[0, 2], &[2, 1, 0]] {
            for keep in [0, 1] {
                check_gradients(
                    &format!("reduce {op} {axes:?}"),
                    &[(shape, values(shape, 3))],
                    |x| call!(tensor().reduce, op, x[0].0, axes.as_ptr(), axes.len(), keep),
                );
            }
        }
    }
}

#[test]
fn products() {
    let cases: [(&[usize], &[usize]); 5] = [
        (&[3, 4], &[4, 2]),
        (&[2, 3, 4], &[4, 5]),
        (&[2, 3, 4], &[2, 4, 5]),
        (&[3, 4], &[2, 4, 5]),
        (&[2, 1, 3, 4], &[5, 4, 2]),
    ];
    for (a, b) in cases {
        check_gradients(
            &format!("matmul {a:?} {b:?}"),
            &[(a, values(a, 1)), (b, values(b, 2))],
            |x| call!(tensor().matmul, x[0].0, x[1].0),
        );
    }
}

#[test]
fn shapes_and_places() {
    let shape: &[usize] = &[2, 3, 4];
    let x = || vec![(shape, values(shape, 9))];
    check_gradients("reshape", &x(), |x| call!(tensor().reshape, x[0].0, [4usize, 6].as_ptr(), 2));
    check_gradients("permute", &x(), |x| {
        call!(tensor().permute, x[0].0, [2i64, 0, -2].as_ptr(), 3)
    });
    check_gradients("narrow", &x(), |x| call!(tensor().narrow, x[0].0, -2, 1, 2));
    let column: &[usize] = &[3, 1];
    check_gradients("broadcast_to", &[(column, values(column, 1))], |x| {
        call!(tensor().broadcast_to, x[0].0, [2usize, 3, 4].as_ptr(), 3)
    });
    let other: &[usize] = &[2, 1, 4];
    check_gradients("concat", &[(shape, values(shape, 1)), (other, values(other, 2))], |x| {
        let list = [x[0].0.cast_const(), x[1].0.cast_const(), x[0].0.cast_const()];
        call!(tensor().concat, list.as_ptr(), 3, 1)
    });
    let index = i64s(&[2, 0, 2, 1, 2]);
    check_gradients("index_select", &x(), |x| call!(tensor().index_select, x[0].0, 1, index.0));
    let places = i64s_of(&[2, 2, 4], &[0, 1, 2, 0, 2, 2, 1, 1, 0, 0, 0, 0, 1, 2, 1, 2]);
    check_gradients("gather", &x(), |x| call!(tensor().gather, x[0].0, 1, places.0));
    let source: &[usize] = &[2, 5, 4];
    check_gradients("index_add", &[(shape, values(shape, 1)), (source, values(source, 2))], |x| {
        call!(tensor().index_add, x[0].0, 1, index.0, x[1].0)
    });
}

#[test]
fn linear_layers() {
    for activation in ET_ACTIVATION_NONE..=ET_ACTIVATION_SILU {
        let (x, w, b): (&[usize], &[usize], &[usize]) = (&[2, 3, 5], &[4, 5], &[4]);
        let inputs = [(x, values(x, 1)), (w, values(w, 2)), (b, values(b, 3))];
        check_gradients(&format!("linear {activation}"), &inputs, |x| {
            call!(nn().linear, x[0].0, x[1].0, x[2].0, activation)
        });
        check_gradients("linear without bias", &inputs[..2], |x| {
            call!(nn().linear, x[0].0, x[1].0, ptr::null(), activation)
        });
    }
}

fn rng(stream: u64) -> *mut et_rng {
    let mut out = ptr::null_mut();
    done(unsafe { rng_table().create.unwrap()(5, stream, &mut out) }).unwrap();
    out
}

#[test]
fn norms_and_dropout() {
    let (x, g): (&[usize], &[usize]) = (&[2, 3, 6], &[6]);
    let generator = rng(1);
    let start = unsafe { rng_table().state.unwrap()(generator) };
    for dropout in [0.0, 0.4] {
        for residual in [false, true] {
            let inputs =
                [(x, values(x, 1)), (g, values(g, 2)), (g, values(g, 3)), (x, values(x, 4))];
            let count = if residual { 4 } else { 3 };
            check_gradients(&format!("layer_norm {dropout} {residual}"), &inputs[..count], |x| {
                // The same numbers on every call.
                unsafe { rng_table().set_state.unwrap()(generator, start) };
                let args = et_layer_norm {
                    struct_size: size_of::<et_layer_norm>(),
                    x: x[0].0,
                    residual: if residual { x[3].0 } else { ptr::null() },
                    gamma: x[1].0,
                    beta: x[2].0,
                    epsilon: 1e-3,
                    dropout,
                    rng: generator,
                };
                call!(nn().layer_norm, &args)
            });
        }
    }
    check_gradients("rms_norm", &[(x, values(x, 1)), (g, values(g, 2))], |x| {
        call!(nn().rms_norm, x[0].0, x[1].0, 1e-3)
    });
    check_gradients("dropout", &[(x, values(x, 1))], |x| {
        unsafe { rng_table().set_state.unwrap()(generator, start) };
        call!(nn().dropout, x[0].0, 0.5, generator)
    });
    check_gradients("no dropout", &[(x, values(x, 1))], |x| {
        // The identity of a leaf is the leaf itself, so there is an operation around it.
        let y = call!(nn().dropout, x[0].0, 0.5, ptr::null_mut()).unwrap();
        call!(tensor().affine, y.0, 2.0, 0.0)
    });
    unsafe { rng_table().release.unwrap()(generator) };
}

#[test]
fn embeddings() {
    let (a, b): (&[usize], &[usize]) = (&[5, 3], &[2, 3]);
    let (ids_a, ids_b) = (i64s(&[4, 0, 4, 1]), i64s(&[0, 1, 1, 0]));
    check_gradients("embedding_sum", &[(a, values(a, 1)), (b, values(b, 2))], |x| {
        let tables = [x[0].0.cast_const(), x[1].0.cast_const()];
        let ids = [ids_a.0.cast_const(), ids_b.0.cast_const()];
        call!(nn().embedding_sum, tables.as_ptr(), ids.as_ptr(), 2)
    });
}

#[test]
fn attention_over_runs() {
    let (q, k): (&[usize], &[usize]) = (&[7, 6], &[9, 6]);
    let (starts, key_starts) = (i64s(&[0, 3, 3, 7]), i64s(&[0, 4, 5, 9]));
    let generator = rng(2);
    let start = unsafe { rng_table().state.unwrap()(generator) };
    let run = |x: &[&T], keys: bool, causal: bool, dropout: f64| {
        unsafe { rng_table().set_state.unwrap()(generator, start) };
        let args = et_attention {
            query: x[0].0,
            key: x[1].0,
            value: x[2].0,
            starts: starts.0,
            key_starts: if keys { key_starts.0 } else { ptr::null() },
            heads: 2,
            dropout,
            rng: generator,
            causal: i32::from(causal),
            ..attention_args()
        };
        call!(nn().attention, &args)
    };
    for (causal, dropout) in [(false, 0.0), (true, 0.0), (false, 0.3)] {
        let own = [(q, values(q, 1)), (q, values(q, 2)), (q, values(q, 3))];
        check_gradients(&format!("attention {causal} {dropout}"), &own, |x| {
            run(x, false, causal, dropout)
        });
        let other = [(q, values(q, 1)), (k, values(k, 2)), (k, values(k, 3))];
        check_gradients(&format!("cross attention {causal} {dropout}"), &other, |x| {
            run(x, true, causal, dropout)
        });
    }
    let fused: &[usize] = &[7, 18];
    check_gradients("attention on thirds", &[(fused, values(fused, 1))], |x| {
        let third = |i: usize| call!(tensor().narrow, x[0].0, 1, i * 6, 6).unwrap();
        let (q, k, v) = (third(0), third(1), third(2));
        run(&[&q, &k, &v], false, false, 0.0)
    });
    unsafe { rng_table().release.unwrap()(generator) };
}

#[test]
fn softmax_and_losses() {
    check_gradients("softmax", &[(S, values(S, 1))], |x| call!(nn().softmax, x[0].0));
    check_gradients("log_softmax", &[(S, values(S, 1))], |x| call!(nn().log_softmax, x[0].0));
    let labels = i64s(&[2, -100, 0]);
    let w: &[usize] = &[3];
    for smoothing in [0.0, 0.2] {
        check_gradients("cross_entropy", &[(S, values(S, 1))], |x| {
            call!(nn().cross_entropy, x[0].0, labels.0, ptr::null(), -100, smoothing)
        });
        check_gradients("weighted cross_entropy", &[(S, values(S, 1)), (w, positive(w, 2))], |x| {
            call!(nn().cross_entropy, x[0].0, labels.0, x[1].0, -100, smoothing)
        });
    }
    for shape in [S, w] {
        let targets = f64s(shape, &positive(shape, 7).iter().map(|x| x / 2.0).collect::<Vec<_>>());
        let run = |x: &T, weights: *const et_tensor| {
            let targets = targets.cast(x.dtype());
            call!(nn().binary_cross_entropy, x.0, targets.0, weights)
        };
        check_gradients("bce", &[(shape, values(shape, 1))], |x| run(x[0], ptr::null()));
        check_gradients("weighted bce", &[(shape, values(shape, 1)), (w, positive(w, 2))], |x| {
            run(x[0], x[1].0)
        });
    }
}

#[test]
fn operations_on_runs() {
    let x: &[usize] = &[6, 4];
    let starts = i64s(&[0, 2, 2, 6]);
    for kind in [ET_POOL_MEAN, ET_POOL_FIRST, ET_POOL_MAX] {
        check_gradients(&format!("pool {kind}"), &[(x, values(x, 1))], |x| {
            call!(nn().pool, x[0].0, starts.0, kind)
        });
    }
    for len in [3usize, 5] {
        check_gradients("to_padded", &[(x, values(x, 1))], |x| {
            call!(nn().to_padded, x[0].0, starts.0, len)
        });
        let padded: &[usize] = &[3, len, 4];
        check_gradients("from_padded", &[(padded, values(padded, 1))], |x| {
            call!(nn().from_padded, x[0].0, starts.0)
        });
    }
    let (w, b): (&[usize], &[usize]) = (&[3, 4, 3], &[3]);
    for dilation in [1usize, 2] {
        let inputs = [(x, values(x, 1)), (w, values(w, 2)), (b, values(b, 3))];
        check_gradients("conv1d", &inputs, |x| {
            call!(nn().conv1d, x[0].0, x[1].0, x[2].0, starts.0, dilation)
        });
        check_gradients("conv1d without bias", &inputs[..2], |x| {
            call!(nn().conv1d, x[0].0, x[1].0, ptr::null(), starts.0, dilation)
        });
    }
}

#[test]
fn recurrent_layers() {
    let starts = i64s(&[0, 2, 2, 6]);
    let (x, h) = (&[6usize, 3][..], 2usize);
    for reverse in [0, 1] {
        for gates in [4usize, 3] {
            let (w_ih, w_hh, b) = ([gates * h, 3], [gates * h, h], [gates * h]);
            let inputs = [
                (x, values(x, 1)),
                (&w_ih[..], values(&w_ih, 2)),
                (&w_hh[..], values(&w_hh, 3)),
                (&b[..], values(&b, 4)),
                (&b[..], values(&b, 5)),
            ];
            check_gradients(&format!("recurrent {gates} {reverse}"), &inputs, |x| {
                let slot = if gates == 4 { nn().lstm } else { nn().gru };
                call!(slot, x[0].0, x[1].0, x[2].0, x[3].0, x[4].0, starts.0, reverse)
            });
        }
    }
}

#[test]
fn random_fields() {
    let (e, t, f): (&[usize], &[usize], &[usize]) = (&[6, 3], &[3, 3], &[3]);
    let starts = i64s(&[0, 2, 2, 6]);
    let tags = i64s(&[0, 2, 1, 1, 0, 2]);
    let inputs = [(e, values(e, 1)), (t, values(t, 2)), (f, values(f, 3)), (f, values(f, 4))];
    check_gradients("crf_loss", &inputs, |x| {
        call!(nn().crf_loss, x[0].0, tags.0, starts.0, x[1].0, x[2].0, x[3].0)
    });
}

#[test]
fn ties_share_or_go_to_the_first() {
    let x = f64s(&[3], &[2.0, 2.0, 1.0]).leaf();
    let y = call!(tensor().reduce, ET_REDUCE_MAX, x.0, ptr::null(), 0, 0).unwrap();
    y.backward().unwrap();
    assert_eq!(x.grad().unwrap().values(), [0.5, 0.5, 0.0]);
    let (a, b) = (f64s(&[2], &[1.0, 3.0]).leaf(), f64s(&[2], &[1.0, 4.0]).leaf());
    let y = call!(tensor().binary, ET_BINARY_MAXIMUM, a.0, b.0).unwrap();
    y.backward_from(&f64s(&[2], &[1.0, 1.0])).unwrap();
    assert_eq!(a.grad().unwrap().values(), [1.0, 0.0]);
    assert_eq!(b.grad().unwrap().values(), [0.0, 1.0]);
    let x = f64s(&[2], &[0.0, -1.0]).leaf();
    for (op, expected) in [(ET_UNARY_ABS, [0.0, -1.0]), (ET_UNARY_RELU, [0.0, 0.0])] {
        let x = x.leaf();
        let y = call!(tensor().unary, op, x.0).unwrap();
        y.backward_from(&f64s(&[2], &[1.0, 1.0])).unwrap();
        assert_eq!(x.grad().unwrap().values(), expected);
    }
}

#[test]
fn gradients_add_up_over_uses_and_passes() {
    let x = f64s(&[2], &[3.0, 4.0]).leaf();
    let square = |x: &T| call!(tensor().unary, ET_UNARY_SQR, x.0).unwrap();
    let sum = |x: &T| call!(tensor().reduce, ET_REDUCE_SUM, x.0, ptr::null(), 0, 0).unwrap();
    let (a, b) = (square(&x), square(&x));
    let both = call!(tensor().binary, ET_BINARY_ADD, a.0, b.0).unwrap();
    let third = call!(tensor().binary, ET_BINARY_ADD, both.0, x.0).unwrap();
    sum(&third).backward().unwrap();
    assert_eq!(x.grad().unwrap().values(), [13.0, 17.0]);
    let first = x.grad().unwrap();
    sum(&square(&x)).backward().unwrap();
    assert_eq!(x.grad().unwrap().values(), [19.0, 25.0]);
    // A gradient that was handed out does not change.
    assert_eq!(first.values(), [13.0, 17.0]);
}

#[test]
fn a_half_precision_layer_has_half_precision_gradients() {
    let x = f64s(&[2, 3], &values(&[2, 3], 1)).cast(ET_DTYPE_BF16).leaf();
    let w = f64s(&[4, 3], &values(&[4, 3], 2)).cast(ET_DTYPE_BF16).leaf();
    let y = call!(nn().linear, x.0, w.0, ptr::null(), ET_ACTIVATION_GELU).unwrap();
    assert_eq!(y.dtype(), ET_DTYPE_BF16);
    let loss = call!(tensor().reduce, ET_REDUCE_SUM, y.0, ptr::null(), 0, 0).unwrap();
    loss.backward().unwrap();
    assert_eq!(w.grad().unwrap().dtype(), ET_DTYPE_BF16);
    let _ = autograd();
}
