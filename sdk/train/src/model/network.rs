//! A model with an app's head, its parameters and its tokenizer: what is trained, evaluated and asked for predictions.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use easytransfer_loader::{open_regular, read_regular};
use easytransfer_plugin as plugin;
use easytransfer_plugin::{
    AppInfo, Asked, Call, ComponentRef, LoadedApp, LoadedModel, Map, NetHost, Param, Params,
    Record, Row, Scope, Tensor, Tokenizer, abi, no_grad,
};
use serde_json::{Value, json};

use crate::error::{Error, Result};
pub use crate::model::components::Origin;
use crate::model::components::{Components, UsedComponent};
use crate::model::configuration::{self, Additions, Configuration, ModelOptions};
use crate::model::generate;
use crate::model::memory;
use crate::model::weights::{self, Ahead, Expect, LoadReport, path_text};
use crate::options;

/// An app before it has a model: it knows its columns and learns its labels.
pub struct AppStage {
    /// The app.
    pub app: LoadedApp,
    /// Where it came from.
    pub origin: Origin,
    /// Its options.
    pub options: Value,
}

impl AppStage {
    /// A new app, or with `state` one that was trained.
    pub fn new(
        components: &dyn Components,
        name: &str,
        options: Value,
        state: Option<&Value>,
    ) -> Result<AppStage> {
        AppStage::of(&components.find("et.app/1", name)?, options, state)
    }

    /// The same of a component that was found.
    pub fn of(
        component: &ComponentRef,
        mut options: Value,
        state: Option<&Value>,
    ) -> Result<AppStage> {
        options::validate(&schema_of(component, "app")?, &mut options, "", "app")?;
        let state = state.map_or_else(String::new, Value::to_string);
        let app = LoadedApp::create(component, &options.to_string(), &state)?;
        Ok(AppStage { app, origin: Origin::from(component), options })
    }
}

/// Where a network's weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Encoder weights from the directory; the head is new.
    Encoder,
    /// As `Encoder`, but weights may be missing.
    EncoderAllowMissing,
    /// All weights, head included.
    Bundle,
    /// Random weights by the configuration.
    Scratch,
}

/// A model with a head. Threads that share it predict at the same time: each plugin's part is one call after the
/// other, which [`LoadedModel`] and [`LoadedApp`] see to.
pub struct Network {
    /// The model below the head.
    pub model: LoadedModel,
    /// Networks that the app runs besides it, by name.
    pub modules: Vec<(String, LoadedModel)>,
    /// The app; shared with the threads that make features.
    pub app: Arc<LoadedApp>,
    /// All parameters.
    pub params: Params,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// What the app says of itself.
    pub app_info: AppInfo,
    /// Content of config.json.
    pub config: Value,
    /// Where the model came from.
    pub model_origin: Origin,
    /// Where the app came from.
    pub app_origin: Origin,
    /// Options of the app.
    pub app_options: Value,
    /// What happened to the names of the checkpoint.
    pub load_report: LoadReport,
    /// What it was trained with; empty for one that is new.
    pub made_with: Vec<UsedComponent>,
}

/// The schema of a component's options; errors name `prefix`, under which they stand.
pub(crate) fn schema_of(component: &ComponentRef, prefix: &str) -> Result<Value> {
    serde_json::from_str(&component.schema).map_err(|error| {
        Error::other(format!("{prefix}: {}: schema: not JSON: {error}", component.who()))
    })
}

/// Bytes of the longest file of settings (config.json, easytransfer.json, an index of weights) that is read.
const LONGEST: u64 = 64 << 20;

/// Reads a text from a regular file. Errors: something else of that name, a file that is not UTF-8 or absurdly long.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read_regular(path, LONGEST).map_err(|error| Error::io("read", path, error))?;
    String::from_utf8(bytes).map_err(|error| Error::Config {
        origin: path.display().to_string(),
        message: format!(
            "expected text in UTF-8, found another byte at offset {}",
            error.utf8_error().valid_up_to()
        ),
    })
}

/// Reads a JSON object from a file. Errors: as [`read_text`], and what is no JSON object.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = read_text(path)?;
    match serde_json::from_str(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Error::Config {
            origin: path.display().to_string(),
            message: "expected a JSON object".to_owned(),
        }),
        Err(error) => {
            Err(Error::Config { origin: path.display().to_string(), message: error.to_string() })
        }
    }
}

/// Files of a tokenizer by the names that it looks for.
const TOKENIZER_FILES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "encoder.json",
    "vocab.bpe",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
];

