//! What the CPU engine rounds while it trains: one choice for the process, made before anything computes.
//!
//! In `bf16` the three products of a linear layer, forward and backward, round their operands to bfloat16 and sum in
//! f32; values, gradients, parameters and everything else stay f32, but for the derivative of the layer's activation,
//! which is kept for the backward pass in bfloat16. It concerns the layers that prediction in bf16 concerns
//! ([`inference::precision_of_layer`]). The gain is that of processors with AVX512_BF16, twice the multiplications;
//! others compute the same with rounded f32, at the speed of f32.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Result, fail};
use crate::inference::{self, LayerPrecision};
use crate::options::EnginePrecision;

static BF16: AtomicBool = AtomicBool::new(false);

/// Chooses f32 or bf16. Errors: `UNIMPLEMENTED` for what only a card has.
pub fn choose(precision: EnginePrecision) -> Result<()> {
    let bf16 = match precision {
        EnginePrecision::F32 => false,
        EnginePrecision::Bf16 => true,
        other => fail!(
            ET_ERR_UNIMPLEMENTED,
            "the CPU engine trains in f32 or bf16, found {}; use one of them, or a CUDA device",
            other.name()
        ),
    };
    BF16.store(bf16, Ordering::Relaxed);
    Ok(())
}

/// Whether the products of a layer of this size round their operands.
pub(crate) fn rounds(outputs: usize, inputs: usize) -> bool {
    BF16.load(Ordering::Relaxed)
        && inference::precision_of_layer(LayerPrecision::Bf16, outputs, inputs)
            == LayerPrecision::Bf16
}
