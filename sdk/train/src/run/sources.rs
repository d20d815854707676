//! Data by name: the training and validation data and whatever files the configuration or strategies add.

use std::path::PathBuf;
use std::sync::Arc;

use easytransfer_plugin as plugin;
use easytransfer_plugin::{Map, Rng, SourceInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::batches::{self, Position, Source};
use crate::data::collation::{Batch, collate};
use crate::data::features::Features;
use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::options::config::TrainConfig;

/// Name of the training data.
pub const TRAIN: &str = "train";
/// Name of the validation data.
pub const VALID: &str = "valid";
/// Most sources of a run: their random numbers have streams of their own.
pub const MOST: usize = 60;

/// What a configuration or a strategy says of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// The file. Strategies name it apart.
    pub path: PathBuf,
    /// What its records are for, in the user's words.
    pub task: String,
    /// Where its records come from, in the user's words.
    pub domain: String,
    /// How often batches are drawn from it, beside others.
    pub weight: f64,
    /// Whether its records have targets; otherwise those are not asked for.
    pub labelled: bool,
    /// Columns by role, where they have other names than in the training file.
    pub columns: std::collections::BTreeMap<String, String>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions {
            path: PathBuf::new(),
            task: String::new(),
            domain: String::new(),
            weight: 1.0,
            labelled: true,
            columns: Default::default(),
        }
    }
}

impl SourceOptions {
    /// Reads them; `key` names them in messages. Errors: an unknown key, a weight that is negative.
    pub fn from_value(value: &Value, key: &str) -> Result<SourceOptions> {
        let options: SourceOptions = serde_json::from_value(value.clone())
            .map_err(|error| Error::user(format!("{key}: {error}")))?;
        if !(options.weight >= 0.0 && options.weight.is_finite()) {
            return Err(Error::user(format!(
                "{key}.weight: expected 0 or more, found {}",
                options.weight
            )));
        }
        Ok(options)
    }

    /// The sources that a configuration names, in its order. Errors: a reserved name, no path.
    pub fn of_config(config: &TrainConfig) -> Result<Vec<(String, SourceOptions)>> {
        let each = config.source.iter().map(|(name, value)| {
            let key = format!("source.{name}");
            if [TRAIN, VALID].contains(&name.as_str()) {
                return Err(Error::user(format!(
                    "{key}: the name is that of the run's own data; choose another"
                )));
            }
            let options = SourceOptions::from_value(value, &key)?;
            if options.path.as_os_str().is_empty() {
                return Err(Error::user(format!("{key}.path: expected a data file, found none")));
            }
            Ok((name.clone(), options))
        });
        each.collect()
    }
}

/// An open source.
pub struct NamedSource {
    name: String,
    options: SourceOptions,
    features: Arc<Features>,
    batches: Source,
}

/// All sources, in the order of their numbers, and the draws between them.
pub struct Sources {
    all: Vec<NamedSource>,
    draws: Rng,
}

impl Sources {
    /// No sources; draws depend on `seed`.
    pub fn new(seed: u64) -> Result<Sources> {
        Ok(Sources { all: Vec::new(), draws: Rng::new(seed, DRAWS)? })
    }

    /// Adds one, which has the next number.
    pub fn add(&mut self, name: &str, options: SourceOptions, features: Arc<Features>) {
        let batches = Source::new(features.clone());
        self.all.push(NamedSource { name: name.to_owned(), options, features, batches });
    }

    fn index(&self, what: &str, name: &str) -> plugin::Result<usize> {
        let known = || self.all.iter().map(|source| source.name.as_str());
        known().position(|known| known == name).ok_or_else(|| {
            let hint = nearest(name, known())
                .map(|name| format!(", did you mean {name:?}?"))
                .unwrap_or_default();
            plugin::Error::new(
                plugin::abi::ET_ERR_NOT_FOUND,
                format!(
                    "{what}: source {name:?}: expected one of {:?}{hint}",
                    known().collect::<Vec<_>>()
                ),
            )
        })
    }

    /// The records of a source.
    pub fn features(&self, what: &str, name: &str) -> plugin::Result<Arc<Features>> {
        Ok(self.all[self.index(what, name)?].features.clone())
    }

    /// The next batch of a source.
    pub fn next(&mut self, what: &str, name: &str, config: &TrainConfig) -> Result<Batch> {
        let number = self.index(what, name)?;
        self.all[number].batches.next(config, number as u64)
    }

