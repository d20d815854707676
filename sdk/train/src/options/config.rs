//! Options of a training run, as data: one JSON Schema, from which checks, `--help` and defaults follow.

use easytransfer_plugin as plugin;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::error::{Error, OptionError, Result};
use crate::options;
use crate::options::schedule::{Decay, Schedule, Warmup};

/// A component with its options: {"name": "adamw", "weight_decay": 0.01}.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Name in the registry.
    pub name: String,
    /// Its options.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl Named {
    /// A component with its default options.
    pub fn plain(name: impl Into<String>) -> Named {
        Named { name: name.into(), options: Map::new() }
    }
}

impl From<&Named> for plugin::Choice {
    fn from(named: &Named) -> plugin::Choice {
        plugin::Choice { name: named.name.clone(), options: named.options.clone() }
    }
}

/// Components of which some are named without options.
fn names_or_tables<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<Named>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NameOrTable {
        Name(String),
        Table(Named),
    }
    let read = Vec::<NameOrTable>::deserialize(from)?.into_iter().map(|entry| match entry {
        NameOrTable::Name(name) => Named::plain(name),
        NameOrTable::Table(named) => named,
    });
    Ok(read.collect())
}

/// JSON Schema of [`TrainConfig::metrics`].
pub fn metrics_schema() -> Value {
    json!({"type": "array", "default": [], "items": {"type": ["string", "object"], "properties": {"name": {"type": "string"}}, "additionalProperties": true, "required": ["name"]}, "description": "metrics of any plugin to compute beside those of the app, by name or as {name, its options}"})
}

/// Metrics of a list that fits [`metrics_schema`].
pub fn metrics_of(list: &Value) -> Result<Vec<Named>> {
    names_or_tables(list)
        .map_err(|error| Error::Config { origin: "metrics".to_owned(), message: error.to_string() })
}

/// How rows become batches. A partial one deserialises; what it lacks has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Most tokens in a batch.
    pub tokens: u32,
    /// Most rows in a batch, 0 for no limit.
    pub rows: u32,
    /// Rows that are sorted by length together.
    pub window: u32,
}

impl Default for Batching {
    fn default() -> Batching {
        Batching { tokens: 4096, rows: 32, window: 2048 }
    }
}

/// How the learning rate changes. A partial one deserialises; what it lacks has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleOptions {
    /// "constant", "linear", "polynomial" or "cosine".
    pub name: String,
    /// Part of all steps (below 1) or number of steps (1 and more) during which the rate rises.
    pub warmup: f64,
    /// Polynomial: the exponent.
    pub power: f64,
    /// Polynomial: the factor at the end.
    pub end: f64,
}

impl Default for ScheduleOptions {
    fn default() -> ScheduleOptions {
        ScheduleOptions { name: "linear".to_owned(), warmup: 0.1, power: 1.0, end: 0.0 }
    }
}

/// What the backward pass computes again instead of finding it kept. Written as text; read also from true (`Cheap`)
/// and false (`None`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "RecomputeOption")]
pub enum Recompute {
    /// Nothing.
    #[default]
    None,
    /// Outputs of activations and layer norms.
    Cheap,
    /// Whole layers of models that mark them, see [`plugin::recomputed`].
    Layer,
}

/// What the options may hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecomputeOption {
    Switch(bool),
    Name(RecomputeName),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RecomputeName {
    None,
    Cheap,
    Layer,
}

impl From<RecomputeOption> for Recompute {
    fn from(option: RecomputeOption) -> Self {
        match option {
            RecomputeOption::Switch(false) | RecomputeOption::Name(RecomputeName::None) => {
                Self::None
            }
            RecomputeOption::Switch(true) | RecomputeOption::Name(RecomputeName::Cheap) => {
                Self::Cheap
            }
            RecomputeOption::Name(RecomputeName::Layer) => Self::Layer,
        }
    }
}

impl From<Recompute> for plugin::Recompute {
    fn from(level: Recompute) -> Self {
        match level {
            Recompute::None => Self::None,
            Recompute::Cheap => Self::Cheap,
            Recompute::Layer => Self::Layer,
        }
    }
}

