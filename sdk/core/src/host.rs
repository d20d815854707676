//! The host table, and the way to the tables of the engine and of those who add to it.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{PoisonError, RwLock};

use easytransfer_abi::{ET_ABI_MAJOR, ET_ABI_MINOR, et_error, et_host, et_host_log, et_str};

use crate::error::Error;
use crate::handle::{self, guard_value, str_from, str_to};
use crate::{device, log, tables};

/// A table that was added: its id and its address.
struct Provided {
    id: String,
    table: *const c_void,
}

// SAFETY: the address is only handed out, never followed here; `provide` asks for tables that live for ever and may
// be read from any thread.
unsafe impl Send for Provided {}
// SAFETY: as above.
unsafe impl Sync for Provided {}

static PROVIDED: RwLock<Vec<Provided>> = RwLock::new(Vec::new());

static HOST: et_host = et_host {
    struct_size: size_of::<et_host>(),
    abi_major: ET_ABI_MAJOR,
    abi_minor: ET_ABI_MINOR,
    get_interface: Some(get_interface),
    get_experimental: Some(get_experimental),
    error_new: Some(error_new),
    error_code: Some(error_code),
    error_message: Some(error_message),
    error_release: Some(error_release),
    live_handles: Some(live_handles),
    error_new_detailed: Some(error_new_detailed),
    error_details: Some(error_details),
};

/// The host table of this engine. It lives until the process ends.
pub fn host() -> *const et_host {
    &HOST
}

/// Adds a table to those that `get_interface` finds (an id such as "et.session/1") or `get_experimental` (a name such
/// as "tensor.fft@0"). The first table of an id stays; another one is refused with a message in the log. "et.log/1" is
/// where messages of this engine, and those that come through its own table, go from then on.
///
/// # Safety
/// `table` is a C table of that interface, which begins with its size, lives until the process ends and may be read
/// from any thread.
pub unsafe fn provide(id: &str, table: *const c_void) {
    if ptr::eq(table, ptr::from_ref(&tables::log::TABLE).cast()) {
        return;
    }
    if id == "et.log/1" {
        // SAFETY: the caller gives the table of the id, which lives until the process ends.
        if let Some(Err(error)) = unsafe { table.cast::<et_host_log>().as_ref() }.map(log::forward)
        {
            log::error(&error.to_string());
        }
        return;
    }
    if built_in(id).is_some() {
        log::error(&format!("interface {id:?} belongs to the engine and cannot be replaced"));
        return;
    }
    let mut provided = PROVIDED.write().unwrap_or_else(PoisonError::into_inner);
    match provided.iter().find(|known| known.id == id) {
        Some(known) if ptr::eq(known.table, table) => {}
        Some(_) => log::error(&format!("interface {id:?} is provided already")),
        None => provided.push(Provided { id: id.into(), table }),
    }
}

/// The engine's own table of that id.
fn built_in(id: &str) -> Option<*const c_void> {
    Some(match id {
        "et.tensor/1" => ptr::from_ref(&tables::tensor::TABLE).cast(),
        "et.autograd/1" => ptr::from_ref(&tables::autograd::TABLE).cast(),
        "et.nn/1" => ptr::from_ref(&tables::nn::TABLE).cast(),
        "et.param/1" => ptr::from_ref(&tables::param::TABLE).cast(),
        "et.rng/1" => ptr::from_ref(&tables::rng::TABLE).cast(),
        "et.data/1" => ptr::from_ref(&tables::data::TABLE).cast(),
        "et.stream/1" => ptr::from_ref(&tables::stream::TABLE).cast(),
        "et.config/1" => ptr::from_ref(&tables::config::TABLE).cast(),
        "et.tokenizer/1" => ptr::from_ref(&tables::tokenizer::TABLE).cast(),
        "et.log/1" => ptr::from_ref(&tables::log::TABLE).cast(),
        "et.profile/1" => ptr::from_ref(&tables::profile::TABLE).cast(),
        "et.step/1" => ptr::from_ref(&tables::step::TABLE).cast(),
        _ => return device::active()?.interface(id),
    })
}

