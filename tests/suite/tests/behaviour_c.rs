//! The behaviour suite through the C library.

use easytransfer_tests::c_face::CFace;

const WAY: &str = "c";

fn face() -> CFace {
    CFace::new()
}

include!("behaviour/mod.rs");
