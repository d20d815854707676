//! Values, shapes, types and errors of every operation, and the tape's rules, through the C tables.
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
    Answer, T, assert_close, attention_args, autograd, done, f32s, f64s, i64s, i64s_of, make, nn,
    noise, one, refuses, rng_table, tensor,
};
use easytransfer_abi::*;

#[track_caller]
fn u8s(shape: &[usize], data: &[u8]) -> T {
    make(ET_DTYPE_U8, shape, data)
}

fn unary(op: i32, x: &T) -> Answer {
    call!(tensor().unary, op, x.0)
}

fn binary(op: i32, a: &T, b: &T) -> Answer {
    call!(tensor().binary, op, a.0, b.0)
}

fn reduce(op: i32, x: &T, axes: &[i64], keep: i32) -> Answer {
    call!(tensor().reduce, op, x.0, axes.as_ptr(), axes.len(), keep)
}

fn counting(shape: &[usize]) -> T {
    let len: usize = shape.iter().product();
    f32s(shape, &(0..len).map(|i| i as f32).collect::<Vec<_>>())
}

#[test]
fn data_goes_in_and_comes_out() {
    let x = counting(&[2, 3]);
    assert_eq!((x.shape(), x.len(), x.dtype()), (vec![2, 3], 6, ET_DTYPE_F32));
    assert!(x.is_contiguous() && !x.is_tracked());
    assert_eq!(x.strided().values(), x.values());
    assert!(!x.strided().is_contiguous());
    let scalar = f64s(&[], &[2.5]);
    assert_eq!((scalar.shape(), scalar.values()), (vec![], vec![2.5]));
    let none = f32s(&[0, 3], &[]);
    assert_eq!((none.shape(), none.values()), (vec![0, 3], vec![]));
    for dtype in
        [ET_DTYPE_U8, ET_DTYPE_U32, ET_DTYPE_I64, ET_DTYPE_BF16, ET_DTYPE_F16, ET_DTYPE_F32]
    {
        let y = call!(tensor().arange, dtype, 3.0, 2.0, 4).unwrap();
        assert_eq!(y.dtype(), dtype);
        assert_eq!(y.cast(ET_DTYPE_F64).values(), [3.0, 5.0, 7.0, 9.0]);
        let y = call!(tensor().full, dtype, [2usize, 1].as_ptr(), 2, 7.0).unwrap();
        assert_eq!((y.shape(), y.values()), (vec![2, 1], vec![7.0, 7.0]));
    }
    refuses(
        call!(tensor().from_data, ET_DTYPE_F32, [2usize].as_ptr(), 1, [0u8; 9].as_ptr().cast(), 9),
        ET_ERR_SHAPE,
        &["8 bytes", "found 9"],
    );
    refuses(call!(tensor().full, 99, ptr::null(), 0, 0.0), ET_ERR_DTYPE, &["99"]);
    refuses(
        call!(tensor().full, ET_DTYPE_U8, ptr::null(), 0, -1.0),
        ET_ERR_INVALID_ARGUMENT,
        &["-1"],
    );
    refuses(
        call!(tensor().full, ET_DTYPE_F32, [usize::MAX, 3].as_ptr(), 2, 0.0),
        ET_ERR_INVALID_ARGUMENT,
        &["too large"],
    );
    let small = done(unsafe { tensor().read.unwrap()(x.0, ptr::null_mut(), 0) }).unwrap_err();
    assert_eq!(small.0, ET_ERR_SHAPE);
}

#[test]
fn wrong_handles_are_refused() {
    refuses(
        call!(tensor().affine, ptr::null(), 1.0, 0.0),
        ET_ERR_INVALID_ARGUMENT,
        &["tensor", "NULL"],
    );
    let mut out = ptr::null_mut();
    done(unsafe { rng_table().create.unwrap()(0, 0, &mut out) }).unwrap();
    refuses(call!(tensor().affine, out.cast(), 1.0, 0.0), ET_ERR_BAD_HANDLE, &["tensor"]);
    unsafe { rng_table().release.unwrap()(out) };
    let x = counting(&[1]);
    let no_out = done(unsafe { tensor().affine.unwrap()(x.0, 1.0, 0.0, ptr::null_mut()) });
    assert_eq!(no_out.unwrap_err().0, ET_ERR_INVALID_ARGUMENT);
}