/// Loads the tokenizer of a model. What has the name of one of its files and is none (a pipe, a device) is refused:
/// the tokenizer would look past it.
fn load_tokenizer(directory: &Path, app: &str) -> Result<Tokenizer> {
    if directory.as_os_str().is_empty() {
        return Err(Error::user(format!(
            "encoder: expected a directory with a tokenizer, since app {app} learns no vocabulary, found none; name one (`encoder=DIR`)"
        )));
    }
    for path in TOKENIZER_FILES.map(|name| directory.join(name)) {
        match open_regular(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("read", path, error));
            }
            _ => {}
        }
    }
    let loaded = Tokenizer::load(&path_text(directory)?);
    Ok(loaded.map_err(|error| match error.code() {
        abi::ET_ERR_NOT_FOUND => error.context(format!("app {app} learns no vocabulary")),
        _ => error,
    })?)
}

/// Whether a directory (empty: there is none) has files of a tokenizer.
fn has_tokenizer(directory: &Path) -> bool {
    let is_model = |name: &OsStr| Path::new(name).extension() == Some("model".as_ref());
    let mut names = TOKENIZER_FILES.iter().filter(|name| **name != "tokenizer_config.json");
    !directory.as_os_str().is_empty()
        && (names.any(|name| directory.join(name).exists())
            || std::fs::read_dir(directory)
                .is_ok_and(|entries| entries.flatten().any(|entry| is_model(&entry.file_name()))))
}

/// Asks an app for the words of its training data, by its option `vocabulary` (a table), where it has one: the model
/// starts from nothing and has no tokenizer. Counting words costs time, so no app does it unasked.
pub fn ask_for_words(
    components: &dyn Components,
    app: &str,
    options: &mut ModelOptions,
    directory: &Path,
    start: Start,
) -> Result<()> {
    let from_nothing = start == Start::Scratch || !configuration::is_in(directory);
    if !from_nothing || has_tokenizer(directory) {
        return Ok(());
    }
    let schema = schema_of(&components.find("et.app/1", app)?, "app")?;
    if schema.pointer("/properties/vocabulary/properties").is_some() {
        options.entry("vocabulary").or_insert_with(|| json!({}));
    }
    Ok(())
}

/// The tokenizer of the words that the app has learned, where the directory (empty: there is none) has no files of
/// one.
fn tokenizer_of_words(stage: &AppStage, directory: &Path) -> Result<Option<Tokenizer>> {
    let Some(vocabulary) = stage.app.info()?.vocabulary else { return Ok(None) };
    if has_tokenizer(directory) {
        return Ok(None);
    }
    let made = vocabulary.to_tokenizer();
    Ok(Some(made.map_err(|error| error.context(format!("app {}", stage.origin.name)))?))
}

/// What `here` gives, and what `there` gives meanwhile on a thread of its own.
fn beside<A, B: Send>(
    here: impl FnOnce() -> Result<A>,
    there: impl Fn() -> Result<B> + Sync,
) -> (Result<A>, Result<B>) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, &there);
        let first = here();
        let second = match thread.map(|thread| thread.join()) {
            Ok(Ok(second)) => second,
            Ok(Err(_)) => Err(Error::other("a thread that loads panicked")),
            // The system refuses a thread.
            Err(_) => there(),
        };
        (first, second)
    })
}

/// The networks that an app runs besides the encoder. With `copy` they begin with the values of the parameters that
/// are there, the encoder's.
pub fn modules(
    app: &LoadedApp,
    component: &ComponentRef,
    config: &Value,
    params: &Params,
    copy: bool,
) -> Result<Vec<(String, LoadedModel)>> {
    let mut modules = Vec::new();
    let encoder: Vec<Param> = params.iter().collect();
    for module in app.info()?.modules {
        let before = params.len();
        let scope = params.root()?.child(&module.name)?;
        let model = LoadedModel::create(component, &config.to_string(), &scope)
            .map_err(|error| error.context(format!("module {}", module.name)))?;
        if copy {
            for (own, from) in params.iter().skip(before).zip(&encoder) {
                own.assign(&from.tensor()?)?;
            }
        }
        modules.push((module.name, model));
    }
    Ok(modules)
}

