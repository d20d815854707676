//! Segments that run again in the backward pass, written as a C plugin would, and what becomes of their mistakes. One
//! test, because the level of recomputation belongs to the process.
#![allow(
    clippy::macro_metavars_in_unsafe,
    reason = "the macro calls a slot of a table with arguments that each test vouches for"
)]
#![allow(unused_unsafe, reason = "the macro `call` is used inside unsafe blocks too")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "the handles are owned by `T`, whose contract all calls keep"
)]

mod common;

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Failure, T, autograd, done, f32s, host, live, nn, noise, rng_table, tensor};
use easytransfer_abi::*;

/// How a segment behaves.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Right,
    /// An error in the second run.
    Fails,
    /// Uses the generator that `checkpoint` got.
    UsesOther,
    /// Leaves an output out.
    Forgets,
    /// Writes nothing that is a tensor.
    Lies,
}

struct State {
    mode: Mode,
    other: *mut et_rng,
    runs: usize,
    /// A parameter's stand-in, which is no input.
    leaf: *mut et_tensor,
}

static RELEASED: AtomicUsize = AtomicUsize::new(0);
static RUNS: AtomicUsize = AtomicUsize::new(0);
/// Warnings that recomputation by layer saves nothing.
static WARNED: AtomicUsize = AtomicUsize::new(0);

/// dropout(tanh(x) * leaf) and x * x
unsafe extern "C" fn run(
    state: *mut c_void,
    inputs: *const *const et_tensor,
    inputs_len: usize,
    rng: *mut et_rng,
    outputs: *mut *mut et_tensor,
    outputs_len: usize,
) -> *mut et_error {
    unsafe {
        let state = &mut *state.cast::<State>();
        state.runs += 1;
        RUNS.fetch_add(1, Ordering::Relaxed);
        assert_eq!((inputs_len, outputs_len), (1, 2));
        if state.mode == Mode::Fails && state.runs == 2 {
            let text = "the second run has no luck";
            let text = et_str { ptr: text.as_ptr().cast(), len: text.len() };
            return host().error_new.unwrap()(ET_ERR_BAD_INPUT, text);
        }
        let x = *inputs;
        let y = call!(tensor().unary, ET_UNARY_TANH, x).unwrap();
        let y = call!(tensor().binary, ET_BINARY_MUL, y.0, state.leaf).unwrap();
        let rng = if state.mode == Mode::UsesOther { state.other } else { rng };
        let y = call!(nn().dropout, y.0, 0.4, rng).unwrap();
        let z = call!(tensor().binary, ET_BINARY_MUL, x, x).unwrap();
        if state.mode == Mode::Lies {
            *outputs = rng.cast();
            return ptr::null_mut();
        }
        if state.mode != Mode::Forgets {
            *outputs = std::mem::ManuallyDrop::new(y).0;
        }
        *outputs.add(1) = std::mem::ManuallyDrop::new(z).0;
    }
    ptr::null_mut()
}

unsafe extern "C" fn release(state: *mut c_void) {
    RELEASED.fetch_add(1, Ordering::Relaxed);
    let state = unsafe { Box::from_raw(state.cast::<State>()) };
    drop(T(state.leaf));
}

fn set_recompute(level: i32) -> Result<(), Failure> {
    done(unsafe { autograd().set_recompute.unwrap()(level) })
}

struct Rng(*mut et_rng);

impl Rng {
    fn new() -> Self {
        let mut rng = ptr::null_mut();
        done(unsafe { rng_table().create.unwrap()(5, 6, &mut rng) }).unwrap();
        Self(rng)
    }

    fn offset(&self) -> u64 {
        unsafe { rng_table().state.unwrap()(self.0) }.offset
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        unsafe { rng_table().release.unwrap()(self.0) };
    }
}

/// Both outputs of a segment on `x`.
fn checkpoint(mode: Mode, x: &T, leaf: &T, rng: &Rng) -> Result<[T; 2], Failure> {
    let leaf = unsafe { tensor().retain.unwrap()(leaf.0) };
    let state = Box::new(State { mode, other: rng.0, runs: 0, leaf });
    let segment = et_segment {
        struct_size: size_of::<et_segment>(),
        state: Box::into_raw(state).cast(),
        run: Some(run),
        release: Some(release),
    };
    let mut outputs = [ptr::null_mut(); 2];
    let inputs = [x.0.cast_const()];
    let (inputs, count) = (inputs.as_ptr(), outputs.len());
    let slot = autograd().checkpoint.unwrap();
    done(unsafe { slot(&segment, inputs, 1, rng.0, outputs.as_mut_ptr(), count) })?;
    Ok(outputs.map(T))
}