/// Options of a training run.
///
/// A partial one deserialises, from JSON, TOML or any other format that tells what it has: what is absent has its
/// default, an unknown key is an error that names the nearest one, and so is a value that is not allowed. Whoever sets
/// a field by hand may ask [`TrainConfig::validate`]; a run does so in any case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TrainConfig {
    /// Passes over the training data.
    pub epochs: u64,
    /// Most optimizer steps, 0 for no limit.
    pub max_steps: u64,
    /// Peak learning rate; by default that of the optimizer.
    pub lr: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Batches.
    pub batch: Batching,
    /// Batches whose gradients make one step, which is that of one batch of all their rows.
    pub accumulate: u64,
    /// What is computed again in the backward pass instead of being kept.
    pub recompute: Recompute,
    /// Largest Euclidean norm of all gradients together, 0 for no limit.
    pub clip: f64,
    /// Schedule.
    pub schedule: ScheduleOptions,
    /// Optimizer.
    pub optimizer: Named,
    /// Loss; by default that of the app.
    pub loss: Option<Named>,
    /// Options of the encoder's model that replace those of its config.json, or stand for one, with the model's name
    /// under `model_type`.
    pub encoder: Map<String, Value>,
    /// Options of the app.
    pub app: Map<String, Value>,
    /// Strategies by name, with their options, in order.
    pub strategy: Map<String, Value>,
    /// Further data files by name, for strategies: "path", "task", "domain", "weight", "columns".
    pub source: Map<String, Value>,
    /// Steps between evaluations, 0 for once an epoch.
    pub evaluate_every: u64,
    /// Figure that decides which parameters are kept; by default that of the app.
    pub best: Option<String>,
    /// Metrics beside those of the app, of any plugin; their figures may be named under `best`. Read also from names
    /// alone.
    #[serde(deserialize_with = "names_or_tables")]
    pub metrics: Vec<Named>,
    /// Evaluations without an improvement after which training stops, 0 for never.
    pub patience: u64,
    /// Steps between checkpoints, 0 for once an epoch.
    pub checkpoint_every: u64,
    /// Threads that make features.
    pub workers: usize,
    /// MiB of records, and as many of features, of each data file that stay in memory.
    pub data_memory: usize,
    /// Steps between lines of metrics.
    pub log_every: u64,
    /// Whether a bundle, or the checkpoint of another run, that is in the output directory may be replaced. Bundles do
    /// not keep it.
    #[serde(skip_serializing)]
    pub overwrite: bool,
}

