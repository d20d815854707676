//! Answers the lines of a file with a trained bundle. Lines are texts, or with `--records` JSON objects from role to
//! value (`{"question": .., "context": ..}`). Written are the label and the probability of every class, separated by
//! tabs; with `--records`, and for apps that say no label, the whole answer as JSON.

use std::process::ExitCode;

use easytransfer::{Result, Runtime, RuntimeOptions, json};
use easytransfer_hosts::{arguments, number, read_file, run};

fn main() -> ExitCode {
    let mut given = arguments();
    let records = given.first().is_some_and(|first| first == "--records");
    given.drain(..usize::from(records));
    run(given, 1, 2, "predict [--records] BUNDLE [TEXTS]", |arguments| {
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let app = runtime.app(arguments[0].as_ref())?;
        let text = read_file(arguments.get(1).map_or("-", String::as_str))?;
        let answers = if records {
            let records = text.lines().map(json::record).collect::<Result<Vec<_>>>()?;
            app.predict_records(&records)?
        } else {
            app.predict(&text.lines().collect::<Vec<_>>())?
        };
        for answer in answers {
            match answer.label() {
                Some(label) if !records => {
                    print!("{label}");
                    for class in app.labels() {
                        print!("\t{}", number(answer.probability(class).unwrap_or(f64::NAN)));
                    }
                    println!();
                }
                _ => println!("{answer}"),
            }
        }
        Ok(())
    })
}
