//! A small fit that strategies are tried in: a linear model over columns of numbers, batches that follow from the step,
//! and a list of everything that a strategy does.

use std::collections::BTreeMap;
use std::thread::{self, ThreadId};

use easytransfer::plugin::{
    DType, Error, Init, LoadedStrategy, MODEL, Map, ModuleSpec, Params, Phases, Result, Save,
    Scope, SessionHost, SourceInfo, Stream, Tensor, abi,
};
use serde_json::{Map as Json, Value, json};

use crate::inputs::{is_fault, no_panic, number, tensor, values};
use crate::optimizer::plain_step;
use crate::report::{Outcome, failed, skipped};

/// Rows of a batch and columns of its inputs.
const ROWS: usize = 4;
const WIDTH: usize = 3;
/// Steps of the whole fit, and of an epoch of it.
pub const STEPS: u64 = 8;
const EPOCH: u64 = 2;
const RATE: f64 = 0.1;

/// The fit, with what a checkpoint keeps of it.
pub(crate) struct Fit {
    params: Params,
    modules: BTreeMap<String, Params>,
    optimizers: Vec<String>,
    step: u64,
    /// Batches drawn from each source.
    drawn: BTreeMap<String, u64>,
    /// Losses that the strategy has added in this step.
    added: Vec<(String, Tensor, f64)>,
    loss_weight: f64,
    total: u64,
    /// What the strategy did, in order.
    pub trace: Vec<Value>,
    home: ThreadId,
    /// Calls that came from another thread than the hook's.
    pub strange_calls: usize,
    /// The strategy's state as `commit` was given it, by step, where it drives the fit.
    pub saved: BTreeMap<u64, (Kept, Vec<u8>)>,
    /// The step after which a fit that the strategy drives is over.
    end: u64,
}

/// What a checkpoint keeps of a fit.
#[derive(Clone)]
pub(crate) struct Kept {
    values: Vec<Vec<f64>>,
    modules: Vec<Vec<Vec<f64>>>,
    drawn: BTreeMap<String, u64>,
    step: u64,
}

fn refused<T>(what: &str) -> Result<T> {
    let message = format!("{what}: a check of a plugin does not offer it");
    Err(Error::new(abi::ET_ERR_UNIMPLEMENTED, message))
}

fn all_values(params: &Params) -> Outcome<Vec<Vec<f64>>> {
    params.iter().map(|param| Ok(values(&param.tensor()?.detach()?)?)).collect()
}

fn set_values(params: &Params, all: &[Vec<f64>]) -> Outcome {
    for (param, kept) in params.iter().zip(all) {
        param.assign(&tensor(kept, param.shape(), DType::F32)?)?;
    }
    Ok(())
}

impl Fit {
    pub fn new() -> Outcome<Self> {
        let params = Params::new(5)?;
        let root = params.root()?;
        let declare = |path: [&str; 2], shape: &[usize]| -> Result<()> {
            let scope = root.child(path[0])?.child(path[1])?;
            scope.param("weight", shape, Init::Normal(0.0, 0.3)).map(drop)
        };
        declare(["embeddings", "words"], &[WIDTH, WIDTH])?;
        declare(["layer", "0"], &[WIDTH, WIDTH])?;
        root.child("classifier")?.param("weight", &[2, WIDTH], Init::Normal(0.0, 0.3))?;
        Ok(Self {
            params,
            modules: BTreeMap::new(),
            optimizers: Vec::new(),
            step: 0,
            drawn: BTreeMap::new(),
            added: Vec::new(),
            loss_weight: 1.0,
            total: STEPS,
            trace: Vec::new(),
            home: thread::current().id(),
            strange_calls: 0,
            saved: BTreeMap::new(),
            end: STEPS,
        })
    }

