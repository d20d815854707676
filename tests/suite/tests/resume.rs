//! A strategy that draws batches of its own and opens an optimizer: a run that was stopped and resumed ends with the
//! same bytes.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use easytransfer::plugin::{
    MODEL, Map, NoOptions, Phases, Result, Session, SessionOptimizer, Strategy,
};
use easytransfer::train::options;
use easytransfer::{Error, TrainJob};
use easytransfer_tests::command::Place;
use easytransfer_tests::face::is_step;
use easytransfer_tests::linked;
use serde_json::{Value, json};

/// Adds the loss on batches from two sources, and steps an optimizer with momentum before the run's own.
struct Draws(Option<SessionOptimizer>);

impl Strategy for Draws {
    const NAME: &'static CStr = c"draws";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self(None))
    }

    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::OUTPUTS | Phases::GRADIENTS
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        session.open_source("more", "dev.tsv", &serde_json::json!({}))
    }

    fn on_outputs(&mut self, session: &mut Session<'_>, _: &Map, _: &Map) -> Result<()> {
        for source in ["more", "train"] {
            let batch = session.next_batch(source)?;
            let outputs = session.forward(MODEL, &batch, true, 0)?;
            let loss = session.loss(&outputs, &batch)?;
            session.add_loss(source, &loss, 0.5)?;
        }
        Ok(())
    }

    fn on_gradients(&mut self, session: &mut Session<'_>) -> Result<()> {
        if self.0.is_none() {
            self.0 = Some(session.optimizer("sgd", &json!({"momentum": 0.9}), MODEL)?);
        }
        match self.0 {
            Some(optimizer) => session.optimizer_step(optimizer, 1e-3),
            None => Ok(()),
        }
    }
}

easytransfer::plugin::export! { id: "tl-draws", strategies: [Draws] }

/// Batches limited by rows in one window; and limited by tokens, in short windows, with all data in files.
fn batching() -> [Value; 2] {
    [
        json!({"batch": {"rows": 48}}),
        json!({"batch": {"rows": 48, "tokens": 400, "window": 96}, "data_memory": 0}),
    ]
}

fn job(place: &Place, output: &str, batching: &Value) -> TrainJob {
    let mut config = json!({"max_steps": 12, "lr": 1e-3, "log_every": 1,
        "strategy": {"draws": {}}, "evaluate_every": 4});
    options::merge(&mut config, batching.clone());
    place.job("text-classify", output, config)
}

fn weights(place: &Place, output: &str) -> Vec<u8> {
    place.read(&format!("{output}/model.safetensors"))
}

#[test]
fn sources_and_optimizers_of_a_strategy_resume_where_they_stood() {
    let place = Place::new("draws");
    // `open_source` takes a path as the strategy names it.
    let before: PathBuf = std::env::current_dir().unwrap();
    std::env::set_current_dir(place.at(".")).unwrap();
    let runtime = linked::runtime();
    runtime.register_plugin(PluginRecord::get()).unwrap();
    for (index, batching) in batching().iter().enumerate() {
        let whole = format!("whole-{index}");
        runtime.train(job(&place, &whole, batching)).unwrap();

        // The dev file has fewer batches than there are steps, so its source is in a later epoch at step 7.
        for stop in [3, 7] {
            let output = format!("stopped-{index}-{stop}");
            let first = job(&place, &output, batching);
            let first = first.on_event(move |event| !is_step(event, stop));
            assert!(matches!(runtime.train(first), Err(Error::Cancelled)));
            assert!(!place.at(&output).join("easytransfer.json").exists());
            let mut second = job(&place, &output, batching);
            second.resume = true;
            // What does not decide anything may be another.
            second.config.workers = 2;
            runtime.train(second).unwrap();
            assert!(weights(&place, &output) == weights(&place, &whole), "stopped at {stop}");
            assert_eq!(place.metrics(&output), place.metrics(&whole), "stopped at {stop}");
        }
    }
    std::env::set_current_dir(Path::new(&before)).unwrap();
}
