//! Handles: how objects of the engine cross the boundary as opaque pointers.
//!
//! Every handle is the address of a counted `Tagged<T>` (see [`block`]); a tensor's is also what the tensor itself is
//! ([`Shared`]). The first word of `Tagged` says which kind of object it is; it is compared on every use and
//! overwritten when the object goes. The second counts the references that callers own, because the engine may keep a
//! tensor on the tape whose handle was given back. So a pointer to another kind, or one that was given back before,
//! is refused as `ET_ERR_BAD_HANDLE` as long as its memory has not been reused. That is a net for bugs, not a proof:
//! the caller's contract is still to pass live handles only.

mod block;
mod shared;
mod tensors;

use std::any::Any;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use easytransfer_abi::{
    ET_ERR_BAD_HANDLE, ET_ERR_BAD_INPUT, ET_ERR_INVALID_ARGUMENT, ET_ERR_PANIC, et_error, et_str,
};

use crate::error::{Error, Result, fail};

pub(crate) use shared::Shared;
pub(crate) use tensors::Handles;

/// What the tag becomes when an object goes.
const DEAD: u32 = 0xdead_0000;

/// A type whose values cross the boundary.
pub trait Handle: Send + Sync + Sized + 'static {
    /// The opaque type of the boundary.
    type Abi;
    /// Number of this kind, unlike every other kind's; [`tag`] makes one from four letters.
    const TAG: u32;
    /// What error messages call it, for instance "tensor".
    const NAME: &'static str;

    /// The value behind a handle that owns one reference.
    #[inline(always)]
    fn into_block(self) -> *mut Tagged<Self> {
        block::make(Tagged::new::<Self>(self))
    }

    /// Gives up one reference; with the last one the value goes.
    ///
    /// # Safety
    /// `tagged` came from [`Handle::into_block`], is alive, and the caller owns a reference, which is gone afterwards.
    #[inline(always)]
    unsafe fn release_block(tagged: *mut Tagged<Self>) {
        // SAFETY: the caller's contract is the same.
        unsafe { block::release(tagged) }
    }
}

/// A tag from four letters.
pub const fn tag(letters: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*letters)
}

/// A value with its kind in front. Nothing but this file makes or reads one.
#[repr(C)]
pub struct Tagged<T> {
    tag: u32,
    /// References that callers own.
    lent: AtomicU32,
    value: T,
}

impl<T> Tagged<T> {
    #[inline(always)]
    fn new<H: Handle>(value: T) -> Self {
        Self { tag: H::TAG, lent: AtomicU32::new(0), value }
    }
}

impl<T> Drop for Tagged<T> {
    fn drop(&mut self) {
        // SAFETY: `self.tag` is a live field. The volatile write keeps the compiler from dropping a store to memory
        // that is about to be freed; stale handles are recognised by it.
        unsafe { ptr::write_volatile(&mut self.tag, DEAD) }
    }
}

/// Number of references that callers own: every `into_raw` and `retain` adds one, every `release` takes one.
pub fn live_handles() -> i64 {
    block::live()
}

/// Threads that have used handles since the process began, also those that ended.
pub fn handle_threads() -> u64 {
    block::threads()
}

/// Moves a value behind a new handle; the caller owns one reference.
#[inline(always)]
pub fn into_raw<T: Handle>(value: T) -> *mut T::Abi {
    let tagged = value.into_block();
    // SAFETY: the block's reference is ours.
    unsafe { lend(tagged) };
    tagged.cast()
}

