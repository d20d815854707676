//! What goes from one set of parameters to another, by name and in place: values (target networks, inner loops of meta
//! learning) and gradients. On a device it stays there: copies, sums and factors are what every device can do.

use candle_core::Tensor as Raw;

use crate::arena::{Arena, with_real};
use crate::device::{self, Device};
use crate::error::{Result, fail};
use crate::kernels::elementwise;
use crate::params::{Param, Params};
use crate::storage::{self, Value, tensor_from_vec};
use crate::tape::Leaf;

fn check_factor(what: &str, factor: f64) -> Result<()> {
    if !factor.is_finite() {
        fail!(ET_ERR_INVALID_ARGUMENT, "{what}: the factor must be finite, found {factor}");
    }
    Ok(())
}

/// Fails unless a parameter takes what belongs to another one.
fn check_pair(what: &str, to: &Param, from: &Param) -> Result<()> {
    if to.shape() != from.shape() {
        fail!(
            ET_ERR_SHAPE,
            "{what}: parameter {:?} has shape {:?}, but where it comes from {:?}",
            to.name(),
            to.shape(),
            from.shape()
        );
    }
    if to.dtype() != from.dtype() {
        fail!(
            ET_ERR_DTYPE,
            "{what}: the sets must have one element type, found {} and {}",
            to.dtype().as_str(),
            from.dtype().as_str()
        );
    }
    Ok(())
}

impl Params {
    /// Moves the values towards those of `from`, for every parameter of this set: to + factor (from - to), exactly
    /// `from` for a factor of 1 (averaging of target networks, Lillicrap et al. 2016). Errors: `NOT_FOUND` naming a
    /// parameter that `from` lacks, `SHAPE`, `DTYPE`, `INVALID_ARGUMENT` for a factor that is not finite; then nothing
    /// has changed.
    pub fn lerp(&self, from: &Self, factor: f64) -> Result<()> {
        check_factor("lerp", factor)?;
        let mut pairs = Vec::new();
        for to in self.all() {
            let from = from.find(to.name()).map_err(|error| error.context("lerp"))?;
            check_pair("lerp", &to, &from)?;
            if !to.is_same(&from) {
                pairs.push((to, from));
            }
        }
        pairs.iter().try_for_each(|(to, from)| {
            let mixed = to.writable().and_then(|to| mix(&to, &from.raw()?, factor));
            to.written();
            mixed
        })
    }

    /// Adds the gradients of `from`, times `factor`, to those of this set (first-order meta learning, Nichol et al.
    /// 2018); parameters that no gradient has reached in `from` are left out. Errors: `NOT_FOUND` naming a parameter
    /// that this set lacks, `SHAPE`, `DTYPE`, `FAILED_PRECONDITION` for sets that are not sealed and for a frozen
    /// parameter, `INVALID_ARGUMENT` for a factor that is not finite; then nothing has changed.
    pub fn add_grads(&self, from: &Self, factor: f64) -> Result<()> {
        check_factor("add_grads", factor)?;
        self.expect_sealed().map_err(|error| error.context("add_grads"))?;
        let source = from.expect_sealed().map_err(|error| error.context("add_grads"))?;
        let mut pairs = Vec::new();
        for (index, param) in source.params.iter().enumerate() {
            if !source.has(index) || !source.arena.has_grad(index) {
                continue;
            }
            let into = self.find(param.name()).map_err(|error| error.context("add_grads"))?;
            check_pair("add_grads", &into, param)?;
            if !into.is_trainable() {
                fail!(
                    ET_ERR_FAILED_PRECONDITION,
                    "add_grads: parameter {:?} is frozen and takes no gradient",
                    into.name()
                );
            }
            pairs.push((into, index));
        }
        pairs.iter().try_for_each(|(into, index)| add_one(into, &source.arena, *index, factor))
    }
}

/// to += factor (from - to), in memory that only `to` has.
fn mix(to: &Raw, from: &Raw, factor: f64) -> Result<()> {
    if let Some(device) = device::of(to)
        && mix_on(device, &to.flatten_all()?, &from.flatten_all()?, factor)?
    {
        return Ok(());
    }
    with_real!(to.dtype(), F => {
        let from = storage::read::<F>(from)?;
        storage::with_mut::<F, _>(to, |to| {
            if factor == 1.0 {
                to.copy_from_slice(&from);
                return Ok(());
            }
            elementwise::lerp(factor as F, &from, to)
        })??;
    });
    Ok(())
}

/// [`mix`] on a device, flat; false if it has no kernel for factors.
fn mix_on(device: &dyn Device, to: &Raw, from: &Raw, factor: f64) -> Result<bool> {
    let len = to.elem_count();
    if len == 0 {
        return Ok(true);
    }
    if factor == 1.0 {
        device.store(from, false, to)?;
        return Ok(true);
    }
    let difference = Value::new(device.empty(to.dtype(), &[len])?);
    device.store(to, false, &difference)?;
    if !device.scale(&difference, -1.0, &[(0, len)])? {
        return Ok(false);
    }
    device.store(from, true, &difference)?;
    device.scale(&difference, factor, &[(0, len)])?;
    device.store(&difference, true, to)?;
    Ok(true)
}

fn add_one(into: &Param, from: &Arena, index: usize, factor: f64) -> Result<()> {
    let grads = from.view(from.unsettled_grads(), index, into.shape())?;
    let factor = factor * from.pending_scale();
    // Copies first: the two may be one gradient.
    if let Some(touched) = from.touched(index) {
        let width = touched.width;
        let mut rows = Vec::with_capacity(touched.rows.len() * width);
        storage::with_f32(&grads, |grads| {
            for &row in &touched.rows {
                let row = &grads[row as usize * width..][..width];
                rows.extend(row.iter().map(|x| factor as f32 * x));
            }
        })?;
        let mut add = |slot: &mut [f32]| {
            for (&row, values) in touched.rows.iter().zip(rows.chunks_exact(width)) {
                let slot = &mut slot[row as usize * width..][..width];
                slot.iter_mut().zip(values).for_each(|(slot, value)| *slot += value);
            }
        };
        if into.0.accumulate_rows_f32(width, &touched.rows, &mut add)? {
            return Ok(());
        }
        from.settle_rows()?;
    }
    into.0.accumulate(&Value::new(scaled(&grads, factor)?))
}

/// A copy of a contiguous tensor times a factor, where the tensor is.
fn scaled(x: &Raw, factor: f64) -> Result<Raw> {
    let len = x.elem_count();
    let copy = match device::of(x) {
        Some(device) if len > 0 => {
            let copy = device.empty(x.dtype(), x.dims())?;
            device.store(x, false, &copy)?;
            if factor == 1.0 || device.scale(&copy.flatten_all()?, factor, &[(0, len)])? {
                return Ok(copy);
            }
            copy
        }
        _ => with_real!(x.dtype(), F => {
            tensor_from_vec(storage::with::<F, _>(x, <[F]>::to_vec)?, x.dims())?
        }),
    };
    with_real!(x.dtype(), F => {
        storage::with_mut::<F, _>(&copy, |copy| elementwise::scale(factor as F, copy))?;
    });
    Ok(copy)
}
