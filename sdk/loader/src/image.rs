//! What this code is part of: a shared library or the program, and whether that program has a dynamic linker.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What opening a library needs.
pub(crate) const NEEDS_LINKER: &str = "a program that the dynamic linker started";
/// What stands in the way of it.
pub(crate) const FULLY_STATIC: &str = "one that was linked with `-static`, whose C library would be another one than that of the plugins";

/// The folder of the shared library that this code was loaded with (`libeasytransfer.so`, or a library of somebody
/// else that contains it), links followed; `None` where it is part of the program.
pub(crate) fn library_folder() -> Option<&'static Path> {
    // Asked once: the linker may know the library by a path that is relative to the folder of the start.
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| Some(library_file()?.parent()?.to_path_buf())).as_deref()
}

#[cfg(unix)]
fn library_file() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    static HERE: u8 = 0;
    let ours = image_of(std::ptr::from_ref(&HERE).cast())?;
    if program_header().and_then(image_of).is_some_and(|program| program.base == ours.base) {
        return None;
    }
    let name = Path::new(std::ffi::OsStr::from_bytes(ours.name.to_bytes()));
    let file = name.canonicalize().ok()?;
    // Where the program's header cannot be asked for, its file tells.
    let program = std::env::current_exe().and_then(|program| program.canonicalize()).ok();
    (program.as_ref() != Some(&file)).then_some(file)
}

#[cfg(not(unix))]
fn library_file() -> Option<PathBuf> {
    None
}

/// A program or library in memory.
#[cfg(unix)]
struct Image {
    base: *mut libc::c_void,
    /// As the dynamic linker knows it: a path, for the program itself whatever it was called.
    name: &'static std::ffi::CStr,
}

/// The image that an address lies in.
#[cfg(unix)]
fn image_of(address: *const libc::c_void) -> Option<Image> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is only looked up, and the answer has room.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) } != 0;
    // SAFETY: all zeros are a valid value, too.
    let info = unsafe { info.assume_init() };
    if !found || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the linker's NUL-terminated name of an image that stays, since its code is running.
    let name = unsafe { std::ffi::CStr::from_ptr(info.dli_fname) };
    Some(Image { base: info.dli_fbase, name })
}

/// An address within the program itself: its program headers, of which the kernel tells.
#[cfg(all(unix, target_os = "linux"))]
fn program_header() -> Option<*const libc::c_void> {
    // SAFETY: a number of the kernel's, 0 where it is not known.
    let address = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    (address != 0).then(|| std::ptr::with_exposed_provenance(address))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn program_header() -> Option<*const libc::c_void> {
    None
}

/// Whether the program was linked with `-static`: it names no interpreter, so no dynamic linker came with it. Opening
/// a library there brings a second C library into the process, and ends in a crash.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) fn is_static() -> bool {
    let Some(first) = program_header() else { return false };
    // SAFETY: numbers of the kernel's, 0 where they are not known.
    let (count, size) =
        unsafe { (libc::getauxval(libc::AT_PHNUM), libc::getauxval(libc::AT_PHENT)) };
    if count == 0 || size as usize != size_of::<libc::Elf64_Phdr>() {
        return false;
    }
    // SAFETY: the kernel says how many headers of this size lie there; they stay as long as the program does.
    let headers =
        unsafe { std::slice::from_raw_parts(first.cast::<libc::Elf64_Phdr>(), count as usize) };
    headers.iter().all(|header| header.p_type != libc::PT_INTERP)
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(crate) fn is_static() -> bool {
    false
}

#[cfg(test)]
mod tests {
    /// A test is a program of its own with this code linked in.
    #[test]
    fn code_of_a_program_belongs_to_no_library() {
        assert_eq!(super::library_folder(), None);
        assert!(!super::is_static());
    }
}
