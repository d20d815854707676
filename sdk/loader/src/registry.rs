//! The registry: plugins that were loaded and their components.

mod lookup;

use crate::component::{self, Component};
use crate::error::{Facts, LoadError};
use crate::handshake::{EntryRecord, Host, LibraryOrigin};
use crate::kind::ComponentKind;
use crate::manifest::{PluginManifest, Provided, stem};
use crate::names::PluginChoice;
use crate::open::open;
use crate::platform::current_platform;
use crate::policy::Policy;
use crate::search::{Listing, SearchPath, manifests_at};
use easytransfer_abi::{ET_PLUGIN_FLAG_PANIC_ABORT, et_host, et_plugin_record};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A plugin that is in the registry.
#[derive(Clone, Debug)]
pub struct LoadedPlugin {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The library; "(linked in)" for a plugin without one.
    pub file: PathBuf,
    /// The manifest; None for a plugin that is linked in.
    pub manifest: Option<PluginManifest>,
    /// Its components, sorted by kind and name.
    pub components: Vec<Provided>,
}

/// What a load did.
#[derive(Clone, Debug)]
pub struct PluginReport {
    /// Id of the plugin.
    pub plugin_id: String,
    /// Its version.
    pub plugin_version: String,
    /// Its components, sorted by kind and name.
    pub components: Vec<Provided>,
    /// What the user should know although the plugin works.
    pub warnings: Vec<String>,
    /// Nothing was done, because this very plugin is in the registry.
    pub already_loaded: bool,
}

/// Plugins and their components. Shared between threads by reference; loads are done one after the other. What it
/// hands out stays valid until the process ends, also after the registry is gone.
pub struct Registry {
    host: Host,
    policy: Policy,
    choices: Vec<PluginChoice>,
    /// Held during a load, so that calls into plugins happen without the lock on `state`.
    loading: Mutex<()>,
    state: Mutex<State>,
}

thread_local! {
    static LOADS: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this thread loads a plugin.
struct Loading<'a>(#[allow(dead_code, reason = "held, not read")] MutexGuard<'a, ()>);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        LOADS.set(false);
    }
}

#[derive(Default)]
struct State {
    plugins: Vec<Plugin>,
    /// By kind, name and id of the plugin.
    components: BTreeMap<(ComponentKind, String, String), Component>,
    /// Names of components that the program itself has.
    reserved: BTreeSet<(ComponentKind, String)>,
    discovered: Vec<Listing>,
    /// Where `discovered` was looked for.
    searched: Vec<PathBuf>,
    /// What nobody has asked for yet of what was said.
    warnings: Vec<String>,
    /// What was said ever.
    told: BTreeSet<String>,
}

struct Plugin {
    info: LoadedPlugin,
    /// Address of the record, to recognise it; never followed.
    record: usize,
    shutdown: Option<unsafe extern "C" fn()>,
}

