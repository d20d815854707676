//! Where components come from. The trainer never names a concrete model, loss or optimizer, nor an engine; it asks
//! this.

use crate::error::Result;
use easytransfer_plugin::ComponentRef;

/// Finds components by kind ("et.loss/1") and name ("cross-entropy").
pub trait Components: Send + Sync {
    /// The component of that kind and name. Errors name the nearest one and the plugins that were searched.
    fn find(&self, kind: &str, name: &str) -> Result<ComponentRef>;

    /// What the engine computes in: a run that is resumed must go on in the same.
    fn precision(&self) -> &'static str;
}
