//! What works: loading, looking up, lazily loading, twins, static registration, shutting down.

use easytransfer_abi::{
    ET_ABI_MAJOR, ET_ABI_MINOR, ET_ERR_PANIC, ET_PLUGIN_MAGIC, et_error, et_host, et_plugin_loss,
    et_plugin_record, et_str,
};
use easytransfer_faults::{ManifestText, Workshop, error_text, host};
use easytransfer_loader::{Component, ComponentKind, LoadError, Registry, SearchPath};
use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn workshop(name: &str) -> Workshop {
    Workshop::new(env!("CARGO_TARGET_TMPDIR"), name)
}

fn registry() -> Registry {
    // SAFETY: the host's table is static and complete.
    unsafe { Registry::new(host()) }
}

fn twin(id: &'static str, losses: &'static [&'static str]) -> ManifestText {
    ManifestText { id, losses, ..ManifestText::default() }
}

/// Calls `create` of a loss with empty options.
fn create(component: &Component) -> Result<*mut c_void, (i32, String)> {
    assert_eq!(component.kind, ComponentKind::Loss);
    let empty = et_str { ptr: std::ptr::null(), len: 0 };
    let mut out = null_mut();
    // SAFETY: the loader checked the table; the out pointer is valid.
    unsafe {
        let table = &*component.table.cast::<et_plugin_loss>();
        match error_text(table.create.unwrap()(empty, &mut out)) {
            None => Ok(out),
            Some(error) => Err(error),
        }
    }
}

#[test]
fn a_good_plugin_loads_once() {
    let folder = workshop("good");
    let registry = registry();
    let manifest = folder.plugin("good.c", &ManifestText::default());
    let report = registry.load_path(folder.folder()).expect("good");
    assert_eq!((report.plugin_id.as_str(), report.already_loaded), ("loss-under-test", false));
    assert!(report.warnings.is_empty());
    assert!(registry.load_path(&manifest).expect("again").already_loaded);
    assert_eq!(registry.plugins().len(), 1);
    let component = registry.lookup(ComponentKind::Loss, "under-test").expect("registered");
    assert_eq!((component.schema.as_str(), component.plugin_version.as_str()), ("{}", "1.2.3"));
    // `init` was called exactly once: an instance points to the number of inits less shutdowns.
    let running = create(&component).expect("works").cast::<i32>();
    // SAFETY: a static of the plugin, and nobody writes to it now.
    assert_eq!(unsafe { *running }, 1);
    registry.shutdown();
    // SAFETY: as above; the library stays open.
    assert_eq!(unsafe { *running }, 0);
    assert!(registry.list().is_empty() && registry.plugins().is_empty());
    // A component that somebody kept can still be called: its library is never closed.
    assert!(create(&component).is_ok());
    assert!(
        registry.lookup(ComponentKind::Loss, "under-test").is_err(),
        "a plugin that was shut down"
    );
}

#[test]
fn twins_with_the_same_inner_symbols() {
    let folder = workshop("twins");
    let registry = registry();
    registry
        .load_path(&folder.plugin("twin_one.c", &twin("twin-one", &["twin-one"])))
        .expect("one");
    registry
        .load_path(&folder.plugin("twin_two.c", &twin("twin-two", &["twin-two"])))
        .expect("two");
    for (name, value) in [("twin-one", 1), ("twin-two", 2), ("twin-one", 1)] {
        let component = registry.lookup(ComponentKind::Loss, name).expect("registered");
        let held = create(&component).expect("works").cast::<i32>();
        // SAFETY: the twins return the address of a static number.
        assert_eq!(unsafe { *held }, value, "{name} called the other's function");
    }
}

#[test]
fn an_exception_in_a_callback_is_an_error() {
    let folder = workshop("throws");
    let registry = registry();
    let manifest = folder.plugin("throws_in_create.cpp", &ManifestText::default());
    registry.load_path(&manifest).expect("loads");
    let component = registry.lookup(ComponentKind::Loss, "under-test").expect("registered");
    for _ in 0..2 {
        let expected = (ET_ERR_PANIC, "no options were given".to_owned());
        assert_eq!(create(&component), Err(expected));
    }
}

#[test]
fn panic_abort_is_a_warning() {
    let folder = workshop("abort");
    let manifest = folder.plugin("panic_abort.c", &ManifestText::default());
    let report = registry().load_path(&manifest).expect("loads");
    assert_eq!(report.warnings.len(), 1);
    assert!(report.warnings[0].contains("panic = abort"), "{:?}", report.warnings);
    assert!(report.warnings[0].contains("loss-under-test"), "{:?}", report.warnings);
}

#[test]
fn lookup_loads_what_was_discovered() {
    let folder = workshop("lazy");
    folder.plugin("twin_one.c", &twin("twin-one", &["twin-one"]));
    folder.plugin("twin_two.c", &twin("twin-two", &["twin-two"]));
    folder.plugin("failing_init.c", &ManifestText::default());
    let registry = registry();
    let listings = registry.discover(&SearchPath::only(&[folder.folder().to_path_buf()]));
    assert_eq!(listings.len(), 3);
    assert!(registry.plugins().is_empty(), "listing opened a library");
    registry.lookup(ComponentKind::Loss, "twin-two").expect("loads lazily");
    assert_eq!(registry.plugins().len(), 1);
    // A provider that fails is an error of its own, not "no such loss".
    let error = registry.lookup(ComponentKind::Loss, "under-test").expect_err("its init fails");
    assert!(matches!(error, LoadError::Init { .. }), "{error}");
    let text = registry.lookup(ComponentKind::Loss, "twin-tow").expect_err("a slip").to_string();
    assert!(text.contains("did you mean \"twin-two\"?"), "{text}");
    assert!(text.contains("loaded plugins: twin-two"), "{text}");
    let text = registry.lookup(ComponentKind::Model, "twin-two").expect_err("no model").to_string();
    assert!(text.contains("no model has this name"), "{text}");
}

#[test]
fn threads_that_look_up_load_once() {
    let folder = workshop("threads");
    folder.plugin("good.c", &ManifestText::default());
    let registry = Arc::new(registry());
    registry.discover(&SearchPath::only(&[folder.folder().to_path_buf()]));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let registry = Arc::clone(&registry);
            std::thread::spawn(move || {
                registry.lookup(ComponentKind::Loss, "under-test").map(|c| c.name)
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), Ok("under-test".to_owned()));
    }
    let component = registry.lookup(ComponentKind::Loss, "under-test").expect("registered");
    let running = create(&component).expect("works").cast::<i32>();
    // SAFETY: a static of the plugin, and nobody writes to it now.
    assert_eq!(unsafe { *running }, 1, "init ran more than once");
}

