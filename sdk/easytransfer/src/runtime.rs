//! The runtime: one engine and the plugins found for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use easytransfer_abi::et_plugin_record;
use easytransfer_loader::engine::{Device, EnginePrecision};
use easytransfer_loader::{ComponentKind, LoadError, Policy, Registry, SearchPath};
use easytransfer_plugin::{ComponentRef, LinkedPlugin, LoadedLoss, LoadedMetric};
use easytransfer_train::model::components::Components;
#[cfg(feature = "train")]
use easytransfer_train::run::job::{TrainJob, TrainResult};
#[cfg(feature = "train")]
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

pub(crate) struct Registered(Registry);

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

impl Registered {
    pub(crate) fn component(
        &self,
        kind: ComponentKind,
        name: &str,
    ) -> std::result::Result<ComponentRef, LoadError> {
        let found = self.0.lookup(kind, name)?;
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
        Ok(self.component(kind, name)?)
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
        #[cfg(feature = "log")]
        crate::log_lines::install();
        let host = crate::engine::start(&options.device, options.precision)?;
        // SAFETY: the engine's table lives until the process ends.
        let registry = unsafe { Registry::new(host) }.with_policy(options.policy);
        let search = if options.only_these {
            SearchPath::only(&options.plugins)
        } else {
            SearchPath::standard(&options.plugins)
        };
        registry.discover(&search);
        let registry = Arc::new(Registered(registry));
        crate::registry::remember(&registry);
        Ok(Runtime { registry })
    }

    /// Loads a plugin by its manifest or folder.
    pub fn load_plugin(&self, path: &Path) -> Result<String> {
        let report = self.registry.0.load_path(path)?;
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
        let report = unsafe { self.registry.0.register_static(record) }?;
        Ok(report.plugin_id)
    }

    /// All plugins: those that were found and those that are linked in.
    pub fn plugins(&self) -> Vec<PluginInfo> {
        let mut all: Vec<PluginInfo> = self
            .registry
            .0
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
        for plugin in self.registry.0.plugins() {
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
    #[cfg(feature = "train")]
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