#[test]
fn unary_values() {
    let x = f64s(&[5], &[-1.5, -0.2, 0.0, 0.4, 2.0]);
    type Case = (i32, fn(f64) -> f64);
    let cases: [Case; 12] = [
        (ET_UNARY_NEG, |x| -x),
        (ET_UNARY_EXP, f64::exp),
        (ET_UNARY_SQR, |x| x * x),
        (ET_UNARY_ABS, f64::abs),
        (ET_UNARY_SIN, f64::sin),
        (ET_UNARY_COS, f64::cos),
        (ET_UNARY_TANH, f64::tanh),
        (ET_UNARY_SIGMOID, |x| 1.0 / (1.0 + (-x).exp())),
        (ET_UNARY_RELU, |x| x.max(0.0)),
        (ET_UNARY_SILU, |x| x / (1.0 + (-x).exp())),
        (ET_UNARY_SIGN, |x| if x == 0.0 { 0.0 } else { x.signum() }),
        (ET_UNARY_GELU_TANH, |x| {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }),
    ];
    for (op, f) in cases {
        let expected: Vec<f64> = x.values().into_iter().map(f).collect();
        assert_close(&unary(op, &x).unwrap().values(), &expected, 1e-13);
        assert_close(&unary(op, &x.cast(ET_DTYPE_F32)).unwrap().values(), &expected, 1e-6);
        let half = unary(op, &x.cast(ET_DTYPE_BF16)).unwrap();
        assert_eq!(half.dtype(), ET_DTYPE_BF16);
        assert_close(&half.values(), &expected, 2e-2);
        let none = unary(op, &f32s(&[0, 2], &[])).unwrap();
        assert_eq!(none.shape(), [0, 2]);
    }
    let p = f64s(&[3], &[0.25, 1.0, 9.0]);
    assert_close(
        &unary(ET_UNARY_LOG, &p).unwrap().values(),
        &[0.25f64.ln(), 0.0, 9f64.ln()],
        1e-14,
    );
    assert_close(&unary(ET_UNARY_SQRT, &p).unwrap().values(), &[0.5, 1.0, 3.0], 1e-14);
    assert_close(&unary(ET_UNARY_RECIP, &p).unwrap().values(), &[4.0, 1.0, 1.0 / 9.0], 1e-14);
    // The exact form: x Phi(x) and erf at 1, from tables to 12 digits.
    let one = f64s(&[2], &[1.0, -1.0]);
    let gelu = unary(ET_UNARY_GELU, &one).unwrap().values();
    assert_close(&gelu, &[0.841344746069, -0.158655253931], 1e-11);
    let erf = unary(ET_UNARY_ERF, &one).unwrap().values();
    assert_close(&erf, &[0.842700792950, -0.842700792950], 1e-11);
    let ints = i64s(&[-3, 0, 4]);
    assert_eq!(unary(ET_UNARY_NEG, &ints).unwrap().ints(), [3, 0, -4]);
    assert_eq!(unary(ET_UNARY_ABS, &ints).unwrap().ints(), [3, 0, 4]);
    assert_eq!(unary(ET_UNARY_SIGN, &ints).unwrap().ints(), [-1, 0, 1]);
    assert_eq!(unary(ET_UNARY_RELU, &ints).unwrap().ints(), [0, 0, 4]);
    assert_eq!(unary(ET_UNARY_SQR, &u8s(&[2], &[3, 5])).unwrap().bytes(), [9, 25]);
    refuses(unary(ET_UNARY_EXP, &ints), ET_ERR_DTYPE, &["exp", "i64"]);
    refuses(unary(ET_UNARY_NEG, &u8s(&[1], &[1])), ET_ERR_DTYPE, &["neg", "u8"]);
    refuses(unary(99, &x), ET_ERR_INVALID_ARGUMENT, &["99"]);
}

