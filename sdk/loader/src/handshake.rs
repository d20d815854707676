//! The handshake: what is checked before a plugin's code may register anything.

use crate::component::ComponentFn;
use crate::error::{Facts, LoadError};
use crate::fields::{Fields, name};
use crate::manifest::PluginManifest;
use easytransfer_abi as abi;
use easytransfer_abi::{et_error, et_host, et_plugin_record};
use std::ffi::CString;
use std::mem::offset_of;
use std::path::PathBuf;

/// Which plugin a message is about.
pub(crate) struct LibraryOrigin {
    pub id: String,
    pub file: PathBuf,
}

/// The host's table with the few calls that loading needs.
pub(crate) struct Host(*const et_host);

// SAFETY: the table is immutable, lives until the process ends, and the slots used here are [any-thread].
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// # Safety
    /// `host` points to a filled table of this version that lives until the process ends.
    pub unsafe fn new(host: *const et_host) -> Host {
        Host(host)
    }

    fn table(&self) -> &et_host {
        // SAFETY: promised to `new`.
        unsafe { &*self.0 }
    }

    fn has_interface(&self, id: &str) -> bool {
        let (Some(get), Ok(id)) = (self.table().get_interface, CString::new(id)) else {
            return false;
        };
        // SAFETY: the slot of a filled table with its own address and a NUL-terminated id.
        !unsafe { get(self.0, id.as_ptr()) }.is_null()
    }

    /// Code and message of an error, which is given back. NULL is None.
    fn take_error(&self, error: *mut et_error) -> Option<(i32, String)> {
        if error.is_null() {
            return None;
        }
        let host = self.table();
        let mut message = "(no message)".to_owned();
        let mut code = abi::ET_ERR_UNKNOWN;
        // SAFETY: slots of a filled table; the error is one owned reference, given back once, after its last use.
        unsafe {
            if let Some(read) = host.error_code {
                code = read(error);
            }
            if let Some(read) = host.error_message {
                let text = read(error);
                if !text.ptr.is_null() && text.len > 0 {
                    let bytes = std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len);
                    message = String::from_utf8_lossy(bytes).into_owned();
                }
            }
            if let Some(release) = host.error_release {
                release(error);
            }
        }
        Some((code, message))
    }

    /// Can this host serve the plugin of a manifest? Looks at nothing but the manifest. Errors: `Abi`, `Interface`.
    pub fn check_manifest(&self, manifest: &PluginManifest) -> Result<(), LoadError> {
        let origin = LibraryOrigin { id: manifest.id.clone(), file: manifest.path.clone() };
        self.check_version(&origin, manifest.abi_major, manifest.abi_minor)?;
        let missing: Vec<&str> = manifest
            .requires
            .iter()
            .map(String::as_str)
            .filter(|id| !self.has_interface(id))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(LoadError::Interface(Facts::boxed(
            origin.id,
            &origin.file,
            "the host lacks an interface that the plugin requires",
            missing.join(", "),
            format!("a host {} without it", self.version()),
            "use a host or an engine that offers it, or a version of the plugin that does without",
        )))
    }

    fn version(&self) -> String {
        format!("abi {}.{}", self.table().abi_major, self.table().abi_minor)
    }

    fn check_version(
        &self,
        origin: &LibraryOrigin,
        major: u32,
        minor: u32,
    ) -> Result<(), LoadError> {
        let host = self.table();
        let (problem, required, remedy) = if major != host.abi_major {
            (
                "the plugin was built for another major version of the boundary",
                format!("abi {}.x", host.abi_major),
                "rebuild the plugin against this host's header, or use the host it was built for",
            )
        } else if minor > host.abi_minor {
            (
                "the plugin needs a newer host",
                format!("at most {}", self.version()),
                "update the host, or use an older version of the plugin",
            )
        } else {
            return Ok(());
        };
        let found = format!("abi {major}.{minor}");
        Err(LoadError::Abi(Facts::boxed(
            &origin.id,
            &origin.file,
            problem,
            required,
            found,
            remedy,
        )))
    }
}

/// A record that passed all checks.
pub(crate) struct EntryRecord {
    pub id: String,
    pub version: String,
    pub flags: u32,
    init: unsafe extern "C" fn(*const et_host) -> *mut et_error,
    pub shutdown: Option<unsafe extern "C" fn()>,
    pub component: ComponentFn,
}

