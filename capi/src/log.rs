//! Messages of the library to a function of the caller's.

use crate::error::guard;
use easytransfer_facade as facade;
use facade::plugin::abi::{et_error, et_str};
use std::ffi::c_void;

/// Gets a message: its level (an ET_LOG_ constant), the name of the writer ("engine", "train", the id of a plugin) and
/// the text, both borrowed for the call. Called on the thread that has something to say, so on several at once; it must
/// not wait for another thread of the library's, and neither throw nor `longjmp` out. What the library is asked to do
/// from inside of it logs to standard error. [any-thread] since 0.2
pub type et_log_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, target: et_str, message: et_str)>;

/// The caller's pointer, which goes to every thread.
struct User(*mut c_void);

// SAFETY: the pointer is only handed back to the caller's function, which may be called on any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// Sends the messages of the whole process to `callback`, which gets `user`; NULL restores the default, one line each
/// to standard error. When this returns, the callback of before is not called any more, so what its `user` points to
/// may go. Errors: FAILED_PRECONDITION from inside a callback. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_log_to(callback: et_log_callback, user: *mut c_void) -> *mut et_error {
    guard(|| {
        let user = User(user);
        let text = |text: &str| et_str { ptr: text.as_ptr().cast(), len: text.len() };
        facade::on_log(callback.map(|callback| -> Box<facade::OnLog> {
            Box::new(move |level, target, message| {
                // SAFETY: the caller's function takes the caller's pointer, and the texts live for the call.
                unsafe { callback(user.get(), level as i32, text(target), text(message)) }
            })
        }))?;
        Ok(())
    })
}