/// Counts a reference that a caller gets.
///
/// # Safety
/// `tagged` is alive, and the reference is the calling function's.
#[inline(always)]
unsafe fn lend<T>(tagged: *const Tagged<T>) {
    block::count(1);
    // SAFETY: the caller's contract.
    unsafe {
        let lent = &(*tagged).lent;
        if block::is_unique(tagged) {
            // The only reference is this one, so no caller has any, and nobody else looks.
            lent.store(1, Ordering::Relaxed);
        } else {
            lent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Checks that `ptr` looks like a live handle of kind `T`.
///
/// # Safety
/// `ptr` is NULL or was a handle at some time (its memory is readable).
#[inline(always)]
unsafe fn check<T: Handle>(ptr: *const T::Abi) -> Result<*const Tagged<T>> {
    const {
        assert!(align_of::<Tagged<T>>() == 8);
    }
    // The low bits of a misaligned pointer become the highest ones, and NULL wraps around: one comparison finds both.
    if ptr.addr().rotate_right(3).wrapping_sub(1) >= usize::MAX >> 3 {
        return Err(refuse_pointer(T::NAME, ptr.is_null()));
    }
    let tagged = ptr.cast::<Tagged<T>>();
    // SAFETY: every `Tagged` starts with its tag, whatever its type; the caller says that the memory is readable.
    let found = unsafe { ptr::read_volatile(ptr.cast::<u32>()) };
    if found != T::TAG {
        return Err(refuse_tag(T::NAME, found));
    }
    // SAFETY: the tag says that this is a `Tagged`.
    if unsafe { &(*tagged).lent }.load(Ordering::Relaxed) == 0 {
        return Err(refuse_tag(T::NAME, DEAD));
    }
    Ok(tagged)
}

#[cold]
#[inline(never)]
fn refuse_pointer(expected: &str, is_null: bool) -> Error {
    if is_null {
        return Error::new(ET_ERR_INVALID_ARGUMENT, format!("expected a {expected}, found NULL"));
    }
    Error::new(ET_ERR_BAD_HANDLE, format!("expected a {expected}, found a misaligned pointer"))
}

#[cold]
#[inline(never)]
fn refuse_tag(expected: &str, found: u32) -> Error {
    let found = match found {
        DEAD => "one that was released".to_string(),
        other => format!("something else (tag {other:#010x})"),
    };
    Error::new(ET_ERR_BAD_HANDLE, format!("expected a live {expected}, found {found}"))
}

/// The value behind a handle. Errors: `INVALID_ARGUMENT` for NULL, `BAD_HANDLE` for another kind or a released one.
///
/// # Safety
/// `ptr` is NULL or a handle, and its reference outlives `'a`.
#[inline(always)]
pub unsafe fn borrow<'a, T: Handle>(ptr: *const T::Abi) -> Result<&'a T> {
    // SAFETY: the caller's contract is the same.
    let tagged = unsafe { check::<T>(ptr)? };
    // SAFETY: the tag says that this is a live `Tagged<T>`, and the caller keeps its reference for `'a`.
    Ok(unsafe { &(*tagged).value })
}

/// As [`borrow`], but NULL is `None`.
///
/// # Safety
/// As for [`borrow`].
pub unsafe fn borrow_optional<'a, T: Handle>(ptr: *const T::Abi) -> Result<Option<&'a T>> {
    if ptr.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's contract is the same.
    unsafe { borrow::<T>(ptr).map(Some) }
}

/// Another owned reference to the same object; NULL for NULL or for a bad handle, which is logged.
///
/// # Safety
/// `ptr` is NULL or a handle.
pub unsafe fn retain<T: Handle>(ptr: *const T::Abi) -> *mut T::Abi {
    if ptr.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller's contract is the same.
    match unsafe { check::<T>(ptr) } {
        Ok(tagged) => {
            // SAFETY: the tag says that this pointer came from `into_raw` and is alive.
            unsafe { block::retain(tagged) };
            // SAFETY: as before.
            unsafe { lend(tagged) };
            ptr.cast_mut()
        }
        Err(error) => {
            crate::log::error(&format!("retain: {error}"));
            ptr::null_mut()
        }
    }
}

/// Keeps the object of a handle alive beside the references that callers own, for an owner who lends it: a borrower
/// who gives it back by mistake leaves a handle that is refused, and no memory that is used again.
///
/// # Safety
/// `ptr` is a live handle; [`let_go`] is called once, and the handle is not used afterwards.
pub unsafe fn keep<T: Handle>(ptr: *mut T::Abi) {
    // SAFETY: the caller's handle is alive.
    unsafe { block::retain(ptr.cast::<Tagged<T>>()) }
}

/// Ends what [`keep`] began.
///
/// # Safety
/// As for [`keep`].
pub unsafe fn let_go<T: Handle>(ptr: *mut T::Abi) {
    // SAFETY: the reference is that of `keep`.
    unsafe { T::release_block(ptr.cast::<Tagged<T>>()) }
}

/// Gives one reference back. NULL does nothing; a bad handle is logged and left alone; a panic while the object goes
/// is logged.
///
/// # Safety
/// `ptr` is NULL or a handle of which the caller owns a reference, which is gone afterwards.
#[inline(always)]
pub unsafe fn release<T: Handle>(ptr: *mut T::Abi) {
    if ptr.is_null() {
        return;
    }
    // SAFETY: the caller's contract is the same.
    match unsafe { check::<T>(ptr) } {
        Ok(tagged) => {
            block::count(-1);
            // With the last reference the object goes, and the number with it.
            // SAFETY: the tag says that it is alive.
            unsafe {
                if !block::is_unique(tagged) {
                    (*tagged).lent.fetch_sub(1, Ordering::Relaxed);
                }
            }
            // SAFETY: the tag says that this pointer came from `into_raw` and is alive; the caller gives up its
            // reference.
            let drop = AssertUnwindSafe(|| unsafe { T::release_block(tagged.cast_mut()) });
            if let Err(panic) = catch_unwind(drop) {
                complain(&format!("releasing a {}: {}", T::NAME, panic_text(&*panic)));
            }
        }
        Err(error) => complain(&format!("release: {error}")),
    }
}

/// Runs the body of a fallible slot: NULL for `Ok`, else a new error. A panic becomes an error with `ET_ERR_PANIC`.
#[inline(always)]
pub fn guard(body: impl FnOnce() -> Result<()>) -> *mut et_error {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ptr::null_mut(),
        Ok(Err(error)) => failed(error),
        Err(panic) => failed(Error::new(ET_ERR_PANIC, panic_text(&*panic))),
    }
}

/// Kept out of the slots, whose way without an error is short.
#[cold]
#[inline(never)]
fn failed(error: Error) -> *mut et_error {
    into_raw(error)
}

/// Runs the body of a slot that cannot say why it failed: `fallback` for an error or a panic, which is logged.
#[inline(always)]
pub fn guard_value<R>(fallback: R, body: impl FnOnce() -> Result<R>) -> R {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            complain(&error.message);
            fallback
        }
        Err(panic) => {
            complain(&panic_text(&*panic));
            fallback
        }
    }
}

