//! What is computed again in the backward pass instead of being kept.
//!
//! [`Recompute::Cheap`] concerns values that backward needs and that are cheap to compute again from others that it
//! needs anyhow: the output of a linear layer with an activation is computed again from the value before it, and the
//! output of a layer norm from its normalised input; who saves such an output for its own backward saves the way to
//! it instead. It costs one pass over memory each time. [`Recompute::Layer`] drops whole segments, which a model
//! marks; see [`crate::segment`]. Both give the same bits.
//!
//! The choice belongs to the thread that makes it, as recording does: a run records and passes backwards on one thread,
//! and runs on others choose for themselves.

use std::cell::Cell;
use std::sync::Arc;

use easytransfer_abi::{ET_RECOMPUTE_CHEAP, ET_RECOMPUTE_LAYER, ET_RECOMPUTE_NONE};

use crate::error::{Result, fail};
use crate::storage::Value;
use crate::tensor::Tensor;

/// How much is computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Recompute {
    /// Nothing.
    None = ET_RECOMPUTE_NONE,
    /// Outputs of activations and layer norms.
    Cheap = ET_RECOMPUTE_CHEAP,
    /// The segments that a model marks.
    Layer = ET_RECOMPUTE_LAYER,
}

impl Recompute {
    /// The level of a boundary's constant. Errors: `INVALID_ARGUMENT`.
    pub fn from_code(code: i32) -> Result<Self> {
        Ok(match code {
            ET_RECOMPUTE_NONE => Self::None,
            ET_RECOMPUTE_CHEAP => Self::Cheap,
            ET_RECOMPUTE_LAYER => Self::Layer,
            other => fail!(
                ET_ERR_INVALID_ARGUMENT,
                "set_recompute: expected an ET_RECOMPUTE_ constant, found {other}"
            ),
        })
    }
}

thread_local! {
    static LEVEL: Cell<Recompute> = const { Cell::new(Recompute::None) };
    /// True while recomputation by layer is on and has found no segment.
    static IS_IDLE: Cell<bool> = const { Cell::new(false) };
}

/// Chooses what operations that this thread records from now on keep; [`Recompute::None`] at first.
pub fn set_recompute(level: Recompute) {
    LEVEL.set(level);
    IS_IDLE.set(level == Recompute::Layer);
}

/// Notes that there are segments.
pub fn found_segment() {
    IS_IDLE.set(false);
}

/// Warns once if the first backward pass since recomputation by layer was chosen meets no segment: then it saves
/// nothing.
pub fn check_use() {
    if IS_IDLE.replace(false) {
        crate::log::warn(
            "recompute by layer saves nothing: the model marks no layers (checkpoint of et.autograd/1); \
             \"cheap\" works with every model",
        );
    }
}

/// True if operations should say how their outputs can be computed again.
pub fn is_cheap() -> bool {
    LEVEL.get() == Recompute::Cheap
}

/// True if segments keep their inputs only.
pub fn is_by_layer() -> bool {
    LEVEL.get() == Recompute::Layer
}

/// Computes a value again, to the same bits.
pub type Recipe = Arc<dyn Fn() -> Result<Value> + Send + Sync>;

/// An input that was saved for a backward pass: itself, or how to make it.
pub enum Saved {
    /// The value.
    Value(Value),
    /// The way to it.
    Recipe(Recipe),
}

impl Saved {
    /// Saves `x`, whose contiguous value is `dense`.
    pub fn new(x: &Tensor, dense: &Value) -> Self {
        match x.recipe() {
            Some(recipe) => Self::Recipe(recipe.clone()),
            None => Self::Value(dense.clone()),
        }
    }

    /// The value, contiguous.
    pub fn value(&self) -> Result<Value> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Recipe(recipe) => recipe(),
        }
    }
}
