//! Checkpoints: everything that a killed run needs to go on as if nothing had happened.
//!
//! A checkpoint is a directory that appears whole or not at all: `state.json`, `params.bin`, `optimizer.bin`, one
//! `strategy-N.bin` each, one `session-N.bin` for each optimizer and one `module-N.bin` for each module that a
//! strategy opened, and `best.bin` when some parameters were better than the present ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use easytransfer_loader::read_regular;
use easytransfer_plugin::{Buffer, LoadedOptimizer, LoadedStrategy, Params, RngState, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::data::batches::Position;
use crate::error::{Error, Result};
use crate::files::atomic::{AtomicDir, recover};
use crate::model::bundle::write_json;
use crate::model::network::read_json;

/// Version of the layout and of the order of batches.
const FORMAT: u64 = 3;

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of the run's own optimizer, which differ where a strategy drives the fit.
    pub optimizer_steps: u64,
    /// Epoch in which the next batch is, from 0.
    pub epoch: u64,
    /// Batches of that epoch that are done.
    pub batch: usize,
    /// Whether all steps are done and only the bundle is to be written.
    pub finished: bool,
    /// Figures of the best evaluation, with its step.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub evaluations_since_best: u64,
    /// Sums for the running mean of the loss.
    pub loss_sum: f64,
    /// Number of losses in it.
    pub loss_count: u64,
    /// Step after which the last evaluation was made.
    pub evaluated: u64,
    /// What is still to be done after the last step, because the run was cancelled in the evaluation there.
    #[serde(default)]
    pub after_step: Option<AfterStep>,
}

/// What follows after a step with an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AfterStep {
    /// Whether an epoch ends with it.
    pub epoch_ends: bool,
    /// Whether it is the last one.
    pub run_ends: bool,
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Step after which it was made.
    pub step: u64,
    /// The deciding figure.
    pub value: f64,
    /// All figures.
    pub metrics: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u64,
    fingerprint: Value,
    progress: Progress,
    rng: [u64; 3],
    sources: BTreeMap<String, Position>,
    draws: [u64; 3],
    /// Steps of the optimizers that strategies opened.
    session_steps: Vec<u64>,
    /// Names of the modules that strategies made.
    modules: Vec<String>,
    kept: Option<String>,
}

/// What strategies got from the session and what moves with the steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionState {
    /// Sources by name, the training data under "train".
    pub sources: BTreeMap<String, Position>,
    /// State of the generator that draws between sources.
    pub draws: [u64; 3],
    /// Optimizers in the order in which they were opened: steps done and state.
    pub optimizers: Vec<(u64, Vec<u8>)>,
    /// Modules in the order in which they were made: name and values.
    pub modules: Vec<(String, Vec<u8>)>,
    /// The module that is the result of the run.
    pub kept: Option<String>,
}

/// The parts of a run that a checkpoint holds.
pub struct Parts<'a> {
    /// Options and data that must be the same when the run goes on.
    pub fingerprint: &'a Value,
    /// The parameters.
    pub params: &'a mut Params,
    /// The optimizer.
    pub optimizer: &'a mut LoadedOptimizer,
    /// The best parameters, when they are not the present ones.
    pub best: &'a mut Option<Buffer>,
}

/// Where a run keeps its checkpoint.
pub fn path(output: &Path) -> PathBuf {
    output.join("checkpoint")
}

fn write_bytes(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory.join(name);
    std::fs::write(&path, bytes).map_err(|error| Error::io("write", path, error))
}

fn read_bytes(directory: &Path, name: &str) -> Result<Vec<u8>> {
    let path = directory.join(name);
    read_regular(&path, u64::MAX).map_err(|error| Error::io("read", path, error))
}

/// The states of strategies, in their order. `driver` is that of the strategy that drives the fit, at its place: it
/// cannot be asked while it does.
pub fn states(
    strategies: &mut [LoadedStrategy],
    driver: Option<(usize, Vec<u8>)>,
) -> Result<Vec<Vec<u8>>> {
    let mut states = Vec::new();
    for strategy in strategies {
        let mut stream = Stream::writer()?;
        strategy.save(&mut stream)?;
        states.push(stream.bytes()?.as_slice().to_vec());
    }
    if let Some((place, state)) = driver {
        states.insert(place, state);
    }
    Ok(states)
}

