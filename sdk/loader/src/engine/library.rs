//! Finding, opening and checking the library of an engine.

use std::ffi::{CStr, CString, c_void};
use std::path::{Path, PathBuf};

use easytransfer_abi::{
    ET_ABI_MAJOR, ET_ENGINE_MAGIC, et_buffer, et_engine_record, et_error, et_host, et_host_data,
    et_str,
};

use super::{CUDA_ENGINE, EngineError, EnginePrecision};
use crate::image::{FULLY_STATIC, NEEDS_LINKER};
use crate::open::{chain, open_forever};
use crate::regular::read_regular;
use crate::search::beside_library;

/// The one symbol that an engine exports.
const ENTRY: &[u8] = b"et_engine_entry\0";

/// Environment variable with further places, as for plugins: an engine's library or a folder with one.
const ENGINE_PATH: &str = "ET_ENGINE_PATH";

/// Environment variable with folders of the CUDA toolkit's libraries, searched before the usual ones.
const CUDA_LIBRARIES: &str = "ET_CUDA_LIBRARIES";

/// Libraries of the CUDA toolkit that the engine needs, the needed before those that need them.
const TOOLKIT: &[&str] = &[
    "libcudart.so.13",
    "libnvrtc.so.13",
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
];

/// An engine library that is open; it stays so until the process ends.
#[derive(Clone, Copy)]
pub struct Engine {
    record: &'static et_engine_record,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} {})", self.id(), self.version())
    }
}

// SAFETY: the record is constant, and its functions are tagged [any-thread] or are called once before others.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

/// Files that may be the CUDA engine, in the order of the search.
pub fn engine_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for entry in std::env::var_os(ENGINE_PATH).iter().flat_map(std::env::split_paths) {
        if entry.as_os_str().is_empty() {
            continue;
        }
        places.push(if entry.is_dir() { entry.join(CUDA_ENGINE) } else { entry });
    }
    let executable = std::env::current_exe().ok();
    if let Some(folder) = executable.as_deref().and_then(Path::parent) {
        places.push(folder.join(CUDA_ENGINE));
        places.push(folder.join("../lib/easytransfer").join(CUDA_ENGINE));
    }
    if let Some(folder) = crate::image::library_folder() {
        let beside = beside_library(folder).map(|folder| folder.join("easytransfer"));
        places.extend(beside.map(|folder| folder.join(CUDA_ENGINE)));
        places.push(folder.join(CUDA_ENGINE));
    }
    if cfg!(unix) {
        places.push(Path::new("/usr/lib/easytransfer").join(CUDA_ENGINE));
    }
    places
}

fn listed(places: &[PathBuf]) -> String {
    places.iter().map(|place| format!("`{}`", place.display())).collect::<Vec<_>>().join(", ")
}

/// Folders where the CUDA toolkit's libraries usually are, beside those of the dynamic linker.
fn toolkit_folders() -> Vec<PathBuf> {
    let given = std::env::var_os(CUDA_LIBRARIES);
    let mut folders: Vec<PathBuf> = given.iter().flat_map(std::env::split_paths).collect();
    for home in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = std::env::var_os(home).map(PathBuf::from) {
            folders.extend([home.join("lib64"), home.join("lib")]);
        }
    }
    folders.extend(["/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu"].map(PathBuf::from));
    folders
}

/// Opens the toolkit's libraries by full path where the dynamic linker would not find them by name, so that the
/// engine's own references are satisfied. Errors: `Library` naming the first that is nowhere.
fn open_toolkit() -> Result<(), EngineError> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let folders = toolkit_folders();
    for name in TOOLKIT {
        if open_forever(Path::new(name)).is_ok() {
            continue;
        }
        let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
        let Some(path) = found else {
            return Err(EngineError::Library(format!(
                "it needs `{name}` of the CUDA toolkit 13, expected where the dynamic linker looks or in {}; found none; set {CUDA_LIBRARIES} to the folder that has it (`pip install nvidia-cublas` and the like put it into site-packages/nvidia/cu13/lib), or use `device=cpu`",
                listed(&folders)
            )));
        };
        open_forever(&path).map_err(|error| {
            EngineError::Library(format!("`{}` does not open: {}", path.display(), chain(&error)))
        })?;
    }
    Ok(())
}