static INITS: AtomicUsize = AtomicUsize::new(0);
static SHUTDOWNS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count_init(_host: *const et_host) -> *mut et_error {
    INITS.fetch_add(1, Ordering::SeqCst);
    null_mut()
}

unsafe extern "C" fn count_shutdown() {
    SHUTDOWNS.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn no_create(_options: et_str, _out: *mut *mut c_void) -> *mut et_error {
    null_mut()
}

unsafe extern "C" fn no_release(_instance: *mut c_void) {}

/// The first loss is complete, the second lacks `forward`.
unsafe extern "C" fn second_is_broken(kind: *const c_char, index: usize) -> *const c_void {
    unsafe extern "C" fn forward(
        _: *mut c_void,
        _: *const easytransfer_abi::et_call,
        _: *const easytransfer_abi::et_map,
        _: *const easytransfer_abi::et_map,
        _: *mut *mut easytransfer_abi::et_tensor,
    ) -> *mut et_error {
        null_mut()
    }
    struct Tables([et_plugin_loss; 2]);
    // SAFETY: functions and static texts only, never written.
    unsafe impl Sync for Tables {}
    const fn loss(name: *const c_char, complete: bool) -> et_plugin_loss {
        et_plugin_loss {
            struct_size: size_of::<et_plugin_loss>(),
            name,
            schema: c"{}".as_ptr(),
            create: Some(no_create),
            forward: if complete { Some(forward) } else { None },
            release: Some(no_release),
            rows: None,
            weight: None,
        }
    }
    static TABLES: Tables = Tables([loss(c"whole".as_ptr(), true), loss(c"half".as_ptr(), false)]);
    // SAFETY: the loader passes a NUL-terminated kind.
    if unsafe { std::ffi::CStr::from_ptr(kind) } != c"et.loss/1" {
        return std::ptr::null();
    }
    TABLES.0.get(index).map_or(std::ptr::null(), |table| (&raw const *table).cast())
}

unsafe extern "C" fn nothing(_kind: *const c_char, _index: usize) -> *const c_void {
    std::ptr::null()
}

fn record(
    id: &'static std::ffi::CStr,
    component: unsafe extern "C" fn(*const c_char, usize) -> *const c_void,
) -> &'static et_plugin_record {
    Box::leak(Box::new(et_plugin_record {
        magic: ET_PLUGIN_MAGIC,
        abi_major: ET_ABI_MAJOR,
        abi_minor: ET_ABI_MINOR,
        struct_size: size_of::<et_plugin_record>(),
        flags: 0,
        reserved: 0,
        id: id.as_ptr(),
        version: c"0.1.0".as_ptr(),
        init: Some(count_init),
        shutdown: Some(count_shutdown),
        component: Some(component),
    }))
}

