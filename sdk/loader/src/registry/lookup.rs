//! Finding a component. A name belongs to a plugin: where two offer one, somebody must say which is meant; the order
//! of the search never decides.

use super::Registry;
use crate::component::Component;
use crate::error::{Facts, LoadError, NOWHERE};
use crate::kind::ComponentKind;
use crate::names::{AskedName, PluginChoice, VersionStep, version_step};
use crate::search::Listing;
use easytransfer_text::nearest;
use std::path::Path;

impl Registry {
    /// The component of that kind and name, which is `name` or `plugin-id/name`. If no loaded plugin has it but one
    /// that was discovered does, that plugin is loaded; if it cannot be and another manifest of its id can, that one
    /// is, with a warning ([`Registry::take_warnings`]). Errors: `Clash` where several plugins offer the name and
    /// neither it nor a [`PluginChoice`] says which is meant; `NoSuchComponent`, naming the nearest name and the
    /// loaded plugins; those of [`Registry::load`].
    pub fn lookup(&self, kind: ComponentKind, name: &str) -> Result<Component, LoadError> {
        self.find(kind, name, None)
    }

    /// As [`Registry::lookup`] for a name that the plugin `asker` wrote: where it offers such a component itself, and
    /// nothing else was said, it means its own.
    pub fn lookup_for(
        &self,
        kind: ComponentKind,
        name: &str,
        asker: &str,
    ) -> Result<Component, LoadError> {
        self.find(kind, name, Some(asker))
    }

    /// The component that something was made with: the one called `name` of `plugin`, in a version that behaves as
    /// `version` did. A [`PluginChoice`] replaces the plugin, and accepts any version. Errors: as
    /// [`Registry::lookup`]; `Identity` for another major version. Another minor version before 1.0, and an earlier
    /// one, is a warning.
    pub fn lookup_made_with(
        &self,
        kind: ComponentKind,
        name: &str,
        plugin: &str,
        version: &str,
    ) -> Result<Component, LoadError> {
        if let Some(choice) = self.choice(kind, name) {
            let found = self.find(kind, &format!("{}/{name}", choice.plugin), None)?;
            let same = found.plugin_id == plugin && found.plugin_version == version;
            if !same {
                self.warn(format!(
                    "the bundle was made with the {kind} {name:?} of plugin {plugin} {version}; by the choice {choice} that of {} {} is used",
                    found.plugin_id, found.plugin_version
                ));
            }
            return Ok(found);
        }
        let others = self.offering(kind, name);
        if !others.iter().any(|id| id == plugin) && !others.is_empty() {
            let found: Vec<String> = others.iter().map(|id| format!("{id}/{name}")).collect();
            return Err(LoadError::NoSuchComponent(Facts::boxed(
                name,
                Path::new(NOWHERE),
                format!(
                    "the {kind} of this name is another plugin's than the bundle was made with"
                ),
                format!("that of plugin {plugin} {version}"),
                found.join(", "),
                format!(
                    "install plugin {plugin}, or state the choice {kind}={} if this one shall stand for it",
                    found[0]
                ),
            )));
        }
        let found = self.find(kind, &format!("{plugin}/{name}"), None)?;
        let is = format!("version {}", found.plugin_version);
        match version_step(version, &found.plugin_version) {
            VersionStep::Compatible => {}
            VersionStep::Doubtful => self.warn(format!(
                "plugin {plugin}: the bundle was made with version {version} of it, found {is}: the {kind} {name:?} may answer otherwise"
            )),
            VersionStep::Breaking => {
                return Err(LoadError::Identity(Facts::boxed(
                    plugin,
                    Path::new(NOWHERE),
                    format!("the bundle was made with another major version of the plugin, whose {kind} {name:?} it uses"),
                    format!("version {version}, or a later one of the same major version"),
                    is,
                    format!(
                        "install that version, or state the choice {kind}={plugin}/{name} to use the one that is there"
                    ),
                )));
            }
        }
        Ok(found)
    }