impl Network {
    /// Builds the network that `config.json` in `directory` describes, but for the options in `replaced`, under the
    /// app's head. Without that file (`directory` may be empty: there is none) `replaced` is the configuration, and
    /// the model starts from scratch; without the files of a tokenizer the words count that the app has learned.
    pub fn new(
        components: &dyn Components,
        mut stage: AppStage,
        directory: &Path,
        replaced: &ModelOptions,
        start: Start,
        seed: u64,
    ) -> Result<Network> {
        let app = stage.origin.name.clone();
        let is_file = configuration::is_in(directory);
        let start = if is_file || start == Start::Bundle { start } else { Start::Scratch };
        let mut made = tokenizer_of_words(&stage, directory)?;
        if made.is_none() && !is_file && replaced.contains_key("model_type") {
            made = Some(load_tokenizer(directory, &app)?);
        }
        let words = made.as_ref().map(Tokenizer::vocab_len);
        if made.is_none() && start == Start::Scratch && has_tokenizer(directory) {
            made = Some(load_tokenizer(directory, &app)?);
        }
        let beginning = made.as_ref().filter(|_| start == Start::Scratch);
        let Configuration { value: config, kept, component, origin } =
            Configuration::read(components, directory, replaced, &Additions { words, beginning })?;
        let ahead = match start {
            Start::Scratch => Ahead::default(),
            _ => Ahead::start(directory),
        };
        let params = Params::new(seed)?;
        let root = params.root()?;
        let model = LoadedModel::create(&component, &config.to_string(), &root)
            .map_err(|error| error.context(&origin))?;
        let info = model.info().clone();
        if matches!(start, Start::Scratch | Start::EncoderAllowMissing) {
            memory::check(&params, origin.as_ref())?;
        }
        let load = || {
            let load = |expect| weights::load_ahead(directory, &params, &info, expect, ahead);
            // An encoder is loaded before the head is declared, so that a head in the checkpoint lands in the new one
            // only where the app wants it.
            let encoder = match start {
                Start::Encoder => Some(Expect::Encoder),
                Start::EncoderAllowMissing => Some(Expect::Some),
                Start::Bundle | Start::Scratch => None,
            };
            let Some(expect) = encoder else {
                let modules = modules(&stage.app, &component, &config, &params, false)?;
                stage.app.build(&root, &info)?;
                let load_report =
                    if start == Start::Bundle { load(Expect::All)? } else { LoadReport::default() };
                return Ok((load_report, modules));
            };
            let mut load_report = load(expect)?;
            let modules = modules(&stage.app, &component, &config, &params, true)?;
            let encoder_len = params.len();
            stage.app.build(&root, &info)?;
            if stage.app.info()?.pretrained_head {
                let head: Vec<Param> = params.iter().skip(encoder_len).collect();
                load_report.missing.extend(weights::load_where_there(directory, head, &info)?);
            }
            Ok((load_report, modules))
        };
        // Both take about as long, and neither needs the other.
        let (loaded, tokenizer) = beside(load, || match &made {
            Some(tokenizer) => Ok(tokenizer.clone()),
            None => load_tokenizer(directory, &app),
        });
        let ((mut load_report, modules), tokenizer) = (loaded?, tokenizer?);
        if tokenizer.vocab_len() > info.vocab_size {
            return Err(Error::user(format!(
                "`{}`: the tokenizer has {} tokens, the model's embedding {} rows; use the tokenizer that belongs to the model",
                directory.display(),
                tokenizer.vocab_len(),
                info.vocab_size
            )));
        }
        // The words are the tokenizer's now.
        let app_info = AppInfo { vocabulary: None, ..stage.app.info()? };
        if start == Start::Encoder && app_info.want & abi::ET_WANT_POOLED != 0 {
            weights::check_pooler(directory, &info, &load_report)?;
        }
        load_report.warn(directory);
        Ok(Network {
            model,
            modules,
            app: Arc::new(stage.app),
            params,
            tokenizer,
            app_info,
            config: kept,
            model_origin: Origin::from(&component),
            app_origin: stage.origin,
            app_options: stage.options,
            load_report,
            made_with: Vec::new(),
        })
    }

    /// One more instance of each plugin, for a thread that shall not wait for another one. What they declare in `root`
    /// is given to them; it has the parameters of this network, or is empty, which shows what they would declare.
    pub fn again(
        &self,
        components: &dyn Components,
        root: &Scope,
        params: &Params,
    ) -> Result<Network> {
        let component = components.find_made_with("et.model/1", &self.model_origin)?;
        let (name, options) = (self.app_origin.full_name(), self.app_options.clone());
        let stage = AppStage::new(components, &name, options, Some(&self.app.state()?))?;
        let config = self.config.to_string();
        let model = LoadedModel::create(&component, &config, root)?;
        let mut modules = Vec::with_capacity(self.modules.len());
        for (name, _) in &self.modules {
            let scope = root.child(name)?;
            modules.push((name.clone(), LoadedModel::create(&component, &config, &scope)?));
        }
        let mut app = stage.app;
        app.build(root, model.info())?;
        Ok(Network {
            model,
            modules,
            app: Arc::new(app),
            params: params.clone(),
            tokenizer: self.tokenizer.clone(),
            app_info: self.app_info.clone(),
            config: self.config.clone(),
            model_origin: self.model_origin.clone(),
            app_origin: self.app_origin.clone(),
            app_options: self.app_options.clone(),
            load_report: LoadReport::default(),
            made_with: self.made_with.clone(),
        })
    }