    /// [`Fit::set_up`], where a refusal is an answer: a strategy may need other data, or another model.
    pub fn refused_setup(&mut self, strategy: &mut LoadedStrategy) -> Outcome<Option<String>> {
        if strategy.phases().has(Phases::SETUP)
            && let Err(error) = strategy.on_setup(self)
        {
            let text = error.to_string();
            if is_fault(&text) {
                return failed(text);
            }
            return no_panic::<()>(Err(error)).map(|()| Some(text));
        }
        self.seal().map(|()| None)
    }

    /// `on_setup`, after which nothing more is declared.
    pub fn set_up(&mut self, strategy: &mut LoadedStrategy) -> Outcome {
        match self.refused_setup(strategy)? {
            Some(text) => failed(text),
            None => Ok(()),
        }
    }

    fn seal(&mut self) -> Outcome {
        self.params.seal()?;
        self.modules.values_mut().try_for_each(Params::seal)?;
        let frozen: Vec<bool> = self.params.iter().map(|param| param.is_trainable()).collect();
        let rates: Vec<f64> = self.params.iter().map(|param| param.lr_scale()).collect();
        self.trace.push(json!({"trainable": frozen, "rates": rates}));
        Ok(())
    }

    pub fn kept(&self) -> Outcome<Kept> {
        Ok(Kept {
            values: all_values(&self.params)?,
            modules: self.modules.values().map(all_values).collect::<Outcome<_>>()?,
            drawn: self.drawn.clone(),
            step: self.step,
        })
    }

    pub fn go_on_from(&mut self, kept: &Kept) -> Outcome {
        set_values(&self.params, &kept.values)?;
        for (params, values) in self.modules.values().zip(&kept.modules) {
            set_values(params, values)?;
        }
        self.drawn.clone_from(&kept.drawn);
        self.step = kept.step;
        Ok(())
    }

    /// Steps up to step `end`, whoever makes them.
    pub fn run(&mut self, strategy: &mut LoadedStrategy, end: u64) -> Outcome {
        if strategy.phases().has(Phases::FIT) {
            self.end = end;
            return hook(strategy.fit(self));
        }
        while self.step < end {
            self.one(Some(&mut *strategy), "train")?;
            self.step += 1;
            if self.step.is_multiple_of(EPOCH) && strategy.phases().has(Phases::EPOCH) {
                let figures = json!({"accuracy": 0.5 + 0.01 * self.step as f64, "loss": 0.7});
                let figures = figures.as_object().cloned().unwrap_or_default();
                let epoch = self.step / EPOCH;
                hook(strategy.on_epoch(self, epoch, &figures))?;
            }
            self.note_values()?;
        }
        Ok(())
    }

    fn note_values(&mut self) -> Outcome {
        let bits =
            |all: Vec<Vec<f64>>| all.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let mut parts = vec![bits(all_values(&self.params)?)];
        for params in self.modules.values() {
            parts.push(bits(all_values(params)?));
        }
        self.trace.push(json!({"step": self.step, "values": parts}));
        Ok(())
    }

