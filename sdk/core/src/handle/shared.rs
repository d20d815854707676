//! Values with several owners that are their own handles.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use super::{Handle, Tagged, block};

/// A counted pointer, like `Arc`, to a value that lies in the block of a handle. Handing it to a caller as a handle
/// of the type `H`, a transparent wrapper of it, moves and allocates nothing.
#[repr(transparent)]
pub(crate) struct Shared<T>(NonNull<Tagged<Owned<T>>>);

/// What the block holds. It begins with a pointer to itself, so that a handle can be borrowed as the wrapper that it
/// is.
#[repr(C)]
struct Owned<T> {
    own: ManuallyDrop<Option<Shared<T>>>,
    value: T,
}

// SAFETY: like an `Arc`, it gives out shared references on any thread and drops the value on any.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: the same.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// A value with one owner, behind a handle of kind `H`.
    #[inline(always)]
    pub fn new<H: Handle>(value: T) -> Self {
        const {
            assert!(
                block::is_small::<Tagged<Owned<T>>>(),
                "recycled blocks are for these above all"
            )
        };
        let own = ManuallyDrop::new(None);
        let block = block::make(Tagged::new::<H>(Owned { own, value }));
        // SAFETY: `make` answers with a place that nobody else knows.
        unsafe {
            let shared = NonNull::new_unchecked(block);
            (*block).value.own = ManuallyDrop::new(Some(Self(shared)));
            Self(shared)
        }
    }

    /// The value, if nobody else owns it.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: alive as long as `self`.
        if !unsafe { block::is_unique(self.0.as_ptr()) } {
            return None;
        }
        // SAFETY: nobody else reads it.
        Some(unsafe { &mut self.0.as_mut().value.value })
    }

    /// The handle, which owns the reference of `self`, as one of `H`, whose tag the value was made with.
    #[inline(always)]
    pub fn into_block<H>(self) -> *mut Tagged<H> {
        ManuallyDrop::new(self).0.as_ptr().cast()
    }

    /// The owner of a handle's reference.
    ///
    /// # Safety
    /// `tagged` came from [`Shared::into_block`] of this type, and the caller gives up its reference.
    #[inline(always)]
    pub unsafe fn from_block<H>(tagged: *mut Tagged<H>) -> Self {
        // SAFETY: the caller's contract: not NULL.
        Self(unsafe { NonNull::new_unchecked(tagged.cast()) })
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: alive as long as `self`.
        unsafe { &self.0.as_ref().value.value }
    }
}

impl<T> Clone for Shared<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        // SAFETY: alive as long as `self`.
        unsafe { block::retain(self.0.as_ptr()) };
        Self(self.0)
    }
}

impl<T> Drop for Shared<T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the reference of `self`, which ends.
        unsafe { block::release(self.0.as_ptr()) }
    }
}
