//! What the tests of the C tables share.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::ffi::CStr;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use easytransfer_abi::*;
use easytransfer_core::handle;
use easytransfer_core::host::host;
use easytransfer_core::tensor::Tensor;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs the tests of a file one after the other, and fails one that leaves handles behind.
pub struct NoLeaks(MutexGuard<'static, ()>, i64);

pub fn no_leaks() -> NoLeaks {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    NoLeaks(guard, handle::live_handles())
}

impl Drop for NoLeaks {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the slot is filled.
            let live = unsafe { (*host()).live_handles.unwrap()() };
            assert_eq!(live, self.1, "handles were left behind");
        }
    }
}

/// A table by its id.
pub fn table<T>(id: &CStr) -> &'static T {
    // SAFETY: tables live until the process ends; the caller names the type that belongs to the id.
    unsafe {
        let found = (*host()).get_interface.unwrap()(host(), id.as_ptr());
        found.cast::<T>().as_ref().expect("the interface exists")
    }
}

pub fn text(text: &str) -> et_str {
    handle::str_to(text)
}

pub fn str_of(text: et_str) -> String {
    // SAFETY: the tests read texts while their owners live.
    unsafe { handle::str_from(text) }.unwrap().to_owned()
}

/// Fails on an error, with its message.
#[track_caller]
pub fn ok(error: *mut et_error) {
    if !error.is_null() {
        let (code, message) = err(error);
        panic!("error {code}: {message}");
    }
}

/// Code and message of an error, which must be there.
#[track_caller]
pub fn err(error: *mut et_error) -> (i32, String) {
    assert!(!error.is_null(), "expected an error");
    // SAFETY: a live error, released once.
    unsafe {
        let host = &*host();
        let code = host.error_code.unwrap()(error);
        let message = str_of(host.error_message.unwrap()(error));
        host.error_release.unwrap()(error);
        (code, message)
    }
}

/// Calls a fallible slot whose last argument is an out pointer.
#[track_caller]
pub fn make<T>(call: impl FnOnce(*mut *mut T) -> *mut et_error) -> *mut T {
    let mut made = ptr::null_mut();
    ok(call(&mut made));
    made
}

pub fn tensor(values: &[f32], shape: &[usize]) -> *mut et_tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let dtype = candle_core::DType::F32;
    handle::into_raw(easytransfer_core::ops::create::from_data(dtype, shape, &bytes).unwrap())
}

/// The tensor behind a handle.
pub fn value(tensor: *const et_tensor) -> Tensor {
    // SAFETY: the tests pass live handles.
    unsafe { handle::borrow::<Tensor>(tensor) }.unwrap().clone()
}

/// Values and shape of a tensor, which is released.
pub fn take_f32(tensor: *mut et_tensor) -> (Vec<f32>, Vec<usize>) {
    let owned = value(tensor);
    drop_tensor(tensor);
    (owned.value().flatten_all().unwrap().to_vec1().unwrap(), owned.dims().to_vec())
}

/// Values and shape of a tensor, which is released.
pub fn take_i64(tensor: *mut et_tensor) -> (Vec<i64>, Vec<usize>) {
    let owned = value(tensor);
    drop_tensor(tensor);
    (owned.value().flatten_all().unwrap().to_vec1().unwrap(), owned.dims().to_vec())
}

pub fn drop_tensor(tensor: *mut et_tensor) {
    // SAFETY: the tests own what they drop.
    unsafe { handle::release::<Tensor>(tensor) }
}

/// Shared data of the tests.
pub fn shared(path: &str) -> PathBuf {
    let root = std::env::var_os("ET_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    root.join(path)
}

/// A fresh directory for the files of one test.
pub fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("easytransfer-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}
