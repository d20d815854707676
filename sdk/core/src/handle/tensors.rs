//! Tensors that a plugin's function gets or makes during a call.

use std::ptr;

use easytransfer_abi::et_tensor;

use super::{borrow, into_raw, release};
use crate::error::Result;
use crate::tensor::Tensor;

/// Handles that are released when this goes.
pub(crate) struct Handles(Vec<*mut et_tensor>);

impl Handles {
    /// A handle for each tensor, NULL where there is none.
    pub fn of(tensors: impl IntoIterator<Item = Option<Tensor>>) -> Self {
        Self(tensors.into_iter().map(|x| x.map_or(ptr::null_mut(), into_raw)).collect())
    }

    /// Room for `len` handles that the plugin makes.
    pub fn room(len: usize) -> Self {
        Self(vec![ptr::null_mut(); len])
    }

    /// What the plugin gets to read.
    pub fn lent(&self) -> Vec<*const et_tensor> {
        self.0.iter().map(|handle| handle.cast_const()).collect()
    }

    /// Where the plugin writes what it makes.
    pub fn as_mut_ptr(&mut self) -> *mut *mut et_tensor {
        self.0.as_mut_ptr()
    }

    /// The tensors, `None` for NULL. Errors: `BAD_HANDLE`.
    ///
    /// # Safety
    /// What the plugin wrote are owned references or NULL.
    pub unsafe fn tensors(&self) -> impl Iterator<Item = Result<Option<Tensor>>> + '_ {
        self.0.iter().map(|&handle| {
            if handle.is_null() {
                return Ok(None);
            }
            // SAFETY: a live reference, by the caller's contract, which `self` keeps.
            unsafe { borrow::<Tensor>(handle) }.map(|tensor| Some(tensor.clone()))
        })
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        for &handle in &self.0 {
            // SAFETY: each is NULL or a reference that we own.
            unsafe { release::<Tensor>(handle) };
        }
    }
}
