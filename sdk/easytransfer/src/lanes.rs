//! A network for many threads. The contract calls models and apps [one-at-a-time], so every thread that computes has a
//! lane: instances of the plugins that no other call uses meanwhile. All lanes stand on one set of parameters, with
//! one set of packed copies. There are as many as the engine has threads, made when they are first wanted; whoever
//! comes later waits for one to be free.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use easytransfer_core::handle::{borrow, into_raw};
use easytransfer_core::{params as engine, workers};
use easytransfer_plugin::{Params, Scope};
use easytransfer_train::model::components::Components;
use easytransfer_train::model::network::Network;
use easytransfer_train::{Error, Result};

/// A network and the lanes over its parameters.
pub(crate) struct Lanes {
    components: Arc<dyn Components>,
    /// The network that was loaded, which is a lane as well.
    first: Arc<Network>,
    free: Mutex<Free>,
    freed: Condvar,
    was_shown: AtomicBool,
}

struct Free {
    lanes: Vec<Arc<Network>>,
    /// How many may still be made; not known before the second thread comes.
    more: Option<usize>,
}

/// A lane, until it is dropped.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    network: Arc<Network>,
}

impl Lanes {
    pub(crate) fn new(network: Network, components: Arc<dyn Components>) -> Lanes {
        let first = Arc::new(network);
        let free = Mutex::new(Free { lanes: vec![first.clone()], more: None });
        Lanes { components, first, free, freed: Condvar::new(), was_shown: AtomicBool::new(false) }
    }

    /// The network that was loaded, for what may be done at any time: what it says of itself, features, parameters.
    pub(crate) fn first(&self) -> &Network {
        &self.first
    }

    /// The network that was loaded, for the program, who may change its parameters.
    pub(crate) fn show(&self) -> &Network {
        self.was_shown.store(true, Ordering::Relaxed);
        &self.first
    }

    /// Whether the program has seen the network, so that it may differ from its files.
    pub(crate) fn was_shown(&self) -> bool {
        self.was_shown.load(Ordering::Relaxed)
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // What the lock guards is whole between any two statements.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane for this thread, as soon as there is one.
    pub(crate) fn take(&self) -> Lane<'_> {
        let mut free = self.free();
        loop {
            if let Some(network) = free.lanes.pop() {
                return Lane { lanes: self, network };
            }
            let more = free.more.unwrap_or_else(|| workers::count().saturating_sub(1));
            if more == 0 {
                free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            free.more = Some(more - 1);
            drop(free);
            if let Ok(network) = self.again() {
                return Lane { lanes: self, network: Arc::new(network) };
            }
            // Then those that are there must do.
            free = self.free();
            free.more = Some(0);
        }
    }

    /// One more lane. Errors: plugins that cannot have two instances over one set of parameters, because the second
    /// would write to them while it is made; an engine that is not the one of this program.
    fn again(&self) -> Result<Network> {
        let first = &*self.first;
        if !crate::engine::is_linked() {
            return Err(Error::other("a loaded engine has one lane"));
        }
        let trial = Params::new(0)?;
        first.again(&*self.components, &trial.root()?, &trial)?;
        // SAFETY: both sets are alive, and of the engine that is linked in.
        let (made, there): (&engine::Params, &engine::Params) = unsafe {
            (borrow(trial.as_raw()).map_err(text)?, borrow(first.params.as_raw()).map_err(text)?)
        };
        if !made.is_untouched() || !made.has_layout_of(there) {
            return Err(Error::other("the plugins write to parameters while they are made"));
        }
        // SAFETY: the handle is new, and of the engine that is linked in.
        let root = unsafe { Scope::from_raw(into_raw(there.again()))? };
        first.again(&*self.components, &root, &first.params)
    }
}

fn text(error: easytransfer_core::error::Error) -> Error {
    Error::other(error.message.as_str())
}

impl Deref for Lane<'_> {
    type Target = Network;

    fn deref(&self) -> &Network {
        &self.network
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.lanes.free().lanes.push(self.network.clone());
        self.lanes.freed.notify_one();
    }
}