/// JSON Schema of [`TrainConfig`].
pub fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "epochs": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 3, "description": "passes over the training data"},
            "max_steps": {"type": "integer", "minimum": 0, "maximum": 9007199254740992u64, "default": 0, "description": "most optimizer steps, 0 for no limit"},
            "lr": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": null, "description": "peak learning rate; null for that of the optimizer (adamw, adam, adafactor 5e-5, lamb 1e-3, sgd 0.02; `easytransfer plugin info NAME` says it)"},
            "seed": {"type": "integer", "minimum": 0, "default": 42, "description": "seed of everything random"},
            "batch": {"type": "object", "properties": {
                "tokens": {"type": "integer", "minimum": 1, "maximum": u32::MAX, "default": 4096, "description": "most tokens in a batch"},
                "rows": {"type": "integer", "minimum": 0, "maximum": u32::MAX, "default": 32, "description": "most rows in a batch, 0 for no limit"},
                "window": {"type": "integer", "minimum": 0, "maximum": u32::MAX, "default": 2048, "description": "rows sorted by length together, 0 for none"}
            }},
            "accumulate": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 1, "description": "batches whose gradients make one step"},
            "recompute": {"type": ["string", "boolean"], "enum": ["none", "cheap", "layer", false, true], "default": "none", "description": "what the backward pass computes again instead of finding it kept, to the same bits: `cheap`, the outputs of activations and layer norms (a little more time); `layer`, all that lies within a layer, for models that mark their layers (a forward pass more, least memory); true means `cheap`, false `none`"},
            "clip": {"type": "number", "minimum": 0, "default": 1.0, "description": "largest norm of all gradients together, 0 for no limit"},
            "schedule": {"type": "object", "properties": {
                "name": {"type": "string", "enum": ["constant", "linear", "polynomial", "cosine"], "default": "linear"},
                "warmup": {"type": "number", "minimum": 0, "default": 0.1, "description": "part of all steps (below 1) or number of steps"},
                "power": {"type": "number", "exclusiveMinimum": 0, "default": 1.0, "description": "polynomial: the exponent"},
                "end": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.0, "description": "polynomial: the factor at the end"}
            }},
            "optimizer": {"type": "object", "additionalProperties": true, "properties": {
                "name": {"type": "string", "default": "adamw", "description": "any optimizer of a plugin; its options stand beside it"}
            }},
            "loss": {"type": ["object", "null"], "default": null, "additionalProperties": true, "properties": {
                "name": {"type": "string", "description": "any loss of a plugin; by default that of the app"}
            }, "required": ["name"]},
            "encoder": {"type": "object", "additionalProperties": true, "properties": {}, "description": "options of the model that replace those of the encoder's config.json, such as hidden_dropout_prob; without that file the whole configuration, with the model's name under model_type, of a model that starts from scratch"},
            "app": {"type": "object", "additionalProperties": true, "properties": {}, "description": "options of the app"},
            "strategy": {"type": "object", "default": {"finetune": {}}, "additionalProperties": true, "properties": {}, "description": "strategies by name with their options, in order; finetune when none is named"},
            "source": {"type": "object", "additionalProperties": true, "properties": {}, "description": "further data files by name, for strategies: source.NAME.path, and beside it task, domain, weight, labelled (false for data without targets), columns.ROLE"},
            "evaluate_every": {"type": "integer", "minimum": 0, "maximum": 9007199254740992u64, "default": 0, "description": "steps between evaluations, 0 for once an epoch"},
            "best": {"type": ["string", "null"], "default": null, "description": "figure that decides which parameters are kept; null for that of the app (accuracy for classes)"},
            "metrics": metrics_schema(),
            "patience": {"type": "integer", "minimum": 0, "maximum": 9007199254740992u64, "default": 0, "description": "evaluations without improvement before stopping, 0 for never"},
            "checkpoint_every": {"type": "integer", "minimum": 0, "maximum": 9007199254740992u64, "default": 0, "description": "steps between checkpoints, 0 for once an epoch"},
            "workers": {"type": "integer", "minimum": 0, "maximum": 1024, "default": 1, "description": "threads that make features, ahead of the step"},
            "data_memory": {"type": "integer", "minimum": 0, "maximum": 1048576, "default": 512, "description": "MiB of records, and as many of features, of each data file that stay in memory; further records wait in a file beside the output, further features are made again in every epoch"},
            "log_every": {"type": "integer", "minimum": 1, "maximum": 9007199254740992u64, "default": 10, "description": "steps between lines of metrics"},
            "overwrite": {"type": "boolean", "default": false, "description": "replace the bundle, or the checkpoint of another run, that is in the output directory"}
        },
        "additionalProperties": false
    })
}

impl TrainConfig {
    /// Checks options against the schema, fills in defaults, and reads them. `origin` names the file or flag in
    /// messages.
    pub fn from_value(mut value: Value, origin: &str) -> Result<TrainConfig> {
        options::validate(&schema(), &mut value, origin, "")?;
        let config = TrainConfig::deserialize(value).map_err(|error| Error::Config {
            origin: origin.to_owned(),
            message: error.to_string(),
        })?;
        config.check_numbers(origin)?;
        Ok(config)
    }

    /// Checks every option, however it was set; `origin` names where they come from in messages and may be empty.
    /// Errors name the key, what was found and what is allowed.
    pub fn validate(&self, origin: &str) -> Result<()> {
        self.check_numbers(origin)?;
        let mut value = TrainConfig::serialize(self, serde_json::value::Serializer)
            .map_err(|error| Error::other(format!("write the options: {error}")))?;
        options::validate(&schema(), &mut value, origin, "")
    }

    /// What the schema cannot say, or JSON cannot write.
    fn check_numbers(&self, origin: &str) -> Result<()> {
        let fault = |key: &str, expected: &str, found: f64| {
            let (origin, key) = (origin.to_owned(), key.to_owned());
            let (expected, found) = (expected.to_owned(), format!("`{found}`"));
            Err(OptionError { origin, key, expected, found, nearest: None }.into())
        };
        let schedule = &self.schedule;
        for (key, number) in [
            ("lr", self.lr.unwrap_or(0.0)),
            ("clip", self.clip),
            ("schedule.warmup", schedule.warmup),
            ("schedule.power", schedule.power),
            ("schedule.end", schedule.end),
        ] {
            if !number.is_finite() {
                return fault(key, "a finite number", number);
            }
        }
        // A ratio and a count share one option; what lies between would be read as either.
        if schedule.warmup >= 1.0 && schedule.warmup.fract() != 0.0 {
            let expected = "a part of all steps below 1 or a whole number of steps";
            return fault("schedule.warmup", expected, schedule.warmup);
        }
        Ok(())
    }

