//! Nothing leaks: the number of live handles after a training step, with its errors, is what it was before.
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

use common::{f32s, i64s, live, nn, noise, tensor};
use easytransfer_abi::*;

// One test, since the number is that of the whole process.
#[test]
fn live_handles_return_to_where_they_were() {
    let before = live();
    {
        let data = |len, seed| noise(len, seed).iter().map(|&x| x as f32).collect::<Vec<_>>();
        let table = f32s(&[10, 8], &data(80, 1)).leaf();
        let w = f32s(&[3, 8], &data(24, 2)).leaf();
        let ids = i64s(&[1, 2, 3, 9]);
        for _ in 0..3 {
            let (tables, list) = ([table.0.cast_const()], [ids.0.cast_const()]);
            let x = call!(nn().embedding_sum, tables.as_ptr(), list.as_ptr(), 1).unwrap();
            let y = call!(nn().linear, x.0, w.0, ptr::null(), ET_ACTIVATION_TANH).unwrap();
            assert!(call!(tensor().matmul, y.0, y.0).is_err());
            let labels = i64s(&[0, 1, 2, 0]);
            let loss = call!(nn().cross_entropy, y.0, labels.0, ptr::null(), -100, 0.0).unwrap();
            assert!(live() > before);
            loss.backward().unwrap();
            assert!(loss.backward().is_err());
        }
        assert!(table.grad().is_some() && w.grad().is_some());
        // A reference that is kept outlives the first one's release.
        let kept = common::T(unsafe { tensor().retain.unwrap()(w.0) });
        drop(w);
        assert_eq!(kept.shape(), [3, 8]);
    }
    assert_eq!(live(), before);
    unsafe { tensor().release.unwrap()(ptr::null_mut()) };
    assert_eq!(live(), before);
}
