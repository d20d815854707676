//! How the engine computes where nothing is recorded: in which precision, with weights packed once.
//!
//! A [`PredictionScope`] belongs to the thread that makes it. While it lives, linear layers that are not recorded and
//! whose weight is the value of a parameter use a packed copy of that weight, made when it is first wanted and shared
//! by all threads. The copy knows the version of the values that it was made of: an optimizer step, a load or any
//! other write makes it stale, and the next use packs anew. Models, heads and plugins do not notice.
//!
//! bf16 and int8 concern linear layers of at least [`SMALLEST_OUTPUTS`] outputs and [`SMALLEST_INPUTS`] inputs: the
//! layers of encoders and poolers. Embeddings, layer norms, attention, and narrow layers such as the last one of a
//! classifier stay in f32.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::arena::Arena;
use crate::copies::Copies;
use crate::device;
#[cfg(doc)]
use crate::device::Device;
use crate::error::Result;
use crate::kernels::machine::team;
use crate::sync::lock;

pub use crate::kernels::packed::{LayerPrecision, PackedWeight};

/// Fewest outputs of a layer that computes in another precision than f32.
pub const SMALLEST_OUTPUTS: usize = 128;
/// Fewest inputs of a layer that computes in another precision than f32.
pub const SMALLEST_INPUTS: usize = 64;
/// Most inputs of such a layer: the exact sums of int8 need 32 bits.
const LARGEST_INPUTS: usize = 1 << 16;

thread_local! {
    static PRECISION: Cell<Option<LayerPrecision>> = const { Cell::new(None) };
}

/// The precision of the innermost scope of this thread.
pub fn precision() -> Option<LayerPrecision> {
    PRECISION.get()
}

/// Makes this thread compute in a precision while it lives. Scopes nest; the inner one counts.
pub struct PredictionScope {
    before: Option<LayerPrecision>,
    _team: team::TeamScope,
    // The scope must end on the thread that it changed.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl PredictionScope {
    /// Begins the scope.
    pub fn new(precision: LayerPrecision) -> Self {
        let before = PRECISION.replace(Some(precision));
        Self { before, _team: team::TeamScope::new(), _not_send: std::marker::PhantomData }
    }
}

impl Drop for PredictionScope {
    fn drop(&mut self) {
        PRECISION.set(self.before);
    }
}

/// What a layer of this size computes in when `wanted` is asked for.
pub fn precision_of_layer(wanted: LayerPrecision, outputs: usize, inputs: usize) -> LayerPrecision {
    let wide = outputs >= SMALLEST_OUTPUTS && (SMALLEST_INPUTS..=LARGEST_INPUTS).contains(&inputs);
    if wide { wanted } else { LayerPrecision::F32 }
}

struct Pack {
    version: u64,
    weight: Arc<PackedWeight>,
}

/// The packed copies of one parameter, and the version of its values.
#[derive(Default)]
pub struct Packs {
    /// The parameter's, for messages.
    name: String,
    version: AtomicU64,
    packs: Mutex<Vec<Pack>>,
    /// Copies in fewer bits on a device, of a value that lies in no arena.
    own: Copies,
    /// The arena in which the value lies, and which of its parameters it is.
    slot: Mutex<Option<(Arc<Arena>, usize)>>,
}

impl Packs {
    /// For a parameter of that name.
    pub(crate) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// The parameter's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Changes with every write to the values.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Says that the values have changed. Must be called after every write.
    pub(crate) fn invalidate(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        if device::active().is_some() {
            self.own.invalidate();
            if let Some((arena, _)) = &*lock(&self.slot) {
                arena.copies.invalidate();
            }
        }
    }

    /// Says that the value lies in an arena from now on.
    pub(crate) fn moved(&self, arena: Arc<Arena>, index: usize) {
        *lock(&self.slot) = Some((arena, index));
    }

    /// The copy of the value, contiguous f32 on a device, in bf16 or f16: made with [`Device::narrow`] once per
    /// version of the value, or written by optimizer steps. Errors: no memory.
    pub fn narrow(
        &self,
        value: &candle_core::Tensor,
        dtype: candle_core::DType,
    ) -> Result<candle_core::Tensor> {
        match &*lock(&self.slot) {
            Some((arena, index)) => {
                arena.view(&arena.copies.get(&arena.values, dtype)?, *index, value.dims())
            }
            None => self.own.get(value, dtype),
        }
    }

    /// The copy for a precision; `make` packs the present values. Errors: those of `make`.
    pub(crate) fn get(
        &self,
        precision: LayerPrecision,
        make: impl FnOnce() -> Result<PackedWeight>,
    ) -> Result<Arc<PackedWeight>> {
        let mut packs = lock(&self.packs);
        // Read before the values are: if they change meanwhile, the copy counts as stale.
        let version = self.version.load(Ordering::Acquire);
        let found = packs
            .iter()
            .find(|pack| pack.version == version && pack.weight.precision() == precision);
        if let Some(pack) = found {
            return Ok(pack.weight.clone());
        }
        packs.retain(|pack| pack.version == version);
        let weight = Arc::new(make()?);
        packs.push(Pack { version, weight: weight.clone() });
        Ok(weight)
    }

    /// Bytes of the copies.
    pub(crate) fn size(&self) -> usize {
        lock(&self.packs).iter().map(|pack| pack.weight.size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(value: f32, precision: LayerPrecision) -> Result<PackedWeight> {
        Ok(PackedWeight::new(precision, &[value; 6], 2, 3)?)
    }

    #[test]
    fn scopes_nest_and_end() {
        assert_eq!(precision(), None);
        let outer = PredictionScope::new(LayerPrecision::Int8);
        {
            let _inner = PredictionScope::new(LayerPrecision::F32);
            assert_eq!(precision(), Some(LayerPrecision::F32));
        }
        assert_eq!(precision(), Some(LayerPrecision::Int8));
        drop(outer);
        assert_eq!(precision(), None);
    }

    #[test]
    fn copies_are_made_once_per_version_and_precision() {
        let packs = Packs::default();
        let never = || -> Result<PackedWeight> { panic!("packed twice") };
        let first = packs.get(LayerPrecision::F32, || pack(1.0, LayerPrecision::F32)).unwrap();
        let other = packs.get(LayerPrecision::Bf16, || pack(1.0, LayerPrecision::Bf16)).unwrap();
        assert!(Arc::ptr_eq(&first, &packs.get(LayerPrecision::F32, never).unwrap()));
        assert!(Arc::ptr_eq(&other, &packs.get(LayerPrecision::Bf16, never).unwrap()));
        let size = packs.size();
        packs.invalidate();
        let second = packs.get(LayerPrecision::F32, || pack(2.0, LayerPrecision::F32)).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // Stale copies are gone.
        assert!(packs.size() < size);
    }

    #[test]
    fn narrow_layers_stay_in_f32() {
        assert_eq!(precision_of_layer(LayerPrecision::Int8, 384, 1536), LayerPrecision::Int8);
        assert_eq!(precision_of_layer(LayerPrecision::Int8, 127, 384), LayerPrecision::F32);
        assert_eq!(precision_of_layer(LayerPrecision::Bf16, 384, 32), LayerPrecision::F32);
    }
}
