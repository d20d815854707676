//! Continuing runs of tokens by a model with a head over its vocabulary: greedy search, beam search and sampling, with
//! the meanings that transformers gives them. Runs have no padding, and those that have ended leave the batch.
//!
//! | file | is |
//! |---|---|
//! | [`options`] | what can be asked for |
//! | [`rules`] | what changes the scores of the next token |
//! | [`beams`], [`sampling`] | which tokens are chosen |
//! | [`runs`] | runs of a batch or a cache in another order |

pub mod beams;
pub mod options;
pub mod rules;
pub mod runs;
pub mod sampling;

use easytransfer_plugin::{Call, Error, Map, Result, Rng, Tensor, abi, nn, no_grad};

use beams::{Beams, Hypothesis, LaneStep};
use options::GenerateOptions;

/// A forward pass of the module.
pub type Forward<'a> = dyn FnMut(&Call<'_>, &Map, &mut Map) -> Result<()> + 'a;

/// Continues the runs of `batch`; see `et_host_net.generate` for `options` and for what is added to `outputs`.
///
/// # Errors
/// `INVALID_ARGUMENT` for a batch without runs to continue and for forced tokens that the vocabulary does not have,
/// `FAILED_PRECONDITION` for a module without logits or, where it is asked for, without a cache; the module's.
pub fn generate(
    forward: &mut Forward<'_>,
    batch: &Map,
    options: &GenerateOptions,
    outputs: &mut Map,
) -> Result<()> {
    let found = no_grad(|| Module::new(forward, batch, options.cache)?.search(options))?;
    let (mut ids, mut starts, mut scores) = (Vec::new(), vec![0], Vec::new());
    for Hypothesis { tokens, score } in found {
        ids.extend(tokens);
        starts.push(ids.len() as i64);
        scores.push(score);
    }
    outputs.put("generated/ids", &Tensor::from_slice(&ids, &[ids.len()])?)?;
    outputs.put("generated/starts", &Tensor::from_slice(&starts, &[starts.len()])?)?;
    outputs.put("generated/scores", &Tensor::from_slice(&scores, &[scores.len()])?)
}

/// A run that grows: the run of the batch that it began as, and its tokens.
#[derive(Clone)]
struct Lane {
    source: usize,
    tokens: Vec<i64>,
}

/// The module and what it has read.
struct Module<'a, 'f> {
    forward: &'a mut Forward<'f>,
    batch: &'a Map,
    /// Name space of the runs that grow.
    space: &'static str,
    /// Length of each run at first, and the position of its last token.
    begun: Vec<(usize, i64)>,
    /// The batch without the runs that grow, for a module that reads them anew for every token.
    rest: Map,
    cache: Option<Map>,
}

/// Chooses the tokens of one run.
enum Search {
    Beams(Beams),
    /// One token after the other: the likeliest, or one that is drawn.
    Single(Vec<i64>, Option<Rng>),
}

/// A run of the batch while it grows, with the rows of the latest scores that are those of its lanes.
struct Task {
    search: Search,
    rows: Vec<usize>,
}

impl Task {
    /// Chooses by the scores [lanes, V], on which the rules are done; answers with the lanes that grow on.
    fn step(&mut self, options: &GenerateOptions, scores: &mut [f32]) -> Result<Vec<LaneStep>> {
        match &mut self.search {
            Search::Beams(beams) => Ok(beams.step(options, scores)),
            Search::Single(tokens, rng) => {
                let token = match rng {
                    Some(rng) => sampling::draw(options, scores, rng)?,
                    None => sampling::likeliest(scores),
                } as i64;
                tokens.push(token);
                let ends = options.ends(token, tokens.len());
                Ok(if ends { Vec::new() } else { vec![(0, token)] })
            }
        }
    }
}

