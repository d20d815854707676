//! The behaviour suite with plugins linked into the program.

use easytransfer_tests::face::RustFace;
use easytransfer_tests::linked;

const WAY: &str = "static";

fn face() -> RustFace {
    RustFace(linked::runtime())
}

include!("behaviour/mod.rs");