impl Engine {
    /// Opens the CUDA engine from the first place that has it. Errors: `Library` with all places.
    pub fn find() -> Result<Engine, EngineError> {
        let places = engine_places();
        let Some(path) = places.iter().find(|place| place.exists()) else {
            return Err(EngineError::Library(format!(
                "expected `{CUDA_ENGINE}` at {}; found none; build it with `cargo xtask engine cuda` and put it there or name it in {ENGINE_PATH}, or use `device=cpu`",
                listed(&places)
            )));
        };
        open_toolkit()?;
        let engine = Engine::at(path)?;
        if engine.id() != "cuda" {
            return Err(EngineError::Library(format!(
                "expected an engine for `cuda` in `{}`, found one for `{}`; build it with `cargo xtask engine cuda`",
                path.display(),
                engine.id()
            )));
        }
        Ok(engine)
    }

    /// Opens the engine at `path` and checks its record. Errors: `Library` saying what was expected and found.
    pub fn at(path: &Path) -> Result<Engine, EngineError> {
        let refused = |text: String| EngineError::Library(format!("`{}`: {text}", path.display()));
        let file = path.canonicalize().map_err(|error| {
            refused(format!("expected the library of an engine, found {error}"))
        })?;
        if cfg!(target_os = "linux") {
            let bytes =
                read_regular(&file, u64::MAX).map_err(|error| refused(error.to_string()))?;
            crate::elf::check(&bytes).map_err(|bad| {
                refused(format!("expected {}, found {}; build it again", bad.required, bad.found))
            })?;
        }
        if crate::image::is_static() {
            return Err(refused(format!("expected {NEEDS_LINKER}, found {FULLY_STATIC}")));
        }
        let library = open_forever(&file).map_err(|error| {
            refused(format!(
                "the dynamic linker refused it: {}; build it again, or install what it needs",
                chain(&error)
            ))
        })?;
        type Entry = unsafe extern "C" fn() -> *const et_engine_record;
        // SAFETY: the type is the one that the contract gives this symbol.
        let entry = unsafe { library.get::<Entry>(ENTRY) }.map_err(|_| {
            refused("expected the exported symbol et_engine_entry, found none: it is no engine; build it with `cargo xtask engine cuda`".to_owned())
        })?;
        // SAFETY: the symbol takes no arguments; the record lives until the process ends.
        let Some(record) = (unsafe { entry().as_ref() }) else {
            return Err(refused("expected a record from et_engine_entry, found NULL".to_owned()));
        };
        let engine = Engine { record };
        engine.check().map_err(refused)?;
        Ok(engine)
    }

    /// Checks the frozen fields first, then what this loader needs.
    fn check(&self) -> Result<(), String> {
        let record = self.record;
        if record.magic != ET_ENGINE_MAGIC {
            return Err(format!(
                "expected a record that begins with {ET_ENGINE_MAGIC:#x}, found {:#x}: it is no engine",
                record.magic
            ));
        }
        if record.abi_major != ET_ABI_MAJOR {
            return Err(format!(
                "expected an engine for ABI {ET_ABI_MAJOR}, found {}; build program and engine from one source",
                record.abi_major
            ));
        }
        let needed = std::mem::offset_of!(et_engine_record, report) + size_of::<usize>();
        if record.struct_size < needed
            || record.open.is_none()
            || record.provide.is_none()
            || record.host.is_null()
            || record.id.is_null()
            || record.version.is_null()
        {
            return Err(format!(
                "expected a record of at least {needed} bytes with id, version, host, open and provide, found {} bytes with one of them missing; build it again",
                record.struct_size
            ));
        }
        let version = self.version();
        if version != env!("CARGO_PKG_VERSION") {
            return Err(format!(
                "expected an engine of version {}, found {version}; build program and engine from one source",
                env!("CARGO_PKG_VERSION")
            ));
        }
        Ok(())
    }