/// Writes to the log what a slot cannot answer.
#[cold]
#[inline(never)]
fn complain(message: &str) {
    crate::log::error(message);
}

/// What a panic said.
#[cold]
fn panic_text(panic: &(dyn Any + Send)) -> String {
    format!("panic in the engine: {}", easytransfer_text::panic_text(panic))
}

/// Hands a value to the caller as an owned handle. Errors: `INVALID_ARGUMENT` when `ptr` is NULL.
///
/// # Safety
/// `ptr` is NULL or may be written.
#[inline(always)]
pub unsafe fn out<T: Handle>(ptr: *mut *mut T::Abi, value: T) -> Result<()> {
    if ptr.is_null() {
        return Err(refuse_out(T::NAME));
    }
    // SAFETY: not NULL, and the caller says that it may be written.
    unsafe { ptr.write(into_raw(value)) };
    Ok(())
}

#[cold]
#[inline(never)]
fn refuse_out(made: &str) -> Error {
    Error::new(ET_ERR_INVALID_ARGUMENT, format!("the out pointer for the {made} is NULL"))
}

/// As [`out`], but `None` writes NULL.
///
/// # Safety
/// As for [`out`].
pub unsafe fn out_optional<T: Handle>(ptr: *mut *mut T::Abi, value: Option<T>) -> Result<()> {
    match value {
        // SAFETY: the caller's contract is the same.
        Some(value) => unsafe { out(ptr, value) },
        // SAFETY: the caller's contract is the same.
        None => unsafe { put(ptr, ptr::null_mut()) },
    }
}

