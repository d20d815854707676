//! The behaviour suite with loaded plugins on a loaded engine: the CPU engine as a library of its own, or the engine
//! that `ET_TEST_ENGINE` names. Plugins and trainer must not notice.

use easytransfer::{Device, Runtime, RuntimeOptions};
use easytransfer_tests::face::RustFace;
use easytransfer_tests::places::staged;

const WAY: &str = "engine";

fn face() -> RustFace {
    let engine = match std::env::var_os("ET_TEST_ENGINE") {
        Some(path) => path.into(),
        None => staged().join(format!(
            "{}easytransfer_engine{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        )),
    };
    let options = RuntimeOptions {
        plugins: vec![staged().join("plugins")],
        only_these: true,
        device: Device::Library(engine),
        ..RuntimeOptions::default()
    };
    RustFace(Runtime::new(options).expect("the engine starts"))
}

include!("behaviour/mod.rs");

#[test]
fn a_process_keeps_its_engine() {
    let _ = face();
    let other = RuntimeOptions { device: Device::Cpu, ..RuntimeOptions::default() };
    let error = Runtime::new(other).err().expect("refused").to_string();
    assert!(error.contains("one process has one engine"), "{error}");
    let same = RuntimeOptions { device: Device::Auto, ..RuntimeOptions::default() };
    assert!(Runtime::new(same).is_ok());
    assert!(easytransfer::engine_report().expect("a loaded engine reports").contains("device"));
}

#[test]
fn messages_of_a_loaded_engine_come_to_the_program() {
    let _ = face();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let copy = seen.clone();
    let callback = move |level, target: &str, message: &str| {
        if message.contains("no-such-key-here") {
            copy.lock().unwrap().push((level, target.to_owned(), message.to_owned()));
        }
    };
    easytransfer::on_log(Some(Box::new(callback))).expect("nobody is in a callback");
    // What a plugin says goes to the engine's table, and what the engine says itself begins there.
    easytransfer::plugin::log(easytransfer::LogLevel::Warn, "somebody", "no-such-key-here");
    let json = r#"{"version": "1.0", "no-such-key-here": 1, "added_tokens": [], "model":
        {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;
    // Whether it is a tokenizer then is no matter of this test.
    let _ = easytransfer::Tokenizer::from_json(json);
    easytransfer::on_log(None).expect("nobody is in a callback");
    easytransfer::plugin::log(easytransfer::LogLevel::Warn, "somebody", "no-such-key-here");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].0 == easytransfer::LogLevel::Warn && seen[0].1 == "somebody", "{seen:?}");
    assert_eq!(seen[1].1, "engine", "{seen:?}");
}