    /// The shared step.
    fn one(&mut self, mut strategy: Option<&mut LoadedStrategy>, source: &str) -> Outcome {
        let phases = strategy.as_ref().map_or(Phases::default(), |strategy| strategy.phases());
        let mut batch = self.batch(source)?;
        if let Some(strategy) = strategy.as_deref_mut().filter(|_| phases.has(Phases::BATCH)) {
            hook(strategy.on_batch(self, &mut batch))?;
            self.weights_of(&batch)?;
        }
        let outputs = self.outputs(&batch)?;
        let own = mean_square(&outputs, &batch)?;
        (self.loss_weight, self.added) = (1.0, Vec::new());
        if let Some(strategy) = strategy.as_deref_mut().filter(|_| phases.has(Phases::OUTPUTS)) {
            hook(strategy.on_outputs(self, &batch, &outputs))?;
        }
        let mut losses = Map::new()?;
        losses.put("loss", &own.affine(self.loss_weight, 0.0)?)?;
        for (name, loss, weight) in std::mem::take(&mut self.added) {
            losses.put(&name, &loss.affine(weight, 0.0)?)?;
        }
        let total = match strategy.as_deref_mut().filter(|_| phases.has(Phases::COMBINE)) {
            Some(strategy) => hook(strategy.combine(self, &losses))?,
            None => {
                let mut total = losses.get("loss")?;
                for name in losses.names().iter().filter(|name| *name != "loss") {
                    total = total.add(&losses.get(name)?)?;
                }
                total
            }
        };
        let value = values(&total)?[0];
        if !value.is_finite() {
            return failed(format!("the loss of step {} is {value}", self.step));
        }
        self.trace.push(json!({"loss": value.to_bits(), "batch": batch.names()}));
        self.params.zero_grads();
        self.modules.values_mut().for_each(Params::zero_grads);
        if total.is_tracked() {
            total.backward()?;
        }
        if let Some(strategy) = strategy.filter(|_| phases.has(Phases::GRADIENTS)) {
            hook(strategy.on_gradients(self))?;
        }
        plain_step(&mut self.params, RATE)
    }

    /// "weights" that a strategy has put into a batch.
    fn weights_of(&mut self, batch: &Map) -> Outcome {
        let Some(weights) = batch.find("weights")? else { return Ok(()) };
        if weights.shape() != [ROWS] {
            return failed(format!(
                "on_batch: \"weights\": expected shape [{ROWS}], found {:?}",
                weights.shape()
            ));
        }
        let weights = values(&weights)?;
        if weights.iter().any(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            return failed(format!("on_batch: \"weights\" are {weights:?}"));
        }
        self.trace.push(json!({"weights": weights}));
        Ok(())
    }

    /// The next batch of a source.
    fn batch(&mut self, source: &str) -> Outcome<Map> {
        let drawn = self.drawn.entry(source.to_owned()).or_default();
        let first = usize::try_from(*drawn).unwrap_or(0) * ROWS;
        *drawn += 1;
        self.note(json!({"batch of": source}));
        rows(first)
    }

    /// Logits of the model under training.
    fn outputs(&self, batch: &Map) -> Outcome<Map> {
        let mut hidden = batch.get("x")?;
        for name in ["embeddings.words.weight", "layer.0.weight"] {
            let weight = self.params.find(name)?.tensor()?;
            hidden = hidden.matmul(&weight.transpose()?)?.tanh()?;
        }
        let head = self.params.find("classifier.weight")?.tensor()?;
        let mut outputs = Map::new()?;
        outputs.put("logits", &hidden.matmul(&head.transpose()?)?)?;
        outputs.put("last", &hidden)?;
        outputs.put("pooled", &hidden)?;
        for layer in 0..2 {
            outputs.put(&format!("hidden_states/{layer}"), &hidden)?;
        }
        Ok(outputs)
    }

    fn note(&mut self, what: Value) {
        self.strange_calls += usize::from(thread::current().id() != self.home);
        self.trace.push(what);
    }
}

/// What came of a hook. A refusal is an answer: a strategy may need other data, or another model.
fn hook<T>(result: Result<T>) -> Outcome<T> {
    let needs = [
        abi::ET_ERR_BAD_INPUT,
        abi::ET_ERR_NOT_FOUND,
        abi::ET_ERR_FAILED_PRECONDITION,
        abi::ET_ERR_UNIMPLEMENTED,
    ];
    result.or_else(|error| {
        let text = error.to_string();
        match needs.contains(&error.code()) && !is_fault(&text) {
            true => skipped(format!("it needs more than a small fit: {text}")),
            false => failed(text),
        }
    })
}