impl<'a, 'f> Module<'a, 'f> {
    fn new(forward: &'a mut Forward<'f>, batch: &'a Map, cache: bool) -> Result<Self> {
        let space = if batch.has("decoder/ids") { "decoder/" } else { "" };
        let starts = batch.get(&format!("{space}starts"))?.to_vec::<i64>()?;
        let positions = batch.get(&format!("{space}positions"))?.to_vec::<i64>()?;
        let ids = batch.get(&format!("{space}ids"))?.len();
        if starts.first() != Some(&0) || starts.last() != Some(&(ids as i64)) {
            return Err(Error::invalid(format!(
                "generate: \"{space}starts\": expected lengths from 0 to the {ids} tokens of \"{space}ids\""
            )));
        }
        let mut begun = Vec::with_capacity(starts.len());
        for (index, run) in starts.windows(2).enumerate() {
            let last = usize::try_from(run[1] - 1).ok().and_then(|last| positions.get(last));
            match last.filter(|_| run[1] > run[0]) {
                Some(position) => begun.push(((run[1] - run[0]) as usize, *position)),
                None => {
                    return Err(Error::invalid(format!(
                        "generate: run {index} of \"{space}ids\" has no token to go on from"
                    )));
                }
            }
        }
        let rest = runs::without_tokens(batch, space)?;
        let cache = if cache { Some(Map::new()?) } else { None };
        Ok(Self { forward, batch, space, begun, rest, cache })
    }

    /// The new tokens of each run, those of one run side by side.
    fn search(mut self, options: &GenerateOptions) -> Result<Vec<Hypothesis>> {
        let starts = self.batch.get(&format!("{}starts", self.space))?.to_vec::<i64>()?;
        let ids = self.batch.get(&format!("{}ids", self.space))?.to_vec::<i64>()?;
        let tokens = starts.windows(2).map(|run| ids[run[0] as usize..run[1] as usize].to_vec());
        let mut lanes: Vec<Lane> =
            tokens.enumerate().map(|(source, tokens)| Lane { source, tokens }).collect();
        let mut tasks = self.tasks(options)?;
        let mut scores = self.read(&lanes, true)?;
        for new in 0.. {
            let width = scores.extent(1)?;
            check_forced(options, width)?;
            if options.beams > 1 {
                scores = nn::log_softmax(&scores)?;
            }
            let values = scores.to_vec::<f32>()?;
            if values.iter().any(|value| value.is_nan()) {
                return Err(Error::invalid("generate: the module's logits are not numbers"));
            }
            let (mut grown, mut parents) = (Vec::new(), Vec::new());
            for task in tasks.iter_mut().filter(|task| !task.rows.is_empty()) {
                let mut own = Vec::with_capacity(task.rows.len() * width);
                for &row in &task.rows {
                    own.extend_from_slice(&values[row * width..(row + 1) * width]);
                    let begin = own.len() - width;
                    rules::apply(options, &lanes[row].tokens, new, &mut own[begin..]);
                }
                let steps = task.step(options, &mut own)?;
                let before = std::mem::take(&mut task.rows);
                for (lane, token) in steps {
                    let row = before[lane];
                    let mut lane = lanes[row].clone();
                    lane.tokens.push(token);
                    task.rows.push(grown.len());
                    grown.push(lane);
                    parents.push(row);
                }
            }
            if grown.is_empty() {
                break;
            }
            self.reorder(&parents, lanes.len())?;
            lanes = grown;
            scores = self.read(&lanes, false)?;
        }
        let results = tasks.into_iter().flat_map(|task| -> Vec<Hypothesis> {
            match task.search {
                Search::Beams(beams) => beams.results(options.returned).collect(),
                Search::Single(tokens, _) => vec![Hypothesis { tokens, score: 0.0 }],
            }
        });
        Ok(results.collect())
    }

    /// What chooses for each run, or for each continuation of it that is drawn.
    fn tasks(&self, options: &GenerateOptions) -> Result<Vec<Task>> {
        let drawn = if options.sample { options.returned } else { 1 };
        // Draws depend on the record, not on what else is in its batch.
        let count = self.begun.len();
        let records = match self.rest.find("record")?.filter(|records| records.len() == count) {
            Some(records) => records.to_vec::<i64>()?,
            None => (0..count as i64).collect(),
        };
        let mut tasks = Vec::new();
        for (source, record) in records.into_iter().enumerate() {
            for copy in 0..drawn {
                let search = if options.beams > 1 {
                    Search::Beams(Beams::new(options))
                } else {
                    let stream = ((record as u64) << 16) | copy as u64;
                    let rng =
                        if options.sample { Some(Rng::new(options.seed, stream)?) } else { None };
                    Search::Single(Vec::new(), rng)
                };
                tasks.push(Task { search, rows: vec![source; options.beams] });
            }
        }
        Ok(tasks)
    }

