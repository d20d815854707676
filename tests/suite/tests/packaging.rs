//! A distribution as a user gets it: unpacked somewhere else, found by pkg-config and CMake, linked shared and static.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use easytransfer_tests::command::Place;
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

/// A program that must find everything by itself, but for the shared library.
fn command(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("ET_PLUGIN_PATH")
        .env("LD_LIBRARY_PATH", folder.join("lib"))
        .env_remove("HOME")
        .env_remove("XDG_DATA_HOME");
    command
}

/// A program that contains the library is told where the plugins are.
fn quickstart(folder: &Path, program: &Path, is_static: bool) -> String {
    let mut command = command(folder, program);
    if is_static {
        command.env("ET_PLUGIN_PATH", folder.join("lib/easytransfer/plugins"));
    }
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

/// Compiles an example of the distribution.
fn compile(folder: &Path, package: &str, source: &str, program: &Path) {
    let source = folder.join("examples").join(source);
    let is_c = source.extension().is_some_and(|ending| ending == "c");
    let (compiler, standard) = if is_c { ("gcc", "-std=c99") } else { ("g++", "-std=c++17") };
    let mut command = Command::new(compiler);
    command
        .arg(standard)
        .args(hosts::strict(compiler))
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
    for package in ["easytransfer", "easytransfer-static", "easytransfer-plugin"] {
        let plugins = pkg_config(&folder, &["--variable=plugindir", package]).join(" ");
        assert!(
            Path::new(&plugins).join("zoo-bert/zoo-bert.toml").exists(),
            "{package}: {plugins}"
        );
    }
    let mut answers = Vec::new();
    for (package, source) in [
        ("easytransfer", "c/quickstart.c"),
        ("easytransfer", "cpp/quickstart.cpp"),
        ("easytransfer-static", "c/quickstart.c"),
    ] {
        let program = scratch.path().join("quickstart");
        compile(&folder, package, source, &program);
        let answer = quickstart(&folder, &program, package == "easytransfer-static");
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
    let text = format!(
        "cmake_minimum_required(VERSION 3.16)\nproject(consumer C CXX)\nset(CMAKE_CXX_STANDARD 17)\n\
         find_package(easytransfer 0.1 REQUIRED)\n\
         if(NOT EXISTS \"${{easytransfer_PLUGIN_DIR}}/zoo-bert/zoo-bert.toml\")\n\
           message(FATAL_ERROR \"no plugins in ${{easytransfer_PLUGIN_DIR}}\")\nendif()\n\
         add_executable(static_c \"{c}\")\ntarget_link_libraries(static_c easytransfer::static)\n",
        c = folder.join("examples/c/quickstart.c").display(),
    );
    fs::write(project.join("CMakeLists.txt"), text).expect("write the project");
    let built = |source: &Path, build: &Path| {
        let mut configure = Command::new(&cmake);
        configure.arg("-S").arg(source).arg("-B").arg(build);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", folder.display()));
        run(&mut configure, b"").good("cmake");
        run(Command::new(&cmake).arg("--build").arg(build), b"").good("cmake --build");
    };
    let build = scratch.path().join("build");
    built(&project, &build);
    // The examples are configured where they lie, by what lies beside them.
    let examples = scratch.path().join("examples");
    let mut configure = Command::new(&cmake);
    configure.arg("-S").arg(folder.join("examples")).arg("-B").arg(&examples);
    run(&mut configure, b"").good("cmake of the examples");
    run(Command::new(&cmake).arg("--build").arg(&examples), b"").good("build the examples");
    let shared = ["quickstart_c", "quickstart_cpp"]
        .map(|name| quickstart(&folder, &examples.join(name), false));
    let [first, second] = shared;
    let answers = [first, second, quickstart(&folder, &build.join("static_c"), true)];
    for program in ["train", "predict", "embed"] {
        for language in ["c", "cpp"] {
            let mut usage = command(&folder, &examples.join(format!("{program}_{language}")));
            let said = run(&mut usage, b"");
            assert!(said.code == 2 && said.stderr.contains("usage: "), "{program}: {said:?}");
        }
    }
    assert!(answers[0].lines().count() > 3, "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

/// The code of a README between a fence of that language and the next one.
fn code<'a>(readme: &'a str, language: &str) -> &'a str {
    let (_, behind) = readme.split_once(&format!("```{language}\n")).expect("a fence");
    behind.split_once("```").expect("the end of the fence").0
}

#[test]
fn program_of_the_packed_readme_answers() {
    let scratch = Scratch::new("packaging-readme");
    let folder = unpacked(&scratch);
    let readme = fs::read_to_string(folder.join("README.md")).expect("the README");
    assert!(!readme.contains('@'), "a place that was not filled in: {readme}");
    for word in ["ET_PLUGIN_PATH", "plugindir", "easytransfer_PLUGIN_DIR", "-static", "examples"] {
        assert!(readme.contains(word), "{word} is missing");
    }
    // What it calls by name is there.
    for name in
        ["bin", "include", "lib", "lib/easytransfer/plugins", "examples", "examples/CMakeLists.txt"]
    {
        assert!(folder.join(name).exists(), "{name}");
    }
    let place = Place::new("packaging-readme");
    place.train("bundle", &["--set", "max_steps=1"]).good("train");
    let project = scratch.path().join("service");
    fs::create_dir(&project).expect("make the project's folder");
    fs::write(project.join("main.cpp"), code(&readme, "cpp")).expect("write the program");
    fs::write(project.join("CMakeLists.txt"), code(&readme, "cmake")).expect("write the project");
    let mut programs = Vec::new();
    if has("pkg-config") {
        // As it is printed, by a shell.
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(code(&readme, "sh")).env("PREFIX", shell_safe(&folder));
        run(shell.current_dir(&project), b"").good("the lines for pkg-config");
        programs.push(project.join("service"));
    }
    if let Some(cmake) = cmake::installed(&Context::here()) {
        let build = project.join("build");
        let mut configure = Command::new(&cmake);
        configure.arg("-S").arg(&project).arg("-B").arg(&build);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", folder.display()));
        run(&mut configure, b"").good("cmake");
        run(Command::new(&cmake).arg("--build").arg(&build), b"").good("cmake --build");
        programs.push(build.join("service"));
    }
    assert!(!programs.is_empty(), "neither pkg-config nor cmake is here");
    for program in programs {
        // Neither the library nor the plugins are named: the program knows the one, and that the others.
        let mut ask = command(&folder, &program);
        ask.env_remove("LD_LIBRARY_PATH").arg(place.at("bundle")).arg("where is my parcel");
        let said = run(&mut ask, b"").good("the README's program");
        assert_eq!(said.split_whitespace().count(), 2, "{said}");
    }
}

/// The folder by a way without a space, since pkg-config's answers are split at them.
fn shell_safe(folder: &Path) -> PathBuf {
    let link = folder.with_file_name("moved");
    std::os::unix::fs::symlink(folder, &link).expect("link the distribution");
    link
}

#[test]
fn library_that_is_linked_to_finds_the_plugins_of_its_installation() {
    let scratch = Scratch::new("packaging-linked");
    let folder = unpacked(&scratch);
    // As systems do it: a link in one folder to the library in another one.
    let links = scratch.path().join("links");
    fs::create_dir(&links).expect("make the folder of links");
    for name in ["libeasytransfer.so", "libeasytransfer.so.0"] {
        std::os::unix::fs::symlink(folder.join("lib").join(name), links.join(name)).expect("link");
    }
    let program = scratch.path().join("quickstart");
    let mut build = Command::new("gcc");
    build.arg("-std=c99").arg(folder.join("examples/c/quickstart.c")).arg("-o").arg(&program);
    build.arg("-I").arg(folder.join("include")).arg("-L").arg(&links).arg("-leasytransfer");
    run(&mut build, b"").good("gcc");
    let mut found = command(&folder, &program);
    found.env("LD_LIBRARY_PATH", &links).arg(hosts::demo("encoder"));
    let outcome = run(&mut found, b"");
    let place = folder.join("lib/easytransfer/plugins/zoo-bert").display().to_string();
    assert!(outcome.stderr.contains(&place), "{place} is not in {}", outcome.stderr);
    outcome.good("quickstart");
}

#[test]
fn fully_static_program_is_told_that_it_opens_no_plugins() {
    let scratch = Scratch::new("packaging-static");
    let folder = unpacked(&scratch);
    let program = scratch.path().join("quickstart");
    for flag in ["-static", "-static-pie"] {
        let mut build = Command::new("gcc");
        build.args(["-std=c99", flag]).arg(folder.join("examples/c/quickstart.c"));
        build.arg("-I").arg(folder.join("include")).arg(folder.join("lib/libeasytransfer.a"));
        build.args(["-lpthread", "-lm", "-ldl", "-o"]).arg(&program);
        let built = run(&mut build, b"");
        if built.code != 0 {
            println!("not run: {flag}: no static C library here: {}", built.stderr);
            continue;
        }
        let mut start = command(&folder, &program);
        start.env("ET_PLUGIN_PATH", folder.join("lib/easytransfer/plugins"));
        let outcome = run(start.arg(hosts::demo("encoder")), b"");
        assert!([1, 2].contains(&outcome.code), "{flag}: {outcome:?}");
        for part in
            ["a fully static program cannot open libraries", "without `-static`", "zoo-bert"]
        {
            assert!(outcome.stderr.contains(part), "{flag}: {part:?} is not in {}", outcome.stderr);
        }
    }
}

#[test]
fn nothing_that_is_shipped_knows_the_machine_that_built_it() {
    let scratch = Scratch::new("packaging-paths");
    let folder = unpacked(&scratch);
    let home = |variable: &str, name: &str| {
        let own = || Some(PathBuf::from(std::env::var_os("HOME")?).join(name));
        std::env::var_os(variable).map(PathBuf::from).or_else(own)
    };
    let root = places::root().canonicalize().expect("the workspace");
    let mut forbidden =
        vec![Some(root), home("CARGO_HOME", ".cargo"), home("RUSTUP_HOME", ".rustup")];
    forbidden.push(scratch.path().join("first").into());
    let forbidden: Vec<PathBuf> = forbidden.into_iter().flatten().collect();
    let holds = |bytes: &[u8], path: &Path| {
        let path = path.to_str().expect("paths are UTF-8").as_bytes();
        bytes.windows(path.len()).any(|part| part == path)
    };
    // What is not shipped does know it, so the test would notice.
    let built = fs::read(places::staged().join("libeasytransfer.so")).expect("the library");
    assert!(forbidden.iter().any(|path| holds(&built, path)), "{forbidden:?}");
    let (mut folders, mut files) = (vec![folder.clone()], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("read the distribution").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            files += 1;
            let bytes = fs::read(entry.path()).expect("read a file");
            for path in &forbidden {
                assert!(
                    !holds(&bytes, path),
                    "{} is in {}",
                    path.display(),
                    entry.path().display()
                );
            }
        }
    }
    assert!(files > 40, "{files} files");
    // What was built has no debug information, so there is none apart.
    assert!(!folder.join("debug").exists());
    // The plugins are those that their manifests name, though their bytes were changed.
    let mut check = command(&folder, &folder.join("bin/easytransfer"));
    let said = run(check.args(["plugin", "info", "cross-entropy"]), b"").good("plugin info");
    assert!(said.contains("loss-basic"), "{said}");
}

#[test]
fn command_of_a_moved_distribution_finds_its_plugins() {
    let scratch = Scratch::new("packaging-command");
    let folder = unpacked(&scratch);
    let mut list = command(&folder, &folder.join("bin/easytransfer"));
    list.args(["plugin", "list"]);
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