impl Registry {
    /// An empty registry for a host, with the policy [`Policy::HashPinned`].
    ///
    /// # Safety
    /// `host` points to a completely filled table of this version of the boundary that lives until the process ends.
    pub unsafe fn new(host: *const et_host) -> Registry {
        Registry {
            // SAFETY: the caller's promise.
            host: unsafe { Host::new(host) },
            policy: Policy::default(),
            choices: Vec::new(),
            loading: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// The same registry with another policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Registry {
        self.policy = policy;
        self
    }

    /// The same registry with stated choices between plugins that offer one name; of two for a name the first counts.
    #[must_use]
    pub fn with_choices(mut self, choices: Vec<PluginChoice>) -> Registry {
        self.choices = choices;
        self
    }

    /// Reads the manifests along a search path and remembers them for [`Registry::lookup`], in place of those found
    /// before. Opens no library. Every manifest is listed, also those that cannot be loaded, with the reason.
    pub fn discover(&self, search: &SearchPath) -> Vec<Listing> {
        let listings = search.list(self.policy);
        let mut state = self.state();
        state.discovered.clone_from(&listings);
        state.searched = search.places().map(|(_, place)| place.to_path_buf()).collect();
        listings
    }

    /// Loads a plugin that was listed. Loading it again does nothing. Errors: every [`LoadError`] but
    /// `NoSuchComponent`; then the registry is as it was before.
    pub fn load(&self, listing: &Listing) -> Result<PluginReport, LoadError> {
        match (&listing.problem, &listing.manifest) {
            (Some(problem), _) => Err(problem.clone()),
            (None, Some(manifest)) => self.load_manifest(manifest),
            (None, None) => Err(LoadError::Path(Facts::boxed(
                &listing.id,
                &listing.path,
                "the listing is empty",
                "a manifest",
                "neither a manifest nor a problem",
                "load a listing that `discover` returned",
            ))),
        }
    }

    /// Loads the plugin of a manifest, or of a folder that holds one. In a folder with several, the one that has the
    /// folder's name is taken. Errors: as [`Registry::load`]; `Path` when it is not clear which plugin is meant.
    pub fn load_path(&self, path: &Path) -> Result<PluginReport, LoadError> {
        let manifests = manifests_at(path)?;
        let named = manifests.iter().find(|manifest| stem(manifest) == stem(path));
        let chosen = match (manifests.as_slice(), named) {
            ([only], _) => only,
            (_, Some(named)) => named,
            (several, None) => {
                let names: Vec<String> = several.iter().map(|m| m.display().to_string()).collect();
                let found = match names.as_slice() {
                    [] => "none".to_owned(),
                    names => names.join(", "),
                };
                return Err(LoadError::Path(Facts::boxed(
                    stem(path),
                    path,
                    "it is not clear which plugin is meant",
                    "one manifest (.toml with manifest_version) in this folder",
                    found,
                    "name the manifest itself",
                )));
            }
        };
        self.load(&Listing::single(chosen, self.policy))
    }

    /// Registers a plugin that is linked into the program. Registering it again does nothing. Errors: as
    /// [`Registry::load`].
    ///
    /// # Safety
    /// `record` is NULL or points to the record of a plugin, which lives until the process ends.
    pub unsafe fn register_static(
        &self,
        record: *const et_plugin_record,
    ) -> Result<PluginReport, LoadError> {
        let file = PathBuf::from("(linked in)");
        let _one_at_a_time = self.begin_loading("(unknown)", &file)?;
        if record.is_null() {
            return Err(LoadError::Entry(Facts::boxed(
                "(unknown)",
                &file,
                "there is no record",
                "a pointer to a static et_plugin_record",
                "NULL",
                "pass what the plugin's entry function returns",
            )));
        }
        let address = record as usize;
        if let Some(report) = self.loaded(|plugin| plugin.record == address) {
            return Ok(report);
        }
        let origin = LibraryOrigin { id: "(unknown)".to_owned(), file };
        // SAFETY: the caller's promise.
        unsafe { self.register(record, origin, None) }
    }

    /// Waits until no other thread loads. Errors: `Busy` when this thread does.
    fn begin_loading(&self, id: &str, file: &Path) -> Result<Loading<'_>, LoadError> {
        if LOADS.get() {
            return Err(LoadError::Busy(Facts::boxed(
                id,
                file,
                "a plugin that is being loaded asks for this one",
                "one load after the other",
                "a call from `init`",
                "look it up when a component is made",
            )));
        }
        let guard = lock(&self.loading);
        LOADS.set(true);
        Ok(Loading(guard))
    }

    fn load_manifest(&self, manifest: &PluginManifest) -> Result<PluginReport, LoadError> {
        let _one_at_a_time = self.begin_loading(&manifest.id, &manifest.path)?;
        let same_file = |plugin: &Plugin| {
            let loaded = plugin.info.manifest.as_ref();
            plugin.info.id == manifest.id
                && loaded.is_some_and(|m| same_path(&m.path, &manifest.path))
        };
        if let Some(report) = self.loaded(same_file) {
            return Ok(report);
        }
        self.refuse_second(&manifest.id, &manifest.path)?;
        self.host.check_manifest(manifest)?;
        let (file, record) = open(manifest, current_platform(), self.policy)?;
        let origin = LibraryOrigin { id: manifest.id.clone(), file };
        // SAFETY: a record that a library returned; libraries are never closed.
        unsafe { self.register(record, origin, Some(manifest)) }
    }

    /// Validates a plugin completely, then commits it.
    ///
    /// # Safety
    /// As [`EntryRecord::read`]; what the record points to lives until the process ends.
    unsafe fn register(
        &self,
        address: *const et_plugin_record,
        mut origin: LibraryOrigin,
        manifest: Option<&PluginManifest>,
    ) -> Result<PluginReport, LoadError> {
        // SAFETY: the caller's promise.
        let record = unsafe { EntryRecord::read(&self.host, address, &origin, manifest) }?;
        origin.id.clone_from(&record.id);
        self.refuse_second(&record.id, &origin.file)?;
        record.init(&self.host, &origin)?;
        // SAFETY: `init` succeeded.
        let components = unsafe { component::collect(&origin, &record.version, record.component) }
            .and_then(|components| {
                manifest.map_or(Ok(()), |m| component::compare(&origin, m, &components))?;
                self.refuse_reserved(&origin, &components)?;
                Ok(components)
            });
        let components = match components {
            Ok(components) => components,
            Err(error) => {
                if let Some(shutdown) = record.shutdown {
                    // SAFETY: `init` succeeded, and nothing of the plugin was handed out.
                    unsafe { shutdown() };
                }
                return Err(error);
            }
        };
        let info = LoadedPlugin {
            id: record.id,
            version: record.version,
            file: origin.file,
            manifest: manifest.cloned(),
            components: component::provided(&components),
        };
        let mut warnings = Vec::new();
        if record.flags & ET_PLUGIN_FLAG_PANIC_ABORT != 0 {
            warnings.push(format!(
                "plugin {:?} ({}) was built with panic = abort: a panic in it ends the program; build it with panic = unwind",
                info.id,
                info.file.display()
            ));
        }
        let report = PluginReport { warnings, already_loaded: false, ..report_of(&info) };
        let mut state = self.state();
        let keyed =
            components.into_iter().map(|c| ((c.kind, c.name.clone(), c.plugin_id.clone()), c));
        state.components.extend(keyed);
        let record_address = address as usize;
        state.plugins.push(Plugin { info, record: record_address, shutdown: record.shutdown });
        Ok(report)
    }

