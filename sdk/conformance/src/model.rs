//! Models: rows that do not see each other, outputs of the promised shapes, and a gradient for every parameter.

mod generation;
mod many;

use easytransfer::plugin::abi::{ET_WANT_HIDDEN_STATES, ET_WANT_LOGITS, ET_WANT_POOLED};
use easytransfer::plugin::{
    Call, ComponentRef, DType, LoadedModel, Map, ModelInfo, Params, Rng, RngState, Row, Tensor,
    no_grad,
};
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::inputs::{number, tensor, values};
use crate::report::{Outcome, Stop, failed, skipped};
use crate::schema;

pub const VOCABULARY: usize = 40;
const LENGTHS: [usize; 3] = [5, 1, 7];

/// Sizes under the names that configurations of Hugging Face use: small, and all different where a mix-up would hide
/// otherwise.
const SIZES: [(&str, usize); 22] = [
    ("vocab_size", VOCABULARY),
    ("hidden_size", 16),
    ("dim", 16),
    ("d_model", 16),
    ("n_embd", 16),
    ("num_hidden_layers", 2),
    ("num_layers", 2),
    ("n_layers", 2),
    ("n_layer", 2),
    ("num_attention_heads", 2),
    ("n_heads", 2),
    ("n_head", 2),
    ("num_heads", 2),
    ("d_kv", 6),
    ("intermediate_size", 24),
    ("hidden_dim", 24),
    ("d_ff", 24),
    ("max_position_embeddings", 32),
    ("n_positions", 32),
    ("type_vocab_size", 2),
    ("patch_feature_size", 10),
    ("max_patch_position_embeddings", 6),
];

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let mut can_be_made = false;
    checks.check("create", "can be made from a small configuration", || {
        Trial::new(component, DType::F32)?;
        can_be_made = true;
        Ok(())
    });
    if !can_be_made {
        return;
    }
    checks.check("describe", "describes itself", || describes_itself(component));
    checks.check("forward", "outputs have the promised shapes", || shapes(component));
    checks.check("forward", "a row does not see its neighbours", || neighbours(component));
    checks.check("forward", "same inputs give the same bits", || {
        let mut trial = Trial::new(component, DType::F32)?;
        let batch = trial.batch(&LENGTHS)?;
        let (a, b) = (trial.infer(&batch, 0)?, trial.infer(&batch, 0)?);
        if values(&a.get("last")?)? == values(&b.get("last")?)? {
            Ok(())
        } else {
            failed("they differ")
        }
    });
    checks.check("forward", "dropout repeats from the same state of the generator", || {
        let mut trial = Trial::new(component, DType::F32)?;
        let batch = trial.batch(&LENGTHS)?;
        let run = |trial: &mut Trial| -> Outcome<Vec<f64>> {
            let rng = Rng::new(9, 1)?;
            rng.set_state(RngState { seed: 9, stream: 1, offset: 64 });
            let mut outputs = Map::new()?;
            no_grad(|| trial.model.forward(&Call::training(0, &rng), &batch, &mut outputs))?;
            Ok(values(&outputs.get("last")?)?)
        };
        if run(&mut trial)? == run(&mut trial)? { Ok(()) } else { failed("they differ") }
    });
    checks.check("forward", "a gradient reaches every parameter", || {
        let mut trial = Trial::new(component, DType::F32)?;
        trial.params.seal()?;
        trial.loss()?.backward()?;
        let without: Vec<String> =
            trial.params.iter().filter(|p| !p.has_grad()).map(|p| p.name()).collect();
        if without.is_empty() { Ok(()) } else { failed(format!("none for {}", without.join(", "))) }
    });
    checks.check("forward", "gradient along a direction equals finite differences", || {
        direction(component)
    });
    checks.check("create", "another instance does the same", || {
        let options = configuration(component)?.to_string();
        match effect(component, &options)? == effect(component, &options)? {
            true => Ok(()),
            false => failed("a second instance does something else"),
        }
    });
    many::check(component, checks);
    generation::check(component, checks);
}