#[test]
fn affine_power_and_clamp() {
    let x = f64s(&[3], &[-2.0, 0.5, 3.0]);
    assert_eq!(call!(tensor().affine, x.0, 2.0, 1.0).unwrap().values(), [-3.0, 2.0, 7.0]);
    assert_eq!(call!(tensor().affine, i64s(&[5]).0, 2.0, 1.0).unwrap().ints(), [11]);
    assert_eq!(call!(tensor().power, x.0, 2.0).unwrap().values(), [4.0, 0.25, 9.0]);
    assert_eq!(call!(tensor().clamp, x.0, -1.0, 1.0).unwrap().values(), [-1.0, 0.5, 1.0]);
    let none = f32s(&[0], &[]);
    assert_eq!(call!(tensor().clamp, none.0, 0.0, 1.0).unwrap().len(), 0);
    assert_eq!(call!(tensor().affine, none.0, 0.0, 1.0).unwrap().len(), 0);
    assert_eq!(call!(tensor().power, none.0, 2.0).unwrap().len(), 0);
    refuses(call!(tensor().clamp, x.0, 1.0, -1.0), ET_ERR_INVALID_ARGUMENT, &["low"]);
    refuses(call!(tensor().power, i64s(&[1]).0, 2.0), ET_ERR_DTYPE, &["power"]);
}

#[test]
fn binary_values() {
    let (a, b) = (f64s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), f64s(&[2], &[4.0, 2.0]));
    let expected = [
        (ET_BINARY_ADD, [5.0, 4.0, 7.0, 6.0]),
        (ET_BINARY_SUB, [-3.0, 0.0, -1.0, 2.0]),
        (ET_BINARY_MUL, [4.0, 4.0, 12.0, 8.0]),
        (ET_BINARY_DIV, [0.25, 1.0, 0.75, 2.0]),
        (ET_BINARY_MAXIMUM, [4.0, 2.0, 4.0, 4.0]),
        (ET_BINARY_MINIMUM, [1.0, 2.0, 3.0, 2.0]),
    ];
    for (op, expected) in expected {
        assert_eq!(binary(op, &a, &b).unwrap().values(), expected);
        assert_eq!(binary(op, &a.strided(), &b).unwrap().values(), expected);
        let none = binary(op, &f64s(&[0, 2], &[]), &b).unwrap();
        assert_eq!(none.shape(), [0, 2]);
        refuses(binary(op, &a, &i64s(&[1, 2])), ET_ERR_DTYPE, &["f64", "i64"]);
        refuses(binary(op, &a, &f64s(&[3], &[0.0; 3])), ET_ERR_SHAPE, &["[2, 2]", "[3]"]);
    }
    let (i, j) = (i64s(&[7, -7]), i64s(&[2, 2]));
    assert_eq!(binary(ET_BINARY_DIV, &i, &j).unwrap().ints(), [3, -3]);
    refuses(binary(ET_BINARY_DIV, &i, &i64s(&[0])), ET_ERR_INVALID_ARGUMENT, &["divided by 0"]);
    refuses(binary(0, &a, &b), ET_ERR_INVALID_ARGUMENT, &["0"]);
    let compared = [
        (ET_COMPARE_EQ, [0, 1, 0, 0]),
        (ET_COMPARE_NE, [1, 0, 1, 1]),
        (ET_COMPARE_LT, [1, 0, 1, 0]),
        (ET_COMPARE_LE, [1, 1, 1, 0]),
        (ET_COMPARE_GT, [0, 0, 0, 1]),
        (ET_COMPARE_GE, [0, 1, 0, 1]),
    ];
    for (op, expected) in compared {
        assert_eq!(call!(tensor().compare, op, a.0, b.0).unwrap().bytes(), expected);
        let none = f64s(&[0, 2], &[]);
        assert_eq!(call!(tensor().compare, op, none.0, b.0).unwrap().shape(), [0, 2]);
    }
    refuses(call!(tensor().compare, 9, a.0, b.0), ET_ERR_INVALID_ARGUMENT, &["9"]);
    let condition = u8s(&[2, 1], &[0, 3]);
    let chosen = call!(tensor().select, condition.0, a.0, b.0).unwrap();
    assert_eq!(chosen.values(), [4.0, 2.0, 3.0, 4.0]);
    refuses(call!(tensor().select, a.0, a.0, b.0), ET_ERR_DTYPE, &["u8", "f64"]);
}