/// One test for all that counts inits and shutdowns, because the counters are shared.
#[test]
fn static_registration_and_a_half_failed_one() {
    let registry = registry();
    let good = record(c"linked", nothing);
    // SAFETY: leaked records live for ever.
    let report = unsafe { registry.register_static(good) }.expect("good");
    assert_eq!((report.plugin_id.as_str(), report.already_loaded), ("linked", false));
    // SAFETY: as above.
    assert!(unsafe { registry.register_static(good) }.expect("again").already_loaded);
    // SAFETY: as above.
    let error = unsafe { registry.register_static(record(c"linked", nothing)) }.expect_err("id");
    assert!(matches!(error, LoadError::Duplicate(_)), "{error}");
    assert_eq!((INITS.load(Ordering::SeqCst), SHUTDOWNS.load(Ordering::SeqCst)), (1, 0));

    // SAFETY: as above.
    let error = unsafe { registry.register_static(record(c"half-broken", second_is_broken)) }
        .expect_err("its second loss is broken");
    let text = error.to_string();
    assert!(text.contains("plugin \"half-broken\" ((linked in))"), "{text}");
    assert!(text.contains("et_plugin_loss.forward"), "{text}");
    assert!(
        registry.lookup(ComponentKind::Loss, "whole").is_err(),
        "half of a plugin was registered"
    );
    assert_eq!((registry.list().len(), registry.plugins().len()), (0, 1));
    assert_eq!((INITS.load(Ordering::SeqCst), SHUTDOWNS.load(Ordering::SeqCst)), (2, 1));

    registry.shutdown();
    registry.shutdown();
    assert_eq!((INITS.load(Ordering::SeqCst), SHUTDOWNS.load(Ordering::SeqCst)), (2, 2));
    // SAFETY: NULL is allowed.
    let error = unsafe { registry.register_static(std::ptr::null()) }.expect_err("NULL");
    assert!(matches!(error, LoadError::Entry(_)), "{error}");
}

/// What `init` of a plugin was told when it looked for another one.
static TOLD: std::sync::OnceLock<(i32, String)> = std::sync::OnceLock::new();
static ASKED: std::sync::OnceLock<Registry> = std::sync::OnceLock::new();

unsafe extern "C" fn ask_too_early(_host: *const et_host) -> *mut et_error {
    let asked = ASKED.get().and_then(|registry| registry.lookup(ComponentKind::Loss, "late").err());
    if let Some(error) = asked {
        let _ = TOLD.set((error.code(), error.to_string()));
    }
    null_mut()
}

#[test]
fn a_plugin_that_loads_others_while_it_is_loaded_is_told_so() {
    let folder = workshop("early");
    // Nobody gets as far as its library.
    std::fs::write(folder.folder().join("late.so"), "").unwrap();
    folder.manifest(&twin("late", &["late"]), "late.so");
    let registry = ASKED.get_or_init(registry);
    registry.discover(&SearchPath::only(&[folder.folder().to_path_buf()]));
    let early = Box::leak(Box::new(et_plugin_record {
        init: Some(ask_too_early),
        shutdown: None,
        ..*record(c"early", nothing)
    }));
    // SAFETY: leaked records live for ever.
    unsafe { registry.register_static(early) }.expect("it is loaded all the same");
    let (code, text) = TOLD.get().expect("it was told");
    assert_eq!(*code, easytransfer_abi::ET_ERR_FAILED_PRECONDITION);
    assert!(text.contains("plugin \"late\"") && text.contains("init"), "{text}");
    assert_eq!(registry.plugins().len(), 1);
}
