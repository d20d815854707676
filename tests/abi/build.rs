//! Writes the code that asks the Rust compiler for size, alignment and offsets of every table of `sdk/abi`.

#[path = "src/schema.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod schema;

use std::{env, fmt::Write, fs, path::PathBuf};

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by Cargo"));
    let source = here.join("../../sdk/abi/src");
    println!("cargo:rerun-if-changed={}", source.display());
    println!("cargo:rerun-if-changed=src/schema.rs");
    let mut code = String::from("vec![\n");
    for schema::Table { name, fields, .. } in schema::read(&source).expect("read sdk/abi/src") {
        let _ = writeln!(
            code,
            "Layout {{ name: \"{name}\", size: size_of::<abi::{name}>(), align: align_of::<abi::{name}>(), fields: vec!["
        );
        for schema::Field { name: field, .. } in fields {
            let _ = writeln!(
                code,
                "(\"{field}\", offset_of!(abi::{name}, {field}), size_of_field(|table: &abi::{name}| &table.{field})),"
            );
        }
        code.push_str("] },\n");
    }
    code.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by Cargo"));
    fs::write(out.join("layouts.rs"), code).expect("write layouts.rs");
}
