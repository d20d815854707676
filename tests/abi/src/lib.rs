//! What the tests of the boundary share: the tables as Rust lays them out, C compilers, golden files.
//!
//! Run one test with `ET_BLESS=1` to rewrite its golden file; the difference is printed, and belongs into the review.

use easytransfer_abi as abi;
use std::{
    env, fs,
    mem::offset_of,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub mod schema;

/// How Rust lays out one table.
pub struct Layout {
    /// C name.
    pub name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Name, offset and size of each field in order.
    pub fields: Vec<(&'static str, usize, usize)>,
}

/// All tables of `sdk/abi`.
pub fn layouts() -> Vec<Layout> {
    include!(concat!(env!("OUT_DIR"), "/layouts.rs"))
}

fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Folder of this crate.
pub fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The tables of `sdk/abi` as its source tells them.
pub fn tables() -> Vec<schema::Table> {
    schema::read(&root().join("sdk/abi/src")).expect("read sdk/abi/src")
}

/// An empty folder for one test.
pub fn scratch(name: &str) -> PathBuf {
    let folder = env::temp_dir().join(format!("easytransfer-abi-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("make scratch folder");
    folder
}

/// A C and a C++ compiler of one family.
pub struct Compiler {
    /// C compiler.
    pub c: &'static str,
    /// C++ compiler.
    pub cpp: &'static str,
}

/// The compilers on this machine. GCC must be there; the absence of Clang is printed.
pub fn compilers() -> Vec<Compiler> {
    let all = [Compiler { c: "gcc", cpp: "g++" }, Compiler { c: "clang", cpp: "clang++" }];
    let present: Vec<Compiler> = all
        .into_iter()
        .filter(|compiler| {
            let there = has(compiler.c) && has(compiler.cpp);
            if !there {
                println!("not run: {} or {} is not installed", compiler.c, compiler.cpp);
            }
            there
        })
        .collect();
    assert!(!present.is_empty(), "no C and C++ compiler found, install gcc and g++ or clang");
    present
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a compiler with the strict warnings and the headers of the workspace.
pub fn compile(compiler: &str, arguments: &[&str]) -> Result<(), String> {
    let cpp = compiler.ends_with("++").then_some("-Wold-style-cast");
    run(Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Wredundant-decls", "-Wconversion", "-Wshadow"])
        .args(["-Werror"].into_iter().chain(cpp))
        .args(arguments)
        .arg("-I")
        .arg(root().join("include")))
    .map(drop)
}

/// Runs a command; its standard output, or everything it said when it failed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Symbols that a shared library defines for others, sorted.
pub fn exported(library: &Path) -> Vec<String> {
    let text = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library)).expect("run nm");
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect();
    names.sort();
    names
}

/// True if golden files are to be rewritten.
pub fn is_blessing() -> bool {
    env::var_os("ET_BLESS").is_some_and(|value| value == "1")
}

/// Text of a golden file; with `ET_BLESS=1` it becomes `text` and the changed lines are printed.
pub fn golden(name: &str, text: &str) -> String {
    let path = here().join("golden").join(name);
    let old = fs::read_to_string(&path).unwrap_or_default();
    if !is_blessing() {
        assert!(!old.is_empty(), "golden/{name} is missing, run this test with ET_BLESS=1");
        return old;
    }
    for line in old.lines().filter(|line| !text.lines().any(|new| new == *line)) {
        println!("- {line}");
    }
    for line in text.lines().filter(|line| !old.lines().any(|old| old == *line)) {
        println!("+ {line}");
    }
    fs::write(&path, text).expect("write golden file");
    text.to_owned()
}