#[test]
fn reductions_and_their_errors() {
    let x = f64s(&[2, 3], &[3.0, 9.0, 9.0, -1.0, -5.0, -5.0]);
    for x in [&x, &x.strided()] {
        assert_eq!(reduce(ET_REDUCE_SUM, x, &[], 0).unwrap().values(), [10.0]);
        assert_eq!(reduce(ET_REDUCE_SUM, x, &[0], 0).unwrap().values(), [2.0, 4.0, 4.0]);
        assert_eq!(reduce(ET_REDUCE_MEAN, x, &[-1], 1).unwrap().shape(), [2, 1]);
        assert_close(
            &reduce(ET_REDUCE_MEAN, x, &[-1], 1).unwrap().values(),
            &[7.0, -11.0 / 3.0],
            1e-15,
        );
        assert_eq!(reduce(ET_REDUCE_MAX, x, &[], 0).unwrap().values(), [9.0]);
        assert_eq!(reduce(ET_REDUCE_MIN, x, &[1], 0).unwrap().values(), [3.0, -5.0]);
        // The first of equal places.
        assert_eq!(reduce(ET_REDUCE_ARGMAX, x, &[1], 0).unwrap().ints(), [1, 0]);
        assert_eq!(reduce(ET_REDUCE_ARGMIN, x, &[1], 1).unwrap().ints(), [0, 1]);
    }
    assert_eq!(reduce(ET_REDUCE_SUM, &i64s(&[1, 2, 3]), &[], 0).unwrap().ints(), [6]);
    let none = f64s(&[0, 3], &[]);
    assert_eq!(reduce(ET_REDUCE_SUM, &none, &[0], 0).unwrap().values(), [0.0; 3]);
    assert_eq!(reduce(ET_REDUCE_SUM, &none, &[], 0).unwrap().values(), [0.0]);
    assert_eq!(reduce(ET_REDUCE_MAX, &none, &[1], 0).unwrap().shape(), [0]);
    for op in [ET_REDUCE_MEAN, ET_REDUCE_MAX, ET_REDUCE_ARGMIN] {
        refuses(reduce(op, &none, &[0], 0), ET_ERR_INVALID_ARGUMENT, &["no elements"]);
    }
    refuses(reduce(ET_REDUCE_MEAN, &i64s(&[1]), &[], 0), ET_ERR_DTYPE, &["mean", "i64"]);
    refuses(reduce(ET_REDUCE_SUM, &x, &[2], 0), ET_ERR_INVALID_ARGUMENT, &["axis 2"]);
    refuses(reduce(ET_REDUCE_SUM, &x, &[1, -1], 0), ET_ERR_INVALID_ARGUMENT, &["twice"]);
    refuses(reduce(ET_REDUCE_ARGMAX, &x, &[], 0), ET_ERR_INVALID_ARGUMENT, &["one axis"]);
}

#[test]
fn products_and_their_errors() {
    let (a, b) = (counting(&[2, 3]), counting(&[3, 2]));
    let product = |a: &T, b: &T| call!(tensor().matmul, a.0, b.0);
    for (a, b) in [(&a, &b), (&a.strided(), &b), (&a, &b.strided())] {
        assert_eq!(product(a, b).unwrap().values(), [10.0, 13.0, 28.0, 40.0]);
    }
    let batch = product(&counting(&[2, 1, 2, 3]), &counting(&[3, 3, 1])).unwrap();
    assert_eq!(batch.shape(), [2, 3, 2, 1]);
    assert_eq!(product(&f32s(&[0, 3], &[]), &b).unwrap().shape(), [0, 2]);
    assert_eq!(product(&f32s(&[2, 0], &[]), &f32s(&[0, 2], &[])).unwrap().values(), [0.0; 4]);
    refuses(product(&a, &a), ET_ERR_SHAPE, &["[2, 3]", "found 3 and 2"]);
    refuses(product(&a, &counting(&[3])), ET_ERR_SHAPE, &["two axes"]);
    refuses(product(&a, &b.cast(ET_DTYPE_F64)), ET_ERR_DTYPE, &["f32", "f64"]);
    refuses(product(&counting(&[2, 2, 3]), &counting(&[3, 3, 2])), ET_ERR_SHAPE, &["broadcast"]);
}