/// Writes a plain value to an out pointer. Errors: `INVALID_ARGUMENT` when `ptr` is NULL.
///
/// # Safety
/// `ptr` is NULL or may be written.
pub unsafe fn put<V>(ptr: *mut V, value: V) -> Result<()> {
    if ptr.is_null() {
        fail!(ET_ERR_INVALID_ARGUMENT, "an out pointer is NULL");
    }
    // SAFETY: not NULL, and the caller says that it may be written.
    unsafe { ptr.write(value) };
    Ok(())
}

/// The error that a plugin returned, NULL for success, as ours.
///
/// # Safety
/// `error` is NULL or an owned error of this engine.
pub unsafe fn take_error(error: *mut et_error) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: by the contract this is an error that we own; it is released once.
    let found = unsafe {
        let found = borrow::<Error>(error).cloned();
        release::<Error>(error);
        found
    };
    Err(found.unwrap_or_else(|error| error))
}

/// Borrowed text. Errors: `BAD_INPUT` when it is not UTF-8, `INVALID_ARGUMENT` when it is NULL with a length.
///
/// # Safety
/// `text` describes readable memory that outlives `'a`.
pub unsafe fn str_from<'a>(text: et_str) -> Result<&'a str> {
    // SAFETY: the caller's contract is the same.
    let bytes = unsafe { slice_from(text.ptr.cast::<u8>(), text.len)? };
    std::str::from_utf8(bytes).map_err(|error| {
        let start = String::from_utf8_lossy(&bytes[..error.valid_up_to().min(40)]);
        Error::new(
            ET_ERR_BAD_INPUT,
            format!(
                "text is not UTF-8: byte {} after {start:?} does not continue it",
                error.valid_up_to()
            ),
        )
    })
}

/// Text as the boundary borrows it; valid as long as `text`.
pub fn str_to(text: &str) -> et_str {
    et_str { ptr: text.as_ptr().cast::<c_char>(), len: text.len() }
}

/// A borrowed array; empty when `len` is 0, even if `ptr` is NULL. Errors: `INVALID_ARGUMENT` for NULL with a length
/// or a misaligned pointer.
///
/// # Safety
/// `ptr` points to `len` readable values that outlive `'a`.
pub unsafe fn slice_from<'a, V>(ptr: *const V, len: usize) -> Result<&'a [V]> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() {
        fail!(ET_ERR_INVALID_ARGUMENT, "expected {len} values, found NULL");
    }
    if !ptr.is_aligned() || len > isize::MAX as usize / size_of::<V>().max(1) {
        fail!(ET_ERR_INVALID_ARGUMENT, "the array of {len} values is misaligned or too long");
    }
    // SAFETY: not NULL, aligned, of a possible size, and readable by the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(ptr, len) })
}

impl Handle for Error {
    type Abi = et_error;
    const TAG: u32 = tag(b"ETer");
    const NAME: &'static str = "error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct AbiA(u8);
    struct A(u64);
    impl Handle for A {
        type Abi = AbiA;
        const TAG: u32 = tag(b"tstA");
        const NAME: &'static str = "thing";
    }

    fn text_of(error: *mut et_error) -> (i32, String) {
        // SAFETY: `guard` made this error.
        let error_ref = unsafe { borrow::<Error>(error) }.unwrap().clone();
        // SAFETY: owned by the test.
        unsafe { release::<Error>(error) };
        (error_ref.code, error_ref.message.clone())
    }