    /// The options with the peak learning rate that they came to, as bundles keep them.
    pub fn resolved(&self, lr: f64) -> Result<Value> {
        serde_json::to_value(TrainConfig { lr: Some(lr), ..self.clone() })
            .map_err(|error| Error::other(format!("write the options: {error}")))
    }

    /// The options that decide what comes out: all but those of how it is computed.
    pub fn deciding(&self, lr: f64) -> Result<Value> {
        let mut value = self.resolved(lr)?;
        if let Some(object) = value.as_object_mut() {
            for key in ["workers", "data_memory", "recompute"] {
                object.remove(key);
            }
        }
        Ok(value)
    }

    /// The peak learning rate: what the user said, else `default_lr` of the optimizer's schema, else 5e-5.
    pub fn peak_lr(&self, optimizer_schema: &Value) -> f64 {
        let default = optimizer_schema["default_lr"].as_f64();
        self.lr.or(default.filter(|lr| *lr > 0.0)).unwrap_or(5e-5)
    }

    /// The schedule.
    pub fn schedule(&self) -> Result<Schedule> {
        let warmup = self.schedule.warmup;
        let warmup =
            if warmup < 1.0 { Warmup::Ratio(warmup) } else { Warmup::Steps(warmup as u64) };
        let mut schedule = Schedule::named(&self.schedule.name, warmup)?;
        if let Decay::Polynomial { power, end } = &mut schedule.decay {
            (*power, *end) = (self.schedule.power, self.schedule.end);
        }
        Ok(schedule)
    }
}

// The derived functions are inherent ones, so that these check what they read.
impl Serialize for TrainConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        TrainConfig::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for TrainConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        TrainConfig::from_value(value, "").map_err(serde::de::Error::custom)
    }
}

