//! `gpu-check`: what a loaded engine computes, against f64 on the host, and how fast.
//!
//! ```text
//! gpu-check ops    [--device D] [--precision P]   every operation's value and gradients
//! gpu-check optim  [--device D]                   ten steps of every optimizer over an arena, parts of
//!                                                 sets and what goes between sets
//! gpu-check speed  [--device D] [--precision P] --config FILE --workloads FILE [--seconds S] [--trace FILE]
//!                                                 training steps and forward passes, tokens per second, where the time goes
//! ```
//!
//! An engine keeps f64 in host memory and computes it with the CPU's kernels, so one process holds both sides. With
//! `--device cpu` the same program checks itself.

mod compare;
mod custom;
mod full;
mod ops;
mod optim;
mod sets;
mod speed;

use std::process::ExitCode;

use easytransfer::{EnginePrecision, Runtime, RuntimeOptions, engine_report};

fn argument<'a>(arguments: &'a [String], name: &str, default: &'a str) -> &'a str {
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)).map_or(default, String::as_str)
}

fn run(arguments: &[String]) -> Result<usize, String> {
    let named = argument(arguments, "--precision", "f32");
    let precision = match named {
        "f32" => EnginePrecision::F32,
        "tf32" => EnginePrecision::Tf32,
        "bf16" => EnginePrecision::Bf16,
        "f16" => EnginePrecision::F16,
        other => {
            return Err(format!("--precision: expected f32, tf32, bf16 or f16, found {other}"));
        }
    };
    let options = RuntimeOptions {
        device: argument(arguments, "--device", "cuda").parse()?,
        precision,
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::new(options).map_err(|error| error.to_string())?;
    let failed = match arguments.first().map(String::as_str) {
        Some("ops") => {
            let own = ops::run(precision).map_err(|error| error.to_string())?;
            let custom = custom::run().map_err(|error| error.to_string())?;
            own + custom + full::run().map_err(|error| error.to_string())?
        }
        Some("optim") => {
            let own = optim::run().map_err(|error| error.to_string())?;
            own + sets::run().map_err(|error| error.to_string())?
        }
        Some("speed") => {
            let file = |name: &str| {
                let path = argument(arguments, name, "");
                std::fs::read_to_string(path).map_err(|error| format!("{name} {path:?}: {error}"))
            };
            let seconds = argument(arguments, "--seconds", "4");
            let options = speed::Options {
                config: &file("--config")?,
                workloads: &file("--workloads")?,
                seconds: seconds.parse().map_err(|_| format!("--seconds: {seconds:?}"))?,
                precision: named,
                trace: Some(argument(arguments, "--trace", "")).filter(|path| !path.is_empty()),
            };
            speed::run(&runtime, &options).map_err(|error| error.to_string())?;
            0
        }
        _ => return Err("expected ops, optim or speed".to_owned()),
    };
    if let Some(report) = engine_report() {
        println!("engine {report}");
    }
    Ok(failed)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("{failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("gpu-check: {error}");
            ExitCode::from(2)
        }
    }
}