    #[test]
    fn retained_objects_live_until_the_last_release() {
        let first = into_raw(A(7));
        // SAFETY: a live handle, released as often as it was taken.
        unsafe {
            let second = retain::<A>(first);
            release::<A>(first);
            assert_eq!(borrow::<A>(second).unwrap().0, 7);
            release::<A>(second);
            release::<A>(ptr::null_mut());
        }
    }

    #[test]
    fn a_handle_that_was_given_back_is_refused_though_the_engine_keeps_the_tensor() {
        use crate::tensor::Tensor;
        let kept = crate::ops::create::arange(candle_core::DType::F32, 0.0, 1.0, 3).unwrap();
        let (first, second) = (into_raw(kept.clone()), into_raw(kept.clone()));
        // SAFETY: references are given back as often as they were taken, and the object is alive throughout.
        unsafe {
            release::<Tensor>(first);
            assert_eq!(borrow::<Tensor>(second).unwrap().elem_count(), 3);
            release::<Tensor>(retain::<Tensor>(second));
            release::<Tensor>(second);
            let stale = borrow::<Tensor>(second).err().unwrap();
            assert_eq!(stale.code, ET_ERR_BAD_HANDLE);
            assert!(stale.message.contains("released"), "{stale}");
            // Once too often changes nothing.
            release::<Tensor>(second);
        }
        assert_eq!(kept.elem_count(), 3);
    }

    #[test]
    fn other_kinds_and_null_are_refused() {
        let error = into_raw(Error::new(1, "x"));
        // SAFETY: a live handle of another kind; NULL.
        unsafe {
            let wrong = borrow::<A>(error.cast()).err().unwrap();
            assert_eq!(wrong.code, ET_ERR_BAD_HANDLE);
            assert!(wrong.message.contains("thing"));
            assert_eq!(borrow::<A>(ptr::null()).err().unwrap().code, ET_ERR_INVALID_ARGUMENT);
            let odd = (error as usize + 1) as *const AbiA;
            assert_eq!(borrow::<A>(odd).err().unwrap().code, ET_ERR_BAD_HANDLE);
            // Releasing through the wrong kind leaves the object alone.
            release::<A>(error.cast());
            assert_eq!(borrow::<Error>(error).unwrap().message, "x");
            release::<Error>(error);
        }
    }

    #[test]
    fn the_tag_is_overwritten_when_the_object_goes() {
        let mut slot = std::mem::MaybeUninit::new(Tagged {
            tag: A::TAG,
            lent: AtomicU32::new(1),
            value: A(1),
        });
        // SAFETY: the slot is initialised and dropped once; its memory stays readable afterwards.
        unsafe {
            let ptr = slot.as_mut_ptr();
            assert_eq!(borrow::<A>(ptr.cast()).unwrap().0, 1);
            ptr::drop_in_place(ptr);
            let stale = borrow::<A>(ptr.cast()).err().unwrap();
            assert_eq!(stale.code, ET_ERR_BAD_HANDLE);
            assert!(stale.message.contains("released"));
        }
    }

    #[test]
    fn panics_and_errors_become_error_objects() {
        assert!(guard(|| Ok(())).is_null());
        let (code, message) = text_of(guard(|| panic!("broken {}", 3)));
        assert_eq!((code, message.as_str()), (ET_ERR_PANIC, "panic in the engine: broken 3"));
        assert_eq!(text_of(guard(|| Err(Error::new(5, "gone")))), (5, "gone".into()));
    }

    #[test]
    fn text_must_be_utf8() {
        let bad = [b'a', 0xff];
        let text = et_str { ptr: bad.as_ptr().cast(), len: 2 };
        // SAFETY: `bad` outlives the call.
        assert_eq!(unsafe { str_from(text) }.unwrap_err().code, ET_ERR_BAD_INPUT);
        // SAFETY: empty text may be NULL.
        assert_eq!(unsafe { str_from(et_str { ptr: ptr::null(), len: 0 }) }.unwrap(), "");
        // SAFETY: NULL with a length is refused before it is read.
        assert!(unsafe { str_from(et_str { ptr: ptr::null(), len: 1 }) }.is_err());
    }
}
