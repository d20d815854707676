//! `cargo xtask`: picks the command.

use std::process::ExitCode;
use xtask::{Context, header};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let context = Context::here();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["header"] => header::run(&context, false),
        ["header", "--verify"] => header::run(&context, true),
        _ => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
