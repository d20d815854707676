//! A distribution as a user gets it: unpacked somewhere else, found by pkg-config and CMake, linked shared and static.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_tests::hosts::{self, Scratch, has, run};
use easytransfer_tests::places;
use xtask::{Context, cmake, dist, test::is_ci};

/// The distribution, moved after it was laid out, so that nothing may remember where that was.
fn unpacked(scratch: &Scratch) -> PathBuf {
    let first = scratch.path().join("first");
    dist::collect(&Context::here(), &places::staged(), &first).expect("lay out a distribution");
    let folder = scratch.path().join("moved to");
    fs::rename(&first, &folder).expect("move the distribution");
    folder
}

/// A program with no other plugins than those of the distribution, and the shared library from there.
fn command(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("ET_PLUGIN_PATH", folder.join("lib/easytransfer/plugins"))
        .env("LD_LIBRARY_PATH", folder.join("lib"))
        .env_remove("HOME")
        .env_remove("XDG_DATA_HOME");
    command
}

fn quickstart(folder: &Path, program: &Path) -> String {
    let mut command = command(folder, program);
    command.arg(hosts::demo("encoder"));
    run(&mut command, b"").good(&format!("{}", program.display()))
}

/// What the shell's `$(pkg-config ...)` would put into a command line; a folder's name may hold escaped spaces.
fn pkg_config(folder: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).env("PKG_CONFIG_PATH", folder.join("lib/pkgconfig"));
    let text = run(&mut command, b"").good(&format!("pkg-config {arguments:?}"));
    let kept = text.trim().replace("\\ ", "\u{0}");
    kept.split_whitespace().map(|word| word.replace('\u{0}', " ")).collect()
}

fn compile(folder: &Path, package: &str, source: &str, program: &Path) {
    let source = places::root().join("hosts").join(source);
    let is_c = source.extension().is_some_and(|ending| ending == "c");
    let (compiler, standard) = if is_c { ("gcc", "-std=c99") } else { ("g++", "-std=c++17") };
    let mut command = Command::new(compiler);
    command
        .arg(standard)
        .args(hosts::STRICT)
        .arg("-o")
        .arg(program)
        .arg(source)
        .args(pkg_config(folder, &["--cflags", "--libs", package]));
    run(&mut command, b"").good(&format!("{command:?}"));
}

/// A test that cannot run here; in CI that is a failure.
fn absent(why: &str) {
    assert!(!is_ci(), "{why}");
    println!("not run: {why}");
}

#[test]
fn programs_build_against_a_moved_distribution_with_pkg_config() {
    if !has("pkg-config") {
        return absent("pkg-config is not installed");
    }
    let scratch = Scratch::new("packaging-pkg-config");
    let folder = unpacked(&scratch);
    let version = pkg_config(&folder, &["--modversion", "easytransfer"]);
    assert_eq!(version, [env!("CARGO_PKG_VERSION")]);
    assert!(pkg_config(&folder, &["--libs", "easytransfer-plugin"]).is_empty());
    let mut answers = Vec::new();
    for (package, source) in [
        ("easytransfer", "c/quickstart.c"),
        ("easytransfer", "cpp/quickstart.cpp"),
        ("easytransfer-static", "c/quickstart.c"),
    ] {
        let program = scratch.path().join("quickstart");
        compile(&folder, package, source, &program);
        let answer = quickstart(&folder, &program);
        assert!(answer.lines().count() > 3, "{package} {source}: {answer}");
        // The static program must not need the shared library.
        let needed = run(Command::new("ldd").arg(&program), b"").stdout;
        let is_shared = needed.contains("libeasytransfer.so.0");
        assert_eq!(is_shared, package == "easytransfer", "{package} {source}: {needed}");
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[test]
fn programs_build_against_a_moved_distribution_with_cmake() {
    let Some(cmake) = cmake::installed(&Context::here()) else {
        return absent("cmake is not installed; `cargo xtask test` fetches it");
    };
    let scratch = Scratch::new("packaging-cmake");
    let folder = unpacked(&scratch);
    let project = scratch.path().join("project");
    fs::create_dir(&project).expect("make the project's folder");
    let source = |name: &str| places::root().join("hosts").join(name).display().to_string();
    let text = format!(
        "cmake_minimum_required(VERSION 3.16)\nproject(consumer C CXX)\nset(CMAKE_CXX_STANDARD 17)\n\
         find_package(easytransfer 0.1 REQUIRED)\n\
         add_executable(shared_c \"{c}\")\ntarget_link_libraries(shared_c easytransfer::easytransfer)\n\
         add_executable(shared_cpp \"{cpp}\")\ntarget_link_libraries(shared_cpp easytransfer::easytransfer)\n\
         add_executable(static_c \"{c}\")\ntarget_link_libraries(static_c easytransfer::static)\n",
        c = source("c/quickstart.c"),
        cpp = source("cpp/quickstart.cpp"),
    );
    fs::write(project.join("CMakeLists.txt"), text).expect("write the project");
    let build = scratch.path().join("build");
    let mut configure = Command::new(&cmake);
    configure.arg("-S").arg(&project).arg("-B").arg(&build);
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", folder.display()));
    run(&mut configure, b"").good("cmake");
    run(Command::new(&cmake).arg("--build").arg(&build), b"").good("cmake --build");
    let answers =
        ["shared_c", "shared_cpp", "static_c"].map(|name| quickstart(&folder, &build.join(name)));
    assert!(answers[0].lines().count() > 3, "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[test]
fn command_of_a_moved_distribution_finds_its_plugins() {
    let scratch = Scratch::new("packaging-command");
    let folder = unpacked(&scratch);
    let mut list = command(&folder, &folder.join("bin/easytransfer"));
    list.env_remove("ET_PLUGIN_PATH").args(["plugin", "list"]);
    let text = run(&mut list, b"").good("plugin list");
    for id in xtask::stage::ids(&Context::here()).expect("the plugins of the tree") {
        assert!(text.contains(&format!("{id} ")), "{id} is missing: {text}");
    }
    let place = folder.join("bin/../lib/easytransfer/plugins").display().to_string();
    assert!(text.contains(&place) && !text.contains("cannot be used"), "{text}");
    let licences = fs::read_to_string(folder.join("THIRD-PARTY.txt")).expect("the licences");
    for part in
        ["candle-core 0.11.1: MIT OR Apache-2.0", "serde_json ", "Permission is hereby granted"]
    {
        assert!(licences.contains(part), "THIRD-PARTY.txt lacks {part:?}");
    }
    // Tests and build tools are not shipped.
    assert!(!licences.contains("abi_stable") && !licences.contains("cbindgen"));
}
