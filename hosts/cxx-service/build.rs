//! Builds the C++ half with the same compiler that Cargo links with.

use std::process::{Command, Stdio};

fn main() {
    for file in ["src/bridge.rs", "cpp/service.cpp", "cpp/service.hpp"] {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-env-changed=CXX");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let program = compiler.split_whitespace().next().unwrap_or("c++");
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() && !cfg!(windows) {
        panic!(
            "cxx-service needs a C++ compiler: `{program}` cannot be run; install one or name it in CXX"
        );
    }
    cxx_build::bridge("src/bridge.rs")
        .file("cpp/service.cpp")
        .std("c++17")
        .compile("easytransfer-cxx-service");
}
