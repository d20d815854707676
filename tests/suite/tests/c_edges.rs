//! The edges of `easytransfer.h` and `easytransfer.hpp` that a service meets: handles that are none any more, texts with
//! a NUL, messages of the log, the first runtime on several threads, and objects in a second library.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{
    Outcome, Scratch, build_program, command, compile, library_folder, run,
};

fn write(scratch: &Scratch, name: &str, source: &str) -> PathBuf {
    let path = scratch.path().join(name);
    fs::write(&path, source).unwrap();
    path
}

/// Builds a program and runs it with a bundle of one step, and the bundle's config.json.
fn with_bundle(name: &str, source: &str) -> Outcome {
    let place = Place::new(name);
    place.train("app", &["--set", "max_steps=1"]).good("train");
    let scratch = Scratch::new(name);
    let source = write(&scratch, name, source);
    let program = scratch.path().join("program");
    build_program(&scratch, &source, &program);
    let mut command = command(&program, &[]);
    command.env("RAYON_NUM_THREADS", "2").arg(place.at("app"));
    if name.ends_with(".c") {
        command.arg(place.read_text("app/config.json"));
    }
    run(&mut command, b"")
}

#[test]
fn handles_that_were_released_or_are_others_are_recognised() {
    let outcome = with_bundle("released.c", include_str!("hosts/released.c"));
    let said = outcome.stdout.clone();
    let stderr = outcome.stderr.clone();
    outcome.good("released");
    let lines: Vec<&str> = said.lines().collect();
    let kinds =
        ["an app, found one of an embedder", "an app, found one of an app that was released"];
    let more = ["a runtime, found one of a runtime", "predictions, found one of predictions"];
    for (line, expected) in lines.iter().zip(kinds.iter().chain(&more)) {
        assert!(line.starts_with("1 easytransfer ") && line.contains(expected), "{line}");
    }
    assert_eq!(lines.len(), 4, "{said}");
    // The last release came after the log was restored.
    assert_eq!(stderr.matches("found one of an app that was released").count(), 1, "{stderr}");
}

#[test]
fn texts_with_a_nul_options_and_the_log_in_cpp() {
    let outcome = with_bundle("texts.cpp", include_str!("hosts/texts.cpp"));
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.lines().all(|line| !line.starts_with("wrong")), "{}", outcome.stdout);
    assert_eq!(outcome.stderr.matches("error easytransfer: ").count(), 1, "{}", outcome.stderr);
}

/// Compiles C++ against the library.
fn build(scratch: &Scratch, source: &Path, output: &str, flags: &[&str]) -> PathBuf {
    let library = library_folder(scratch);
    let (library, output) = (library.to_str().unwrap().to_owned(), scratch.path().join(output));
    let rpath = format!("-Wl,-rpath,{library}");
    let from = [source.to_str().unwrap(), "-o", output.to_str().unwrap()];
    let to = ["-L", &library, "-leasytransfer", &rpath, "-pthread"];
    compile("g++", &[&["-std=c++17", "-O1", "-g"], &from[..], flags, &to].concat());
    output
}

#[test]
fn first_runtime_of_several_threads_is_no_race() {
    let scratch = Scratch::new("first-runtime");
    let probe = write(&scratch, "probe.cpp", "int main() { return 0; }\n");
    let probed = Command::new("g++")
        .args(["-fsanitize=thread", "-o", "/dev/null"])
        .arg(&probe)
        .output()
        .is_ok_and(|output| output.status.success());
    if !probed {
        println!("not run: g++ has no ThreadSanitizer here");
        return;
    }
    let source = write(&scratch, "first.cpp", include_str!("hosts/first.cpp"));
    let program = build(&scratch, &source, "first", &["-fsanitize=thread"]);
    for _ in 0..3 {
        let mut command = command(&program, &[]);
        // The library is not built for it, so what it does to memory is not judged; what the headers do is.
        command.env("TSAN_OPTIONS", "ignore_noninstrumented_modules=1 exitcode=66");
        let outcome = run(&mut command, b"");
        assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
        assert_eq!(outcome.stdout, "8 right, 0 alive\n");
    }
}

#[test]
fn second_library_says_that_it_has_not_met_the_engine() {
    let scratch = Scratch::new("second-library");
    let second = write(&scratch, "second.cpp", include_str!("hosts/second.cpp"));
    let main = write(&scratch, "main.cpp", include_str!("hosts/two_libraries.cpp"));
    let folder = scratch.path().to_str().unwrap().to_owned();
    let rpath = format!("-Wl,-rpath,{folder}");
    for visibility in ["hidden", "default"] {
        let flag = format!("-fvisibility={visibility}");
        build(&scratch, &second, "libsecond.so", &["-shared", "-fPIC", &flag]);
        let program = build(&scratch, &main, "main", &["-L", &folder, "-lsecond", &rpath]);
        let outcome = run(&mut command(&program, &[]), b"");
        let stderr = outcome.stderr.clone();
        let said = outcome.good(visibility);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        if visibility == "hidden" {
            // ET_ERR_FAILED_PRECONDITION, and what to do.
            assert!(
                lines[0].starts_with("8 0 ") && lines[0].contains("has not met the engine"),
                "{said}"
            );
            assert!(lines[0].contains("easytransfer::attach"), "{said}");
            assert_eq!(stderr.matches("is not given back").count(), 1, "{stderr}");
        } else {
            // What both show each other is one.
            assert_eq!((lines[0], stderr.as_str()), ("0 3 ", ""));
        }
        assert_eq!(lines[1], "0 3 ");
    }
}
