//! The runtime: one engine and the plugins found for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use easytransfer_abi::{self as abi, et_plugin_record};
use easytransfer_loader::engine::{Device, EnginePrecision};
use easytransfer_loader::{
    Component, ComponentKind, LoadError, PluginChoice, Policy, Registry, SearchPath,
};
use easytransfer_plugin::{self as plugin, ComponentRef, LinkedPlugin, LoadedLoss, LoadedMetric};
use easytransfer_train::model::components::{Components, Origin};
use easytransfer_train::run::job::{TrainJob, TrainResult};
use easytransfer_train::run::trainer::train;
use easytransfer_train::{Error, Result};
use serde::{Serialize, Serializer};
use serde_json::json;

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
    /// Which plugin is meant where several offer one name, and what stands for a plugin that a bundle was trained with.
    pub choose: Vec<PluginChoice>,
    /// What computes; the first runtime of a process decides for all.
    pub device: Device,
    /// How numbers are computed; the CPU engine has f32 and bf16.
    pub precision: EnginePrecision,
    /// Threads of the engine, 1 to 1024; for `None` as many as `RAYON_NUM_THREADS` says, else one per processor. The
    /// first runtime of a process decides for all; what a later one says must agree.
    pub threads: Option<usize>,
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginInfo {
    /// Id.
    pub id: String,
    /// Version; empty when the manifest cannot be read.
    pub version: String,
    /// Where its manifest is.
    pub path: PathBuf,
    /// Kind and name of what it offers; as JSON `[{"kind": .., "name": ..}]`.
    #[serde(serialize_with = "offers")]
    pub provides: Vec<(String, String)>,
    /// One line about it.
    pub description: String,
    /// Why it cannot be used, if so.
    pub problem: Option<String>,
}

fn offers<S: Serializer>(
    provides: &[(String, String)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let one = |(kind, name): &(String, String)| json!({ "kind": kind, "name": name });
    serializer.collect_seq(provides.iter().map(one))
}

/// The kind of an interface such as "et.loss/1".
fn kind_of(interface: &str) -> Result<ComponentKind> {
    ComponentKind::from_name(interface.trim_start_matches("et.").trim_end_matches("/1"))
        .ok_or_else(|| Error::other(format!("components of kind {interface} are not known")))
}

impl Registered {
    fn own(&self) -> MutexGuard<'_, BTreeMap<(ComponentKind, String), ComponentRef>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A component of the program itself, by its name or its full name.
    fn own_of(&self, kind: ComponentKind, name: &str) -> Option<ComponentRef> {
        let full = name.strip_prefix(plugin::OWN_PLUGIN).and_then(|rest| rest.strip_prefix('/'));
        self.own().get(&(kind, full.unwrap_or(name).to_owned())).cloned()
    }

    pub(crate) fn component(
        &self,
        kind: ComponentKind,
        name: &str,
    ) -> std::result::Result<ComponentRef, LoadError> {
        if let Some(own) = self.own_of(kind, name) {
            return Ok(own);
        }
        self.reference(self.plugins.lookup(kind, name))
    }

    /// What a lookup found; what the user should know of it goes to the log.
    fn reference(
        &self,
        found: std::result::Result<Component, LoadError>,
    ) -> std::result::Result<ComponentRef, LoadError> {
        for warning in self.plugins.take_warnings() {
            easytransfer_core::log::write(abi::ET_LOG_WARN, "plugins", &warning);
        }
        let found = found?;
        let kind = found.kind;
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
        Ok(self.component(kind_of(kind)?, name)?)
    }

    fn find_for(&self, kind: &str, name: &str, asker: &str) -> Result<ComponentRef> {
        if let Some(own) = self.own_of(kind_of(kind)?, name) {
            return Ok(own);
        }
        let found = self.plugins.lookup_for(kind_of(kind)?, name, asker);
        Ok(self.reference(found)?)
    }

    fn find_made_with(&self, kind: &str, origin: &Origin) -> Result<ComponentRef> {
        let Origin { name, plugin, version } = origin;
        if plugin == plugin::OWN_PLUGIN
            && let Some(own) = self.own_of(kind_of(kind)?, name)
        {
            return Ok(own);
        }
        let found = self.plugins.lookup_made_with(kind_of(kind)?, name, plugin, version);
        Ok(self.reference(found)?)
    }

    fn precision(&self) -> &'static str {
        crate::engine::precision()
    }
}

impl Runtime {
    /// Starts the engine of the device that was asked for and reads the manifests of all plugins that can be found;
    /// libraries are opened when they are used. Errors: the device is not there (the text says what is missing), or
    /// an earlier runtime of this process took another one, or another number of threads.
    pub fn new(options: RuntimeOptions) -> Result<Runtime> {
        let host = crate::engine::start(&options.device, options.precision, options.threads)?;
        // SAFETY: the engine's table lives until the process ends.
        let registry =
            unsafe { Registry::new(host) }.with_policy(options.policy).with_choices(options.choose);
        let search = if options.only_these {
            SearchPath::only(&options.plugins)
        } else {
            SearchPath::standard(&options.plugins)
        };
        registry.discover(&search);
        let registry = Arc::new(Registered { plugins: registry, own: Mutex::default() });
        crate::registry::remember(&registry);
        let runtime = Runtime { registry };
        for plugin in crate::builtin::PLUGINS {
            runtime.register_plugin(plugin())?;
        }
        Ok(runtime)
    }

    /// Loads a plugin by its manifest or folder.
    pub fn load_plugin(&self, path: &Path) -> Result<String> {
        let report = self.registry.plugins.load_path(path)?;
        Ok(report.plugin_id)
    }

    /// Registers a plugin that is linked into the program, `PluginRecord::get()` of its crate. Again does nothing.
    pub fn register_plugin(&self, plugin: LinkedPlugin) -> Result<String> {
        // SAFETY: the record is one of `export!`.
        let id = unsafe { self.register_plugin_raw(plugin.as_raw()) }?;
        crate::builtin::note(&id, plugin);
        Ok(id)
    }

    /// Registers a plugin by a record of any origin, such as one in C.
    ///
    /// # Safety
    /// `record` is NULL, which is refused, or points to the record of a plugin, which lives until the process ends.
    pub unsafe fn register_plugin_raw(&self, record: *const et_plugin_record) -> Result<String> {
        // SAFETY: promised by the caller.
        let report = unsafe { self.registry.plugins.register_static(record) }?;
        Ok(report.plugin_id)
    }

    pub(crate) fn register_own(&self, kind: ComponentKind, component: ComponentRef) -> Result<()> {
        let name = component.name.clone();
        self.registry.plugins.reserve(kind, &name)?;
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
            // What is linked in is used, whatever lies in a folder.
            if plugin.manifest.is_none() {
                all.retain(|known| known.id != plugin.id);
            }
            if !all.iter().any(|known| known.id == plugin.id && known.problem.is_none()) {
                let description = match plugin.manifest {
                    Some(manifest) => manifest.description,
                    None => crate::builtin::description(&plugin.id),
                };
                all.push(PluginInfo {
                    id: plugin.id,
                    version: plugin.version,
                    path: plugin.file,
                    provides: plugin
                        .components
                        .iter()
                        .map(|p| (p.kind.name().to_owned(), p.name.clone()))
                        .collect(),
                    description,
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
