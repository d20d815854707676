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