    /// What it computes on.
    pub fn id(&self) -> String {
        // SAFETY: checked not to be NULL; the contract says NUL-terminated.
        unsafe { CStr::from_ptr(self.record.id) }.to_string_lossy().into_owned()
    }

    /// Its version.
    pub fn version(&self) -> String {
        // SAFETY: as for the id.
        unsafe { CStr::from_ptr(self.record.version) }.to_string_lossy().into_owned()
    }

    /// The engine's host table, which lives until the process ends.
    pub fn host(&self) -> *const et_host {
        self.record.host
    }

    /// Starts it on a device. Errors: `Open` with the engine's reason.
    pub fn open(
        &self,
        device: u32,
        precision: EnginePrecision,
        threads: Option<usize>,
    ) -> Result<(), EngineError> {
        let threads = threads.map_or_else(String::new, |number| format!(", \"threads\": {number}"));
        let options = format!("{{\"precision\": \"{}\"{threads}}}", precision.name());
        let text = et_str { ptr: options.as_ptr().cast(), len: options.len() };
        let Some(open) = self.record.open else { return Ok(()) };
        // SAFETY: the options are readable for the call, and the error is this engine's.
        unsafe { self.take(open(device as i32, text)) }.map_err(EngineError::Open)
    }

    /// Adds a table to those that the engine's `get_interface` finds.
    ///
    /// # Safety
    /// `table` is a complete table of the interface `id` and lives until the process ends.
    pub unsafe fn provide(&self, id: &str, table: *const c_void) {
        // An id holds no NUL; one that did would be found by nobody.
        if let (Some(provide), Ok(id)) = (self.record.provide, CString::new(id)) {
            // SAFETY: the id is NUL-terminated, and the table is what this function demands.
            unsafe { provide(id.as_ptr(), table) };
        }
    }

    /// What it did so far, as JSON. Errors: `Open` with the engine's reason.
    pub fn report(&self) -> Result<String, EngineError> {
        let missing = || EngineError::Open("the engine has no report".to_owned());
        let report = self.record.report.ok_or_else(missing)?;
        let mut buffer: *mut et_buffer = std::ptr::null_mut();
        // SAFETY: the host table is complete and the id names the type; the buffer is owned and given back once.
        unsafe {
            self.take(report(&mut buffer)).map_err(EngineError::Open)?;
            let host = &*self.record.host;
            let get = host.get_interface.ok_or_else(missing)?;
            let data = get(host, c"et.data/1".as_ptr()).cast::<et_host_data>().as_ref();
            let data = data.ok_or_else(missing)?;
            let (Some(bytes), Some(size), Some(release)) =
                (data.buffer_data, data.buffer_size, data.buffer_release)
            else {
                return Err(missing());
            };
            let text = std::slice::from_raw_parts(bytes(buffer).cast::<u8>(), size(buffer));
            let text = String::from_utf8_lossy(text).into_owned();
            release(buffer);
            Ok(text)
        }
    }

    /// The text of an error, which is given back.
    ///
    /// # Safety
    /// `error` is NULL or an owned error of this engine.
    unsafe fn take(&self, error: *mut et_error) -> Result<(), String> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the host table lives until the process ends; the error is read, then given back once.
        unsafe {
            let host = &*self.record.host;
            let text = match host.error_message {
                Some(message) => {
                    let text = message(error);
                    if text.len == 0 {
                        String::new()
                    } else {
                        let bytes = std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len);
                        String::from_utf8_lossy(bytes).into_owned()
                    }
                }
                None => "an error without a message".to_owned(),
            };
            if let Some(release) = host.error_release {
                release(error);
            }
            Err(text)
        }
    }
}
