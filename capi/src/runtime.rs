//! The runtime: one engine and the plugins found for it.

use crate::error::{answer, check_out, guard};
use crate::handle::{Object, find, give, peek, take_back};
use crate::text::{et_text, optional, required};
use easytransfer_facade as facade;
use facade::plugin::Error;
use facade::plugin::abi::{et_error, et_host, et_plugin_record};
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One engine and the plugins found for it.
pub struct et_runtime {
    pub(crate) runtime: facade::Runtime,
    /// The switches of the runs that are under way.
    runs: Mutex<Vec<Weak<AtomicBool>>>,
}

impl et_runtime {
    /// Makes a run's switch known to `et_runtime_cancel` for as long as somebody holds it.
    pub(crate) fn remember(&self, cancel: &Arc<AtomicBool>) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(cancel));
    }
}

impl Object for et_runtime {
    const NAME: &'static str = "a runtime";
}

/// Version of the library, for instance "0.1.0"; lives until the process ends. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn et_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// Number of objects of the engine that are alive (tensors, parameters, maps, errors ...); 0 when a program has given
/// everything back. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn et_live_handles() -> i64 {
    // SAFETY: the table lives until the process ends, and the slot takes no arguments.
    unsafe { facade::engine_host().as_ref() }
        .and_then(|host| host.live_handles)
        // SAFETY: as above.
        .map_or(0, |count| unsafe { count() })
}

/// Starts the engine and reads the manifests of all plugins that can be found; libraries are opened when they are
/// used. `options` is JSON, or NULL for the defaults: {"plugins": ["dir"], "only_these": false, "policy": "any" |
/// "hash-pinned" | "hash-required", "choose": ["loss=my-losses/focal"], "device": "cpu" | "cuda" | "cuda:N" | "auto",
/// "precision": "f32" | "tf32" | "bf16" | "f16", "threads": 4}; the first runtime of a process decides on device and
/// threads for all. "choose" says which plugin is meant where several offer one name. `*out` is for
/// `et_runtime_release`. Errors: BAD_INPUT for options, also for those that differ from the first runtime's.
/// [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_runtime_new(
    options: *const c_char,
    out: *mut *mut et_runtime,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_runtime_new")?;
        // SAFETY: the caller passes NULL or text, and `out` is not NULL.
        unsafe {
            let options = facade::json::runtime_options(optional(options, "options")?)?;
            let runtime = facade::Runtime::new(options)?;
            give(out, et_runtime { runtime, runs: Mutex::default() });
        }
        Ok(())
    })
}

/// Gives a runtime back. Apps, models and so on that came from it stay valid. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_runtime_release(runtime: *mut et_runtime) {
    answer((), || take_back(runtime));
}

/// Asks the runs of `et_fit` that are under way with this runtime to end; each is asked once, and later runs are not.
/// `et_fit` says where they look and what they leave. Returns at once. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_runtime_cancel(runtime: *const et_runtime) {
    answer((), || {
        peek(runtime, |runtime| {
            let runs = runtime.runs.lock().unwrap_or_else(PoisonError::into_inner);
            for run in runs.iter().filter_map(Weak::upgrade) {
                run.store(true, Ordering::Relaxed);
            }
            Some(())
        });
    });
}

/// The engine's tables, the same that plugins get: tensors by hand. Lives until the process ends; NULL for what is no
/// live runtime. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_runtime_host(runtime: *const et_runtime) -> *const et_host {
    answer(std::ptr::null(), || {
        peek(runtime, |_| Some(facade::engine_host())).unwrap_or(std::ptr::null())
    })
}

/// Loads a plugin by its manifest or its folder. Errors: BAD_INPUT saying what was required and found. [any-thread]
/// since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_runtime_load_plugin(
    runtime: *const et_runtime,
    path: *const c_char,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller passes text.
        let (runtime, path) = (find(runtime, "runtime")?, unsafe { required(path, "path")? });
        runtime.runtime.load_plugin(path.as_ref())?;
        Ok(())
    })
}

/// Registers a plugin that is linked into the program; `record` is complete and lives until the process ends. Errors:
/// BAD_INPUT saying what is wrong with it. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_runtime_register_plugin(
    runtime: *const et_runtime,
    record: *const et_plugin_record,
) -> *mut et_error {
    guard(|| {
        let runtime = find(runtime, "runtime")?;
        if record.is_null() {
            return Err(Error::invalid("record: expected a plugin's record, found NULL"));
        }
        // SAFETY: the caller passes a record that lives until the process ends.
        unsafe { runtime.runtime.register_plugin_raw(record) }?;
        Ok(())
    })
}

/// All plugins as JSON: [{"id": "loss-basic", "version": "0.1.0", "path": "..", "provides": [{"kind": "loss", "name":
/// "mse"}], "description": "..", "problem": null}]. `*out` is for `et_text_release`. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_runtime_plugins_json(
    runtime: *const et_runtime,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_runtime_plugins_json")?;
        let runtime = find(runtime, "runtime")?;
        let plugins = et_text::new(&facade::json::plugins(&runtime.runtime.plugins()));
        // SAFETY: `out` is not NULL.
        unsafe { give(out, plugins) };
        Ok(())
    })
}
