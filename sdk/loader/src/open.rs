//! Opening a library and fetching its record. Nothing here is ever closed.

use crate::error::{Facts, LoadError};
use crate::image::{FULLY_STATIC, NEEDS_LINKER, is_static};
use crate::manifest::PluginManifest;
use crate::policy::Policy;
use crate::regular::open_regular;
use easytransfer_abi::et_plugin_record;
#[cfg(target_os = "linux")]
use std::collections::BTreeMap;
use std::io::Read;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

/// The one symbol that a plugin exports, alone or with `_` and the plugin's id behind it: several plugins that are
/// linked into one program must differ in their symbols.
const ENTRY: &str = "et_plugin_entry";

type Entry = unsafe extern "C" fn() -> *const et_plugin_record;

/// Checks the file against policy and format, opens it for the rest of the process and asks for its record.
/// Errors: `Platform`, `Path`, `Policy`, `Library`, `Entry`.
pub(crate) fn open(
    manifest: &PluginManifest,
    platform: &str,
    policy: Policy,
) -> Result<(PathBuf, *const et_plugin_record), LoadError> {
    let Some(library) = manifest.library_path(platform) else {
        return Err(LoadError::Platform(Facts::boxed(
            &manifest.id,
            &manifest.path,
            "the plugin has no library for this platform",
            format!("`{platform}` under [library]"),
            "no entry",
            format!("install a build of the plugin for {platform}"),
        )));
    };
    // The absolute path: with a bare file name the dynamic linker would search its own places.
    let unreadable = |error: std::io::Error| {
        LoadError::Path(Facts::boxed(
            &manifest.id,
            &library,
            "cannot read the library that the manifest names",
            format!("a readable file, `{platform}` under [library] of {}", manifest.path.display()),
            error.to_string(),
            "build or install the plugin, or correct the path in the manifest",
        ))
    };
    let file = library.canonicalize().map_err(unreadable)?;
    policy.check_place(&manifest.id, &manifest.path, "manifest")?;
    policy.check_place(&manifest.id, &file, "library")?;
    let (bytes, looked_at) = read(&file).map_err(unreadable)?;
    let pinned = policy.check(manifest, platform, &file, &bytes)?;
    if cfg!(target_os = "linux") {
        crate::elf::check(&bytes).map_err(|bad| {
            LoadError::Library(Facts::boxed(
                &manifest.id,
                &file,
                "the file is not a library that can be opened",
                bad.required,
                bad.found,
                bad.remedy,
            ))
        })?;
    }
    #[cfg(target_os = "linux")]
    let checked = match pinned {
        Some(hash) => pinned_entry(&manifest.id, &file, hash, &bytes)?,
        None => None,
    };
    #[cfg(not(target_os = "linux"))]
    let checked = pinned.and(None);
    let entry = match checked {
        Some(entry) => entry,
        None => {
            drop(bytes);
            let entry = entry_of(&manifest.id, &file, &file)?;
            let opened =
                std::fs::metadata(&file).map(|about| Identity::of(&about)).map_err(unreadable)?;
            if opened != looked_at {
                return Err(LoadError::Path(Facts::boxed(
                    &manifest.id,
                    &file,
                    "the library was replaced or written to while it was being loaded",
                    "the file whose format was checked",
                    "another one under its name",
                    "load it again when whoever installs it is done",
                )));
            }
            entry
        }
    };
    // SAFETY: the symbol has the type that the contract gives it; a plugin that breaks this cannot be detected.
    let record = unsafe { entry() };
    if record.is_null() {
        return Err(LoadError::Entry(Facts::boxed(
            &manifest.id,
            &file,
            "the entry function gave no record",
            "a pointer to a static et_plugin_record from et_plugin_entry",
            "NULL",
            "report this to the plugin's author",
        )));
    }
    Ok((file, record))
}

/// What tells a file from another one, and from itself after it was written to.
///
/// Where no hash is pinned the dynamic linker opens the file by its path once more, because a library that is opened
/// through a descriptor finds nothing beside itself (`$ORIGIN`) and has no name in a debugger. So a file that took the
/// checked one's place in between is noticed before its entry function is called, but after its constructors ran. Who
/// can do that might have put it there a moment earlier just as well, when it would have been taken for the right
/// one; that only trusted users can is checked before (`trust`). Where a hash is pinned, see `memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    len: u64,
    modified: Option<std::time::SystemTime>,
    /// Device, inode and the time of the last change of either content or attributes, which nobody can set.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Identity {
    fn of(about: &std::fs::Metadata) -> Identity {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Identity {
            len: about.len(),
            modified: about.modified().ok(),
            #[cfg(unix)]
            inode: (about.dev(), about.ino(), about.ctime(), about.ctime_nsec()),
        }
    }
}

