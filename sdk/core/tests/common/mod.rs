//! The engine's tables behind a thin owner of handles, for tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::ffi::CStr;
use std::ptr;

use easytransfer_abi::*;

/// An error of the engine: code and message.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure(pub i32, pub String);

pub type Answer = Result<T, Failure>;

/// An owned tensor handle.
pub struct T(pub *mut et_tensor);

impl Drop for T {
    fn drop(&mut self) {
        unsafe { tensor().release.unwrap()(self.0) }
    }
}

pub fn host() -> &'static et_host {
    unsafe { &*easytransfer_core::host::host() }
}

pub fn interface<I>(id: &CStr) -> &'static I {
    let table = unsafe { host().get_interface.unwrap()(host(), id.as_ptr()) };
    assert!(!table.is_null(), "{id:?}");
    unsafe { &*table.cast::<I>() }
}

pub fn tensor() -> &'static et_host_tensor {
    interface(c"et.tensor/1")
}

pub fn autograd() -> &'static et_host_autograd {
    interface(c"et.autograd/1")
}

pub fn nn() -> &'static et_host_nn {
    interface(c"et.nn/1")
}

pub fn rng_table() -> &'static et_host_rng {
    interface(c"et.rng/1")
}

pub fn live() -> i64 {
    unsafe { host().live_handles.unwrap()() }
}

/// Turns an error into a value and releases it.
pub fn done(error: *mut et_error) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    unsafe {
        let code = host().error_code.unwrap()(error);
        let text = host().error_message.unwrap()(error);
        let bytes = std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len);
        let message = String::from_utf8(bytes.to_vec()).unwrap();
        host().error_release.unwrap()(error);
        Err(Failure(code, message))
    }
}

/// Calls a slot that makes one tensor.
pub fn one(f: impl FnOnce(*mut *mut et_tensor) -> *mut et_error) -> Answer {
    let mut out = ptr::null_mut();
    done(f(&mut out))?;
    assert!(!out.is_null());
    Ok(T(out))
}

/// Calls a slot: `call!(tensor().affine, x.0, 2.0, 1.0)`.
#[macro_export]
macro_rules! call {
    ($slot:expr $(, $argument:expr)*) => {
        $crate::common::one(|out| unsafe { $slot.unwrap()($($argument,)* out) })
    };
}

fn bytes_of<V>(data: &[V]) -> (*const std::ffi::c_void, usize) {
    (data.as_ptr().cast(), size_of_val(data))
}

pub fn make<V>(dtype: i32, shape: &[usize], data: &[V]) -> T {
    let (bytes, size) = bytes_of(data);
    call!(tensor().from_data, dtype, shape.as_ptr(), shape.len(), bytes, size).unwrap()
}

pub fn f64s(shape: &[usize], data: &[f64]) -> T {
    make(ET_DTYPE_F64, shape, data)
}

pub fn f32s(shape: &[usize], data: &[f32]) -> T {
    make(ET_DTYPE_F32, shape, data)
}

pub fn i64s(data: &[i64]) -> T {
    make(ET_DTYPE_I64, &[data.len()], data)
}

pub fn i64s_of(shape: &[usize], data: &[i64]) -> T {
    make(ET_DTYPE_I64, shape, data)
}

impl T {
    pub fn shape(&self) -> Vec<usize> {
        unsafe {
            let rank = tensor().rank.unwrap()(self.0);
            if rank == 0 {
                return vec![];
            }
            std::slice::from_raw_parts(tensor().shape.unwrap()(self.0), rank).to_vec()
        }
    }

    pub fn dtype(&self) -> i32 {
        unsafe { tensor().dtype.unwrap()(self.0) }
    }

    pub fn len(&self) -> usize {
        unsafe { tensor().len.unwrap()(self.0) }
    }

    pub fn is_tracked(&self) -> bool {
        unsafe { tensor().is_tracked.unwrap()(self.0) == 1 }
    }

    pub fn is_contiguous(&self) -> bool {
        unsafe { tensor().is_contiguous.unwrap()(self.0) == 1 }
    }

    fn raw<V: Clone + Default>(&self, dtype: i32) -> Vec<V> {
        assert_eq!(self.dtype(), dtype);
        let mut data = vec![V::default(); self.len()];
        let size = data.len() * size_of::<V>();
        done(unsafe { tensor().read.unwrap()(self.0, data.as_mut_ptr().cast(), size) }).unwrap();
        data
    }

    /// The values as f64, whatever floating point type they have.
    pub fn values(&self) -> Vec<f64> {
        match self.dtype() {
            ET_DTYPE_F64 => self.raw::<f64>(ET_DTYPE_F64),
            ET_DTYPE_F32 => self.raw::<f32>(ET_DTYPE_F32).into_iter().map(f64::from).collect(),
            _ => self.cast(ET_DTYPE_F64).values(),
        }
    }

    pub fn ints(&self) -> Vec<i64> {
        self.raw(ET_DTYPE_I64)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.raw(ET_DTYPE_U8)
    }

    pub fn cast(&self, dtype: i32) -> T {
        call!(tensor().cast, self.0, dtype).unwrap()
    }