    /// What the user should know of loads and lookups since the last call: each once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.state().warnings)
    }

    pub(super) fn warn(&self, warning: String) {
        let mut state = self.state();
        if state.told.insert(warning.clone()) {
            state.warnings.push(warning);
        }
    }

    fn choice(&self, kind: ComponentKind, name: &str) -> Option<&PluginChoice> {
        self.choices.iter().find(|choice| choice.kind == kind && choice.name == name)
    }

    fn find(
        &self,
        kind: ComponentKind,
        text: &str,
        asker: Option<&str>,
    ) -> Result<Component, LoadError> {
        let AskedName { plugin, name } = AskedName::of(text);
        let chosen = self.choice(kind, name).map(|choice| choice.plugin.as_str());
        let offering = self.offering(kind, name);
        let offers = |id: &str| offering.iter().any(|other| other == id);
        let id = match plugin.or(chosen) {
            Some(id) if offers(id) => id,
            Some(id) => {
                return Err(self
                    .unusable_or(kind, name, Some(id), || self.not_of(kind, name, id, &offering)));
            }
            None => match (offering.as_slice(), asker) {
                ([only], _) => only,
                ([], _) => {
                    return Err(self.unusable_or(kind, name, None, || self.no_such(kind, name)));
                }
                (_, Some(asker)) if offers(asker) => asker,
                (several, _) => return Err(self.ambiguous(kind, name, several)),
            },
        };
        if let Some(component) = self.registered(kind, name, id) {
            return Ok(component);
        }
        self.load_one_of(kind, name, id)?;
        self.registered(kind, name, id).ok_or_else(|| self.no_such(kind, name))
    }

    /// Ids of the plugins that offer a component, those that are loaded first, each once.
    pub(super) fn offering(&self, kind: ComponentKind, name: &str) -> Vec<String> {
        let state = self.state();
        let loaded = state.components.values().filter(|c| c.kind == kind && c.name == name);
        let loaded = loaded.map(|component| &component.plugin_id);
        let is_loaded = |id: &String| state.plugins.iter().any(|plugin| plugin.info.id == *id);
        let listed =
            state.discovered.iter().filter(|l| l.problem.is_none() && l.offers(kind, name));
        // What a loaded plugin offers is known for sure.
        let listed = listed.map(|listing| &listing.id).filter(|id| !is_loaded(id));
        let mut ids: Vec<String> = Vec::new();
        for id in loaded.chain(listed) {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids
    }

    pub(super) fn registered(
        &self,
        kind: ComponentKind,
        name: &str,
        id: &str,
    ) -> Option<Component> {
        self.state().components.get(&(kind, name.to_owned(), id.to_owned())).cloned()
    }

    /// Loads the first manifest of an id that can be loaded, and warns of what stood before it. Errors: that of the
    /// first one, with what became of the others.
    fn load_one_of(&self, kind: ComponentKind, name: &str, id: &str) -> Result<(), LoadError> {
        let discovered = self.state().discovered.clone();
        let mut refused: Vec<(&Listing, LoadError)> = Vec::new();
        for listing in &discovered {
            let meant = listing.id == id && listing.offers(kind, name);
            let result = match &listing.problem {
                // A duplicate waits for the first one to fail.
                None | Some(LoadError::Duplicate(_)) if meant => match &listing.manifest {
                    Some(manifest) => self.load_manifest(manifest),
                    None => continue,
                },
                Some(problem) if !matches!(problem, LoadError::Duplicate(_)) => {
                    // Nobody knows what a manifest would offer that cannot be read.
                    if listing.id == id || listing.manifest.is_none() || listing.offers(kind, name)
                    {
                        refused.push((listing, problem.clone()));
                    }
                    continue;
                }
                _ => continue,
            };
            match result {
                Ok(report) => {
                    for (other, problem) in refused {
                        self.warn(format!("{problem}; {} is used", used_instead(other, listing)));
                    }
                    for warning in report.warnings {
                        self.warn(warning);
                    }
                    return Ok(());
                }
                Err(error) => refused.push((listing, error)),
            }
        }
        let mut refused = refused.into_iter().filter(|(listing, _)| listing.id == id);
        let Some((_, first)) = refused.next() else { return Err(self.no_such(kind, name)) };
        Err(refused.fold(first, |error, (listing, other)| {
            error.and(&format!(
                "{} cannot be used either: {}",
                listing.path.display(),
                other.facts().problem
            ))
        }))
    }

    /// The problem of a manifest that offers the component and cannot be used, or another error.
    fn unusable_or(
        &self,
        kind: ComponentKind,
        name: &str,
        id: Option<&str>,
        other: impl FnOnce() -> LoadError,
    ) -> LoadError {
        let state = self.state();
        let meant =
            |listing: &&Listing| listing.offers(kind, name) && id.is_none_or(|id| id == listing.id);
        let listing = state.discovered.iter().filter(|l| !l.may_be_used()).find(meant);
        let found = listing.and_then(|l| Some((l.path.clone(), l.problem.clone()?)));
        drop(state);
        let Some((path, problem)) = found else { return other() };
        match self.unusable(Some(&path)) {
            others if others.is_empty() => problem,
            others => problem.and(&others),
        }
    }

    /// Which manifests cannot be used, but for one, and why.
    fn unusable(&self, but: Option<&Path>) -> String {
        let state = self.state();
        let listings = state.discovered.iter().filter(|listing| Some(&*listing.path) != but);
        let reasons = listings.filter_map(|listing| {
            let reason = &listing.problem.as_ref()?.facts().problem;
            Some(format!("not usable: {} ({reason})", listing.path.display()))
        });
        reasons.collect::<Vec<_>>().join("; ")
    }

    fn ambiguous(&self, kind: ComponentKind, name: &str, ids: &[String]) -> LoadError {
        let state = self.state();
        let place = |id: &String| {
            let loaded = state.plugins.iter().find(|plugin| plugin.info.id == *id);
            let loaded = loaded.map(|plugin| plugin.info.file.clone());
            let listed = || state.discovered.iter().find(|l| l.id == *id).map(|l| l.path.clone());
            let path = loaded.or_else(listed).unwrap_or_default();
            format!("{id}/{name} ({})", path.display())
        };
        let found: Vec<String> = ids.iter().map(place).collect();
        LoadError::Clash(Facts::boxed(
            name,
            Path::new(NOWHERE),
            format!("{} plugins offer a {kind} of this name", ids.len()),
            "the name of one plugin's",
            found.join(", "),
            format!(
                "write {}/{name}, or state the choice {kind}={}/{name} where the name cannot be changed",
                ids[0], ids[0]
            ),
        ))
    }

    /// No such component of the plugin that was named.
    fn not_of(&self, kind: ComponentKind, name: &str, id: &str, offering: &[String]) -> LoadError {
        let known = self.ids();
        let is_known = known.iter().any(|other| other == id);
        let problem = match is_known {
            true => format!("plugin {id:?} offers no {kind} of this name"),
            false => format!("there is no plugin {id:?}"),
        };
        let list =
            |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let remedy = match nearest(id, known.iter().map(String::as_str)) {
            _ if !offering.is_empty() => {
                format!("write {}/{name}, or install the plugin", offering[0])
            }
            Some(near) if !is_known => format!("did you mean {near}/{name}?"),
            _ => {
                "install a plugin that provides it, or add its folder to ET_PLUGIN_PATH".to_owned()
            }
        };
        LoadError::NoSuchComponent(Facts::boxed(
            format!("{id}/{name}"),
            Path::new(NOWHERE),
            problem,
            format!("a plugin with the {kind} {name:?}"),
            format!("{}; plugins: {}", list(offering), list(&known)),
            remedy,
        ))
    }

    /// Ids of all plugins that are loaded or can be.
    fn ids(&self) -> Vec<String> {
        let state = self.state();
        let loaded = state.plugins.iter().map(|plugin| plugin.info.id.clone());
        let listed = state.discovered.iter().filter(|l| l.may_be_used()).map(|l| l.id.clone());
        let mut ids: Vec<String> = loaded.chain(listed).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn no_such(&self, kind: ComponentKind, name: &str) -> LoadError {
        let unusable = self.unusable(None);
        let state = self.state();
        let plugins: Vec<&str> = state.plugins.iter().map(|p| p.info.id.as_str()).collect();
        let registered = state.components.values().filter(|c| c.kind == kind).map(|c| &c.name);
        let own = state.reserved.iter().filter(|(k, _)| *k == kind).map(|(_, name)| name);
        let registered = registered.chain(own);
        let promised = state.discovered.iter().filter(|listing| listing.problem.is_none());
        let promised = promised.filter_map(|listing| listing.manifest.as_ref());
        let promised = promised.flat_map(|m| &m.provides).filter(|p| p.kind == kind);
        let mut known: Vec<&str> =
            registered.chain(promised.map(|p| &p.name)).map(String::as_str).collect();
        known.sort_unstable();
        known.dedup();
        let list = |names: &[&str]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let mut found = if state.discovered.is_empty() && plugins.is_empty() {
            let places: Vec<String> =
                state.searched.iter().map(|place| format!("`{}`", place.display())).collect();
            format!(
                "no plugin at all in {}",
                list(&places.iter().map(String::as_str).collect::<Vec<_>>())
            )
        } else {
            format!("{}; loaded plugins: {}", list(&known), list(&plugins))
        };
        if !unusable.is_empty() {
            found = format!("{found}; {unusable}");
        }
        let remedy = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "install a plugin that provides it, or add its folder to ET_PLUGIN_PATH (in the source tree: `cargo xtask stage`)".into(),
        };
        LoadError::NoSuchComponent(Facts::boxed(
            name,
            Path::new(NOWHERE),
            format!("no {kind} has this name"),
            "a name that some plugin offers",
            found,
            remedy,
        ))
    }
}

/// What is used in the place of a plugin that cannot be: another manifest of its id, or another plugin.
fn used_instead(refused: &Listing, used: &Listing) -> String {
    match refused.id == used.id {
        true => used.path.display().to_string(),
        false => format!("plugin {:?} ({})", used.id, used.path.display()),
    }
}
