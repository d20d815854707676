//! Safe code of a component may put another value in the place of what it was lent, or take that away: the host keeps
//! what is its own, and what was taken is of no use afterwards.

use std::ffi::CStr;
use std::mem;
use std::sync::{Arc, Mutex};

use easytransfer::TrainJob;
use easytransfer::plugin::abi::ET_OPTIM_ADAMW;
use easytransfer::plugin::{
    Call, LoadedModel, MODEL, Map, Model, ModelInfo, NoOptions, Optimizer, Params, Phases, Result,
    Rows, Session, Strategy, Stream, Tensor, live_handles, nn,
};
use easytransfer_tests::command::Place;
use easytransfer_tests::linked;
use serde_json::json;

/// What the thief has taken.
#[derive(Default)]
struct Loot {
    batches: Vec<Map>,
    params: Vec<Params>,
    refusals: usize,
}

/// A strategy that exchanges what it gets, and tries what it took in the step before.
struct Thief(Arc<Mutex<Loot>>);

impl Strategy for Thief {
    const NAME: &'static CStr = c"thief";
    type Options = NoOptions;

    fn phases(&self) -> Phases {
        Phases::BATCH | Phases::GRADIENTS
    }

    fn on_batch(&mut self, _: &mut Session<'_>, batch: &mut Map) -> Result<()> {
        let mut loot = self.0.lock().unwrap();
        let stale = loot.batches.iter().filter(|map| map.get("ids").is_err());
        let refusals = stale.count();
        loot.refusals += refusals;
        let own = Map::new()?;
        loot.batches.push(mem::replace(batch, own));
        Ok(())
    }

    fn on_gradients(&mut self, session: &mut Session<'_>) -> Result<()> {
        let mut params = session.params(MODEL)?;
        *params = Params::new(0)?;
        drop(params);
        let mut params = session.params(MODEL)?;
        let taken = mem::replace(&mut *params, Params::new(0)?);
        // It is what it was until its time has ended.
        assert!(!taken.is_empty());
        self.0.lock().unwrap().params.push(taken);
        Ok(())
    }
}

/// AdamW that leaves another set in the place of the one that it was lent.
struct Careless(Map);

impl Optimizer for Careless {
    const NAME: &'static CStr = c"careless";
    type Options = NoOptions;

    fn step(&mut self, params: &mut Params, lr: f64, step: u64) -> Result<()> {
        let step = easytransfer::plugin::abi::et_optim_step {
            struct_size: size_of::<easytransfer::plugin::abi::et_optim_step>(),
            kind: ET_OPTIM_ADAMW,
            nesterov: 0,
            lr,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            momentum: 0.0,
            step,
            begin: 0,
            end: 0,
        };
        nn::optim_step(params, &mut self.0, &step)?;
        *params = Params::new(1)?;
        Ok(())
    }

    fn save(&self, stream: &mut Stream) -> Result<()> {
        drop(mem::replace(stream, Stream::writer()?));
        Ok(())
    }

    fn load(&mut self, _: &mut Stream) -> Result<()> {
        Ok(())
    }
}

/// A model that answers in a map of its own.
struct Elsewhere;

impl Model for Elsewhere {
    const NAME: &'static CStr = c"elsewhere";
    const SCHEMA: &'static CStr = cr#"{"type":"object"}"#;
    type Config = NoOptions;

    fn info(&self) -> ModelInfo {
        ModelInfo::default()
    }

    fn forward(&mut self, _: &Call<'_>, _: &Map, outputs: &mut Map) -> Result<()> {
        outputs.put("before", &Tensor::scalar(1.0)?)?;
        *outputs = Map::new()?;
        outputs.put("after", &Tensor::scalar(2.0)?)
    }
}

fn job(place: &Place, output: &str, more: serde_json::Value) -> TrainJob {
    let mut config = json!({"max_steps": 6, "lr": 1e-3, "batch": {"rows": 8}});
    easytransfer::train::options::merge(&mut config, more);
    TrainJob { valid: None, ..place.job("text-classify", output, config) }
}

#[test]
fn what_is_lent_stays_the_hosts() {
    let place = Place::new("lent");
    let runtime = linked::runtime();
    let loot: Arc<Mutex<Loot>> = Arc::default();
    let shared = loot.clone();
    runtime.register_strategy("thief", move |_| Ok(Thief(shared.clone()))).unwrap();
    runtime
        .register_optimizer("careless", |_, params: &Params| {
            Ok(Careless(nn::optim_state(params, ET_OPTIM_ADAMW)?))
        })
        .unwrap();
    runtime.register_model("elsewhere", |_, _| Ok(Elsewhere)).unwrap();
    let before = live_handles();
    runtime.train(job(&place, "plain", json!({}))).unwrap();
    let thieves = json!({"strategy": {"thief": {}}, "optimizer": {"name": "careless"}});
    runtime.train(job(&place, "robbed", thieves)).unwrap();
    let weights = |output: &str| place.read(&format!("{output}/model.safetensors"));
    assert!(weights("plain") == weights("robbed"), "the run is the same");

    let Loot { batches, params, refusals } = mem::take(&mut *loot.lock().unwrap());
    assert_eq!((batches.len(), params.len()), (6, 6));
    assert_eq!(refusals, 1 + 2 + 3 + 4 + 5, "what was taken is refused");
    let mut stale = batches.into_iter().next().unwrap();
    assert!(stale.is_empty() && !stale.has("ids") && stale.names().is_empty());
    let error = stale.put("x", &Tensor::scalar(1.0).unwrap()).unwrap_err();
    assert!(error.message().contains("NULL"), "{error}");
    assert!(stale.into_raw().is_null(), "nobody's reference is given away");
    assert!(params.iter().all(|set| set.is_empty() && set.snapshot().is_err()));
    drop(params);
    assert_eq!(live_handles(), before);

    // Rows, and outputs of a model.
    let mut rows = Rows::new().unwrap();
    rows.add().unwrap().put_i64("labels", &[7]).unwrap();
    *rows.add().unwrap() = easytransfer::plugin::Row::new().unwrap();
    assert_eq!((rows.len(), rows.to_vec().unwrap().len()), (2, 2));
    let component = runtime.components().find("et.model/1", "elsewhere").unwrap();
    let set = Params::new(1).unwrap();
    let model = LoadedModel::create(&component, "{}", &set.root().unwrap()).unwrap();
    let mut outputs = Map::new().unwrap();
    model.forward(&Call::inference(0), &Map::new().unwrap(), &mut outputs).unwrap();
    assert_eq!(outputs.names(), ["before"]);
    drop((rows, outputs, set, model));
    assert_eq!(live_handles(), before);
}