    pub fn permute(&self, axes: &[i64]) -> T {
        call!(tensor().permute, self.0, axes.as_ptr(), axes.len()).unwrap()
    }

    pub fn leaf(&self) -> T {
        call!(autograd().leaf, self.0).unwrap()
    }

    pub fn grad(&self) -> Option<T> {
        let mut out = ptr::null_mut();
        done(unsafe { autograd().leaf_grad.unwrap()(self.0, &mut out) }).unwrap();
        (!out.is_null()).then_some(T(out))
    }

    pub fn backward(&self) -> Result<(), Failure> {
        done(unsafe { autograd().backward.unwrap()(self.0, ptr::null()) })
    }

    pub fn backward_from(&self, seed: &T) -> Result<(), Failure> {
        done(unsafe { autograd().backward.unwrap()(self.0, seed.0) })
    }

    /// The same values with another layout in memory (for two axes or more).
    pub fn strided(&self) -> T {
        let rank = self.shape().len() as i64;
        if rank < 2 {
            return self.permute(&(0..rank).collect::<Vec<_>>());
        }
        let mut axes: Vec<i64> = (0..rank).collect();
        axes.swap(0, (rank - 1) as usize);
        let turned = self.permute(&axes);
        let copied = call!(tensor().contiguous, turned.0).unwrap();
        copied.permute(&axes)
    }
}

/// Reproducible values in [-1, 1), far enough from 0 for kinks.
pub fn noise(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
            if x.abs() < 0.05 { x + 0.1 } else { x }
        })
        .collect()
}

#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!(
            (x - y).abs() <= tolerance * (1.0 + y.abs()),
            "element {i}: found {x}, expected {y}"
        );
    }
}

/// Fails unless the answer is an error of that code whose message has all words.
#[track_caller]
pub fn refuses(answer: Answer, code: i32, words: &[&str]) {
    let Failure(found, message) = answer.err().expect("an error");
    assert_eq!(found, code, "{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

/// Arguments of attention that have only the size.
pub fn attention_args() -> et_attention {
    let args = std::mem::MaybeUninit::<et_attention>::zeroed();
    // SAFETY: zeros are NULL and numbers.
    et_attention { struct_size: size_of::<et_attention>(), ..unsafe { args.assume_init() } }
}

/// The tests' scalar: a weighted sum of all outputs, so that every element of a gradient matters.
fn weigh(y: &[f64]) -> f64 {
    y.iter().zip(noise(y.len(), 77)).map(|(y, w)| y * w).sum()
}

/// Compares gradients with central differences in f64, for contiguous and for strided inputs, and the f32 result with
/// the f64 one.
pub fn check_gradients(name: &str, inputs: &[(&[usize], Vec<f64>)], f: impl Fn(&[&T]) -> Answer) {
    let value = |data: &[Vec<f64>]| {
        let tensors: Vec<T> =
            inputs.iter().zip(data).map(|((shape, _), data)| f64s(shape, data)).collect();
        f(&tensors.iter().collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{name}: {e:?}")).values()
    };
    let data: Vec<Vec<f64>> = inputs.iter().map(|(_, data)| data.clone()).collect();
    let expected = value(&data);
    let step = 1e-5;
    let mut numeric = Vec::new();
    for input in 0..data.len() {
        let mut at = data.clone();
        let gradient: Vec<f64> = (0..data[input].len())
            .map(|i| {
                at[input][i] = data[input][i] + step;
                let up = weigh(&value(&at));
                at[input][i] = data[input][i] - step;
                let down = weigh(&value(&at));
                at[input][i] = data[input][i];
                (up - down) / (2.0 * step)
            })
            .collect();
        numeric.push(gradient);
    }
    for strided in [false, true] {
        for dtype in [ET_DTYPE_F64, ET_DTYPE_F32] {
            let leaves: Vec<T> = inputs
                .iter()
                .map(|(shape, data)| {
                    let x = f64s(shape, data).cast(dtype);
                    if strided { x.strided().leaf() } else { x.leaf() }
                })
                .collect();
            let y =
                f(&leaves.iter().collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            assert!(y.is_tracked(), "{name}: the result is not tracked");
            let (value_tolerance, tolerance) =
                if dtype == ET_DTYPE_F64 { (1e-12, 2e-7) } else { (3e-6, 2e-5) };
            println!("{name} strided {strided} dtype {dtype}");
            assert_close(&y.values(), &expected, value_tolerance);
            let seed = f64s(&y.shape(), &noise(y.len(), 77)).cast(dtype);
            y.backward_from(&seed).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            for (input, leaf) in leaves.iter().enumerate() {
                println!("{name} strided {strided} dtype {dtype} input {input}");
                let grad =
                    leaf.grad().unwrap_or_else(|| panic!("{name}: input {input} got no gradient"));
                assert_eq!(grad.shape(), leaf.shape(), "{name}");
                assert_eq!(grad.dtype(), dtype, "{name}");
                assert_close(&grad.values(), &numeric[input], tolerance);
            }
            let again = y.backward_from(&seed).unwrap_err();
            assert_eq!(again.0, ET_ERR_FAILED_PRECONDITION, "{name}: {again:?}");
        }
    }
}