fn provided(id: &str) -> Option<*const c_void> {
    let provided = PROVIDED.read().unwrap_or_else(PoisonError::into_inner);
    provided.iter().find(|known| known.id == id).map(|known| known.table)
}

/// Text of a NUL-terminated id; `None` for NULL and for what is not UTF-8.
///
/// # Safety
/// `id` is NULL or NUL-terminated and outlives `'a`.
unsafe fn id_from<'a>(id: *const c_char) -> Option<&'a str> {
    if id.is_null() {
        return None;
    }
    // SAFETY: not NULL, and NUL-terminated by the caller's contract.
    unsafe { CStr::from_ptr(id) }.to_str().ok()
}

unsafe extern "C" fn get_interface(_host: *const et_host, id: *const c_char) -> *const c_void {
    guard_value(ptr::null(), || {
        // SAFETY: the boundary's contract: a NUL-terminated id or NULL.
        let id = unsafe { id_from(id) };
        let drafts = |id: &&str| !id.contains('@');
        let table = id.filter(drafts).and_then(|id| built_in(id).or_else(|| provided(id)));
        Ok(table.unwrap_or(ptr::null()))
    })
}

unsafe extern "C" fn get_experimental(_host: *const et_host, name: *const c_char) -> *const c_void {
    guard_value(ptr::null(), || {
        // SAFETY: the boundary's contract: a NUL-terminated name or NULL.
        let name = unsafe { id_from(name) };
        let table = name.filter(|name| name.contains('@')).and_then(provided);
        Ok(table.unwrap_or(ptr::null()))
    })
}

/// A copy of a text. What is not UTF-8 is replaced: it still makes an error.
///
/// # Safety
/// `text` describes readable memory.
unsafe fn copied(text: et_str) -> String {
    guard_value(String::new(), || {
        // SAFETY: the caller's contract is the same.
        match unsafe { str_from(text) } {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                // SAFETY: as above.
                let bytes = unsafe { handle::slice_from(text.ptr.cast::<u8>(), text.len) };
                Ok(bytes
                    .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                    .unwrap_or_default())
            }
        }
    })
}

unsafe extern "C" fn error_new(code: i32, message: et_str) -> *mut et_error {
    // SAFETY: the boundary's contract: readable text.
    handle::into_raw(Error::new(code, unsafe { copied(message) }))
}

unsafe extern "C" fn error_new_detailed(
    code: i32,
    message: et_str,
    details: et_str,
) -> *mut et_error {
    // SAFETY: the boundary's contract: readable texts.
    let (message, details) = unsafe { (copied(message), copied(details)) };
    handle::into_raw(Error::new(code, message).with_details(details))
}

unsafe extern "C" fn error_details(error: *const et_error) -> et_str {
    guard_value(str_to(""), || {
        // SAFETY: the boundary's contract: a live error or NULL.
        let error = unsafe { handle::borrow_optional::<Error>(error) }?;
        Ok(str_to(error.map_or("", |error| &error.details)))
    })
}

unsafe extern "C" fn error_code(error: *const et_error) -> i32 {
    // SAFETY: the boundary's contract: a live error or NULL.
    guard_value(0, || Ok(unsafe { handle::borrow_optional::<Error>(error) }?.map_or(0, |e| e.code)))
}

unsafe extern "C" fn error_message(error: *const et_error) -> et_str {
    guard_value(str_to(""), || {
        // SAFETY: the boundary's contract: a live error or NULL.
        let error = unsafe { handle::borrow_optional::<Error>(error) }?;
        Ok(str_to(error.map_or("", |error| &error.message)))
    })
}

unsafe extern "C" fn error_release(error: *mut et_error) {
    // SAFETY: the boundary's contract: an owned error or NULL.
    unsafe { handle::release::<Error>(error) }
}

