//! A plugin of today on an older host: every table of the engine is cut after each of its slots in turn, and behind
//! the cut lies memory that cannot be read. The plugin works with what is there or says what it lacks.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use easytransfer::plugin::abi::{
    ET_ERR_NOT_FOUND, ET_ERR_UNIMPLEMENTED, et_call, et_error, et_host, et_plugin_loss, et_str,
};
use easytransfer::plugin::{Map, Tensor, live_handles};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_loader::{ComponentKind, Registry};
use easytransfer_tests::hosts::{Scratch, build_plugin, install_loss};
use easytransfer_tests::places;

/// The interfaces of the engine.
const INTERFACES: [&CStr; 10] = [
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
];

/// What the older host answers for one interface.
struct Cut {
    id: CString,
    table: usize,
}

/// The present cut; the other interfaces are those of today.
static CUT: Mutex<Option<Cut>> = Mutex::new(None);

fn engine() -> &'static et_host {
    // SAFETY: the engine's table lives until the process ends.
    unsafe { &*easytransfer::host() }
}

unsafe extern "C" fn get_interface(_: *const et_host, id: *const c_char) -> *const c_void {
    // SAFETY: plugins pass NUL-terminated ids.
    let wanted = unsafe { CStr::from_ptr(id) };
    if let Some(cut) = &*CUT.lock().unwrap()
        && cut.id.as_c_str() == wanted
    {
        return cut.table as *const c_void;
    }
    // SAFETY: the engine's table is filled.
    unsafe { engine().get_interface.unwrap()(engine(), id) }
}

/// An older host. It lives until the process ends, as plugins may expect.
fn old_host() -> &'static et_host {
    Box::leak(Box::new(et_host {
        struct_size: size_of::<et_host>(),
        get_interface: Some(get_interface),
        ..*engine()
    }))
}

/// The first `size` bytes of a table, which then states that size, at the end of a page behind which nothing can be
/// read.
fn cut_table(table: *const c_void, size: usize) -> usize {
    // SAFETY: the memory is new; the copy ends where the second page, which nobody may touch, begins.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let memory = libc::mmap(null_mut(), 2 * page, protection, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(memory.byte_add(page), page, libc::PROT_NONE), 0);
        let copy = memory.byte_add(page - size);
        std::ptr::copy_nonoverlapping(table.cast::<u8>(), copy.cast(), size);
        copy.cast::<usize>().write(size);
        copy as usize
    }
}

/// Code and message of an error, which is given back.
fn taken(error: *mut et_error) -> Result<(), (i32, String)> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a live error of the engine, released once after its message was copied.
    unsafe {
        let code = engine().error_code.unwrap()(error);
        let text = engine().error_message.unwrap()(error);
        let text = std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len);
        let text = String::from_utf8_lossy(text).into_owned();
        engine().error_release.unwrap()(error);
        Err((code, text))
    }
}

/// Loads the plugin of a folder on `host` and computes its loss. Errors: code and message, the code 0 when the loader
/// refused.
fn loss(
    host: &et_host,
    folder: &Path,
    name: &str,
    outputs: &Map,
    batch: &Map,
) -> Result<f64, (i32, String)> {
    // SAFETY: the host's table lives until the process ends.
    let registry = unsafe { Registry::new(host) };
    registry.load_path(folder).map_err(|error| (0, error.to_string()))?;
    let component =
        registry.lookup(ComponentKind::Loss, name).map_err(|error| (0, error.to_string()))?;
    let options = et_str { ptr: null(), len: 0 };
    let call = et_call { struct_size: size_of::<et_call>(), training: 0, want: 0, rng: null_mut() };
    // SAFETY: the loader checked the table; handles are live, outs are local, and the instance is released once.
    unsafe {
        let table = &*component.table.cast::<et_plugin_loss>();
        let (mut instance, mut out) = (null_mut(), null_mut());
        taken(table.create.unwrap()(options, &mut instance))?;
        let (outputs, batch) = (outputs.as_raw(), batch.as_raw());
        let result = taken(table.forward.unwrap()(instance, &call, outputs, batch, &mut out));
        table.release.unwrap()(instance);
        result?;
        Ok(Tensor::from_raw(out).unwrap().to_scalar().unwrap())
    }
}

