//! Answers the lines of a file with a trained bundle: the label, then the probability of every class, separated by
//! tabs.

use std::process::ExitCode;

use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_hosts::{arguments, number, read_file, run};

fn main() -> ExitCode {
    run(arguments(), 1, 2, "predict BUNDLE [TEXTS]", |arguments| {
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let mut app = runtime.app(arguments[0].as_ref())?;
        let text = read_file(arguments.get(1).map_or("-", String::as_str))?;
        let lines: Vec<&str> = text.lines().collect();
        let answers = app.predict(&lines)?;
        for answer in answers {
            let label = answer.get("label").and_then(|label| label.as_str()).unwrap_or_default();
            print!("{label}");
            for class in app.labels() {
                let probability = answer["probabilities"][class].as_f64().unwrap_or(f64::NAN);
                print!("\t{}", number(probability));
            }
            println!();
        }
        Ok(())
    })
}
