//! What all layers share about a batch: distances, segments, the order of prediction, and memory.

use super::blind::{Blind, Runs, blind};
use super::config::Shape;
use easytransfer_plugin::{Cache, DType, Error, Map, Result, Rng, Tensor, nn};

/// Numbers of the queries' tokens and of the keys', I64.
#[derive(Clone)]
pub struct Numbers {
    pub of_queries: Tensor,
    pub of_keys: Tensor,
}

/// What all layers share about a batch.
#[derive(Clone)]
pub struct Surroundings {
    /// Cumulative lengths of the runs.
    pub starts: Tensor,
    /// Those of the keys, with memory.
    pub key_starts: Tensor,
    /// Vectors of distances [P, d_model], and the row for each distance.
    pub distances: Tensor,
    pub buckets: Tensor,
    pub segments: Option<Numbers>,
    pub order: Option<Numbers>,
    /// Rows of the tokens that the second stream predicts.
    pub targets: Option<Tensor>,
    /// Those of them that come first of all and see nothing.
    pub blind: Vec<Blind>,
    /// Tokens that memory holds and those of the batch.
    pub tokens: usize,
    /// Rows of everything kept and new that the keys are, where memory is cut.
    pub seen: Option<Tensor>,
}

/// Runs of `before` + `new` tokens each: the numbers of the new ones, with `of_memory` for the others.
fn with_memory(new: &[i64], starts: &[i64], key_starts: &[i64], of_memory: i64) -> Vec<i64> {
    let mut all = Vec::with_capacity(new.len());
    for (run, keys) in starts.windows(2).zip(key_starts.windows(2)) {
        let before = (keys[1] - keys[0]) - (run[1] - run[0]);
        all.extend((0..before).map(|_| of_memory));
        all.extend(&new[run[0] as usize..run[1] as usize]);
    }
    all
}

pub fn tensor(values: &[i64]) -> Result<Tensor> {
    Tensor::from_slice(values, &[values.len()])
}

impl Surroundings {
    /// Reads the batch: "starts", and where it has them "segments", "order", "key_order" and "target/places". `cache`
    /// holds the memory.
    pub fn new(
        shape: &Shape,
        batch: &Map,
        cache: Option<&Cache<'_>>,
        dtype: DType,
        rng: Option<&Rng>,
    ) -> Result<Self> {
        let starts_tensor = batch.get("starts")?;
        let starts = starts_tensor.to_vec::<i64>()?;
        // The number of each token in its run grows over calls, so a place says how many lie in memory.
        let Remembered { key_starts, tokens, seen } = match cache {
            Some(cache) if !cache.is_empty() => remembered(shape, batch, &starts)?,
            _ => {
                let tokens = starts.last().map_or(0, |end| *end as usize);
                Remembered { key_starts: starts.clone(), tokens, seen: None }
            }
        };
        let numbers = |name: &str, key_name: &str, of_memory: i64| -> Result<Option<Numbers>> {
            let Some(of_queries) = batch.find(name)? else { return Ok(None) };
            let own = batch.find(key_name)?.unwrap_or_else(|| of_queries.clone());
            let keys = with_memory(&own.to_vec::<i64>()?, &starts, &key_starts, of_memory);
            Ok(Some(Numbers { of_queries, of_keys: tensor(&keys)? }))
        };
        let segments = numbers("segments", "segments", 0)?;
        // Memory is seen by all.
        let order = numbers("order", "key_order", i64::MIN)?;
        let longest = key_starts.windows(2).map(|run| run[1] - run[0]).max().unwrap_or(0);
        let (distances, buckets) = distances(shape, longest, dtype)?;
        let targets = targets(batch, &starts)?;
        let blind = match (&targets, &order) {
            (Some(targets), Some(order)) => {
                let runs = Runs { starts: &starts, key_starts: &key_starts, longest };
                blind(&targets.to_vec()?, order, segments.as_ref(), runs, shape.causal)?
            }
            _ => Vec::new(),
        };
        Ok(Self {
            targets,
            blind,
            tokens,
            starts: starts_tensor,
            key_starts: tensor(&key_starts)?,
            distances: nn::dropout(&distances, shape.dropout, rng)?,
            buckets,
            segments,
            order,
            seen,
        })
    }
}

