//! The engine as a library of its own: the record behind `et_engine_entry`, nothing else.
//!
//! With the feature `cuda` this is `libeasytransfer_engine_cuda.so`, which the loader opens when a CUDA device is
//! asked for. Without it, it is the CPU engine once more, which proves on any machine that an engine can be loaded.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use easytransfer_abi::{
    ET_ABI_MAJOR, ET_ABI_MINOR, ET_ENGINE_MAGIC, et_buffer, et_engine_record, et_error, et_str,
};
use easytransfer_core::data::Buffer;
use easytransfer_core::error::Result;
use easytransfer_core::handle::{guard, guard_value, out, str_from};
use easytransfer_core::options::EngineOptions;
use easytransfer_core::workers;

/// The record, which holds pointers to constants and functions only.
struct StaticRecord(et_engine_record);

// SAFETY: nothing that the record points to ever changes.
unsafe impl Send for StaticRecord {}
// SAFETY: as above.
unsafe impl Sync for StaticRecord {}

static RECORD: OnceLock<StaticRecord> = OnceLock::new();

/// The record of this engine; it lives until the process ends. [any-thread]
#[unsafe(no_mangle)]
pub extern "C" fn et_engine_entry() -> *const et_engine_record {
    let record = RECORD.get_or_init(|| {
        StaticRecord(et_engine_record {
            magic: ET_ENGINE_MAGIC,
            abi_major: ET_ABI_MAJOR,
            abi_minor: ET_ABI_MINOR,
            struct_size: size_of::<et_engine_record>(),
            id: if cfg!(feature = "cuda") { c"cuda" } else { c"cpu" }.as_ptr(),
            version: concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
            host: easytransfer_core::host::host(),
            open: Some(open),
            provide: Some(provide),
            report: Some(report),
        })
    });
    &record.0
}

#[cfg(feature = "cuda")]
fn start(device: i32, options: &str) -> Result<()> {
    // Refuses unknown keys, which the card's own reader passes over.
    if let Some(threads) = EngineOptions::from_json(options)?.threads {
        workers::choose(threads).map_err(|error| error.context("threads"))?;
    }
    let options = easytransfer_cuda::Options::from_json(options)?;
    easytransfer_cuda::open(device.max(0) as usize, options)
}

/// The CPU has one device.
#[cfg(not(feature = "cuda"))]
fn start(device: i32, options: &str) -> Result<()> {
    use easytransfer_core::error::Error;
    if device != 0 {
        return Err(Error::new(
            easytransfer_abi::ET_ERR_UNIMPLEMENTED,
            format!("the CPU engine has device 0 only, found {device}"),
        ));
    }
    let options = EngineOptions::from_json(options)?;
    if let Some(threads) = options.threads {
        workers::choose(threads).map_err(|error| error.context("threads"))?;
    }
    easytransfer_core::precision::choose(options.precision)
}

unsafe extern "C" fn open(device: i32, options: et_str) -> *mut et_error {
    guard(|| {
        // SAFETY: the boundary's contract: readable text.
        start(device, unsafe { str_from(options) }?)
    })
}

unsafe extern "C" fn provide(id: *const c_char, table: *const c_void) {
    guard_value((), || {
        if !id.is_null() {
            // SAFETY: not NULL, and NUL-terminated by the boundary's contract.
            let id = unsafe { CStr::from_ptr(id) }.to_string_lossy();
            // SAFETY: the boundary's contract: a table of that id.
            unsafe { easytransfer_core::host::provide(&id, table) };
        }
        Ok(())
    });
}

fn text() -> String {
    match easytransfer_core::device::active() {
        Some(device) => device.report(),
        // No device is open yet.
        None if cfg!(feature = "cuda") => "{}".to_owned(),
        None => "{\"device\": \"cpu\"}".to_owned(),
    }
}

unsafe extern "C" fn report(result: *mut *mut et_buffer) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { out(result, Buffer::new(text().into_bytes())) })
}