#[test]
fn shapes_and_their_errors() {
    let x = counting(&[2, 3]);
    let turned = x.permute(&[-1, 0]);
    assert_eq!((turned.shape(), turned.values()), (vec![3, 2], vec![0., 3., 1., 4., 2., 5.]));
    let flat = call!(tensor().reshape, turned.0, [6usize].as_ptr(), 1).unwrap();
    assert_eq!(flat.values(), [0., 3., 1., 4., 2., 5.]);
    let part = call!(tensor().narrow, x.0, -1, 1, 2).unwrap();
    assert_eq!((part.is_contiguous(), part.values()), (false, vec![1., 2., 4., 5.]));
    assert!(call!(tensor().contiguous, part.0).unwrap().is_contiguous());
    let none = call!(tensor().narrow, x.0, 1, 3, 0).unwrap();
    assert_eq!(none.shape(), [2, 0]);
    let wide = call!(tensor().broadcast_to, x.0, [2usize, 2, 3].as_ptr(), 3).unwrap();
    assert_eq!(wide.values(), [0., 1., 2., 3., 4., 5., 0., 1., 2., 3., 4., 5.]);
    let list = [x.0.cast_const(), none.0.cast_const(), part.0.cast_const()];
    let joined = call!(tensor().concat, list.as_ptr(), 3, 1).unwrap();
    assert_eq!(
        (joined.shape(), joined.values()),
        (vec![2, 5], vec![0., 1., 2., 1., 2., 3., 4., 5., 4., 5.])
    );
    refuses(call!(tensor().reshape, x.0, [5usize].as_ptr(), 1), ET_ERR_SHAPE, &["[2, 3]", "[5]"]);
    refuses(
        call!(tensor().permute, x.0, [0i64, 0].as_ptr(), 2),
        ET_ERR_INVALID_ARGUMENT,
        &["once"],
    );
    refuses(call!(tensor().narrow, x.0, 1, 2, 2), ET_ERR_INVALID_ARGUMENT, &["3 entries"]);
    refuses(call!(tensor().narrow, x.0, 2, 0, 1), ET_ERR_INVALID_ARGUMENT, &["axis 2"]);
    refuses(call!(tensor().broadcast_to, x.0, [2usize, 2].as_ptr(), 2), ET_ERR_SHAPE, &["[2, 3]"]);
    refuses(call!(tensor().concat, ptr::null(), 0, 0), ET_ERR_INVALID_ARGUMENT, &["none"]);
    let list = [x.0.cast_const(), turned.0.cast_const()];
    refuses(call!(tensor().concat, list.as_ptr(), 2, 0), ET_ERR_SHAPE, &["axis 0"]);
}

#[test]
fn places_and_their_errors() {
    let x = counting(&[3, 2]);
    let index = i64s(&[2, 0, 2]);
    for x in [&x, &x.strided()] {
        let rows = call!(tensor().index_select, x.0, 0, index.0).unwrap();
        assert_eq!(rows.values(), [4., 5., 0., 1., 4., 5.]);
        let places = i64s_of(&[3, 1], &[1, 0, 1]);
        let gathered = call!(tensor().gather, x.0, -1, places.0).unwrap();
        assert_eq!((gathered.shape(), gathered.values()), (vec![3, 1], vec![1., 2., 5.]));
        let ones = f32s(&[3, 2], &[1.0; 6]);
        let sum = call!(tensor().index_add, x.0, 0, index.0, ones.0).unwrap();
        assert_eq!(sum.values(), [1., 2., 2., 3., 6., 7.]);
    }
    let none = i64s(&[]);
    assert_eq!(call!(tensor().index_select, x.0, 0, none.0).unwrap().shape(), [0, 2]);
    for bad in [-1i64, 3] {
        let bad = i64s(&[0, bad]);
        let answer = call!(tensor().index_select, x.0, 0, bad.0);
        refuses(answer, ET_ERR_INVALID_ARGUMENT, &["position 1", "3 entries"]);
    }
    let places = i64s_of(&[1, 1], &[2]);
    refuses(call!(tensor().gather, x.0, 1, places.0), ET_ERR_INVALID_ARGUMENT, &["index 2"]);
    refuses(call!(tensor().gather, x.0, 1, index.0), ET_ERR_SHAPE, &["rank"]);
    refuses(call!(tensor().index_select, x.0, 0, counting(&[2]).0), ET_ERR_DTYPE, &["i64", "f32"]);
    refuses(
        call!(tensor().index_add, x.0, 0, index.0, f32s(&[1, 2], &[0.; 2]).0),
        ET_ERR_SHAPE,
        &["[3, 2]"],
    );
}