    /// Keeps a name for a component of the program itself, which no plugin may offer from then on. Errors: `Clash` when
    /// a plugin that is loaded or was found offers it, or it is reserved already; `Component` for what is no name.
    pub fn reserve(&self, kind: ComponentKind, name: &str) -> Result<(), LoadError> {
        let facts = |problem: String, required: &str, found: String, remedy: &str| {
            Facts::boxed("this program", Path::new("(registry)"), problem, required, found, remedy)
        };
        let is_bad = |c: char| c.is_control() || c.is_whitespace() || c == '/';
        if name.is_empty() || name.chars().any(is_bad) {
            return Err(LoadError::Component(facts(
                format!("a {kind} of the program has no name"),
                "a text without spaces and slashes",
                format!("{name:?}"),
                "register it under another name",
            )));
        }
        let key = (kind, name.to_owned());
        let owner = match self.offering(kind, name).first() {
            Some(id) => Some(format!("plugin {id:?} provides it")),
            None if self.state().reserved.contains(&key) => Some("the program provides it".into()),
            None => None,
        };
        if let Some(owner) = owner {
            return Err(LoadError::Clash(facts(
                format!("the {kind} {name:?} is registered already"),
                "one component per kind and name",
                owner,
                "register it under another name",
            )));
        }
        self.state().reserved.insert(key);
        Ok(())
    }

    /// The report for a plugin that is loaded already.
    fn loaded(&self, is_it: impl Fn(&Plugin) -> bool) -> Option<PluginReport> {
        self.state().plugins.iter().find(|plugin| is_it(plugin)).map(|p| report_of(&p.info))
    }

    fn refuse_second(&self, id: &str, file: &Path) -> Result<(), LoadError> {
        let state = self.state();
        let Some(other) = state.plugins.iter().find(|plugin| plugin.info.id == id) else {
            return Ok(());
        };
        Err(LoadError::Duplicate(Facts::boxed(
            id,
            file,
            "a plugin with this id is loaded already",
            "one plugin per id",
            format!("version {} from {}", other.info.version, other.info.file.display()),
            "load only one of them; a plugin stays loaded until the program ends",
        )))
    }

    /// Refuses components whose names the program itself has.
    fn refuse_reserved(
        &self,
        origin: &LibraryOrigin,
        components: &[Component],
    ) -> Result<(), LoadError> {
        let state = self.state();
        let is_reserved = |c: &&Component| state.reserved.contains(&(c.kind, c.name.clone()));
        let Some(new) = components.iter().find(is_reserved) else { return Ok(()) };
        Err(LoadError::Clash(Facts::boxed(
            &origin.id,
            &origin.file,
            format!("the {} {:?} is registered already", new.kind, new.name),
            "one component per kind and name beside those of the program",
            "the program itself provides it",
            "register the program's under another name",
        )))
    }

    /// All registered components, sorted by kind and name.
    pub fn list(&self) -> Vec<Component> {
        self.state().components.values().cloned().collect()
    }

    /// All loaded plugins, in the order in which they were loaded.
    pub fn plugins(&self) -> Vec<LoadedPlugin> {
        self.state().plugins.iter().map(|plugin| plugin.info.clone()).collect()
    }

    /// The manifests that the last [`Registry::discover`] found.
    pub fn discovered(&self) -> Vec<Listing> {
        self.state().discovered.clone()
    }

    /// Empties the registry and calls `shutdown` of every plugin, the last loaded first. Logical only: libraries stay
    /// open and components that were handed out stay valid, but must not be used to make new instances.
    pub fn shutdown(&self) {
        let _one_at_a_time = lock(&self.loading);
        let plugins = {
            let mut state = self.state();
            state.components.clear();
            std::mem::take(&mut state.plugins)
        };
        for shutdown in plugins.iter().rev().filter_map(|plugin| plugin.shutdown) {
            // SAFETY: the slot of a plugin whose `init` succeeded, called once per `init`.
            unsafe { shutdown() };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Locks although another thread panicked with the lock: every change to the state is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report_of(info: &LoadedPlugin) -> PluginReport {
    PluginReport {
        plugin_id: info.id.clone(),
        plugin_version: info.version.clone(),
        components: info.components.clone(),
        warnings: Vec::new(),
        already_loaded: true,
    }
}

fn same_path(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
