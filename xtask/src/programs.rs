//! The programs in C and C++ under `hosts/`: one program per source file, built against the headers and
//! `libeasytransfer`.

use crate::{Context, Failure, process};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A language of `hosts/`.
pub struct Language {
    /// Folder under the root.
    pub folder: &'static str,
    /// Compiler.
    pub compiler: &'static str,
    /// Standard.
    pub standard: &'static str,
    /// Extension of source files.
    pub extension: &'static str,
}

/// C and C++.
pub const LANGUAGES: [Language; 2] = [
    Language { folder: "hosts/c", compiler: "gcc", standard: "-std=c99", extension: "c" },
    Language { folder: "hosts/cpp", compiler: "g++", standard: "-std=c++17", extension: "cpp" },
];

/// Source files of a language, sorted.
pub fn sources(context: &Context, language: &Language) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(context.root.join(language.folder))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == language.extension))
        .collect();
    files.sort();
    files
}

/// Builds one program to `target/release/hosts/c/NAME` or `target/release/hosts/cpp/NAME`.
pub fn build(context: &Context, language: &Language, source: &Path) -> Result<PathBuf, Failure> {
    let release = process::release(context);
    let folder = release.join(language.folder);
    fs::create_dir_all(&folder)
        .map_err(|error| Failure(format!("make {}: {error}", folder.display())))?;
    let program = folder.join(source.file_stem().unwrap_or_default());
    process::show(
        Command::new(language.compiler)
            .args([language.standard, "-O2", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
            .args(["-Wredundant-decls", "-Wconversion", "-Wshadow"])
            .arg(source)
            .arg("-I")
            .arg(context.root.join("include"))
            .arg("-L")
            .arg(&release)
            .args(["-leasytransfer", "-Wl,-rpath,$ORIGIN/../.."])
            .arg("-o")
            .arg(&program),
    )?;
    Ok(program)
}