#[test]
fn the_tape_records_only_what_it_must() {
    let constant = f64s(&[2], &[1.0, 2.0]);
    let leaf = constant.leaf();
    assert!(leaf.is_tracked() && !constant.is_tracked());
    assert!(!binary(ET_BINARY_ADD, &constant, &constant).unwrap().is_tracked());
    assert!(binary(ET_BINARY_ADD, &constant, &leaf).unwrap().is_tracked());
    let (pause, resume) = (autograd().pause.unwrap(), autograd().resume.unwrap());
    let recording = || unsafe { autograd().is_recording.unwrap()() == 1 };
    unsafe {
        pause();
        pause();
        resume();
    }
    assert!(!recording());
    assert!(!unary(ET_UNARY_SQR, &leaf).unwrap().is_tracked());
    assert!(
        std::thread::spawn(move || unsafe { autograd().is_recording.unwrap()() == 1 })
            .join()
            .unwrap()
    );
    unsafe { resume() };
    assert!(recording());
    let detached = call!(autograd().detach, leaf.0).unwrap();
    assert!(!detached.is_tracked());
    assert!(leaf.grad().is_none());
    refuses(call!(autograd().leaf, i64s(&[1]).0), ET_ERR_DTYPE, &["leaf", "i64"]);
    refuses(call!(autograd().leaf_grad, constant.0), ET_ERR_INVALID_ARGUMENT, &["leaf"]);
}

#[test]
fn backward_refuses_what_makes_no_sense() {
    let leaf = f64s(&[2], &[1.0, 2.0]).leaf();
    assert_eq!(f64s(&[], &[1.0]).backward().unwrap_err().0, ET_ERR_INVALID_ARGUMENT);
    let y = unary(ET_UNARY_SQR, &leaf).unwrap();
    let missing = y.backward().unwrap_err();
    assert!(missing.0 == ET_ERR_INVALID_ARGUMENT && missing.1.contains("seed"), "{missing:?}");
    assert_eq!(y.backward_from(&f64s(&[1], &[1.0])).unwrap_err().0, ET_ERR_SHAPE);
    assert_eq!(y.backward_from(&f32s(&[2], &[1.0; 2])).unwrap_err().0, ET_ERR_DTYPE);
    let loss = reduce(ET_REDUCE_SUM, &y, &[], 0).unwrap();
    loss.backward().unwrap();
    let again = loss.backward().unwrap_err();
    assert!(again.0 == ET_ERR_FAILED_PRECONDITION && again.1.contains("freed"), "{again:?}");
    // A new operation on a freed part finds the same.
    let other = reduce(ET_REDUCE_SUM, &y, &[], 0).unwrap();
    assert_eq!(other.backward().unwrap_err().0, ET_ERR_FAILED_PRECONDITION);
}