impl EntryRecord {
    /// Reads a record, field by field in the order that makes the next one trustworthy. Errors: `Abi`, `Identity`.
    ///
    /// # Safety
    /// `record` is not NULL and points to what a plugin gave as its record: at least 8 readable bytes, and a true
    /// record if these hold the magic number and the version fits.
    pub unsafe fn read(
        host: &Host,
        record: *const et_plugin_record,
        origin: &LibraryOrigin,
        manifest: Option<&PluginManifest>,
    ) -> Result<EntryRecord, LoadError> {
        let author = "report this to the plugin's author";
        let abi_error = |problem: &str, required: String, found: String| {
            LoadError::Abi(Facts::boxed(&origin.id, &origin.file, problem, required, found, author))
        };
        if !record.is_aligned() {
            let required = format!("an address that {} divides", align_of::<et_plugin_record>());
            return Err(abi_error("the record is not aligned", required, format!("{record:p}")));
        }
        // SAFETY: the first eight bytes are readable, by the caller's promise.
        let magic = unsafe { (&raw const (*record).magic).read() };
        if magic != abi::ET_PLUGIN_MAGIC {
            return Err(abi_error(
                "the record does not begin as a plugin's record does",
                format!("magic {:#018x}", abi::ET_PLUGIN_MAGIC),
                format!("magic {magic:#018x}"),
            ));
        }
        // SAFETY: the magic number vouches for the fields up to `version`, which are frozen for all time.
        let (major, minor, size) = unsafe {
            (
                (&raw const (*record).abi_major).read(),
                (&raw const (*record).abi_minor).read(),
                (&raw const (*record).struct_size).read(),
            )
        };
        host.check_version(origin, major, minor)?;
        let needed = offset_of!(et_plugin_record, component) + size_of::<usize>();
        if size < needed {
            return Err(abi_error(
                "the record is too small",
                format!("struct_size of at least {needed}"),
                format!("struct_size {size}"),
            ));
        }
        // SAFETY: magic, version and size fit, so all fields of this version are there.
        let record = unsafe { &*record };
        if record.reserved != 0 {
            let found = format!("reserved {}", record.reserved);
            return Err(abi_error("a reserved field is used", "reserved 0".to_owned(), found));
        }
        // SAFETY: the contract says a NUL-terminated text; NULL is answered.
        let id = unsafe { name(record.id) }.map_err(|found| {
            abi_error("the record has no id", "et_plugin_record.id, a UTF-8 text".to_owned(), found)
        })?;
        // SAFETY: as above.
        let version = unsafe { name(record.version) }.map_err(|found| {
            let required = "et_plugin_record.version, a UTF-8 text".to_owned();
            abi_error("the record has no version", required, found)
        })?;
        if let Some(manifest) = manifest {
            same(origin, manifest, "id", &manifest.id, &id)?;
            same(origin, manifest, "version", &manifest.version, &version)?;
        }
        // SAFETY: `struct_size` covers every field that is read here.
        let fields = unsafe { Fields::with_size((&raw const *record).cast(), size) };
        for (slot, offset) in [
            ("init", offset_of!(et_plugin_record, init)),
            ("component", offset_of!(et_plugin_record, component)),
        ] {
            if fields.word(offset) == Some(0) {
                let required = format!("a function in et_plugin_record.{slot}");
                return Err(abi_error("the record is incomplete", required, "NULL".to_owned()));
            }
        }
        let (Some(init), Some(component)) = (record.init, record.component) else {
            unreachable!("both slots were found to be filled");
        };
        Ok(EntryRecord {
            id,
            version,
            flags: record.flags,
            init,
            shutdown: record.shutdown,
            component,
        })
    }

    /// Calls the plugin's `init`. Errors: `Init`.
    pub fn init(&self, host: &Host, origin: &LibraryOrigin) -> Result<(), LoadError> {
        // SAFETY: a checked record and a host that lives until the process ends; calls are serialised by the registry.
        let error = unsafe { (self.init)(host.0) };
        let Some((code, message)) = host.take_error(error) else {
            return Ok(());
        };
        let facts = Facts::boxed(
            &origin.id,
            &origin.file,
            "the plugin's init failed",
            "et_plugin_record.init to succeed",
            format!("{} ({code}): {message}", code_name(code)),
            "follow the plugin's message; if it gives none, report this to the plugin's author",
        );
        Err(LoadError::Init { facts, code })
    }
}

fn same(
    origin: &LibraryOrigin,
    manifest: &PluginManifest,
    key: &str,
    wanted: &str,
    found: &str,
) -> Result<(), LoadError> {
    if wanted == found {
        return Ok(());
    }
    Err(LoadError::Identity(Facts::boxed(
        &origin.id,
        &origin.file,
        format!("the library is of another {key} than its manifest says"),
        format!("{key} {wanted:?} as in {}", manifest.path.display()),
        format!("{key} {found:?}"),
        "install library and manifest of the same build together",
    )))
}

/// The name of an error code without its prefix.
fn code_name(code: i32) -> &'static str {
    match code {
        abi::ET_ERR_INVALID_ARGUMENT => "INVALID_ARGUMENT",
        abi::ET_ERR_SHAPE => "SHAPE",
        abi::ET_ERR_DTYPE => "DTYPE",
        abi::ET_ERR_NOT_FOUND => "NOT_FOUND",
        abi::ET_ERR_ALREADY_EXISTS => "ALREADY_EXISTS",
        abi::ET_ERR_UNIMPLEMENTED => "UNIMPLEMENTED",
        abi::ET_ERR_FAILED_PRECONDITION => "FAILED_PRECONDITION",
        abi::ET_ERR_PANIC => "PANIC",
        abi::ET_ERR_IO => "IO",
        abi::ET_ERR_BAD_INPUT => "BAD_INPUT",
        abi::ET_ERR_OUT_OF_MEMORY => "OUT_OF_MEMORY",
        abi::ET_ERR_CANCELLED => "CANCELLED",
        abi::ET_ERR_DEVICE => "DEVICE",
        abi::ET_ERR_BAD_HANDLE => "BAD_HANDLE",
        _ => "UNKNOWN",
    }
}