impl Default for TrainConfig {
    fn default() -> TrainConfig {
        // The schema carries all defaults, so an empty object is a complete configuration.
        match TrainConfig::from_value(json!({}), "") {
            Ok(config) => config,
            Err(error) => panic!("the defaults of the schema are valid: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Batching, Recompute, ScheduleOptions, TrainConfig};
    use serde_json::json;

    #[test]
    fn defaults_come_from_the_schema() {
        let config = TrainConfig::default();
        assert_eq!(
            (config.epochs, config.batch.rows, config.optimizer.name.as_str()),
            (3, 32, "adamw")
        );
        assert!(config.strategy.contains_key("finetune"));
    }

    #[test]
    fn unknown_key_names_the_nearest() {
        let error = TrainConfig::from_value(json!({"epoch": 1}), "run.toml").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("run.toml") && text.contains("epoch") && text.contains("`epochs`"),
            "{text}"
        );
    }

    #[test]
    fn options_of_components_stand_beside_their_name() {
        let config = TrainConfig::from_value(
            json!({"optimizer": {"name": "sgd", "momentum": 0.9}, "loss": {"name": "mse"}}),
            "",
        )
        .unwrap();
        assert_eq!(config.optimizer.options["momentum"], json!(0.9));
        assert_eq!(config.loss.unwrap().name, "mse");
    }

    #[test]
    fn rate_is_the_users_then_the_optimizers() {
        let sgd = json!({"default_lr": 0.02});
        let config = TrainConfig::default();
        assert_eq!(config.peak_lr(&sgd), 0.02);
        assert_eq!(config.peak_lr(&json!({})), 5e-5);
        let config = TrainConfig::from_value(json!({"lr": 0.3}), "").unwrap();
        assert_eq!(config.peak_lr(&sgd), 0.3);
        assert!(TrainConfig::from_value(json!({"lr": 0}), "").is_err());
    }

    #[test]
    fn what_does_not_decide_is_left_out() {
        let of = |value| TrainConfig::from_value(value, "").unwrap().deciding(1.0).unwrap();
        assert_eq!(of(json!({"workers": 3, "data_memory": 1})), of(json!({})));
        assert_ne!(of(json!({"seed": 3})), of(json!({})));
    }

    #[test]
    fn recompute_has_names_and_the_old_switch() {
        for (value, level) in [
            (json!("none"), Recompute::None),
            (json!(false), Recompute::None),
            (json!("cheap"), Recompute::Cheap),
            (json!(true), Recompute::Cheap),
            (json!("layer"), Recompute::Layer),
        ] {
            let config = TrainConfig::from_value(json!({"recompute": value}), "").unwrap();
            assert_eq!(config.recompute, level);
            let written = serde_json::to_value(&config).unwrap();
            assert_eq!(TrainConfig::from_value(written, "").unwrap(), config);
        }
        let error = TrainConfig::from_value(json!({"recompute": "layers"}), "").unwrap_err();
        assert!(error.to_string().contains("did you mean `layer`?"), "{error}");
        assert!(TrainConfig::from_value(json!({"recompute": 1}), "").is_err());
    }

    #[test]
    fn what_is_set_by_hand_is_checked_like_what_is_read() {
        type Set = fn(&mut TrainConfig);
        let cases: [(Set, &str); 14] = [
            (
                |c| c.accumulate = 0,
                "`accumulate`: expected an integer at least 1 and at most 1000000, found `0`",
            ),
            (
                |c| c.epochs = 0,
                "`epochs`: expected an integer at least 1 and at most 1000000, found `0`",
            ),
            (|c| c.lr = Some(-1.0), "`lr`: expected a number or null above 0, found `-1.0`"),
            (|c| c.lr = Some(f64::NAN), "`lr`: expected a finite number, found `NaN`"),
            (|c| c.clip = f64::NAN, "`clip`: expected a finite number, found `NaN`"),
            (|c| c.clip = -1.0, "`clip`: expected a number at least 0, found `-1.0`"),
            (
                |c| c.schedule.warmup = 1.5,
                "`schedule.warmup`: expected a part of all steps below 1",
            ),
            (|c| c.schedule.warmup = -0.5, "`schedule.warmup`: expected a number at least 0"),
            (
                |c| c.schedule.end = 2.0,
                "`schedule.end`: expected a number at least 0 and at most 1",
            ),
            (|c| c.schedule.name = "cosin".to_owned(), "did you mean `cosine`?"),
            (|c| c.batch.tokens = 0, "`batch.tokens`: expected an integer at least 1"),
            (|c| c.log_every = 0, "`log_every`: expected an integer at least 1"),
            (
                |c| c.workers = 5000,
                "`workers`: expected an integer at least 0 and at most 1024, found `5000`",
            ),
            (|c| c.data_memory = usize::MAX, "`data_memory`: expected an integer"),
        ];
        for (set, expected) in cases {
            let mut config = TrainConfig::default();
            config.validate("").unwrap();
            set(&mut config);
            let text = config.validate("job").unwrap_err().to_string();
            assert!(text.contains(expected) && text.starts_with("`job`: option "), "{text}");
        }
    }

    #[test]
    fn partial_options_deserialise() {
        let config: TrainConfig =
            serde_json::from_str(r#"{"lr": 0.5, "batch": {"rows": 8}}"#).unwrap();
        let mut expected = TrainConfig { lr: Some(0.5), ..TrainConfig::default() };
        expected.batch.rows = 8;
        assert_eq!(config, expected);
        assert_eq!(
            toml::from_str::<TrainConfig>("lr = 0.5\n[batch]\nrows = 8\n").unwrap(),
            expected
        );
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
        let unknown = serde_json::from_str::<TrainConfig>(r#"{"batch": {"row": 8}}"#).unwrap_err();
        assert!(unknown.to_string().contains("`batch.row`"), "{unknown}");
        assert!(unknown.to_string().contains("did you mean `rows`?"), "{unknown}");
        assert!(serde_json::from_str::<TrainConfig>(r#"{"accumulate": 0}"#).is_err());
        // Groups by themselves have the same defaults as the schema.
        let whole = TrainConfig::default();
        assert_eq!(serde_json::from_str::<Batching>("{}").unwrap(), whole.batch);
        assert_eq!(serde_json::from_str::<ScheduleOptions>("{}").unwrap(), whole.schedule);
    }

    #[test]
    fn warmup_between_ratio_and_count_is_refused() {
        assert!(TrainConfig::from_value(json!({"schedule": {"warmup": 1.5}}), "").is_err());
    }
}
