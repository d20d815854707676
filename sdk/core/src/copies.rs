//! Copies of parameters in fewer bits, which matrix products read: made once per version of the values, not at each
//! use.
//!
//! The values of a sealed set have one copy of the whole arena, which optimizer steps write along with the values. A
//! parameter outside of an arena, such as a frozen one, has a copy of its own. A copy keeps its place in memory when
//! it is made anew.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Tensor as Raw};

use crate::device;
use crate::error::{Result, fail};
use crate::held::CopyShare;
use crate::sync::lock;

struct Made {
    version: u64,
    copy: Raw,
    _share: CopyShare,
}

/// The copies of some values, and the version of those values.
#[derive(Default)]
pub(crate) struct Copies {
    version: AtomicU64,
    made: Mutex<Vec<Made>>,
}

impl Copies {
    /// Says that the values have changed. Must be called after every write.
    pub fn invalidate(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The copy of `values`, contiguous f32 on a device, in bf16 or f16.
    pub fn get(&self, values: &Raw, dtype: DType) -> Result<Raw> {
        let Some(device) = device::of(values) else {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "copies in fewer bits are made of values on a device"
            );
        };
        let mut made = lock(&self.made);
        // Read before the values are: if they change meanwhile, the copy counts as stale.
        let version = self.version.load(Ordering::Acquire);
        let known = made
            .iter_mut()
            .find(|made| made.copy.dtype() == dtype && made.copy.dims() == values.dims());
        if let Some(made) = known {
            if made.version != version {
                device.narrow(values, &made.copy)?;
                made.version = version;
            }
            return Ok(made.copy.clone());
        }
        let copy = device.empty(dtype, values.dims())?;
        device.narrow(values, &copy)?;
        let share = CopyShare::new(copy.elem_count() * dtype.size_in_bytes());
        made.push(Made { version, copy: copy.clone(), _share: share });
        Ok(copy)
    }

    /// Copies that hold the present values: who changes the values may change these along with them, and then calls
    /// [`Copies::keep`].
    pub fn current(&self) -> Vec<Raw> {
        let version = self.version.load(Ordering::Acquire);
        let made = lock(&self.made);
        made.iter().filter(|made| made.version == version).map(|made| made.copy.clone()).collect()
    }

    /// Says that the copies from [`Copies::current`] were written along with the values.
    pub fn keep(&self, copies: &[Raw]) {
        let version = self.version.load(Ordering::Acquire);
        for made in lock(&self.made).iter_mut() {
            if copies.iter().any(|copy| copy.dtype() == made.copy.dtype()) {
                made.version = version;
            }
        }
    }
}
