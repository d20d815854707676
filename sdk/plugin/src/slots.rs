//! Which of its optional slots a component fills.

use crate::ComponentRef;
use crate::host::slot;
use easytransfer_abi as abi;

impl ComponentRef {
    /// Whether the slot of this name is filled, for slots that a component may leave out: those of "et.loss/1",
    /// "et.optimizer/1", "et.metric/1", "et.app/1" and the hooks of "et.strategy/1". False for any other name.
    pub fn has_slot(&self, name: &str) -> bool {
        macro_rules! filled {
            ($kind:literal, $ty:ident: $($slot:ident),*) => {
                match self.table::<abi::$ty>($kind) {
                    Ok(table) => match name {
                        $(stringify!($slot) => slot!(table, $ty.$slot).is_some(),)*
                        _ => false,
                    },
                    Err(_) => false,
                }
            };
        }
        match self.kind() {
            "et.loss/1" => filled!("et.loss/1", et_plugin_loss: rows, weight),
            "et.optimizer/1" => filled!("et.optimizer/1", et_plugin_optimizer: step_part),
            "et.metric/1" => {
                filled!("et.metric/1", et_plugin_metric: describe, answers, state_save, state_merge)
            }
            "et.app/1" => filled!("et.app/1", et_plugin_app: finish),
            "et.strategy/1" => filled!(
                "et.strategy/1", et_plugin_strategy: on_setup, on_batch, on_outputs, combine, on_gradients, on_epoch,
                fit, state_save, state_load, columns
            ),
            _ => false,
        }
    }
}