/// A batch of `ROWS` runs of one token, beginning with a record.
fn rows(first: usize) -> Outcome<Map> {
    let mut batch = Map::new()?;
    let count = |at: usize| i64::try_from(at).unwrap_or(0);
    let records: Vec<i64> = (first..first + ROWS).map(count).collect();
    let x: Vec<f64> = (first * WIDTH..(first + ROWS) * WIDTH).map(number).collect();
    batch.put("x", &tensor(&x, &[ROWS, WIDTH], DType::F32)?)?;
    let labels: Vec<i64> = records.iter().map(|record| record % 2).collect();
    let integers = |values: &[i64]| Tensor::from_slice(values, &[values.len()]);
    batch.put("labels", &integers(&labels)?)?;
    batch.put("ids", &integers(&records.iter().map(|record| record % 7).collect::<Vec<_>>())?)?;
    batch.put("positions", &integers(&[0; ROWS])?)?;
    batch.put("starts", &integers(&(0..=count(ROWS)).collect::<Vec<_>>())?)?;
    batch.put("record", &integers(&records)?)?;
    batch.put("source", &integers(&[0; ROWS])?)?;
    Ok(batch)
}

/// Squares of the logits' distances to the labels, by row.
fn squares(outputs: &Map, batch: &Map) -> Outcome<Tensor> {
    let logits = outputs.get("logits")?;
    let labels = batch.get("labels")?.cast(DType::F32)?.reshape(&[ROWS, 1])?;
    Ok(logits.sub(&labels.broadcast_to(&[ROWS, 2])?)?.sqr()?.mean(&[1], false)?)
}

fn mean_square(outputs: &Map, batch: &Map) -> Outcome<Tensor> {
    Ok(easytransfer::plugin::mean_of_rows(&squares(outputs, batch)?, batch)?)
}

/// What a check tells as an error of the session.
fn told<T>(outcome: Outcome<T>) -> Result<T> {
    outcome.map_err(|stop| match stop {
        crate::report::Stop::Failed(text) | crate::report::Stop::Skipped(text) => {
            Error::invalid(text)
        }
    })
}

