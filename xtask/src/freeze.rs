//! `freeze`: writes the headers, the frozen copy of the present version of the boundary into `tests/abi`, and the
//! goldens that follow from it. While a version is being made this is run after every change; once it is released its
//! copy never changes again, and the next change of the boundary raises `ET_ABI_MINOR` first.

use crate::{
    Context, Failure, header,
    process::{self, cargo},
};
use std::{fmt::Write, fs, path::Path, process::Command};

const HEAD: &str = "//! The tables as version @VERSION@ has them, written by `cargo xtask freeze`; tests/layout_check.rs compares them
//! with today's.

use core::ffi::{c_char, c_void};
";

/// Writes the copies, then the goldens by the tests of `tests/abi`. Errors: a source that cannot be read, a test that
/// fails.
pub fn run(context: &Context) -> Result<(), Failure> {
    header::run(context, false)?;
    let sources = context.root.join("sdk/abi/src");
    let codes = read(&sources.join("codes.rs"))?;
    let (major, minor) = (number(&codes, "ET_ABI_MAJOR")?, number(&codes, "ET_ABI_MINOR")?);
    let abi = context.root.join("tests/abi");
    let header = read(&context.root.join("include/easytransfer_plugin.h"))?;
    put(&abi.join(format!("frozen/{major}.{minor}/easytransfer_plugin.h")), &header)?;
    let file = abi.join(format!("src/frozen_{major}_{minor}.rs"));
    put(&file, &tables(&sources, &format!("{major}.{minor}"))?)?;
    process::show(Command::new("rustfmt").args(["--edition", "2024"]).arg(&file))?;
    println!("written: {}", process::shown(context, &file));
    let arguments = ["test", "--release", "-p", "easytransfer-abi-tests"];
    process::show(cargo(context, arguments).env("ET_BLESS", "1"))
}

/// All tables of the boundary in one file: without comments, with the derives that are a feature of `sdk/abi`, and
/// with the names of those that have fields as a macro.
fn tables(folder: &Path, version: &str) -> Result<String, Failure> {
    let mut text = HEAD.replace("@VERSION@", version);
    let mut names = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder)
        .map_err(|error| Failure(format!("read {}: {error}", folder.display())))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !path.ends_with("lib.rs") && !path.ends_with("codes.rs"))
        .collect();
    files.sort();
    for file in files {
        let source = read(&file)?;
        // The imports, some of several lines, come before the first item.
        let items = source.split_once("#[").map_or("", |(_, rest)| rest);
        for line in format!("#[{items}").lines() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            let line = line
                .replace("cfg_attr(feature = \"layout-check\", repr(C), ", "repr(C)]\n#[")
                .replace("cfg_attr(feature = \"layout-check\", ", "")
                .replace("StableAbi))]", "StableAbi)]");
            text.push_str(&line);
            text.push('\n');
            let name = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {"));
            names.extend(name.map(str::to_owned));
            if line.contains("_opaque") {
                names.pop();
            }
        }
    }
    let _ = write!(
        text,
        "\n/// Hands the names of all tables to another macro.\nmacro_rules! tables {{ ($with:ident) => {{ $with!({}) }}; }}\npub(crate) use tables;\n",
        names.join(", ")
    );
    Ok(text)
}

/// The number of a constant in a source text.
fn number(source: &str, name: &str) -> Result<u32, Failure> {
    source
        .split_once(&format!("pub const {name}: u32 = "))
        .and_then(|(_, rest)| rest.split_once(';'))
        .and_then(|(number, _)| number.parse().ok())
        .ok_or_else(|| Failure(format!("sdk/abi/src/codes.rs: no number {name}")))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure(format!("read {}: {error}", path.display())))
}

fn put(path: &Path, text: &str) -> Result<(), Failure> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| Failure(format!("write {}: {error}", path.display())))
}
