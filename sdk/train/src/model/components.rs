//! Where components come from. The trainer never names a concrete model, loss or optimizer, nor an engine; it asks
//! this.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use easytransfer_plugin::ComponentRef;
use serde::{Deserialize, Serialize};

/// A component as a bundle remembers it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Name in the registry.
    pub name: String,
    /// Id of the plugin.
    pub plugin: String,
    /// Version of the plugin.
    pub version: String,
}

impl Origin {
    /// The name that means this component and no other plugin's of the same name: "loss-basic/mse".
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.plugin, self.name)
    }
}

impl From<&ComponentRef> for Origin {
    fn from(component: &ComponentRef) -> Origin {
        Origin {
            name: component.name.clone(),
            plugin: component.plugin_id.clone(),
            version: component.plugin_version.clone(),
        }
    }
}

/// A component that a run has used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UsedComponent {
    /// "loss", "optimizer", "strategy", "metric", "model", "app".
    pub kind: String,
    /// Which one.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Finds components by kind ("et.loss/1") and name ("cross-entropy", or "loss-basic/cross-entropy" to say whose).
pub trait Components: Send + Sync {
    /// The component of that kind and name. Errors name the nearest one and the plugins that were searched, or those
    /// of which it may be when several offer it.
    fn find(&self, kind: &str, name: &str) -> Result<ComponentRef>;

    /// As [`Components::find`] for a name that a component of the plugin `asker` wrote: it means its own plugin's
    /// where that has one.
    fn find_for(&self, kind: &str, name: &str, asker: &str) -> Result<ComponentRef> {
        let _ = asker;
        self.find(kind, name)
    }

    /// The component that something was made with. Errors: only another plugin, or another major version, has it.
    fn find_made_with(&self, kind: &str, origin: &Origin) -> Result<ComponentRef> {
        self.find(kind, &origin.full_name())
    }

    /// What the engine computes in: a run that is resumed must go on in the same.
    fn precision(&self) -> &'static str;

    /// What was found so far, where that is kept.
    fn used(&self) -> Vec<UsedComponent> {
        Vec::new()
    }
}

/// Keeps what was found.
pub struct Recorder<'a> {
    components: &'a dyn Components,
    used: Mutex<BTreeSet<UsedComponent>>,
}

impl<'a> Recorder<'a> {
    /// Nothing was found yet.
    pub fn new(components: &'a dyn Components) -> Recorder<'a> {
        Recorder { components, used: Mutex::default() }
    }

    fn keep(&self, kind: &str, found: Result<ComponentRef>) -> Result<ComponentRef> {
        let found = found?;
        let kind = kind.trim_start_matches("et.").trim_end_matches("/1").to_owned();
        let used = UsedComponent { kind, origin: Origin::from(&found) };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(used);
        Ok(found)
    }
}

impl Components for Recorder<'_> {
    fn find(&self, kind: &str, name: &str) -> Result<ComponentRef> {
        self.keep(kind, self.components.find(kind, name))
    }

    fn find_for(&self, kind: &str, name: &str, asker: &str) -> Result<ComponentRef> {
        self.keep(kind, self.components.find_for(kind, name, asker))
    }

    fn find_made_with(&self, kind: &str, origin: &Origin) -> Result<ComponentRef> {
        self.keep(kind, self.components.find_made_with(kind, origin))
    }

    fn precision(&self) -> &'static str {
        self.components.precision()
    }

    fn used(&self) -> Vec<UsedComponent> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
