//! Trains a text classifier on a table with the columns "text" and "label", and writes its bundle.

use std::process::ExitCode;

use easytransfer::{Event, Runtime, RuntimeOptions, Start, TrainJob, json};
use easytransfer_hosts::{arguments, number, run};

fn main() -> ExitCode {
    let mut arguments = arguments();
    let scratch = arguments.first().is_some_and(|first| first == "--scratch");
    if scratch {
        arguments.remove(0);
    }
    let usage = "train [--scratch] ENCODER TRAIN VALID|- OUTPUT [CONFIG_JSON]";
    run(arguments, 4, 5, usage, |arguments| {
        let config = arguments.get(4).map_or("{}", String::as_str);
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let mut job =
            TrainJob::new(arguments[0].as_str(), arguments[1].as_str(), arguments[3].as_str())
                .with_config(json::train_config(config)?)
                .on_event(|event| {
                    if let Event::Step(step) = event {
                        let loss = number(step.loss);
                        println!("step {}/{} loss {loss}", step.step, step.total_steps);
                    }
                    true // false would end the run
                });
        if scratch {
            job = job.with_start(Start::Scratch);
        }
        if arguments[2] != "-" {
            job = job.with_valid(arguments[2].as_str());
        }
        let result = runtime.train(job)?;
        println!("{}", json::train_result(&result));
        Ok(())
    })
}