    /// The next batch of one of these, by these weights or their own. Errors: weights of which none is positive.
    pub fn draw(
        &mut self,
        names: &[&str],
        weights: Option<&[f64]>,
        config: &TrainConfig,
    ) -> Result<Batch> {
        let numbers: Vec<usize> = names
            .iter()
            .map(|name| self.index("draw_batch", name))
            .collect::<plugin::Result<_>>()?;
        let own: Vec<f64> = numbers.iter().map(|&at| self.all[at].options.weight).collect();
        let weights = weights.unwrap_or(&own);
        let sum: f64 = weights.iter().sum();
        if weights.iter().any(|weight| weight.is_nan() || *weight < 0.0)
            || !(sum > 0.0 && sum.is_finite())
        {
            return Err(Error::user(format!(
                "draw_batch: expected weights of 0 or more, not all 0, found {weights:?} for {names:?}"
            )));
        }
        // 53 bits make a number in [0, 1).
        let mut left = (self.draws.bits() >> 11) as f64 / (1u64 << 53) as f64 * sum;
        let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let number = numbers[drawn.unwrap_or(last)];
        self.all[number].batches.next(config, number as u64)
    }

    /// A batch of records by their numbers. Errors: a number beyond the last.
    pub fn records(&self, name: &str, numbers: &[u64]) -> Result<Map> {
        let source = &self.all[self.index("records", name)?];
        let numbers: Vec<u32> =
            numbers.iter().map(|&n| source.number("records", n)).collect::<Result<_>>()?;
        let all: Vec<u32> = (0..numbers.len() as u32).collect();
        let epoch = source.batches.position().epoch.saturating_sub(1);
        Ok(collate(&source.features.samples(numbers, epoch)?, &all)?.map)
    }

    /// A record as JSON. Errors: a number beyond the last.
    pub fn record(&self, name: &str, number: u64) -> Result<String> {
        let source = &self.all[self.index("record", name)?];
        source.features.records().text(source.number("record", number)? as usize)
    }

    /// What strategies are told of the sources.
    pub fn infos(&self, config: &TrainConfig, categories: &plugin::Record) -> Vec<SourceInfo> {
        let info = |(number, source): (usize, &NamedSource)| {
            let epoch = batches::epoch(&source.features, config, number as u64, 0);
            SourceInfo {
                name: source.name.clone(),
                records: source.features.len() as u64,
                batches: epoch.batches() as u64,
                task: source.options.task.clone(),
                domain: source.options.domain.clone(),
                weight: source.options.weight,
                categories: categories.clone(),
            }
        };
        self.all.iter().enumerate().map(info).collect()
    }

    /// What a checkpoint keeps of them: where each stands, by name, and the draws.
    pub fn state(&self) -> (std::collections::BTreeMap<String, Position>, [u64; 3]) {
        let positions =
            self.all.iter().map(|source| (source.name.clone(), source.batches.position()));
        let draws = self.draws.state();
        (positions.collect(), [draws.seed, draws.stream, draws.offset])
    }

    /// Goes back to where an interrupted run stood. Errors: a source that is gone, or has fewer batches.
    pub fn resume(
        &mut self,
        positions: std::collections::BTreeMap<String, Position>,
        [seed, stream, offset]: [u64; 3],
        config: &TrainConfig,
    ) -> Result<()> {
        for (name, position) in positions {
            let Ok(number) = self.index("resume", &name) else {
                return Err(Error::user(format!(
                    "source {name:?} of the interrupted run was not opened again"
                )));
            };
            self.all[number]
                .batches
                .resume(config, number as u64, position)
                .map_err(|error| Error::user(format!("source {name:?}: {error}")))?;
        }
        self.draws.set_state(plugin::RngState { seed, stream, offset });
        Ok(())
    }

    /// A text for each source that files with other records do not have, by name.
    pub fn digests(&self) -> Value {
        let each = |source: &NamedSource| {
            (source.name.clone(), Value::from(source.features.records().digest()))
        };
        Value::Object(self.all.iter().map(each).collect())
    }
}

/// Stream of the counted generator that decides which source a batch is drawn from.
const DRAWS: u64 = 2;

impl NamedSource {
    fn number(&self, what: &str, number: u64) -> Result<u32> {
        let len = self.features.len();
        match u32::try_from(number) {
            Ok(known) if (known as usize) < len => Ok(known),
            _ => Err(plugin::Error::new(
                plugin::abi::ET_ERR_NOT_FOUND,
                format!("{what}: source {:?} has {len} records, found number {number}", self.name),
            )
            .into()),
        }
    }
}
