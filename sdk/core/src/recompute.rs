//! Selective recomputation: values that backward needs and that are cheap to compute again from others that it needs anyhow.
//!
//! With [`set_recompute`] on, the output of a linear layer with an activation is computed again from the value before it, and the
//! output of a layer norm from its normalised input; who saves such an output for its own backward saves the way to it instead. It
//! costs one pass over memory each time and gives the same bits. Chen et al. (2016), "Training Deep Nets with Sublinear Memory
//! Cost", drop whole segments instead; that needs to run a model's code again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::storage::Value;
use crate::tensor::Tensor;

static ON: AtomicBool = AtomicBool::new(false);

/// Switches recomputation for operations of the whole process that are recorded from now on; off at first.
pub fn set_recompute(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// True if operations should say how their outputs can be computed again.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
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
