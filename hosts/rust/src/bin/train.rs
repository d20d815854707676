//! Trains a text classifier on a table with the columns "text" and "label", and writes its bundle.

use std::process::ExitCode;

use easytransfer::train::data::dataset::DataOptions;
use easytransfer::train::model::network::Start;
use easytransfer::train::report::progress::ProgressMode;
use easytransfer::{Runtime, RuntimeOptions, StepInfo, TrainJob, json};
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
        let data = DataOptions { targets: true, ..DataOptions::default() };
        let runtime = Runtime::new(RuntimeOptions::default())?;
        let result = runtime.train(TrainJob {
            app: "text-classify".to_owned(),
            encoder: arguments[0].as_str().into(),
            start: if scratch { Start::Scratch } else { Start::Encoder },
            train: arguments[1].as_str().into(),
            valid: (arguments[2] != "-").then(|| arguments[2].as_str().into()),
            output: arguments[3].as_str().into(),
            train_data: data.clone(),
            valid_data: DataOptions { split: Some("valid"), ..data },
            config: json::train_config(config)?,
            resume: false,
            progress: ProgressMode::Silent,
            on_step: Some(Box::new(|step: &StepInfo| {
                println!("step {}/{} loss {}", step.step, step.total_steps, number(step.loss));
                true // false would end the run
            })),
            cancel: Default::default(),
        })?;
        println!("{}", json::train_result(&result));
        Ok(())
    })
}
