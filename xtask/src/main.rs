//! `cargo xtask`: picks the command.

use std::process::ExitCode;
use xtask::{
    Context, Failure, bench, check, demo, dist, edges, engine, freeze, header, licences,
    new_plugin, stage, test,
};

const HELP: &str = "\
usage: cargo xtask COMMAND

  check                      format, headers, dependency edges, clippy, licences, quick tests
  test                       what CI runs: builds everything once, C and C++ programs, all tests
  demo                       builds, trains a small model on hosts/demo, evaluates it, and asks it from the command line, Rust and C
  stage                      puts the built plugins where programs find them: target/release/plugins
  header [--verify]          writes include/*.h from the Rust sources, or fails when they are out of date
  freeze                     writes the headers, the frozen copy of the boundary's present version and the goldens in tests/abi;
                             only as long as that version is not released
  new-plugin KIND NAME [--language LANGUAGE] [--out DIR]
                             starts a plugin in plugins/KIND-NAME, or in DIR outside the workspace; KIND is
                             loss, model, optimizer, app, metric, strategy or op. LANGUAGE is rust, c or c++; those in
                             C and C++ (loss, metric, strategy, op) lie in DIR, or beside the workspace
  bench [NAME...] [--python PYTHON] [-- OPTIONS]
                             runs benches against their peers (installed into target/bench-venv unless PYTHON has them)
  engine cuda [--fetch-toolkit]
                             builds libeasytransfer_engine_cuda.so beside the command; needs an nvcc (CUDA_HOME, PATH), or fetches one
                             from PyPI into target/cuda-toolkit
  engine kernels [--fetch-toolkit]
                             compiles the CUDA kernels alone, for sm_80 and sm_90
  dist                       makes target/dist/easytransfer-VERSION-PLATFORM.tar.gz
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let context = Context::here();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check::run(&context),
        ["test"] => test::run(&context),
        ["demo"] => demo::run(&context),
        ["stage"] => stage::run(&context),
        ["edges"] => edges::run(&context),
        ["licences"] => licences::run(&context),
        ["bench", ref rest @ ..] => bench::run(&context, rest),
        ["engine", "cuda"] => engine::run(&context, false),
        ["engine", "cuda", "--fetch-toolkit"] => engine::run(&context, true),
        ["engine", "kernels"] => engine::kernels(&context, false),
        ["engine", "kernels", "--fetch-toolkit"] => engine::kernels(&context, true),
        ["dist"] => dist::run(&context),
        ["header"] => header::run(&context, false),
        ["header", "--verify"] => header::run(&context, true),
        ["freeze"] => freeze::run(&context),
        ["new-plugin", kind, name, ref options @ ..] => {
            new_plugin::run(&context, kind, name, options)
        }
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        [] => Err(Failure(format!("no command was given\n{HELP}"))),
        _ => Err(Failure(format!("unknown command `{}`\n{HELP}", arguments.join(" ")))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.0.is_empty() {
                eprintln!("error: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}