unsafe extern "C" fn live_handles() -> i64 {
    handle::live_handles()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(id: &CStr) -> *const c_void {
        // SAFETY: the host table is filled and the id is NUL-terminated.
        unsafe { get_interface(host(), id.as_ptr()) }
    }

    #[test]
    fn every_interface_is_there_and_begins_with_its_size() {
        let ids = [
            c"et.tensor/1",
            c"et.autograd/1",
            c"et.nn/1",
            c"et.param/1",
            c"et.rng/1",
            c"et.data/1",
            c"et.stream/1",
            c"et.config/1",
            c"et.tokenizer/1",
            c"et.log/1",
            c"et.profile/1",
            c"et.step/1",
        ];
        for id in ids {
            let table = interface(id).cast::<usize>();
            assert!(!table.is_null(), "{id:?}");
            // SAFETY: every table begins with its size.
            let size = unsafe { *table };
            assert!(size > size_of::<usize>() && size.is_multiple_of(size_of::<usize>()));
            for slot in 1..size / size_of::<usize>() {
                // SAFETY: inside the size that the table states; each slot is a pointer or NULL.
                assert_ne!(unsafe { *table.add(slot) }, 0, "{id:?} slot {slot}");
            }
        }
        assert!(interface(c"et.tensor/2").is_null());
        // A table of a card, which this process has not opened.
        assert!(interface(c"et.cuda/1").is_null());
        // SAFETY: NULL is allowed.
        assert!(unsafe { get_interface(host(), ptr::null()) }.is_null());
    }

    #[test]
    fn provided_tables_are_found_and_cannot_be_replaced() {
        static TABLE: usize = size_of::<usize>();
        static OTHER: usize = size_of::<usize>();
        assert!(interface(c"et.host-test/1").is_null());
        // SAFETY: statics that nobody reads as tables (so for the one below).
        unsafe { provide("et.host-test/1", ptr::from_ref(&TABLE).cast()) };
        // SAFETY: as above.
        unsafe { provide("et.host-test/1", ptr::from_ref(&OTHER).cast()) };
        assert_eq!(interface(c"et.host-test/1"), ptr::from_ref(&TABLE).cast());
        // SAFETY: as above.
        unsafe { provide("host-test.draft@0", ptr::from_ref(&TABLE).cast()) };
        assert!(interface(c"host-test.draft@0").is_null());
        // SAFETY: the name is NUL-terminated.
        let draft = unsafe { get_experimental(host(), c"host-test.draft@0".as_ptr()) };
        assert_eq!(draft, ptr::from_ref(&TABLE).cast());
    }

    #[test]
    fn errors_keep_code_and_message_even_when_not_utf8() {
        let bytes = [b'a', 0xff, b'b'];
        // SAFETY: readable text; the error is owned and released once; NULL is allowed.
        unsafe {
            let error = error_new(7, et_str { ptr: bytes.as_ptr().cast(), len: 3 });
            assert_eq!(error_code(error), 7);
            assert_eq!(str_from(error_message(error)).unwrap(), "a\u{fffd}b");
            error_release(error);
            error_release(ptr::null_mut());
            assert_eq!(error_code(ptr::null()), 0);
            assert_eq!(error_message(ptr::null()).len, 0);
            assert_eq!(error_details(ptr::null()).len, 0);
        }
    }

    #[test]
    fn errors_carry_their_details_beside_the_message() {
        // SAFETY: readable text; the errors are owned and released once.
        unsafe {
            let plain = error_new(7, str_to("no"));
            assert_eq!(str_from(error_details(plain)).unwrap(), "");
            error_release(plain);
            let error = error_new_detailed(7, str_to("no"), str_to("{\"role\": \"label\"}"));
            assert_eq!(error_code(error), 7);
            assert_eq!(str_from(error_message(error)).unwrap(), "no");
            assert_eq!(str_from(error_details(error)).unwrap(), "{\"role\": \"label\"}");
            let passed_on = handle::take_error(error).unwrap_err().context("here");
            assert_eq!(
                (&*passed_on.message, &*passed_on.details),
                ("here: no", "{\"role\": \"label\"}")
            );
        }
    }
}
