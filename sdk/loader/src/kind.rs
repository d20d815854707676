//! The kinds of components and the slots that each table must fill.

use easytransfer_abi::{
    et_plugin_app, et_plugin_loss, et_plugin_metric, et_plugin_model, et_plugin_op,
    et_plugin_optimizer, et_plugin_strategy,
};
use std::ffi::CStr;
use std::fmt;
use std::mem::offset_of;

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ComponentKind {
    /// `et.model/1`, table `et_plugin_model`.
    Model,
    /// `et.loss/1`, table `et_plugin_loss`.
    Loss,
    /// `et.optimizer/1`, table `et_plugin_optimizer`.
    Optimizer,
    /// `et.strategy/1`, table `et_plugin_strategy`.
    Strategy,
    /// `et.app/1`, table `et_plugin_app`.
    App,
    /// `et.op/1`, table `et_plugin_op`.
    Op,
    /// `et.metric/1`, table `et_plugin_metric`.
    Metric,
}

/// A function slot of a table: its name in the header and its offset in bytes.
pub(crate) struct Slot {
    pub name: &'static str,
    pub offset: usize,
}

macro_rules! slots {
    ($table:ty: $($field:ident),+) => {
        &[$(Slot { name: stringify!($field), offset: offset_of!($table, $field) }),+]
    };
}

impl ComponentKind {
    /// Every kind, in the order in which a plugin is asked for its components.
    pub const ALL: [ComponentKind; 7] = [
        ComponentKind::Model,
        ComponentKind::Loss,
        ComponentKind::Optimizer,
        ComponentKind::Strategy,
        ComponentKind::App,
        ComponentKind::Op,
        ComponentKind::Metric,
    ];

    /// The word for it in manifests and messages, for instance "loss".
    pub fn name(self) -> &'static str {
        match self {
            ComponentKind::Model => "model",
            ComponentKind::Loss => "loss",
            ComponentKind::Optimizer => "optimizer",
            ComponentKind::Strategy => "strategy",
            ComponentKind::App => "app",
            ComponentKind::Op => "op",
            ComponentKind::Metric => "metric",
        }
    }

    /// The kind of that name, as in a manifest.
    pub fn from_name(name: &str) -> Option<ComponentKind> {
        ComponentKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The interface id that goes to `et_plugin_record.component`, for instance "et.loss/1".
    pub fn interface(self) -> &'static CStr {
        match self {
            ComponentKind::Model => c"et.model/1",
            ComponentKind::Loss => c"et.loss/1",
            ComponentKind::Optimizer => c"et.optimizer/1",
            ComponentKind::Strategy => c"et.strategy/1",
            ComponentKind::App => c"et.app/1",
            ComponentKind::Op => c"et.op/1",
            ComponentKind::Metric => c"et.metric/1",
        }
    }

    /// Name of the table in the header.
    pub(crate) fn table_name(self) -> &'static str {
        match self {
            ComponentKind::Model => "et_plugin_model",
            ComponentKind::Loss => "et_plugin_loss",
            ComponentKind::Optimizer => "et_plugin_optimizer",
            ComponentKind::Strategy => "et_plugin_strategy",
            ComponentKind::App => "et_plugin_app",
            ComponentKind::Op => "et_plugin_op",
            ComponentKind::Metric => "et_plugin_metric",
        }
    }

    /// Offset of `schema`; operations have none.
    pub(crate) fn schema_offset(self) -> Option<usize> {
        match self {
            // Every table with a schema has it right after the name, at the same place.
            ComponentKind::Op => None,
            ComponentKind::Model => Some(offset_of!(et_plugin_model, schema)),
            ComponentKind::Loss => Some(offset_of!(et_plugin_loss, schema)),
            ComponentKind::Optimizer => Some(offset_of!(et_plugin_optimizer, schema)),
            ComponentKind::Strategy => Some(offset_of!(et_plugin_strategy, schema)),
            ComponentKind::App => Some(offset_of!(et_plugin_app, schema)),
            ComponentKind::Metric => Some(offset_of!(et_plugin_metric, schema)),
        }
    }

    /// Slots that may not be NULL in any table of this kind. The hooks of a strategy depend on the phases of an
    /// instance and are checked when one is made; `backward` of an operation depends on its flags.
    pub(crate) fn required_slots(self) -> &'static [Slot] {
        match self {
            ComponentKind::Model => slots!(et_plugin_model: create, describe, forward, release),
            ComponentKind::Loss => slots!(et_plugin_loss: create, forward, release),
            ComponentKind::Optimizer => {
                slots!(et_plugin_optimizer: create, step, state_save, state_load, release)
            }
            ComponentKind::Strategy => slots!(et_plugin_strategy: create, phases, release),
            ComponentKind::App => slots!(
                et_plugin_app: create, columns, observe, observed, state, describe, features, build, forward, decode,
                release
            ),
            ComponentKind::Op => slots!(et_plugin_op: infer, forward),
            ComponentKind::Metric => slots!(et_plugin_metric: create, update, compute, release),
        }
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_interfaces_agree() {
        for kind in ComponentKind::ALL {
            assert_eq!(ComponentKind::from_name(kind.name()), Some(kind));
            let expected = format!("et.{}/1", kind.name());
            assert_eq!(kind.interface().to_str(), Ok(expected.as_str()));
            assert_eq!(kind.table_name(), format!("et_plugin_{}", kind.name()));
        }
        assert_eq!(ComponentKind::from_name("losses"), None);
    }
}