#[test]
fn long_chains_need_no_stack() {
    let run = || {
        let x = f64s(&[1], &[1.0]).leaf();
        let grow = || {
            let mut y = call!(tensor().affine, x.0, 1.0, 0.5).unwrap();
            for _ in 0..100_000 {
                y = call!(tensor().affine, y.0, 1.0, 0.5).unwrap();
            }
            y
        };
        grow().backward().unwrap();
        assert_eq!(x.grad().unwrap().values(), [1.0]);
        // Dropped without a backward pass.
        drop(grow());
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn fused_values() {
    let x = f64s(&[2, 2], &[1.0, 2.0, -3.0, 0.5]);
    let w = f64s(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, -1.0]);
    let b = f64s(&[3], &[0.5, 0.0, 0.0]);
    for x in [&x, &x.strided()] {
        let y = call!(nn().linear, x.0, w.0, b.0, ET_ACTIVATION_RELU).unwrap();
        assert_eq!(y.values(), [1.5, 2.0, 0.0, 0.0, 0.5, 0.0]);
        let y = call!(nn().softmax, x.0).unwrap();
        let e = 1f64.exp();
        assert_close(&y.values()[..2], &[1.0 / (1.0 + e), e / (1.0 + e)], 1e-14);
    }
    let y = call!(nn().linear, f64s(&[0, 2], &[]).0, w.0, b.0, ET_ACTIVATION_GELU).unwrap();
    assert_eq!(y.shape(), [0, 3]);
    let single = call!(nn().linear, f64s(&[2], &[1.0, 2.0]).0, w.0, ptr::null(), 0).unwrap();
    assert_eq!((single.shape(), single.values()), (vec![3], vec![1.0, 2.0, -1.0]));
    let labels = i64s(&[1, -1]);
    let loss = call!(nn().cross_entropy, x.0, labels.0, ptr::null(), -1, 0.0).unwrap();
    assert_eq!(loss.shape(), Vec::<usize>::new());
    assert_close(&loss.values(), &[(1.0 + (-1f64).exp()).ln()], 1e-14);
    let none = i64s(&[-1, -1]);
    let loss = call!(nn().cross_entropy, x.0, none.0, ptr::null(), -1, 0.0).unwrap();
    assert_eq!(loss.values(), [0.0]);
    let starts = i64s(&[0, 1, 1, 2]);
    let pooled = call!(nn().pool, x.0, starts.0, ET_POOL_MEAN).unwrap();
    assert_eq!(pooled.values(), [1.0, 2.0, 0.0, 0.0, -3.0, 0.5]);
    let padded = call!(nn().to_padded, x.0, starts.0, 2).unwrap();
    assert_eq!(padded.shape(), [3, 2, 2]);
    assert_eq!(call!(nn().from_padded, padded.0, starts.0).unwrap().values(), x.values());
    let emissions = f64s(&[2, 2], &[0.0, 1.0, 3.0, 0.0]);
    let (zeros, square) = (f64s(&[2], &[0.0; 2]), f64s(&[2, 2], &[0.0, 9.0, 0.0, 9.0]));
    let run = i64s(&[0, 2]);
    let tags = call!(nn().crf_decode, emissions.0, run.0, square.0, zeros.0, zeros.0).unwrap();
    assert_eq!(tags.ints(), [1, 1]);
}

#[test]
fn fused_errors_say_what_was_expected() {
    let (x, w) = (counting(&[2, 3]), counting(&[4, 2]));
    refuses(
        call!(nn().linear, x.0, w.0, ptr::null(), 0),
        ET_ERR_SHAPE,
        &["[4, 2]", "expected 3", "found 2"],
    );
    refuses(
        call!(nn().linear, x.0, ptr::null(), ptr::null(), 0),
        ET_ERR_INVALID_ARGUMENT,
        &["weight"],
    );
    let w = counting(&[4, 3]);
    refuses(call!(nn().linear, x.0, w.0, x.0, 0), ET_ERR_SHAPE, &["bias", "[4]"]);
    refuses(call!(nn().linear, x.0, w.0, ptr::null(), 77), ET_ERR_INVALID_ARGUMENT, &["77"]);
    let wide = w.cast(ET_DTYPE_F64);
    refuses(call!(nn().linear, x.0, wide.0, ptr::null(), 0), ET_ERR_DTYPE, &["f32", "f64"]);
    refuses(call!(nn().softmax, i64s(&[1]).0), ET_ERR_DTYPE, &["i64"]);
    refuses(call!(nn().rms_norm, x.0, counting(&[2]).0, 1e-5), ET_ERR_SHAPE, &["gamma", "[3]"]);
    let labels = i64s(&[0, 3]);
    let answer = call!(nn().cross_entropy, x.0, labels.0, ptr::null(), -100, 0.0);
    refuses(answer, ET_ERR_INVALID_ARGUMENT, &["[1]", "3"]);
    let answer = call!(nn().cross_entropy, x.0, labels.0, ptr::null(), -100, 1.0);
    refuses(answer, ET_ERR_INVALID_ARGUMENT, &["smoothing"]);
    let tables = [w.0.cast_const()];
    let ids = i64s(&[0, 4]);
    let list = [ids.0.cast_const()];
    let answer = call!(nn().embedding_sum, tables.as_ptr(), list.as_ptr(), 1);
    refuses(answer, ET_ERR_INVALID_ARGUMENT, &["ids[1] is 4", "4 rows"]);
    refuses(call!(nn().dropout, x.0, 1.0, ptr::null_mut()), ET_ERR_INVALID_ARGUMENT, &["dropout"]);
    for bad in [vec![0, 1], vec![1, 2], vec![0, 3, 2], vec![]] {
        let starts = i64s(&bad);
        refuses(call!(nn().pool, x.0, starts.0, 1), ET_ERR_INVALID_ARGUMENT, &["starts"]);
    }
    refuses(call!(nn().layer_norm, ptr::null()), ET_ERR_INVALID_ARGUMENT, &["NULL"]);
    let short = et_layer_norm {
        struct_size: 8,
        x: x.0,
        residual: ptr::null(),
        gamma: ptr::null(),
        beta: ptr::null(),
        epsilon: 0.0,
        dropout: 0.0,
        rng: ptr::null_mut(),
    };
    refuses(call!(nn().layer_norm, &short), ET_ERR_INVALID_ARGUMENT, &["struct_size"]);
    let starts = i64s(&[0, 2]);
    let args = et_attention {
        query: x.0,
        key: x.0,
        value: x.0,
        starts: starts.0,
        heads: 2,
        ..attention_args()
    };
    refuses(call!(nn().attention, &args), ET_ERR_INVALID_ARGUMENT, &["2 heads", "3 columns"]);
}

#[test]
fn dropout_keeps_the_mean_and_counts_its_numbers() {
    let mut rng = ptr::null_mut();
    done(unsafe { rng_table().create.unwrap()(1, 2, &mut rng) }).unwrap();
    let ones = call!(tensor().full, ET_DTYPE_F32, [10_000usize].as_ptr(), 1, 1.0).unwrap();
    let first = call!(nn().dropout, ones.0, 0.25, rng).unwrap().values();
    let mean = first.iter().sum::<f64>() / 10_000.0;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
    assert!(first.iter().all(|&x| x == 0.0 || (x - 4.0 / 3.0).abs() < 1e-6));
    assert_eq!(unsafe { rng_table().state.unwrap()(rng) }.offset, 10_000);
    assert_ne!(call!(nn().dropout, ones.0, 0.25, rng).unwrap().values(), first);
    unsafe { rng_table().set_state.unwrap()(rng, et_rng_state { seed: 1, stream: 2, offset: 0 }) };
    assert_eq!(call!(nn().dropout, ones.0, 0.25, rng).unwrap().values(), first);
    unsafe { rng_table().release.unwrap()(rng) };
}

#[test]
fn support_is_told() {
    let supports = |family: &std::ffi::CStr, op, dtype| unsafe {
        nn().supports.unwrap()(family.as_ptr(), op, dtype)
    };
    assert_eq!(supports(c"unary", ET_UNARY_EXP, ET_DTYPE_F32), 1);
    assert_eq!(supports(c"unary", ET_UNARY_EXP, ET_DTYPE_I64), 0);
    assert_eq!(supports(c"unary", 1000, ET_DTYPE_F32), 0);
    assert_eq!(supports(c"reduce", ET_REDUCE_MEAN, ET_DTYPE_I64), 0);
    assert_eq!(supports(c"optim", ET_OPTIM_ADAMW, ET_DTYPE_F32), 1);
    assert_eq!(supports(c"nonsense", 1, ET_DTYPE_F32), 0);
}

#[test]
fn large_steps_use_their_memory_again() {
    let w = f32s(&[64, 64], &noise(4096, 1).iter().map(|&x| x as f32).collect::<Vec<_>>()).leaf();
    let x = f32s(&[256, 64], &noise(256 * 64, 2).iter().map(|&x| x as f32).collect::<Vec<_>>());
    let step = || {
        let y = call!(nn().linear, x.0, w.0, ptr::null(), ET_ACTIVATION_GELU).unwrap();
        reduce(ET_REDUCE_MEAN, &y, &[], 0).unwrap().backward().unwrap();
        y.values()
    };
    let first = step();
    let address = |out: &T| out.values();
    for _ in 0..5 {
        // Recycled memory must not shine through.
        assert_eq!(step(), first);
    }
    let kept = one(|out| unsafe { nn().softmax.unwrap()(x.0, out) }).unwrap();
    let before = address(&kept);
    step();
    assert_eq!(address(&kept), before);
}
