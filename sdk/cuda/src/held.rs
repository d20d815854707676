//! Who holds the card's memory: what an error of too little memory and the engine's report say.

use cudarc::driver::{CudaContext, result, sys};

use super::device::{active, failed, waits};
use super::lt::WORKSPACE;
use super::reuse;
use easytransfer_core::error::{Error, Result};
use easytransfer_core::held::Bytes;

/// Bytes of the card by holder.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// With their copies in fewer bits.
    parameters: usize,
    gradients: usize,
    states: usize,
    /// Activations and whatever else is a tensor.
    activations: usize,
    /// Kept for the next tensor, by the engine and by the driver.
    cached: usize,
    /// Held by libraries and by other programs on the card.
    others: usize,
    total: usize,
    /// Most bytes that tensors had at a time, with what the engine kept for the next.
    peak: usize,
}

impl Held {
    /// From what the driver's pool has in use and in all and had in use, how much of that is `kept` for the next
    /// tensor, what the card has free and in all, and the `arenas`.
    fn new(
        [used, reserved, peak]: [usize; 3],
        kept: usize,
        free: usize,
        total: usize,
        arenas: Bytes,
    ) -> Self {
        let used = used.saturating_sub(kept);
        let Bytes { values, states, copies } = arenas;
        Self {
            parameters: values + copies,
            gradients: values,
            states,
            activations: used.saturating_sub(2 * values + copies + states + WORKSPACE),
            cached: reserved.saturating_sub(used),
            others: total.saturating_sub(free).saturating_sub(reserved) + WORKSPACE.min(used),
            total,
            peak,
        }
    }

    fn text(&self) -> String {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        format!(
            "of {} MiB, parameters hold {}, gradients {}, optimizer states {}, activations and other tensors {}, the pool's cache {}, \
             libraries and other programs {}",
            mib(self.total),
            mib(self.parameters),
            mib(self.gradients),
            mib(self.states),
            mib(self.activations),
            mib(self.cached),
            mib(self.others)
        )
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "parameters": self.parameters, "gradients": self.gradients, "optimizer_states": self.states,
            "activations": self.activations, "cached": self.cached, "others": self.others, "total": self.total,
        })
    }

    /// Bytes that are in use by whomever, and the most that tensors had.
    pub fn use_and_peak(&self) -> (usize, usize) {
        let own = self.parameters + self.gradients + self.states + self.activations;
        (own + self.cached + self.others, self.peak)
    }
}

/// The driver's pool for this card.
fn pool(context: &CudaContext) -> std::result::Result<sys::CUmemoryPool, result::DriverError> {
    context.bind_to_thread()?;
    let mut pool: sys::CUmemoryPool = std::ptr::null_mut();
    // SAFETY: the out is local.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) }.result()?;
    Ok(pool)
}

/// Lets the pool keep freed memory for the next allocation instead of giving it back at every synchronisation.
pub(super) fn keep_memory(context: &CudaContext) -> std::result::Result<(), result::DriverError> {
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the value is a local of the type that the attribute has.
    unsafe { sys::cuMemPoolSetAttribute(pool(context)?, attribute, (&raw mut threshold).cast()) }
        .result()
}

/// Who holds what now; `None` without a card or when the driver does not say.
pub(crate) fn held() -> Option<Held> {
    let context = &active()?.context;
    let (free, total) = context.mem_get_info().ok()?;
    let pool = pool(context).ok()?;
    use sys::CUmemPool_attribute as Attribute;
    let asked = [
        Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
        Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
        Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
    ];
    let mut bytes = [0u64; 3];
    for (attribute, bytes) in asked.into_iter().zip(&mut bytes) {
        // SAFETY: the value is a local of the type that these attributes have.
        unsafe { sys::cuMemPoolGetAttribute(pool, attribute, std::ptr::from_mut(bytes).cast()) }
            .result()
            .ok()?;
    }
    let arenas = easytransfer_core::held::bytes();
    Some(Held::new(bytes.map(|bytes| bytes as usize), reuse::bytes(), free, total, arenas))
}

/// True for the driver's error of too little memory.
pub(super) fn is_out_of_memory(error: &result::DriverError) -> bool {
    error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

/// The error of an allocation that failed even though the pool was trimmed.
pub(crate) fn out_of_memory(doing: &str) -> Error {
    let held = held().map_or_else(String::new, |held| format!(": {}", held.text()));
    Error::new(
        easytransfer_abi::ET_ERR_OUT_OF_MEMORY,
        format!(
            "{doing}: the card is out of memory{held}; use smaller batches, recompute=layer or accumulate"
        ),
    )
}

/// Waits for the card and gives back what is kept for the next tensor.
pub(super) fn trim() -> Result<()> {
    let Some(engine) = active() else { return Ok(()) };
    reuse::trim();
    let error = |error| failed("trim the memory pool", error);
    waits("out of memory");
    engine.stream.synchronize().map_err(error)?;
    let pool = pool(&engine.context).map_err(error)?;
    // SAFETY: the pool is the device's own.
    unsafe { result::mem_pool::trim_to(pool, 0) }.map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_card_has_one_holder() {
        const MIB: usize = 1 << 20;
        let arenas = Bytes { values: 10 * MIB, states: 20 * MIB, copies: 5 * MIB };
        let work = WORKSPACE / MIB;
        let used = (100 + work) * MIB;
        let used = [used + 10 * MIB, used + 30 * MIB, 150 * MIB];
        let held = Held::new(used, 10 * MIB, 20 * MIB, (200 + work) * MIB, arenas);
        let expected = Held {
            parameters: 15 * MIB,
            gradients: 10 * MIB,
            states: 20 * MIB,
            activations: 55 * MIB,
            cached: 30 * MIB,
            others: (50 + work) * MIB,
            total: (200 + work) * MIB,
            peak: 150 * MIB,
        };
        assert_eq!(held, expected);
        assert_eq!(held.use_and_peak(), ((180 + work) * MIB, 150 * MIB));
        let text = held.text();
        assert!(
            text.contains("MiB, parameters hold 15, gradients 10, optimizer states 20"),
            "{text}"
        );
        assert!(text.contains("the pool's cache 30, libraries and other programs"), "{text}");
        assert_eq!(Held::new([0; 3], 0, 0, 0, Bytes::default()), Held::default());
    }
}