/// Runs that go on.
struct Remembered {
    key_starts: Vec<i64>,
    /// Kept and new tokens.
    tokens: usize,
    /// Where memory is cut, the rows of kept and new tokens that are seen.
    seen: Option<Tensor>,
}

fn remembered(shape: &Shape, batch: &Map, starts: &[i64]) -> Result<Remembered> {
    let positions = batch.get("positions")?.to_vec::<i64>()?;
    let (mut key_starts, mut rows, mut first) = (vec![0], Vec::new(), 0);
    for run in starts.windows(2) {
        let (new, at) = (run[1] - run[0], run[0] as usize);
        let kept = if new > 0 { positions[at] } else { 0 };
        let memory = shape.memory.map_or(kept, |most| kept.min(most as i64));
        rows.extend(first + kept - memory..first + kept + new);
        first += kept + new;
        key_starts.push(rows.len() as i64);
    }
    let seen = if rows.len() as i64 == first { None } else { Some(tensor(&rows)?) };
    Ok(Remembered { key_starts, tokens: usize::try_from(first).unwrap_or(0), seen })
}

/// Rows in the batch of "target/places", which count in each run. Errors: a place that its run does not have.
fn targets(batch: &Map, starts: &[i64]) -> Result<Option<Tensor>> {
    let Some(places) = batch.find("target/places")? else { return Ok(None) };
    let (places, runs) = (places.to_vec::<i64>()?, batch.get("target/starts")?.to_vec::<i64>()?);
    if runs.len() != starts.len() {
        return Err(Error::invalid(format!(
            "target/starts: expected {} runs as in starts, found {}",
            starts.len().saturating_sub(1),
            runs.len().saturating_sub(1)
        )));
    }
    let mut rows = Vec::with_capacity(places.len());
    for (run, own) in starts.windows(2).zip(runs.windows(2)) {
        for place in places.get(own[0] as usize..own[1] as usize).unwrap_or_default() {
            if !(0..run[1] - run[0]).contains(place) {
                return Err(Error::bad_input(format!(
                    "target/places: expected places below {}, the length of the run, found {place}",
                    run[1] - run[0]
                )));
            }
            rows.push(run[0] + place);
        }
    }
    tensor(&rows).map(Some)
}

/// Greatest distance in runs of at most `longest` tokens.
pub fn reach(longest: i64) -> i64 {
    (longest - 1).max(1)
}

/// The vector of each distance from -reach to reach of a key from its query, sines of the query's lead and then
/// cosines (Dai et al. 2019), and its row.
fn distances(shape: &Shape, longest: i64, dtype: DType) -> Result<(Tensor, Tensor)> {
    let reach = reach(longest);
    let clamped = |lead: i64| match shape.furthest {
        Some(furthest) => lead.clamp(-(furthest as i64), furthest as i64),
        None => lead,
    };
    let leads: Vec<f32> = (-reach..=reach).map(|distance| clamped(-distance) as f32).collect();
    let d = shape.d_model;
    // In single precision, because the reference rounds so.
    let pace = |pair: usize| 1.0 / 10_000f32.powf((2 * pair) as f32 / d as f32);
    let paces: Vec<f32> = (0..d / 2).map(pace).collect();
    let leads = Tensor::from_slice(&leads, &[leads.len(), 1])?;
    let angles = leads.mul(&Tensor::from_slice(&paces, &[1, d / 2])?)?;
    let vectors = Tensor::concat(&[&angles.sin()?, &angles.cos()?], 1)?.cast(dtype)?;
    let buckets: Vec<i64> = (0..=2 * reach).collect();
    Ok((vectors, tensor(&buckets)?))
}
