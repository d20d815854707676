//! A service in C++ that calls Rust through a `cxx` bridge: reads JSON lines like `{"text": ".."}` on standard input
//! and answers each with a JSON line.
//!
//! The loop is in `cpp/service.cpp`. Both halves are built together by Cargo, which is what `cxx` is for; a C++
//! program that is built by itself uses `easytransfer.hpp` instead.

mod bridge;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bundle] = arguments.as_slice() else {
        eprintln!("usage: cxx-service BUNDLE");
        return ExitCode::from(2);
    };
    match bridge::run(bundle) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_user_error() { 2 } else { 1 })
        }
    }
}
