//! The runtime: one engine and the plugins found for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use easytransfer_abi::et_plugin_record;
use easytransfer_loader::engine::{Device, EnginePrecision};
use easytransfer_loader::{ComponentKind, LoadError, Policy, Registry, SearchPath};
use easytransfer_plugin::{self as plugin, ComponentRef, LinkedPlugin, LoadedLoss, LoadedMetric};
use easytransfer_train::model::components::Components;
use easytransfer_train::run::trainer::{TrainJob, TrainResult, train};
use easytransfer_train::{Error, Result};

use crate::{App, AppOptions, EmbedOptions, Embedder, Model, Optimizer, Profile};

/// How to start a runtime.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// Places where plugins are looked for first: manifests, folders of plugins.
    pub plugins: Vec<PathBuf>,
    /// Whether to look in `ET_PLUGIN_PATH`, beside the executable and in the user's and the system's folders too.
    pub only_these: bool,
    /// Which libraries may be opened.
    pub policy: Policy,
    /// What computes; the first runtime of a process decides for all.
    pub device: Device,
    /// How numbers are computed; the CPU engine has f32 and bf16.
    pub precision: EnginePrecision,
}

/// One engine and the plugins found for it. Cloning shares it.
#[derive(Clone)]
pub struct Runtime {
    registry: Arc<Registered>,
}

pub(crate) struct Registered {
    plugins: Registry,
    /// Components of the program itself. Their names are reserved in `plugins`.
    own: Mutex<BTreeMap<(ComponentKind, String), ComponentRef>>,
}

/// A plugin that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginInfo {
    /// Id.
    pub id: String,
    /// Version; empty when the manifest cannot be read.
    pub version: String,
    /// Where its manifest is.
    pub path: PathBuf,
    /// Kind and name of what it offers.
    pub provides: Vec<(String, String)>,
    /// One line about it.
    pub description: String,
    /// Why it cannot be used, if so.
    pub problem: Option<String>,
}

fn load_error(error: &LoadError) -> Error {
    Error::user(error.to_string())
}

impl Registered {
    fn own(&self) -> MutexGuard<'_, BTreeMap<(ComponentKind, String), ComponentRef>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn component(
        &self,
        kind: ComponentKind,
        name: &str,
    ) -> std::result::Result<ComponentRef, LoadError> {
        if let Some(own) = self.own().get(&(kind, name.to_owned())) {
            return Ok(own.clone());
        }
        let found = self.plugins.lookup(kind, name)?;
        // Interface ids are ASCII constants.
        let interface = kind.interface().to_str().unwrap_or_default();
        // SAFETY: the registry checked the table, and it lives until the process ends.
        Ok(unsafe {
            ComponentRef::new(
                interface,
                found.name,
                found.schema,
                found.plugin_id,
                found.plugin_version,
                found.table,
            )
        })
    }
}

impl Components for Registered {
    fn find(&self, kind: &str, name: &str) -> Result<ComponentRef> {
        let short = kind.trim_start_matches("et.").trim_end_matches("/1");
        let kind = ComponentKind::from_name(short)
            .ok_or_else(|| Error::other(format!("components of kind {kind} are not known")))?;
        self.component(kind, name).map_err(|error| load_error(&error))
    }

    fn precision(&self) -> &'static str {
        crate::engine::precision()
    }
}

impl Runtime {
    /// Starts the engine of the device that was asked for and reads the manifests of all plugins that can be found;
    /// libraries are opened when they are used. Errors: the device is not there (the text says what is missing), or
    /// an earlier runtime of this process took another one.
    pub fn new(options: RuntimeOptions) -> Result<Runtime> {
        let host = crate::engine::start(&options.device, options.precision)?;
        // SAFETY: the engine's table lives until the process ends.
        let registry = unsafe { Registry::new(host) }.with_policy(options.policy);
        let search = if options.only_these {
            SearchPath::only(&options.plugins)
        } else {
            SearchPath::standard(&options.plugins)
        };
        registry.discover(&search);
        let registry = Arc::new(Registered { plugins: registry, own: Mutex::default() });
        crate::registry::remember(&registry);
        Ok(Runtime { registry })
    }

    /// Loads a plugin by its manifest or folder.
    pub fn load_plugin(&self, path: &Path) -> Result<String> {
        let report = self.registry.plugins.load_path(path).map_err(|error| load_error(&error))?;
        Ok(report.plugin_id)
    }

    /// Registers a plugin that is linked into the program, `PluginRecord::get()` of its crate. Again does nothing.
    pub fn register_plugin(&self, plugin: LinkedPlugin) -> Result<String> {
        // SAFETY: the record is one of `export!`.
        unsafe { self.register_plugin_raw(plugin.as_raw()) }
    }

    /// Registers a plugin by a record of any origin, such as one in C.
    ///
    /// # Safety
    /// `record` is NULL, which is refused, or points to the record of a plugin, which lives until the process ends.
    pub unsafe fn register_plugin_raw(&self, record: *const et_plugin_record) -> Result<String> {
        // SAFETY: promised by the caller.
        let report = unsafe { self.registry.plugins.register_static(record) }
            .map_err(|error| load_error(&error))?;
        Ok(report.plugin_id)
    }