/// The bytes of a file and which file they are from.
fn read(path: &Path) -> std::io::Result<(Vec<u8>, Identity)> {
    let mut file = open_regular(path)?;
    let identity = Identity::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, identity))
}

/// The entry functions of libraries that were opened from memory: opened once more they would be another library.
#[cfg(target_os = "linux")]
static FROM_MEMORY: Mutex<BTreeMap<(PathBuf, String), Entry>> = Mutex::new(BTreeMap::new());

/// The entry function of the bytes of a library, which have the hash that the manifest pins. Nothing where the system
/// gives no memory for them (no `memfd_create`, a limit on the size of files); the file is opened by its path then, and
/// must still be the one that was checked.
#[cfg(target_os = "linux")]
fn pinned_entry(
    id: &str,
    file: &Path,
    hash: String,
    bytes: &[u8],
) -> Result<Option<Entry>, LoadError> {
    let mut opened = FROM_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (file.to_path_buf(), hash);
    if let Some(entry) = opened.get(&key) {
        return Ok(Some(*entry));
    }
    let Ok(memory) = crate::memory::sealed(file, bytes) else { return Ok(None) };
    let entry = entry_of(id, file, &memory)?;
    opened.insert(key, entry);
    Ok(Some(entry))
}

/// The entry function of a library that is opened at `place`; messages are about `file`.
fn entry_of(id: &str, file: &Path, place: &Path) -> Result<Entry, LoadError> {
    if is_static() {
        return Err(LoadError::Library(Facts::boxed(
            id,
            file,
            "a fully static program cannot open libraries",
            NEEDS_LINKER,
            FULLY_STATIC,
            "link the program without `-static` (libeasytransfer.a alone may stay static), or link the plugins into it and register them",
        )));
    }
    let said = |error: &dyn std::error::Error| {
        chain(error).replace(&place.display().to_string(), &file.display().to_string())
    };
    let library = open_forever(place).map_err(|error| {
        let remedy = if place == file {
            "install the missing dependency, or rebuild the plugin so that it needs no symbol beyond its own libraries"
        } else {
            "install the missing dependency where the system looks for libraries, or link it in; since its hash is pinned the library is opened from memory, where nothing lies beside it ($ORIGIN)"
        };
        LoadError::Library(Facts::boxed(
            id,
            file,
            "the dynamic linker refused the library",
            "a library whose symbols and dependencies are all present (it is opened with RTLD_NOW)",
            said(&error),
            remedy,
        ))
    })?;
    // SAFETY: the type is the one that the contract gives this symbol.
    let found = unsafe {
        let named = || library.get::<Entry>(format!("{ENTRY}_{id}").as_bytes());
        library.get::<Entry>(ENTRY.as_bytes()).or_else(|error| named().map_err(|_| error))
    };
    match found {
        Ok(symbol) => Ok(*symbol),
        Err(error) => Err(LoadError::Entry(Facts::boxed(
            id,
            file,
            "the library is not a plugin",
            format!("the exported symbol {ENTRY}, or {ENTRY}_{id}"),
            said(&error),
            "name the plugin's library in the manifest; plugins in Rust end with `export!` of the manifest's id, those in C export et_plugin_entry",
        ))),
    }
}

/// The message of an error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(unix)]
type Library = libloading::os::unix::Library;
#[cfg(windows)]
type Library = libloading::os::windows::Library;

/// Opens a library and keeps it open: destructors and threads of a plugin, and pointers into it, outlive any attempt
/// to tell when the last one is gone.
pub(crate) fn open_forever(file: &Path) -> Result<ManuallyDrop<Library>, libloading::Error> {
    #[cfg(unix)]
    // SAFETY: runs the library's constructors. That is what loading a plugin means; the policy decided that it may.
    let library = unsafe {
        use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};
        Library::open(Some(file), RTLD_NOW | RTLD_LOCAL)
    }?;
    #[cfg(windows)]
    // SAFETY: as on Unix.
    let library = unsafe { Library::new(file) }?;
    Ok(ManuallyDrop::new(library))
}

#[cfg(test)]
mod tests {
    use super::{Identity, read};

    #[test]
    fn identity_tells_a_file_from_what_takes_its_place() {
        let folder =
            std::env::temp_dir().join(format!("easytransfer-identity-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (path, beside) = (folder.join("library.so"), folder.join("other.so"));
        let now = || Identity::of(&std::fs::metadata(&path).unwrap());
        std::fs::write(&path, b"first").unwrap();
        let (bytes, first) = read(&path).unwrap();
        assert_eq!((bytes.as_slice(), now()), (&b"first"[..], first));
        std::fs::write(&beside, b"other").unwrap();
        std::fs::rename(&beside, &path).unwrap();
        let second = now();
        assert_ne!(second, first);
        std::fs::write(&path, b"longer than before").unwrap();
        assert_ne!(now(), second);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
