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

    // One that is kept is counted, whichever thread gives it back.
    struct Sent(#[expect(dead_code, reason = "held for its drop")] common::T);
    unsafe impl Send for Sent {}
    let kept = Sent(f32s(&[1], &[1.0]));
    assert_eq!(live(), before + 1);
    std::thread::spawn(move || drop(kept)).join().unwrap();
    assert_eq!(live(), before);

    // A second release is refused and changes nothing. The block is still this thread's, so reading its tag is
    // defined.
    let other = f32s(&[1], &[2.0]);
    let twice = f32s(&[1], &[1.0]).0; // the first release, at the end of this line
    assert_eq!(live(), before + 1);
    unsafe { tensor().release.unwrap()(twice) };
    assert_eq!(live(), before + 1);
    assert!(unsafe { tensor().retain.unwrap()(twice) }.is_null());
    let common::Failure(code, text) =
        call!(tensor().unary, ET_UNARY_NEG, twice).map(drop).unwrap_err();
    assert_eq!(code, ET_ERR_BAD_HANDLE);
    assert!(text.contains("released"), "{text}");
    assert_eq!(other.values(), [2.0]);
    drop(other);
    assert_eq!(live(), before);
}