/// What the model says of itself, its parameters, and what it computes.
pub fn effect(component: &ComponentRef, options: &str) -> Outcome<Value> {
    let mut trial = Trial::with(component, options, DType::F32)?;
    let batch = trial.batch(&LENGTHS)?;
    let want = trial.want();
    let last = values(&trial.infer(&batch, want)?.get("last")?)?;
    let names: Vec<String> = trial.params.iter().map(|param| param.name()).collect();
    let bits: Vec<u64> = last.into_iter().map(f64::to_bits).collect();
    Ok(json!([trial.info(), names, bits]))
}

/// What an instance computes.
pub fn later(component: &ComponentRef, options: &str) -> Outcome<crate::options::Later> {
    let mut trial = Trial::with(component, options, DType::F32)?;
    Ok(Box::new(move || {
        let batch = trial.batch(&LENGTHS)?;
        let last = values(&trial.infer(&batch, 0)?.get("last")?)?;
        Ok(json!(last.into_iter().map(f64::to_bits).collect::<Vec<_>>()))
    }))
}

/// A model with random weights.
pub struct Trial {
    pub model: LoadedModel,
    pub params: Params,
}

/// A configuration of a small network: the sizes that the schema knows, and its defaults.
pub fn configuration(component: &ComponentRef) -> Outcome<Value> {
    let schema = schema::read(component)?;
    let mut config = json!({});
    for (name, size) in SIZES {
        if schema["properties"].get(name).is_some() {
            config[name] = json!(size);
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if config.get(name).is_none() {
            return Err(Stop::Skipped(format!("it needs a value for {name:?}")));
        }
    }
    Ok(config)
}

impl Trial {
    pub fn new(component: &ComponentRef, dtype: DType) -> Outcome<Self> {
        Self::with(component, &configuration(component)?.to_string(), dtype)
    }

    pub fn with(component: &ComponentRef, config: &str, dtype: DType) -> Outcome<Self> {
        let params = Params::with_dtype(7, dtype)?;
        let model = LoadedModel::create(component, config, &params.root()?)?;
        Ok(Self { model, params })
    }

    /// Number of ids that every batch stays below.
    pub fn vocabulary(&self) -> usize {
        match self.info().vocab_size {
            0 => VOCABULARY,
            size => size.min(VOCABULARY),
        }
    }

    /// Lengths as far as the model has positions.
    pub fn fitting(&self, lengths: &[usize]) -> Vec<usize> {
        let most = match self.info().max_positions {
            0 => usize::MAX,
            most => most,
        };
        lengths.iter().map(|length| *length.min(&most)).collect()
    }

    /// Runs of these lengths, within the model's bounds.
    pub fn batch(&self, lengths: &[usize]) -> Outcome<Map> {
        batch_within(&self.fitting(lengths), self.vocabulary())
    }

    pub fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    pub fn want(&self) -> u32 {
        ET_WANT_HIDDEN_STATES | if self.info().pooled { ET_WANT_POOLED } else { 0 }
    }

    pub fn infer(&mut self, batch: &Map, want: u32) -> Outcome<Map> {
        let mut outputs = Map::new()?;
        no_grad(|| self.model.forward(&Call::inference(want), batch, &mut outputs))?;
        Ok(outputs)
    }

    /// A batch of rows of the longest kind: with all further fields that the model reads.
    fn whole_batch(&self) -> Outcome<Map> {
        let mut batch = self.batch(&LENGTHS)?;
        for (at, (name, len)) in self.info().inputs.iter().enumerate() {
            let values: Vec<f64> = (0..LENGTHS.len() * len).map(|i| number(i + at)).collect();
            batch.put(name, &tensor(&values, &[LENGTHS.len(), *len], DType::F32)?)?;
        }
        Ok(batch)
    }

    /// One number that depends on all outputs.
    fn loss(&mut self) -> Outcome<Tensor> {
        let (mut want, mut outputs, mut batch) = (self.want(), Map::new()?, self.whole_batch()?);
        let has_decoder = self.info().decoder_start.is_some();
        if has_decoder {
            // Runs that the decoder reads, of other lengths than the encoder's.
            let ids: Vec<i64> = (0..7).map(|at| (5 * at + 3) % self.vocabulary() as i64).collect();
            for (name, values) in [
                ("decoder/ids", ids),
                ("decoder/positions", vec![0, 1, 0, 1, 2, 3, 0]),
                ("decoder/starts", vec![0, 2, 6, 7]),
            ] {
                batch.put(name, &Tensor::from_slice(&values, &[values.len()])?)?;
            }
            want |= ET_WANT_LOGITS;
        }
        self.model.forward(&Call::inference(want), &batch, &mut outputs)?;
        let weighted = |name: &str| -> Outcome<Tensor> {
            let output = outputs.get(name)?;
            let weights: Vec<f64> = (0..output.len()).map(number).collect();
            let weights = tensor(&weights, output.shape(), output.dtype())?;
            Ok(output.mul(&weights)?.sum(&[], false)?)
        };
        let mut loss = weighted("last")?;
        for name in &self.info().outputs {
            loss = loss.add(&weighted(name)?)?;
        }
        if self.info().pooled {
            loss = loss.add(&weighted("pooled")?)?;
        }
        if outputs.has("target/last") {
            loss = loss.add(&weighted("target/last")?)?;
        }
        if has_decoder {
            loss = loss.add(&weighted("decoder/last")?)?.add(&weighted("logits")?)?;
        }
        Ok(loss)
    }
}

fn batch_within(lengths: &[usize], vocabulary: usize) -> Outcome<Map> {
    let mut rows = Vec::new();
    for (at, &length) in lengths.iter().enumerate() {
        let ids: Vec<i64> =
            (0..length).map(|i| ((11 * at + 7 * i + 5) % vocabulary) as i64).collect();
        let segments: Vec<i64> = (0..length).map(|i| i64::from(2 * i > length)).collect();
        let mut row = Row::new()?;
        row.put_tokens("ids", &ids)?;
        row.put_tokens("segments", &segments)?;
        // For models that predict tokens of their own choice by a second stream; others pass over it.
        row.put_tokens("target/places", &[length as i64 / 2])?;
        rows.push(row);
    }
    Ok(Map::from_rows(&rows.iter().collect::<Vec<_>>())?)
}

fn describes_itself(component: &ComponentRef) -> Outcome {
    let trial = Trial::new(component, DType::F32)?;
    let info = trial.info();
    for (name, value) in [
        ("hidden_size", info.hidden_size),
        ("vocab_size", info.vocab_size),
        ("max_positions", info.max_positions),
    ] {
        if value == 0 {
            return failed(format!("{name} is 0"));
        }
    }
    if info.depth.is_empty() {
        // A model that tells nothing of its layers is one whose layers nobody can freeze.
        return Ok(());
    }
    if info.depth.len() != info.layers + 1 {
        return failed(format!(
            "expected {} scopes under \"depth\" (embeddings and layers), found {}",
            info.layers + 1,
            info.depth.len()
        ));
    }
    let names: Vec<String> = trial.params.iter().map(|param| param.name()).collect();
    if let Some(name) = names.iter().find(|name| info.depth_of(name).is_none()) {
        return failed(format!("parameter {name} is below no scope of \"depth\" or \"beside\""));
    }
    let has_parameter = |depth: usize| names.iter().any(|name| info.depth_of(name) == Some(depth));
    let is_shared = |depth: usize| info.depth[depth + 1..].contains(&info.depth[depth]);
    match (0..info.depth.len()).find(|&depth| !has_parameter(depth) && !is_shared(depth)) {
        Some(depth) => failed(format!("no parameter is below {:?}", info.depth[depth])),
        None => Ok(()),
    }
}

fn shapes(component: &ComponentRef) -> Outcome {
    let mut trial = Trial::new(component, DType::F32)?;
    let want = trial.want();
    let outputs = trial.infer(&trial.batch(&LENGTHS)?, want)?;
    let (tokens, rows) = (trial.fitting(&LENGTHS).iter().sum(), LENGTHS.len());
    let h = trial.info().hidden_size;
    let mut expected = vec![("last".to_owned(), vec![tokens, h])];
    // A model that has none of them offers none.
    if outputs.names().iter().any(|name| name.starts_with("hidden_states/")) {
        let layers = 0..=trial.info().layers;
        expected.extend(layers.map(|k| (format!("hidden_states/{k}"), vec![tokens, h])));
    }
    if trial.info().pooled {
        expected.push(("pooled".to_owned(), vec![rows, h]));
    }
    for (name, shape) in expected {
        let output = outputs.get(&name)?;
        if output.shape() != shape {
            return failed(format!("{name}: expected {shape:?}, found {:?}", output.shape()));
        }
        if values(&output)?.iter().any(|value| !value.is_finite()) {
            return failed(format!("{name} holds numbers that are not finite"));
        }
    }
    Ok(())
}

fn neighbours(component: &ComponentRef) -> Outcome {
    let mut trial = Trial::new(component, DType::F32)?;
    let whole = trial.batch(&LENGTHS)?;
    let (ids, segments) = (whole.get("ids")?, whole.get("segments")?);
    let together = values(&trial.infer(&whole, 0)?.get("last")?)?;
    let h = trial.info().hidden_size;
    let mut begin = 0;
    for length in trial.fitting(&LENGTHS) {
        let mut row = Row::new()?;
        for (name, all) in [("ids", &ids), ("segments", &segments)] {
            let part = all.narrow(0, begin, length)?.contiguous()?.to_vec::<i64>()?;
            row.put_tokens(name, &part)?;
        }
        let alone = values(&trial.infer(&Map::from_rows(&[&row])?, 0)?.get("last")?)?;
        let part = &together[begin * h..(begin + length) * h];
        let worst = alone.iter().zip(part).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if alone.len() != part.len() || worst > 1e-5 {
            return failed(format!(
                "the row of {length} tokens differs by {worst:.1e} when it is alone"
            ));
        }
        begin += length;
    }
    Ok(())
}

/// Moves all parameters along one direction, in double precision.
fn direction(component: &ComponentRef) -> Outcome {
    let mut trial = Trial::new(component, DType::F64)?;
    trial.params.seal()?;
    if let Err(Stop::Failed(text)) = trial.loss() {
        return skipped(format!("it does not compute in double precision: {text}"));
    }
    trial.loss()?.backward()?;
    let params: Vec<_> = trial.params.iter().collect();
    let direction =
        |at: usize, len: usize| -> Vec<f64> { (0..len).map(|i| number(i + 13 * at)).collect() };
    let (mut slope, mut starts) = (0.0, Vec::new());
    for (at, param) in params.iter().enumerate() {
        if let Some(gradient) = param.grad()? {
            let gradient = values(&gradient)?;
            let along = direction(at, gradient.len());
            slope += gradient.iter().zip(&along).map(|(g, d)| g * d).sum::<f64>();
        }
        starts.push(values(&param.tensor()?.detach()?)?);
    }
    let step = 1e-6;
    let mut height = |sign: f64| -> Outcome<f64> {
        for (at, param) in params.iter().enumerate() {
            let along = direction(at, starts[at].len());
            let moved: Vec<f64> =
                starts[at].iter().zip(&along).map(|(x, d)| x + sign * step * d).collect();
            param.assign(&tensor(&moved, param.shape(), DType::F64)?)?;
        }
        Ok(values(&trial.loss()?)?[0])
    };
    let expected = (height(1.0)? - height(-1.0)?) / (2.0 * step);
    if (slope - expected).abs() <= 1e-5 * (1.0 + expected.abs()) {
        Ok(())
    } else {
        failed(format!("expected a slope of {expected:.8e}, found {slope:.8e}"))
    }
}
