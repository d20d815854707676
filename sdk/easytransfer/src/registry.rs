//! `et.registry/1`: operations of one plugin for another one. Plugins know one host per process, so they are given
//! what any runtime of the process has, the youngest first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use easytransfer_loader::{ComponentKind, LoadError};
use easytransfer_plugin::{ComponentRef, Error, OpRegistry, Result};

use crate::runtime::Registered;

static REGISTRIES: Mutex<Vec<Weak<Registered>>> = Mutex::new(Vec::new());

fn registries() -> MutexGuard<'static, Vec<Weak<Registered>>> {
    REGISTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets plugins use what a registry has as long as it lives.
pub(crate) fn remember(registry: &Arc<Registered>) {
    let mut all = registries();
    all.retain(|known| known.strong_count() > 0);
    all.push(Arc::downgrade(registry));
}

fn refused(error: LoadError) -> Error {
    Error::new(error.code(), error.to_string())
}

/// The registries of this process.
pub(crate) struct All;

impl OpRegistry for All {
    fn op(name: &str) -> Result<ComponentRef> {
        // A lookup may load a plugin, so it happens without the lock.
        let alive: Vec<_> = registries().iter().rev().filter_map(Weak::upgrade).collect();
        let mut failed = None;
        for registry in alive {
            match registry.component(ComponentKind::Op, name) {
                Ok(component) => return Ok(component),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        let none = || Error::new(easytransfer_abi::ET_ERR_NOT_FOUND, "no runtime is there");
        Err(failed.map_or_else(none, refused))
    }
}