/// The plugins: name of the loss, and a folder with library and manifest.
fn plugins(scratch: &Scratch) -> Vec<(&'static str, PathBuf)> {
    let outsiders = places::root().join("tests/outsiders");
    let requires = ["et.tensor/1", "et.data/1"];
    let mut plugins = vec![("cross-entropy", places::staged().join("plugins/loss-basic"))];
    for (name, source) in [("outsider-c", "c/loss.c"), ("outsider-cpp", "cpp/loss.cpp")] {
        let library = format!("lib{}.so", name.replace('-', "_"));
        let library = build_plugin(scratch.path(), &outsiders.join(source), &library);
        let folder = install_loss(&scratch.path().join("built"), name, &requires, &library);
        plugins.push((name, folder.join(name)));
    }
    plugins
}

/// A copy of a plugin's folder: another file is another library with statics of its own, so it meets its host for the
/// first time.
fn fresh(scratch: &Scratch, folder: &Path, index: usize) -> PathBuf {
    let copy = scratch.path().join(format!("copy-{index}"));
    fs::create_dir_all(&copy).unwrap();
    for file in fs::read_dir(folder).unwrap().flatten() {
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    copy
}

#[test]
fn plugins_use_what_an_older_host_has_or_say_what_it_lacks() {
    let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
    let _runtime = Runtime::new(options).unwrap();
    let scratch = Scratch::new("old-host");
    let host = old_host();
    let (mut outputs, mut batch) = (Map::new().unwrap(), Map::new().unwrap());
    let logits = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.0, 0.25, -0.5], &[2, 3]).unwrap();
    outputs.put("logits", &logits).unwrap();
    batch.put("labels", &Tensor::from_slice(&[2i64, 0], &[2]).unwrap()).unwrap();
    let mut copies = 0;
    for (name, folder) in plugins(&scratch) {
        let mut run = |cut: Option<Cut>| {
            *CUT.lock().unwrap() = cut;
            copies += 1;
            let copy = fresh(&scratch, &folder, copies);
            let result = loss(host, &copy, name, &outputs, &batch);
            fs::remove_dir_all(copy).unwrap();
            result
        };
        let whole = run(None).unwrap_or_else(|error| panic!("{name} on a whole host: {error:?}"));
        assert!(whole.is_finite() && whole > 0.0, "{name}: {whole}");
        let (mut works, mut lacks) = (0, 0);
        for id in INTERFACES {
            // SAFETY: the engine's table is filled, and every table begins with its size.
            let (table, size) = unsafe {
                let table = engine().get_interface.unwrap()(engine(), id.as_ptr());
                (table, *table.cast::<usize>())
            };
            // A size of 0 stands for a host without the interface.
            for size in (0..=size).step_by(size_of::<usize>()) {
                let cut = if size == 0 { 0 } else { cut_table(table, size) };
                let before = live_handles();
                let result = run(Some(Cut { id: id.to_owned(), table: cut }));
                let what = format!("{name} with {size} bytes of {id:?}");
                match result {
                    Ok(value) => {
                        assert_eq!(value.to_bits(), whole.to_bits(), "{what}");
                        works += 1;
                    }
                    Err((code, text)) => {
                        let codes = [0, ET_ERR_UNIMPLEMENTED, ET_ERR_NOT_FOUND];
                        assert!(codes.contains(&code), "{what}: error {code}: {text}");
                        let names_it = ["host", "need"].iter().any(|part| text.contains(part));
                        assert!(names_it, "{what}: {text}");
                        lacks += 1;
                    }
                }
                // A host that cannot take tensors, maps or options back keeps those that it made.
                let gives = [c"et.tensor/1", c"et.data/1", c"et.config/1"];
                let releases = size >= 3 * size_of::<usize>() || !gives.contains(&id);
                if releases {
                    assert_eq!(live_handles(), before, "{what} left handles behind");
                }
            }
            // The whole table, as a copy, is no older host.
            assert!(works > 0, "{name} does not work with all of {id:?}");
        }
        assert!(lacks > 20 && works > 20, "{name}: {works} cuts work and {lacks} do not");
    }
    *CUT.lock().unwrap() = None;
}