impl SessionHost for Fit {
    fn params(&mut self, model: &str) -> Result<&mut Params> {
        self.note(json!({"params": model}));
        if model == MODEL {
            return Ok(&mut self.params);
        }
        match self.modules.get_mut(model) {
            Some(params) => Ok(params),
            None => Err(Error::new(abi::ET_ERR_NOT_FOUND, format!("there is no model {model:?}"))),
        }
    }
    fn load_model(&mut self, _: &str, _: &str) -> Result<()> {
        refused("load_model")
    }
    fn describe(&mut self, _: &str) -> Result<Value> {
        let depth = ["embeddings", "layer.0"];
        Ok(json!({
            "model": {"hidden_size": WIDTH, "layers": 1, "vocab_size": 7, "max_positions": 8, "depth": depth},
            "app": {"labels": ["no", "yes"], "metrics": [], "best": "accuracy", "best_is": "max"},
        }))
    }
    fn forward(&mut self, model: &str, batch: &Map, _: bool, _: u32) -> Result<Map> {
        self.note(json!({"forward": model}));
        if model != MODEL {
            return refused("forward of a module");
        }
        told(self.outputs(batch))
    }
    fn loss(&mut self, outputs: &Map, batch: &Map) -> Result<Tensor> {
        told(mean_square(outputs, batch))
    }
    fn add_loss(&mut self, name: &str, loss: Tensor, weight: f64) -> Result<()> {
        let value = values(&loss)?;
        if value.len() != 1 {
            let found = format!("add_loss: {name:?}: expected a scalar, found {:?}", loss.shape());
            return Err(Error::invalid(found));
        }
        self.note(
            json!({"add_loss": name, "value": value[0].to_bits(), "weight": weight.to_bits()}),
        );
        self.added.push((name.to_owned(), loss, weight));
        Ok(())
    }
    fn set_loss_weight(&mut self, weight: f64) -> Result<()> {
        self.note(json!({"set_loss_weight": weight.to_bits()}));
        self.loss_weight = weight;
        Ok(())
    }
    fn want(&mut self, want: u32) -> Result<()> {
        self.note(json!({"want": want}));
        Ok(())
    }
    fn next_batch(&mut self, source: &str) -> Result<Map> {
        told(self.batch(source))
    }
    fn open_source(&mut self, _: &str, _: &str, _: &str) -> Result<()> {
        refused("open_source")
    }
    fn optimizer(&mut self, name: &str, _: &str, _: &Params) -> Result<usize> {
        self.note(json!({"optimizer": name}));
        self.optimizers.push(name.to_owned());
        Ok(self.optimizers.len() - 1)
    }
    fn optimizer_step(&mut self, optimizer: Option<usize>, lr: f64) -> Result<()> {
        self.note(json!({"optimizer_step": optimizer, "lr": lr.to_bits()}));
        match optimizer {
            None => told(plain_step(&mut self.params, lr))?,
            Some(_) => {
                for params in self.modules.values_mut() {
                    told(plain_step(params, lr))?;
                }
            }
        }
        self.params.zero_grads();
        self.modules.values_mut().for_each(Params::zero_grads);
        Ok(())
    }
    fn evaluate(&mut self, model: &str, source: &str, _: u64) -> Result<Json<String, Value>> {
        self.note(json!({"evaluate": [model, source]}));
        Ok(Json::from_iter([("accuracy".to_owned(), json!(0.5))]))
    }
    fn log_scalar(&mut self, name: &str, value: f64) -> Result<()> {
        self.note(json!({"log": name, "value": value.to_bits()}));
        Ok(())
    }
    fn step(&self) -> u64 {
        self.step
    }
    fn total_steps(&self) -> u64 {
        self.total
    }
    fn is_cancelled(&self) -> bool {
        false
    }
    fn module(&mut self, name: &str, spec: &ModuleSpec<'_>) -> Result<Scope> {
        if !spec.model.is_empty() {
            return refused("module with a model");
        }
        let params = Params::new(11)?;
        let root = params.root()?;
        self.modules.insert(name.to_owned(), params);
        Ok(root)
    }
    fn sources(&mut self) -> Result<Vec<SourceInfo>> {
        let name = "train".to_owned();
        let (records, batches) = (ROWS as u64 * EPOCH, EPOCH);
        Ok(vec![SourceInfo { name, records, batches, weight: 1.0, ..SourceInfo::default() }])
    }
    fn draw_batch(&mut self, sources: &[&str], _: Option<&[f64]>) -> Result<Map> {
        told(self.batch(sources[0]))
    }
    fn records(&mut self, _: &str, numbers: &[u64]) -> Result<Map> {
        told(rows(usize::try_from(numbers[0]).unwrap_or(0)))
    }
    fn record(&mut self, _: &str, number: u64) -> Result<String> {
        let label = if number.is_multiple_of(2) { "no" } else { "yes" };
        Ok(json!({"text": format!("text {number}"), "label": label}).to_string())
    }
    fn loss_rows(&mut self, outputs: &Map, batch: &Map) -> Result<Tensor> {
        told(squares(outputs, batch))
    }
    fn set_total_steps(&mut self, steps: u64) -> Result<()> {
        self.note(json!({"set_total_steps": steps}));
        self.total = steps;
        Ok(())
    }
    fn lr(&mut self) -> f64 {
        RATE
    }
    fn step_once(&mut self, source: &str) -> Result<()> {
        told(self.one(None, source))
    }
    fn commit(&mut self, figures: &Json<String, Value>, save: Save<'_>) -> Result<bool> {
        self.note(json!({"commit": figures}));
        if self.step > self.end + 2 {
            return Err(Error::invalid("commit: it said that the run is over, and fit goes on"));
        }
        self.step += 1;
        told(self.note_values())?;
        let mut stream = Stream::writer()?;
        save(&mut stream)?;
        let state = stream.bytes()?.as_slice().to_vec();
        self.saved.insert(self.step, (told(self.kept())?, state));
        Ok(self.step < self.end)
    }
}
