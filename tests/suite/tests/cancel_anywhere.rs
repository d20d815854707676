//! A run that is cancelled before its first step leaves nothing, one that is cancelled in an evaluation leaves a
//! checkpoint from which it goes on to the same bytes.

use std::ffi::CStr;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use easytransfer::TrainJob;
use easytransfer::plugin::{Call, Loss, Map, Phases, Result, Session, Strategy, Tensor, nn};
use easytransfer::train::Error;
use easytransfer_tests::command::Place;
use easytransfer_tests::linked;
use serde_json::{Map as Json, Value, json};

/// The switch of the run of this test, and after which call it is thrown.
static SWITCH: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
/// Calls of the loss outside of training that are left; the one that finds 1 throws the switch.
static LEFT: AtomicUsize = AtomicUsize::new(0);
/// Calls of the loss outside of training.
static SEEN: AtomicUsize = AtomicUsize::new(0);
/// One run at a time, because they share these.
static ONE: Mutex<()> = Mutex::new(());

fn throw() {
    if let Some(switch) = &*SWITCH.lock().unwrap() {
        switch.store(true, Ordering::Relaxed);
    }
}

/// Cross entropy that counts the batches of evaluations.
struct Counting;

impl Loss for Counting {
    const NAME: &'static CStr = c"counting";
    type Options = Json<String, Value>;

    fn new(_: Self::Options) -> Result<Self> {
        Ok(Self)
    }

    fn forward(&mut self, call: &Call<'_>, outputs: &Map, batch: &Map) -> Result<Tensor> {
        if !call.training {
            SEEN.fetch_add(1, Ordering::Relaxed);
            if LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                == Ok(1)
            {
                throw();
            }
        }
        nn::cross_entropy(&outputs.get("logits")?, &batch.get("labels")?, None, -100, 0.0)
    }
}

/// Throws the switch in its own set-up.
struct Early;

impl Strategy for Early {
    const NAME: &'static CStr = c"early";
    type Options = Json<String, Value>;

    fn new(_: Self::Options) -> Result<Self> {
        Ok(Self)
    }

    fn phases(&self) -> Phases {
        Phases::SETUP
    }

    fn on_setup(&mut self, _: &mut Session<'_>) -> Result<()> {
        throw();
        Ok(())
    }
}

/// Makes steps of the trainer's own.
struct Driver;

impl Strategy for Driver {
    const NAME: &'static CStr = c"driver";
    type Options = Json<String, Value>;

    fn new(_: Self::Options) -> Result<Self> {
        Ok(Self)
    }

    fn phases(&self) -> Phases {
        Phases::SETUP | Phases::FIT
    }

    fn on_setup(&mut self, session: &mut Session<'_>) -> Result<()> {
        session.set_total_steps(10)
    }

    fn fit(&mut self, session: &mut Session<'_>) -> Result<()> {
        loop {
            session.step_once("train")?;
            if !session.commit(&[], |_| Ok(()))? {
                return Ok(());
            }
        }
    }
}

easytransfer::plugin::export! { id: "tl-cancel", losses: [Counting], strategies: [Early, Driver] }

/// Runs a job whose switch is thrown by the loss in its `call`-th batch of an evaluation (0 for never).
fn run(mut job: TrainJob, call: usize, resume: bool) -> easytransfer::Result<u64> {
    let runtime = linked::runtime();
    runtime.register_plugin(PluginRecord::get()).expect("the plugin of this test");
    job.resume = resume;
    *SWITCH.lock().unwrap() = Some(job.cancel.clone());
    LEFT.store(call, Ordering::Relaxed);
    SEEN.store(0, Ordering::Relaxed);
    let result = runtime.train(job).map(|result| result.steps);
    *SWITCH.lock().unwrap() = None;
    result
}

fn job(place: &Place, output: &str, strategy: Value) -> TrainJob {
    let config = json!({
        "max_steps": 10, "lr": 1e-3, "log_every": 1, "batch": {"rows": 8, "tokens": 256}, "evaluate_every": 4,
        "loss": {"name": "counting"}, "strategy": strategy, "patience": 9,
    });
    place.job("text-classify", output, config)
}

#[test]
fn cancelled_in_set_up_leaves_nothing() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let place = Place::new("cancel-set-up");
    // Before anything was read.
    let early = job(&place, "early", json!({}));
    early.cancel.store(true, Ordering::Relaxed);
    assert!(matches!(run(early, 0, false), Err(Error::Cancelled)));
    // By a strategy, before features are made.
    let set_up = job(&place, "set-up", json!({"early": {}}));
    assert!(matches!(run(set_up, 0, false), Err(Error::Cancelled)));
    // In the look at a few records that `best` is checked with.
    let mut best = job(&place, "best", json!({}));
    best.config.best = Some("accuracy".to_owned());
    assert!(matches!(run(best, 1, false), Err(Error::Cancelled)));
    for output in ["early", "set-up", "best"] {
        assert_eq!(place.listing(output), Vec::<String>::new(), "{output}");
    }
}

#[test]
fn cancelled_in_an_evaluation_goes_on_to_the_same_bytes() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let place = Place::new("cancel-evaluation");
    for (name, strategy) in [("plain", json!({})), ("driven", json!({"driver": {}}))] {
        let whole = format!("whole-{name}");
        run(job(&place, &whole, strategy.clone()), 0, false).expect("a whole run");
        let batches = SEEN.load(Ordering::Relaxed);
        // After steps 4 and 8, and after the last one.
        assert!(batches.is_multiple_of(3) && batches / 3 > 2, "{batches} batches of evaluations");
        let each = batches / 3;
        // The first batch of the first evaluation, one within the second, and the last but one of the last.
        for (at, call) in [1, each + 2, 3 * each - 1].into_iter().enumerate() {
            let output = format!("{name}-{at}");
            let cancelled = run(job(&place, &output, strategy.clone()), call, false);
            assert!(matches!(cancelled, Err(Error::Cancelled)), "{output}");
            // No batch of the evaluation after the one that it was thrown in.
            assert_eq!(SEEN.load(Ordering::Relaxed), call, "{output}");
            assert!(place.at(&format!("{output}/checkpoint/state.json")).exists(), "{output}");
            assert!(!place.at(&format!("{output}/model.safetensors")).exists(), "{output}");
            // Once more in the same evaluation, which is made from its beginning.
            let again = run(job(&place, &output, strategy.clone()), 2, true);
            assert!(matches!(again, Err(Error::Cancelled)), "{output}");
            assert_eq!(SEEN.load(Ordering::Relaxed), 2, "{output}");
            let steps = run(job(&place, &output, strategy.clone()), 0, true).expect("go on");
            assert_eq!(steps, 10, "{output}");
            for file in ["model.safetensors", "logs/metrics.jsonl"] {
                let [expected, found] = [&whole, &output]
                    .map(|run| fs::read(place.at(&format!("{run}/{file}"))).unwrap());
                assert!(expected == found, "{output}: {file} differs from that of a whole run");
            }
        }
    }
}
