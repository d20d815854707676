//! The behaviour suite with plugins loaded from the staged libraries.

use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_tests::face::RustFace;

const WAY: &str = "loaded";

fn face() -> RustFace {
    let options = RuntimeOptions {
        plugins: vec![easytransfer_tests::places::staged().join("plugins")],
        only_these: true,
        ..RuntimeOptions::default()
    };
    RustFace(Runtime::new(options).expect("the engine starts"))
}

include!("behaviour/mod.rs");