/// Writes a checkpoint; `strategies` are the states of the strategies.
pub fn save(
    target: &Path,
    progress: &Progress,
    rng: RngState,
    session: &SessionState,
    strategies: &[Vec<u8>],
    parts: &mut Parts<'_>,
) -> Result<()> {
    let directory = AtomicDir::create(target)?;
    let at = directory.path();
    write_bytes(at, "params.bin", parts.params.snapshot()?.as_slice())?;
    let mut stream = Stream::writer()?;
    parts.optimizer.save(&mut stream)?;
    write_bytes(at, "optimizer.bin", stream.bytes()?.as_slice())?;
    for (index, state) in strategies.iter().enumerate() {
        write_bytes(at, &format!("strategy-{index}.bin"), state)?;
    }
    for (index, (_, bytes)) in session.optimizers.iter().enumerate() {
        write_bytes(at, &format!("session-{index}.bin"), bytes)?;
    }
    for (index, (_, bytes)) in session.modules.iter().enumerate() {
        write_bytes(at, &format!("module-{index}.bin"), bytes)?;
    }
    if let Some(best) = parts.best {
        write_bytes(at, "best.bin", best.as_slice())?;
    }
    let state = State {
        format: FORMAT,
        fingerprint: parts.fingerprint.clone(),
        progress: progress.clone(),
        rng: [rng.seed, rng.stream, rng.offset],
        sources: session.sources.clone(),
        draws: session.draws,
        session_steps: session.optimizers.iter().map(|(steps, _)| *steps).collect(),
        modules: session.modules.iter().map(|(name, _)| name.clone()).collect(),
        kept: session.kept.clone(),
    };
    let state = serde_json::to_value(state)
        .map_err(|error| Error::other(format!("write state.json: {error}")))?;
    write_json(&at.join("state.json"), &state)?;
    directory.commit()
}

/// Whether there is a checkpoint.
pub fn exists(target: &Path) -> Result<bool> {
    recover(target)?;
    Ok(target.join("state.json").exists())
}

/// Reads a checkpoint back. Errors: it belongs to a run with other options or data, naming what differs.
pub fn load(
    target: &Path,
    strategies: &mut [LoadedStrategy],
    parts: &mut Parts<'_>,
) -> Result<(Progress, RngState, SessionState)> {
    let path = target.join("state.json");
    let fault = |message: String| Error::Config {
        origin: path.display().to_string(),
        message: format!("{message}; remove the checkpoint to start anew"),
    };
    let state = read_json(&path)?;
    if state["format"] != FORMAT {
        return Err(fault(format!(
            "format: expected {FORMAT}, found {}; it was written by another version of easytransfer",
            state["format"]
        )));
    }
    let state: State = serde_json::from_value(state).map_err(|error| fault(error.to_string()))?;
    if let Some(difference) = difference(&state.fingerprint, parts.fingerprint, "") {
        return Err(Error::user(format!(
            "`{}`: the checkpoint belongs to another run: {difference}; use the same options and data to resume, or another output directory to start anew",
            target.display()
        )));
    }
    parts.params.restore(&Buffer::new(&read_bytes(target, "params.bin")?)?)?;
    parts.optimizer.load(&mut Stream::reader(&read_bytes(target, "optimizer.bin")?)?)?;
    for (index, strategy) in strategies.iter_mut().enumerate() {
        strategy
            .load(&mut Stream::reader(&read_bytes(target, &format!("strategy-{index}.bin"))?)?)?;
    }
    *parts.best = if target.join("best.bin").exists() {
        Some(Buffer::new(&read_bytes(target, "best.bin")?)?)
    } else {
        None
    };
    let [seed, stream, offset] = state.rng;
    let optimizers = state
        .session_steps
        .iter()
        .enumerate()
        .map(|(index, &steps)| Ok((steps, read_bytes(target, &format!("session-{index}.bin"))?)))
        .collect::<Result<_>>()?;
    let modules = state.modules.into_iter().enumerate();
    let modules = modules
        .map(|(index, name)| Ok((name, read_bytes(target, &format!("module-{index}.bin"))?)))
        .collect::<Result<_>>()?;
    let (sources, draws, kept) = (state.sources, state.draws, state.kept);
    let session = SessionState { sources, draws, optimizers, modules, kept };
    Ok((state.progress, RngState { seed, stream, offset }, session))
}

/// The first difference between two values: "lr was 1e-5, is 2e-5".
fn difference(old: &Value, new: &Value, key: &str) -> Option<String> {
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
        for name in keys {
            let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
            let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            if let Some(found) = difference(a, b, &path) {
                return Some(found);
            }
        }
        return None;
    }
    (old != new).then(|| format!("{key} was {old}, is {new}"))
}

#[cfg(test)]
mod tests {
    use super::difference;
    use serde_json::json;

    #[test]
    fn difference_names_the_key() {
        let (a, b) =
            (json!({"batch": {"rows": 32}, "lr": 1.0}), json!({"batch": {"rows": 16}, "lr": 1.0}));
        assert_eq!(difference(&a, &b, "").unwrap(), "batch.rows was 32, is 16");
        assert_eq!(difference(&a, &a, ""), None);
        assert_eq!(difference(&json!({}), &json!({"x": 1}), "").unwrap(), "x was null, is 1");
    }
}