    /// Logits [lanes, V] of the token after each lane's last. `first` is the whole batch, in which each run is a lane.
    fn read(&mut self, lanes: &[Lane], first: bool) -> Result<Tensor> {
        let mut outputs = Map::new()?;
        let made;
        let batch = if first {
            self.batch
        } else {
            made = self.batch_of(lanes)?;
            &made
        };
        let has_cache = self.cache.is_some();
        let call = match &mut self.cache {
            Some(cache) => Call::generation(abi::ET_WANT_LOGITS, cache)?,
            None => Call::inference(abi::ET_WANT_LOGITS),
        };
        (self.forward)(&call, batch, &mut outputs)?;
        drop(call);
        let failed = |what: &str| {
            Err(Error::new(abi::ET_ERR_FAILED_PRECONDITION, format!("generate: {what}")))
        };
        if self.cache.as_ref().is_some_and(Map::is_empty) {
            return failed("the module keeps nothing in its cache; use {\"cache\": false}");
        }
        let Some(logits) = outputs.find("logits")? else {
            return failed(
                "the module has no \"logits\": a model with a head over its vocabulary is needed",
            );
        };
        let logits = if has_cache {
            logits
        } else {
            let starts = batch.get(&format!("{}starts", self.space))?.to_vec::<i64>()?;
            let last: Vec<i64> = starts.iter().skip(1).map(|end| end - 1).collect();
            logits.index_select(0, &Tensor::from_slice(&last, &[last.len()])?)?
        };
        if logits.rank() != 2 || logits.extent(0)? != lanes.len() {
            let (expected, found) = (lanes.len(), logits.shape());
            return failed(&format!("expected logits [{expected}, V], found {found:?}"));
        }
        Ok(logits)
    }

    /// The batch of the next step: the latest tokens alone where there is a cache, else the whole runs.
    fn batch_of(&self, lanes: &[Lane]) -> Result<Map> {
        let (mut ids, mut positions, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for Lane { source, tokens } in lanes {
            let (len, last) = self.begun[*source];
            let position = |at: usize| last + 1 + at as i64 - len as i64;
            let from = if self.cache.is_some() { tokens.len() - 1 } else { 0 };
            ids.extend_from_slice(&tokens[from..]);
            positions.extend((from..tokens.len()).map(position));
            starts.push(ids.len() as i64);
        }
        let mut batch = if self.cache.is_some() {
            Map::new()?
        } else {
            let sources: Vec<usize> = lanes.iter().map(|lane| lane.source).collect();
            runs::gather(&self.rest, &sources)?
        };
        for (name, values) in [("ids", ids), ("positions", positions), ("starts", starts)] {
            let tensor = Tensor::from_slice(&values, &[values.len()])?;
            batch.put(&format!("{}{name}", self.space), &tensor)?;
        }
        Ok(batch)
    }

    /// Puts the kept rows of the lanes `parents` into the place of those of all `lanes`.
    fn reorder(&mut self, parents: &[usize], lanes: usize) -> Result<()> {
        let is_same = parents.len() == lanes && parents.iter().enumerate().all(|(i, p)| i == *p);
        if let Some(cache) = self.cache.as_mut().filter(|_| !is_same) {
            *cache = runs::gather(cache, parents)?;
        }
        Ok(())
    }
}

fn check_forced(options: &GenerateOptions, width: usize) -> Result<()> {
    for (name, token) in
        [("forced_first", options.forced_first), ("forced_last", options.forced_last)]
    {
        if let Some(token) = token.filter(|&token| token >= width as i64) {
            return Err(Error::invalid(format!(
                "generate.{name}: expected a token below {width}, found {token}"
            )));
        }
    }
    Ok(())
}