    /// Outputs of the model and the head on a batch. `call.want` counts in addition to what the head needs.
    pub fn forward(&self, call: &Call<'_>, batch: &Map) -> Result<Map> {
        let mut outputs = Map::new()?;
        let want = call.want | self.app_info.want;
        let call = match call.rng() {
            Some(rng) => Call::training(want, rng),
            None => Call::inference(want),
        };
        let Network { model, modules, params, app, .. } = self;
        app.forward(&call, &mut Running { model, modules, params }, batch, &mut outputs)?;
        Ok(outputs)
    }

    /// Features of records, and the number of rows that each has.
    fn rows(&self, records: &[Record]) -> Result<(Vec<Row>, Vec<usize>)> {
        let (mut rows, mut counts) = (Vec::new(), Vec::with_capacity(records.len()));
        for (index, record) in records.iter().enumerate() {
            let made = self.app.features(&mut Asked::new(index as u64), &self.tokenizer, record)?;
            counts.push(made.len());
            rows.extend(made);
        }
        Ok((rows, counts))
    }

    /// Features of records, in one batch.
    pub fn batch(&self, records: &[Record]) -> Result<Map> {
        let (rows, _) = self.rows(records)?;
        Ok(Map::from_rows(&rows.iter().collect::<Vec<_>>())?)
    }

    /// Outputs for records, without a tape.
    pub fn infer(&self, records: &[Record], want: u32) -> Result<(Map, Map)> {
        let batch = self.batch(records)?;
        let outputs = no_grad(|| self.forward(&Call::inference(want), &batch))?;
        Ok((batch, outputs))
    }

    /// One prediction per record.
    pub fn predict(&self, records: &[Record]) -> Result<Vec<Record>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (rows, counts) = self.rows(records)?;
        let batch = Map::from_rows(&rows.iter().collect::<Vec<_>>())?;
        let outputs = no_grad(|| self.forward(&Call::inference(0), &batch))?;
        let mut parts = self.decode(&batch, &outputs, rows.len())?.into_iter();
        records
            .iter()
            .zip(counts)
            .map(|(r, c)| self.answer(r, parts.by_ref().take(c).collect()))
            .collect()
    }

    /// One part for each of the `rows` of a batch. Errors: the app answers with another number.
    pub fn decode(&self, batch: &Map, outputs: &Map, rows: usize) -> Result<Vec<Record>> {
        let parts = self.app.decode(batch, outputs)?;
        if parts.len() == rows {
            return Ok(parts);
        }
        let (who, found) = (self.app.who(), parts.len());
        Err(Error::other(format!(
            "{who}: decode: expected {rows} parts, one for each row of the batch, found {found}"
        )))
    }

    /// The prediction of a record from the parts of its rows.
    pub fn answer(&self, record: &Record, mut parts: Vec<Record>) -> Result<Record> {
        match parts.pop() {
            Some(only) if parts.is_empty() && !self.app_info.finish => Ok(only),
            last => {
                parts.extend(last);
                Ok(self.app.finish(record, parts)?)
            }
        }
    }

    /// What the model and the app say of themselves.
    pub fn describe(&self) -> Value {
        json!({ "model": self.model.info(), "app": self.app_info })
    }

    /// Number of elements of all parameters.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|param| param.len()).sum()
    }
}

/// The parts of a network that its app can run.
pub struct Running<'a> {
    /// The encoder.
    pub model: &'a LoadedModel,
    /// The app's modules by name.
    pub modules: &'a [(String, LoadedModel)],
    /// All parameters.
    pub params: &'a Params,
}

impl Running<'_> {
    /// The encoder (""), or the app's module of that name.
    fn module(&self, slot: &str, name: &str) -> plugin::Result<&LoadedModel> {
        if name.is_empty() {
            return Ok(self.model);
        }
        let known: Vec<String> = self.modules.iter().map(|(name, _)| name.clone()).collect();
        match self.modules.iter().find(|(found, _)| found == name) {
            Some((_, model)) => Ok(model),
            None => Err(plugin::Error::new(
                plugin::abi::ET_ERR_NOT_FOUND,
                format!("{slot}: module {name:?}: expected \"\" (the encoder) or one of {known:?}"),
            )),
        }
    }
}

impl NetHost for Running<'_> {
    fn run(
        &mut self,
        module: &str,
        call: &Call<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> plugin::Result<()> {
        self.module("run", module)?.forward(call, batch, outputs)
    }

    fn param(&mut self, name: &str) -> plugin::Result<Tensor> {
        self.params.find(name)?.tensor()
    }

    fn generate(
        &mut self,
        module: &str,
        batch: &Map,
        options: &str,
        outputs: &mut Map,
    ) -> plugin::Result<()> {
        let options = generate::options::GenerateOptions::parse(options)?;
        let model = self.module("generate", module)?;
        let mut forward =
            |call: &Call<'_>, batch: &Map, outputs: &mut Map| model.forward(call, batch, outputs);
        generate::generate(&mut forward, batch, &options, outputs)
    }
}
