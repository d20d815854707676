//! Engine libraries that are each broken in one way, and what the loader says of them.

use easytransfer_faults::Workshop;
use easytransfer_loader::engine::{Engine, EngineError, EnginePrecision, open_library};

/// Opens `plugins/engine.c`, compiled with these definitions.
fn open(name: &str, defines: &[&str]) -> Result<Engine, EngineError> {
    let folder = Workshop::new(env!("CARGO_TARGET_TMPDIR"), &format!("engine-{name}"));
    let defines: Vec<String> = defines.iter().map(|define| format!("-D{define}")).collect();
    let file = folder.compile_with("engine.c", &format!("{name}.so"), &defines);
    open_library(&file, EnginePrecision::Bf16, None)
}

fn refusal(name: &str, defines: &[&str]) -> String {
    let version = format!("VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    let mut all = vec![version.as_str()];
    all.extend(defines);
    open(name, &all).expect_err(name).to_string()
}

#[test]
fn a_good_engine_opens_and_gets_its_options() {
    let version = format!("VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    let engine = open("good", &[&version]).expect("good");
    assert_eq!((engine.id().as_str(), engine.host().is_null()), ("paper", false));
    // SAFETY: this engine keeps nothing of what it is given.
    unsafe { engine.provide("et.test/1", std::ptr::null()) };
}

#[test]
fn broken_engines_are_refused_with_what_was_expected_and_found() {
    for (name, defines, needles) in [
        ("magic", "MAGIC=7", ["0x454e49474e455445", "0x7"]),
        ("major", "MAJOR=9", ["ABI 0", "found 9"]),
        ("short", "SIZE=24", ["bytes", "24"]),
        ("no-open", "NO_OPEN", ["open", "missing"]),
        ("no-record", "NO_RECORD", ["et_engine_entry", "NULL"]),
        ("no-symbol", "ENTRY=other_entry", ["et_engine_entry", "no engine"]),
    ] {
        let text = refusal(name, &[defines]);
        for needle in needles {
            assert!(text.contains(needle), "{name}: {needle}: {text}");
        }
        assert!(text.contains(name), "the file is named: {text}");
    }
    let text = open("version", &["VERSION=\"9.9.9\""]).expect_err("version").to_string();
    assert!(text.contains("9.9.9") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

#[test]
fn an_engine_that_does_not_start_says_why() {
    match open("refuses", &[&format!("VERSION=\"{}\"", env!("CARGO_PKG_VERSION")), "REFUSES"]) {
        Err(EngineError::Open(text)) => {
            assert!(text.contains("no paper") && text.contains("bf16"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_are_no_libraries_are_refused() {
    let folder = Workshop::new(env!("CARGO_TARGET_TMPDIR"), "engine-files");
    let missing = open_library(&folder.folder().join("missing.so"), EnginePrecision::F32, None);
    assert!(missing.expect_err("missing").to_string().contains("missing.so"));
    let text = folder.folder().join("text.so");
    std::fs::write(&text, "no library").expect("written");
    let error = open_library(&text, EnginePrecision::F32, None).expect_err("text").to_string();
    assert!(error.contains("text.so") && error.contains("ELF"), "{error}");
}