/// Bits of the outputs and of the gradients of x and leaf, the offset of the generator, and how often the segment ran.
fn both(mode: Mode) -> Result<(Vec<Vec<u64>>, u64, usize), Failure> {
    RUNS.store(0, Ordering::Relaxed);
    let make = |seed| f32s(&[64], &noise(64, seed).iter().map(|&x| x as f32).collect::<Vec<_>>());
    let (x, leaf, rng) = (make(1).leaf(), make(2).leaf(), Rng::new());
    let [y, z] = checkpoint(mode, &x, &leaf, &rng)?;
    let sum = call!(tensor().binary, ET_BINARY_ADD, y.0, z.0).unwrap();
    sum.backward_from(&make(3))?;
    let bits = |x: &T| x.values().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let all = vec![bits(&y), bits(&z), bits(&x.grad().unwrap()), bits(&leaf.grad().unwrap())];
    Ok((all, rng.offset(), RUNS.load(Ordering::Relaxed)))
}

#[test]
fn segments_run_again_to_the_same_bits_and_their_mistakes_are_errors() {
    let live_before = live();
    easytransfer_core::log::set_sink(Some(Box::new(|_, _, message| {
        WARNED.fetch_add(usize::from(message.contains("marks no layers")), Ordering::Relaxed);
    })))
    .unwrap();
    let mut released = 0;
    let mut expect_release = |what: &str| {
        released += 1;
        assert_eq!(RELEASED.load(Ordering::Relaxed), released, "{what}");
    };
    let (plain, offset, runs) = both(Mode::Right).unwrap();
    assert_eq!((offset, runs), (64, 1));
    expect_release("without recomputation");
    set_recompute(ET_RECOMPUTE_LAYER).unwrap();
    assert!(both(Mode::Right).unwrap() == (plain, offset, 2), "other bits by layer");
    expect_release("by layer");

    let Failure(code, text) = both(Mode::Fails).unwrap_err();
    assert_eq!(code, ET_ERR_BAD_INPUT);
    assert!(text.contains("backward of checkpoint") && text.contains("no luck"), "{text}");
    expect_release("a second run that fails");
    for level in [ET_RECOMPUTE_NONE, ET_RECOMPUTE_LAYER] {
        set_recompute(level).unwrap();
        for (mode, code, needle) in [
            (Mode::UsesOther, ET_ERR_FAILED_PRECONDITION, "must use the one that it is given"),
            (Mode::Forgets, ET_ERR_INVALID_ARGUMENT, "made no output 0, expected 2 outputs"),
            (Mode::Lies, ET_ERR_BAD_HANDLE, "expected a live tensor"),
        ] {
            let Failure(found, text) = both(mode).unwrap_err();
            assert_eq!(found, code, "{text}");
            assert!(text.contains(needle), "{text}");
            expect_release(needle);
        }
    }

    let rng = Rng::new();
    let x = f32s(&[2], &[1f32, 2.0]).leaf();
    let slot = autograd().checkpoint.unwrap();
    let mut outputs = [ptr::null_mut(); 2];
    let state = || {
        let leaf = unsafe { tensor().retain.unwrap()(x.0) };
        let state = State { mode: Mode::Right, other: ptr::null_mut(), runs: 0, leaf };
        Box::into_raw(Box::new(state)).cast::<c_void>()
    };
    let whole = et_segment {
        struct_size: size_of::<et_segment>(),
        state: ptr::null_mut(),
        run: None,
        release: Some(release),
    };
    let inputs = [x.0.cast_const()];
    let out = outputs.as_mut_ptr();
    let nothing = et_segment { state: state(), ..whole };
    let Failure(code, text) =
        done(unsafe { slot(&nothing, inputs.as_ptr(), 1, rng.0, out, 2) }).unwrap_err();
    assert!(code == ET_ERR_INVALID_ARGUMENT && text.contains("run is NULL"), "{text}");
    expect_release("a segment without a function");
    let nowhere = et_segment { state: state(), run: Some(run), ..whole };
    let Failure(code, _) =
        done(unsafe { slot(&nowhere, inputs.as_ptr(), 1, rng.0, ptr::null_mut(), 2) }).unwrap_err();
    assert_eq!(code, ET_ERR_INVALID_ARGUMENT);
    expect_release("no room for outputs");
    let short = et_segment { struct_size: offset_of!(et_segment, release), ..whole };
    for segment in [ptr::null(), ptr::from_ref(&short)] {
        let Failure(code, text) =
            done(unsafe { slot(segment, inputs.as_ptr(), 1, rng.0, out, 2) }).unwrap_err();
        assert!(code == ET_ERR_INVALID_ARGUMENT && text.contains("struct_size"), "{text}");
    }
    assert_eq!(set_recompute(9).unwrap_err().0, ET_ERR_INVALID_ARGUMENT);

    assert_eq!(WARNED.load(Ordering::Relaxed), 0, "segments were there");
    set_recompute(ET_RECOMPUTE_LAYER).unwrap();
    for _ in 0..2 {
        let y = call!(tensor().binary, ET_BINARY_MUL, x.0, x.0).unwrap();
        y.backward_from(&f32s(&[2], &[1f32, 1.0])).unwrap();
        assert_eq!(WARNED.load(Ordering::Relaxed), 1, "passes without a segment warn once");
    }
    set_recompute(ET_RECOMPUTE_NONE).unwrap();
    easytransfer_core::log::set_sink(None).unwrap();
    drop((x, rng));
    assert_eq!(live(), live_before, "handles are left");
}
