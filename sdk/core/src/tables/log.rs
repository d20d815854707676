//! `et.log/1`: messages to the log.

use easytransfer_abi::{et_host_log, et_str};

use crate::handle::{guard_value, slice_from};
use crate::log;

/// The table.
pub static TABLE: et_host_log =
    et_host_log { struct_size: size_of::<et_host_log>(), write: Some(write) };

unsafe extern "C" fn write(level: i32, target: et_str, message: et_str) {
    guard_value((), || {
        // SAFETY: the boundary's contract: readable text. Text that is not UTF-8 is shown as far as it is.
        let (target, message) = unsafe {
            (
                slice_from(target.ptr.cast::<u8>(), target.len)?,
                slice_from(message.ptr.cast::<u8>(), message.len)?,
            )
        };
        log::write(level, &String::from_utf8_lossy(target), &String::from_utf8_lossy(message));
        Ok(())
    })
}
