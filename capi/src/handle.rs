//! Handles: what a caller has of an object. The library keeps a list of those that are alive, so that it can refuse
//! what is not: one that was released, one of another kind, an address that never was one. A handle is looked up,
//! never followed.
//!
//! Objects are shared by the list and by the calls that use them, so one that is released while another thread is in a
//! call goes when that call is done. Those that change lie in a [`Guarded`], so calls of several threads on one of
//! them come one after the other.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use easytransfer_facade as facade;
use facade::plugin::abi::ET_ERR_BAD_HANDLE;
use facade::plugin::{Error, LogLevel};

/// Addresses below this are nobody's memory: the system maps nothing there.
const LOWEST: usize = 1 << 16;
/// Released handles whose address is not given out again yet: using one of them is noticed for certain.
const RESTING: usize = 1 << 14;

/// What lies at the address of a handle: memory of its own, so that no two handles have one address, with nothing in
/// it but a number that tells the engine, whose handles begin with one, that this is none of them.
type Mark = [u64; 2];
const MARK: Mark = [0x6361_7069_6361_7069; 2];

/// An object that callers have handles of.
pub(crate) trait Object: Any + Send + Sync {
    /// What messages call it.
    const NAME: &'static str;
}

struct Entry {
    /// None once it was released.
    object: Option<Arc<dyn Any + Send + Sync>>,
    name: &'static str,
    /// Keeps the address for this handle.
    _mark: Box<Mark>,
}

#[derive(Default)]
struct Handles {
    /// By address: those that are alive and those that rest.
    entries: HashMap<usize, Entry>,
    /// Addresses of those that rest, the oldest first.
    resting: VecDeque<usize>,
}

static HANDLES: RwLock<Option<Handles>> = RwLock::new(None);

/// What `read` finds in the list.
fn with_entry<R>(address: usize, read: impl FnOnce(Option<&Entry>) -> R) -> R {
    let handles = HANDLES.read().unwrap_or_else(PoisonError::into_inner);
    read(handles.as_ref().and_then(|handles| handles.entries.get(&address)))
}

/// Hands an object over; the caller owns it now.
///
/// # Safety
/// `out` is valid for a write.
pub(crate) unsafe fn give<T: Object>(out: *mut *mut T, object: T) {
    let mark = Box::new(MARK);
    let handle = std::ptr::from_ref(&*mark).cast_mut();
    let entry = Entry { object: Some(Arc::new(object)), name: T::NAME, _mark: mark };
    let mut handles = HANDLES.write().unwrap_or_else(PoisonError::into_inner);
    handles.get_or_insert_default().entries.insert(handle.addr(), entry);
    drop(handles);
    // SAFETY: promised by the caller.
    unsafe { *out = handle.cast() };
}

/// The object behind a handle; `argument` names it in messages. Errors: NULL, and everything else that is no live
/// handle of this kind.
pub(crate) fn find<T: Object>(handle: *const T, argument: &str) -> Result<Arc<T>, Error> {
    if handle.is_null() {
        return Err(Error::invalid(format!("{argument}: expected a live handle, found NULL")));
    }
    with_entry(handle.addr(), |entry| {
        let object = entry.and_then(|entry| entry.object.clone());
        if let Some(object) = object.and_then(|object| object.downcast::<T>().ok()) {
            return Ok(object);
        }
        let found = match entry {
            None => "an address that is none, or that was released".to_owned(),
            Some(Entry { object: None, name, .. }) => format!("one of {name} that was released"),
            Some(Entry { name, .. }) => format!("one of {name}"),
        };
        let text = format!("{argument}: expected a live handle of {}, found {found}", T::NAME);
        Err(Error::new(ET_ERR_BAD_HANDLE, text))
    })
}

/// What `read` finds in the object behind a handle; nothing for what is no live handle of this kind. Pointers into the
/// object stay valid until it is released.
pub(crate) fn peek<T: Object, R>(
    handle: *const T,
    read: impl FnOnce(&T) -> Option<R>,
) -> Option<R> {
    find(handle, "").ok().and_then(|object| read(&object))
}

/// Takes an object back. NULL is nothing; what is no live handle of this kind is left alone and logged.
pub(crate) fn take_back<T: Object>(handle: *mut T) {
    if handle.is_null() {
        return;
    }
    if let Err(error) = find(handle, "release") {
        return facade::plugin::log(LogLevel::Error, "easytransfer", error.message());
    }
    let mut handles = HANDLES.write().unwrap_or_else(PoisonError::into_inner);
    let Some(all) = handles.as_mut() else { return };
    let object = all.entries.get_mut(&handle.addr()).and_then(|entry| entry.object.take());
    // Another thread may have been quicker.
    if object.is_some() {
        all.resting.push_back(handle.addr());
        if all.resting.len() > RESTING
            && let Some(oldest) = all.resting.pop_front()
        {
            all.entries.remove(&oldest);
        }
    }
    drop(handles);
    // Outside of the lock: an object takes a while to go, and may give handles back itself.
    drop(object);
}

/// Checks an address that should be a handle of the engine's, before the engine looks at it.
pub(crate) fn check_engine<T>(handle: *const T, argument: &str) -> Result<(), Error> {
    let is_ours = || with_entry(handle.addr(), |entry| entry.is_some());
    if !handle.is_null() && (handle.addr() < LOWEST || is_ours()) {
        let text =
            format!("{argument}: expected a live handle of the engine's, found something else");
        return Err(Error::new(ET_ERR_BAD_HANDLE, text));
    }
    Ok(())
}

/// Something that one call at a time uses.
pub(crate) struct Guarded<T>(Mutex<T>);

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for its turn. What a panic of an earlier call left is used: it became an error there.
    pub(crate) fn turn(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
