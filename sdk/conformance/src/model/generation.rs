//! Models whose runs the host continues: what they keep in a cache stands for the tokens that they have read.

use easytransfer::plugin::abi::ET_WANT_LOGITS;
use easytransfer::plugin::{Call, ComponentRef, DType, Map, Tensor, no_grad};

use super::Trial;
use crate::checks::Checks;
use crate::inputs::{no_panic, values};
use crate::report::{Outcome, failed, skipped};

/// Lengths of the runs that grow, and how much of each was read before the last token.
const LENGTHS: [usize; 2] = [4, 3];
const BEFORE: [usize; 2] = [3, 2];

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("forward", "going on with a cache is reading the whole", || {
        let mut trial = trial(component)?;
        let logits = values(&trial.infer(&begun(&trial, LENGTHS)?, ET_WANT_LOGITS)?.get("logits")?)?;
        let width = logits.len() / LENGTHS.iter().sum::<usize>();
        let mut cache = Map::new()?;
        let first = go_on(&mut trial, &mut cache, BEFORE)?;
        let second = next(&mut trial, &mut cache)?;
        // The last token that each call has read of each run, counted over all of the whole.
        for (found, tokens) in [(first, [2, 5]), (second, [3, 6])] {
            let expected = tokens.map(|token| &logits[token * width..(token + 1) * width]).concat();
            let apart = |(a, b): (&f64, &f64)| (a - b).abs();
            let worst = found.iter().zip(&expected).map(apart).fold(0.0, f64::max);
            let finite = found.iter().all(|value| value.is_finite());
            if found.len() != expected.len() || worst > 1e-4 || !finite {
                return failed(format!(
                    "expected {} logits, those of the last tokens, found {}, up to {worst:.1e} apart",
                    expected.len(),
                    found.len()
                ));
            }
        }
        Ok(())
    });
    checks.check("forward", "what another model has kept is refused", || {
        let mut trial = trial(component)?;
        let mut cache = Map::new()?;
        go_on(&mut trial, &mut cache, BEFORE)?;
        cache.put("of another/0", &Tensor::zeros(DType::F32, &[2, 1])?)?;
        cache.put("of another/starts", &Tensor::from_slice(&[0i64, 1, 2], &[3])?)?;
        let call = Call::generation(ET_WANT_LOGITS, &mut cache)?;
        let (step, mut outputs) = (grown(&trial, &BEFORE, &LENGTHS)?, Map::new()?);
        match no_grad(|| trial.model.forward(&call, &step, &mut outputs)) {
            Ok(()) => failed("it was used"),
            Err(error) => no_panic::<()>(Err(error)),
        }
    });
}

/// A model that answers with logits and keeps something. Skips for others.
fn trial(component: &ComponentRef) -> Outcome<Trial> {
    let mut trial = Trial::new(component, DType::F32)?;
    let whole = begun(&trial, LENGTHS)?;
    if !trial.infer(&whole, ET_WANT_LOGITS)?.has("logits") {
        return skipped("it has no logits over its vocabulary");
    }
    let mut cache = Map::new()?;
    go_on(&mut trial, &mut cache, BEFORE)?;
    if cache.is_empty() { skipped("it keeps nothing") } else { Ok(trial) }
}

/// Name space of the runs that grow.
fn space(trial: &Trial) -> &'static str {
    if trial.info().decoder_start.is_some() { "decoder/" } else { "" }
}

/// Tokens `from..to` of each run that grows.
fn grown(trial: &Trial, from: &[usize], to: &[usize]) -> Outcome<Map> {
    let (space, vocabulary) = (space(trial), trial.vocabulary());
    let (mut ids, mut positions, mut starts) = (Vec::new(), Vec::new(), vec![0i64]);
    for (run, (&from, &to)) in from.iter().zip(to).enumerate() {
        for place in from..to {
            ids.push(((11 * run + 7 * place + 5) % vocabulary) as i64);
            positions.push(place as i64);
        }
        starts.push(ids.len() as i64);
    }
    let mut map = Map::new()?;
    for (name, values) in [("ids", &ids), ("positions", &positions), ("starts", &starts)] {
        map.put(&format!("{space}{name}"), &Tensor::from_slice(values, &[values.len()])?)?;
    }
    Ok(map)
}

/// What a model reads first: the beginning of the runs that grow, and the texts of its encoder if it has one.
fn begun(trial: &Trial, to: [usize; 2]) -> Outcome<Map> {
    let space = space(trial);
    let mut whole = if space.is_empty() { Map::new()? } else { trial.batch(&[5, 3])? };
    let grown = grown(trial, &[0, 0], &to)?;
    for name in grown.names() {
        whole.put(&name, &grown.get(&name)?)?;
    }
    Ok(whole)
}

/// The first call with a cache.
fn go_on(trial: &mut Trial, cache: &mut Map, to: [usize; 2]) -> Outcome<Vec<f64>> {
    let batch = begun(trial, to)?;
    with_cache(trial, cache, &batch)
}

/// The call for the last token of each run.
fn next(trial: &mut Trial, cache: &mut Map) -> Outcome<Vec<f64>> {
    let batch = grown(trial, &BEFORE, &LENGTHS)?;
    with_cache(trial, cache, &batch)
}

fn with_cache(trial: &mut Trial, cache: &mut Map, batch: &Map) -> Outcome<Vec<f64>> {
    let call = Call::generation(ET_WANT_LOGITS, cache)?;
    let mut outputs = Map::new()?;
    no_grad(|| trial.model.forward(&call, batch, &mut outputs))?;
    Ok(values(&outputs.get("logits")?)?)
}
