//! Turns the lines of a file into vectors: the width, then the first four values, separated by tabs.

use std::process::ExitCode;

use easytransfer::{EmbedOptions, Runtime, RuntimeOptions};
use easytransfer_hosts::{arguments, number, read_file, run};

fn main() -> ExitCode {
    run(arguments(), 1, 2, "embed ENCODER [TEXTS]", |arguments| {
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let embedder = runtime.embedder(arguments[0].as_ref(), EmbedOptions::default())?;
        let text = read_file(arguments.get(1).map_or("-", String::as_str))?;
        let lines: Vec<&str> = text.lines().collect();
        let width = embedder.width();
        for vector in embedder.embed(&lines)?.chunks(width) {
            print!("{width}");
            for value in vector.iter().take(4) {
                print!("\t{}", number(f64::from(*value)));
            }
            println!();
        }
        Ok(())
    })
}
