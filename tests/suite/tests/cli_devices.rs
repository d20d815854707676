//! What the command says about devices, with drivers that are made up for it: which of driver, card and engine is
//! missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Outcome, run};

/// The seven functions of a driver that are asked.
const DRIVER: &str = r#"
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { (void)flags; return INIT; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; strncpy(name, "Paper Card", (size_t)size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)24 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int what, int device) { (void)device; *value = what == 75 ? MAJOR : 0; return 0; }
"#;

/// Compiles C source to a library in the place.
fn library(place: &Place, name: &str, source: &str, defines: &[String]) -> PathBuf {
    let file = place.at(name);
    place.write("library.c", source);
    let include = easytransfer_tests::places::root().join("include");
    let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
    compiler.args(["-shared", "-fPIC", "-I"]).arg(include).args(defines);
    let status = compiler.arg(place.at("library.c")).arg("-o").arg(&file).status();
    assert!(status.expect("a C compiler").success(), "{name}");
    file
}

fn driver(place: &Place, init: i32, count: i32, major: i32) {
    let defines = [("INIT", init), ("COUNT", count), ("MAJOR", major)];
    let defines = defines.map(|(name, value)| format!("-D{name}={value}"));
    library(place, "libcuda.so.1", DRIVER, &defines);
}

/// Runs the command where the dynamic linker looks into `folder` first, and engines only come from `engines`.
fn with(place: &Place, folder: &Path, engines: &Path, arguments: &[&str]) -> Outcome {
    let mut command = place.command(arguments);
    command.env("LD_LIBRARY_PATH", folder).env("ET_ENGINE_PATH", engines);
    run(&mut command, b"")
}

#[test]
#[cfg(target_os = "linux")]
fn each_thing_that_can_be_missing_is_named() {
    let place = Place::new("devices");
    let here = place.at("");
    let nowhere = place.at("nowhere");
    let list = |place: &Place| with(place, &here, &nowhere, &["device", "list"]).good("list");
    // A file that is no library hides a driver that the machine may have.
    place.write("libcuda.so.1", "no library");
    place.write("libcuda.so", "no library");
    assert!(list(&place).contains("no usable NVIDIA driver"), "{}", list(&place));
    for (init, count, major, needles) in [
        (999, 1, 9, ["NVIDIA driver", "error 999"]),
        (100, 1, 9, ["no usable card", "CUDA_VISIBLE_DEVICES"]),
        (0, 0, 9, ["no usable card", "CUDA_VISIBLE_DEVICES"]),
        (0, 1, 7, ["Paper Card", "7.0"]),
        (0, 1, 9, ["no usable CUDA engine", "libeasytransfer_engine_cuda.so"]),
    ] {
        driver(&place, init, count, major);
        let text = list(&place);
        assert!(text.starts_with("cpu"), "{text}");
        let outcome = with(&place, &here, &nowhere, &["--device", "cuda", "plugin", "list"]);
        // A machine with an installed engine, or a build with one beside the command, gets past its absence.
        let beside = easytransfer_tests::places::staged().join("libeasytransfer_engine_cuda.so");
        if (init, count, major) == (0, 1, 9) && (outcome.code == 0 || beside.exists()) {
            continue;
        }
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        for needle in needles.iter().chain(&["--device cuda:0", "--device cpu"]) {
            assert!(outcome.stderr.contains(needle), "{needle}: {}", outcome.stderr);
        }
        let outcome = with(&place, &here, &nowhere, &["--device", "auto", "plugin", "list"]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("computing on the CPU"), "{}", outcome.stderr);
        let quiet = with(&place, &here, &nowhere, &["plugin", "list"]);
        assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    }
    driver(&place, 0, 1, 9);
    let text = list(&place);
    assert!(text.contains("cuda:0\tPaper Card, 24 GiB, compute capability 9.0"), "{text}");
    let outcome = with(&place, &here, &nowhere, &["--device", "cuda:3", "plugin", "list"]);
    assert!(outcome.stderr.contains("expected device 3, found 1"), "{}", outcome.stderr);
}

#[test]
fn half_precision_needs_a_card() {
    let place = Place::new("precision");
    let outcome = place.easytransfer(&[
        "train",
        "--precision",
        "f16",
        "--app",
        "text-classify",
        "--encoder",
        "none",
        "--train",
        "none",
        "--output",
        "none",
    ]);
    assert_eq!(outcome.code, 2);
    let expected = "`--precision f16`: the CPU engine trains in f32 or bf16";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}
