//! A plugin written against the header of every released minor version still compiles with that header, and its source
//! still compiles with today's where a host of today takes it.

use easytransfer_abi::{ET_ABI_MAJOR, ET_ABI_MINOR, ET_ABI_MINOR_OLDEST};
use easytransfer_abi_tests::{Compiler, compile, compilers, exported, here, root, scratch};
use std::fs;

#[test]
fn frozen_plugins_compile_with_their_header_and_with_todays() {
    let scratch = scratch("frozen");
    let mut taken = 0;
    for folder in fs::read_dir(here().join("frozen")).unwrap() {
        let folder = folder.unwrap().path();
        let version = folder.file_name().unwrap().to_str().unwrap();
        let (major, minor) = version.split_once('.').unwrap();
        let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
        let is_taken = major == ET_ABI_MAJOR && minor >= ET_ABI_MINOR_OLDEST;
        taken += usize::from(is_taken);
        let source = folder.join("loss.c");
        // Without its own header beside it, the source finds today's.
        let copy = scratch.join("loss.c");
        fs::copy(&source, &copy).unwrap();
        let library = scratch.join("libfrozen-loss.so");
        let files = if is_taken { &[&source, &copy][..] } else { &[&source] };
        for Compiler { c, .. } in compilers() {
            for file in files {
                let flags = ["-std=c99", "-shared", "-fPIC", "-O2", "-fvisibility=hidden"];
                let files = [file.to_str().unwrap(), "-o", library.to_str().unwrap()];
                compile(c, &[&flags[..], &files].concat()).unwrap_or_else(|error| {
                    panic!("{}: {error}", folder.display());
                });
                assert_eq!(exported(&library), ["et_plugin_entry"]);
            }
        }
    }
    assert!(taken > 0, "no frozen version that a host of today takes");
}

#[test]
fn frozen_header_of_the_present_version_is_todays() {
    let frozen = here().join(format!("frozen/{ET_ABI_MAJOR}.{ET_ABI_MINOR}/easytransfer_plugin.h"));
    let (frozen, today) = [frozen, root().join("include/easytransfer_plugin.h")]
        .map(|path| {
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .into();
    assert!(
        frozen == today,
        "the header changed after it was frozen: run `cargo xtask freeze` if {ET_ABI_MAJOR}.{ET_ABI_MINOR} is not \
         released yet, else raise ET_ABI_MINOR first"
    );
}