    pub(crate) fn register_own(&self, kind: ComponentKind, component: ComponentRef) -> Result<()> {
        let name = component.name.clone();
        self.registry.plugins.reserve(kind, &name).map_err(|error| load_error(&error))?;
        self.registry.own().insert((kind, name), component);
        Ok(())
    }

    /// All plugins: those that were found, those that are linked in, and under the id [`plugin::OWN_PLUGIN`] what the
    /// program itself has registered.
    pub fn plugins(&self) -> Vec<PluginInfo> {
        let mut all: Vec<PluginInfo> = self
            .registry
            .plugins
            .discovered()
            .into_iter()
            .map(|listing| {
                let manifest = listing.manifest.as_ref();
                PluginInfo {
                    id: listing.id.clone(),
                    version: manifest.map(|m| m.version.clone()).unwrap_or_default(),
                    path: listing.path.clone(),
                    provides: manifest.map_or_else(Vec::new, |m| {
                        m.provides
                            .iter()
                            .map(|p| (p.kind.name().to_owned(), p.name.clone()))
                            .collect()
                    }),
                    description: manifest.map(|m| m.description.clone()).unwrap_or_default(),
                    problem: listing.problem.as_ref().map(ToString::to_string),
                }
            })
            .collect();
        for plugin in self.registry.plugins.plugins() {
            if !all.iter().any(|known| known.id == plugin.id && known.problem.is_none()) {
                all.push(PluginInfo {
                    id: plugin.id,
                    version: plugin.version,
                    path: plugin.file,
                    provides: plugin
                        .components
                        .iter()
                        .map(|p| (p.kind.name().to_owned(), p.name.clone()))
                        .collect(),
                    description: plugin.manifest.map(|m| m.description).unwrap_or_default(),
                    problem: None,
                });
            }
        }
        let own = self.registry.own();
        if !own.is_empty() {
            all.push(PluginInfo {
                id: plugin::OWN_PLUGIN.to_owned(),
                version: String::new(),
                path: PathBuf::new(),
                provides: own
                    .keys()
                    .map(|(kind, name)| (kind.name().into(), name.clone()))
                    .collect(),
                description: "components of this program".to_owned(),
                problem: None,
            });
        }
        all
    }

    /// Where components come from, for the functions of [`crate::train`].
    pub fn components(&self) -> &dyn Components {
        &*self.registry
    }

    pub(crate) fn shared(&self) -> Arc<dyn Components> {
        self.registry.clone()
    }

    /// JSON Schema of a component's options.
    pub fn schema(&self, kind: &str, name: &str) -> Result<String> {
        Ok(self.registry.find(&format!("et.{kind}/1"), name)?.schema)
    }

    /// Records what the engine does from now on, for a Chrome trace (chrome://tracing, Perfetto) at `path`, which
    /// appears when [`crate::Profile::finish`] is called. At most `capacity` events are kept (0: half a million). A
    /// second recording ends the first.
    pub fn profile(&self, path: &Path, capacity: usize) -> Result<Profile> {
        Profile::start(path, capacity)
    }

    /// Loads a trained bundle.
    pub fn app(&self, directory: &Path) -> Result<App> {
        App::load(self, directory, AppOptions::default())
    }

    /// Loads a trained bundle that answers in another way than usual.
    pub fn app_with(&self, directory: &Path, options: AppOptions) -> Result<App> {
        App::load(self, directory, options)
    }

    /// Loads an encoder for text vectors.
    pub fn embedder(&self, encoder: &Path, options: EmbedOptions) -> Result<Embedder> {
        Embedder::load(self, encoder, options)
    }

    /// Trains an app and writes its bundle.
    pub fn train(&self, job: TrainJob) -> Result<TrainResult> {
        train(&*self.registry, job)
    }

    /// A model by itself with parameters of its own; `config` is the content of a config.json.
    pub fn model(&self, name: &str, config: &str, seed: u64) -> Result<Model> {
        Model::new(self, name, config, seed)
    }

    /// A loss by itself; `options` is JSON, "" for none.
    pub fn loss(&self, name: &str, options: &str) -> Result<LoadedLoss> {
        Ok(LoadedLoss::create(&self.registry.find("et.loss/1", name)?, options)?)
    }

    /// A metric by itself; `options` is JSON, "" for none.
    pub fn metric(&self, name: &str, options: &str) -> Result<LoadedMetric> {
        Ok(LoadedMetric::create(&self.registry.find("et.metric/1", name)?, options)?)
    }

    /// An optimizer for a model, whose parameters it seals; `options` is JSON, "" for none.
    pub fn optimizer(&self, name: &str, options: &str, model: &mut Model) -> Result<Optimizer> {
        Optimizer::new(self, name, options, model)
    }
}
