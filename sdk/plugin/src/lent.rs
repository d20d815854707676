//! Handles that belong to somebody else for a time.
//!
//! A plugin gets some of them as `&mut Map` and the like, and safe code can put another value in such a place, or take
//! the value away. So a handle that is lent to be changed does not hold the host's pointer but a [`Loan`], which does:
//! whoever drops it gives nothing back, and wherever it went, it is NULL when the loan has ended.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::{Error, LogLevel, log};

/// A handle that belongs to somebody else for the time of `'a`.
pub struct Lent<'a, T>(ManuallyDrop<T>, PhantomData<&'a T>);

impl<T> Lent<'_, T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value), PhantomData)
    }
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The error of a pointer that is no handle.
#[cold]
pub(crate) fn misaligned(name: &str) -> Error {
    Error::new(
        easytransfer_abi::ET_ERR_BAD_HANDLE,
        format!("expected a live {name}, found a misaligned pointer"),
    )
}

/// The host's pointer while it is lent, NULL afterwards.
#[doc(hidden)]
#[repr(align(8))]
pub struct Loan(AtomicPtr<c_void>);

impl Loan {
    pub(crate) fn new(raw: *mut c_void) -> NonNull<Self> {
        NonNull::from(Box::leak(Box::new(Self(AtomicPtr::new(raw)))))
    }

    /// The pointer by which a handle says that it is lent: loans and handles are aligned, so the lowest bit is free.
    pub(crate) fn mark<R>(loan: NonNull<Self>) -> NonNull<R> {
        loan.cast::<R>().map_addr(|address| address | 1)
    }

    #[inline]
    pub(crate) fn is_marked<R>(pointer: NonNull<R>) -> bool {
        pointer.addr().get() & 1 != 0
    }

    /// The loan behind a handle's pointer, if it is lent.
    #[inline]
    pub(crate) fn of<'a, R>(pointer: NonNull<R>) -> Option<&'a Self> {
        if !Self::is_marked(pointer) {
            return None;
        }
        let loan = pointer.as_ptr().map_addr(|address| address & !1).cast::<Self>();
        // SAFETY: only `mark` sets the bit, and a loan lives as long as a handle that has it.
        Some(unsafe { &*loan })
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut c_void {
        self.0.load(Ordering::Acquire)
    }
}

/// Handles that are lent to be changed.
#[doc(hidden)]
pub trait Lendable {
    /// What messages call it.
    const NAME: &'static str;
    /// The loan, if it is lent.
    fn loan(&self) -> Option<NonNull<Loan>>;
}

/// A handle that belongs to somebody else and may be changed for the time of `'a`.
pub struct LentMut<'a, T: Lendable> {
    value: ManuallyDrop<T>,
    loan: NonNull<Loan>,
    lifetime: PhantomData<&'a mut T>,
}

// SAFETY: it is a handle, which may go to other threads, and an atomic pointer.
unsafe impl<T: Lendable + Send> Send for LentMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Lendable + Sync> Sync for LentMut<'_, T> {}

impl<T: Lendable> LentMut<'_, T> {
    pub(crate) fn new(value: T, loan: NonNull<Loan>) -> Self {
        Self { value: ManuallyDrop::new(value), loan, lifetime: PhantomData }
    }
}

impl<T: Lendable> Deref for LentMut<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Lendable> DerefMut for LentMut<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Lendable> Drop for LentMut<'_, T> {
    fn drop(&mut self) {
        let is_own = self.value.loan() == Some(self.loan);
        if is_own {
            // SAFETY: the only handle that has the loan is the one here, which is not used again; it would give
            // nothing back.
            drop(unsafe { Box::from_raw(self.loan.as_ptr()) });
            return;
        }
        // Somebody has put another handle here and may still have the one that was lent: the loan stays, and is over.
        // SAFETY: the loan was not given back.
        unsafe { self.loan.as_ref() }.0.store(null_mut(), Ordering::Release);
        let message = format!(
            "a plugin put another {0} in the place of the one that it was lent, which changes nothing for the host: it \
             must change the {0} itself",
            T::NAME
        );
        // A log that fails leaves nothing that could be told.
        let _ = std::panic::catch_unwind(|| log(LogLevel::Error, "lent", &message));
        // SAFETY: the value is not used again.
        unsafe { ManuallyDrop::drop(&mut self.value) };
    }
}
