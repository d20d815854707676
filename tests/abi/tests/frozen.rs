//! A plugin written against the header of every released minor version still compiles with that header, and its source still
//! compiles with today's.

use easytransfer_abi_tests::{Compiler, compile, compilers, exported, here, scratch};
use std::fs;

#[test]
fn frozen_plugins_compile_with_their_header_and_with_todays() {
    let scratch = scratch("frozen");
    let mut count = 0;
    for folder in fs::read_dir(here().join("frozen")).unwrap() {
        let folder = folder.unwrap().path();
        let source = folder.join("loss.c");
        // Without its own header beside it, the source finds today's.
        let copy = scratch.join("loss.c");
        fs::copy(&source, &copy).unwrap();
        let library = scratch.join("libfrozen-loss.so");
        for Compiler { c, .. } in compilers() {
            for file in [&source, &copy] {
                let flags = ["-std=c99", "-shared", "-fPIC", "-O2", "-fvisibility=hidden"];
                let files = [file.to_str().unwrap(), "-o", library.to_str().unwrap()];
                compile(c, &[&flags[..], &files].concat()).unwrap_or_else(|error| {
                    panic!("{}: {error}", folder.display());
                });
                assert_eq!(exported(&library), ["et_plugin_entry"]);
            }
        }
        count += 1;
    }
    assert!(count > 0, "no frozen version found");
}
