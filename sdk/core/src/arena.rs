//! One buffer with the values of all trainable parameters of a set, and one with their gradients.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use candle_core::{DType, Tensor as Raw};

use crate::copies::Copies;
use crate::device::{self, Device};
use crate::error::{Result, fail};
use crate::held::Share;
use crate::kernels::elementwise::{add_assign, scale, square_sum};
use crate::kernels::map_tasks;
use crate::storage::{self, Real, tensor_from_vec};
use crate::sync::lock;

/// Parameters begin at multiples of this many elements; the gaps between them stay zero.
pub const ALIGNMENT: usize = 16;

/// Where a parameter lies in an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamRange {
    /// First element.
    pub start: usize,
    /// Elements.
    pub len: usize,
}

/// The rows of a table's gradient that hold something; all others are zero, whatever their memory says. A batch
/// touches a few hundred rows of a table of words, so nobody fills, reads or scales the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Elements of a row.
    pub width: usize,
    /// Numbers of the rows, ascending.
    pub rows: Vec<u32>,
}

impl Touched {
    /// Adds rows (ascending) and calls `fresh` for those that were not there.
    fn merge(&mut self, rows: &[u32], mut fresh: impl FnMut(u32)) {
        let old = std::mem::take(&mut self.rows);
        self.rows.reserve(old.len() + rows.len());
        let mut old = old.into_iter().peekable();
        for &row in rows {
            while let Some(before) = old.next_if(|&before| before < row) {
                self.rows.push(before);
            }
            if old.next_if_eq(&row).is_none() {
                fresh(row);
            }
            self.rows.push(row);
        }
        self.rows.extend(old);
    }

    /// Makes the memory of all other rows zero.
    fn clear_others<F: Real>(&self, slot: &mut [F]) {
        let mut at = 0;
        for &row in &self.rows {
            let row = row as usize * self.width;
            slot[at..row].fill(F::ZERO);
            at = row + self.width;
        }
        slot[at..].fill(F::ZERO);
    }
}

/// Which of an arena's parameters are meant: all of them, or those of a part, by their numbers.
pub type Members<'a> = Option<&'a [bool]>;

fn is_meant(members: Members<'_>, index: usize) -> bool {
    members.is_none_or(|members| members[index])
}

/// Rows of a gradient whose squares one task adds.
const ROWS_PER_SUM: usize = 32;

/// The arena of a sealed set.
pub struct Arena {
    /// All values [len].
    pub values: Raw,
    /// All gradients [len] as they were written; what they mean is said by `has_grad`, `touched` and `pending_scale`.
    /// Others get them from [`Arena::settled_grads`].
    grads: Raw,
    /// The parameters, in declaration order.
    pub spans: Vec<ParamRange>,
    has_grad: Vec<AtomicBool>,
    /// Which rows of a parameter's gradient mean anything, if not all do.
    touched: Vec<Mutex<Option<Touched>>>,
    /// The bits of an f64 by which all gradients must still be multiplied: who reads them next does it on the way.
    pending_scale: AtomicU64,
    /// The values in fewer bits, for products on a device.
    pub copies: Copies,
    /// The part of a device's memory.
    pub share: Option<Share>,
}

/// Runs `$body` with `$type` being the element type that `$dtype` (F32 or F64) names.
macro_rules! with_real {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F64 => {
                type $type = f64;
                $body
            }
            // Sets refuse any other type when they are made.
            _ => {
                type $type = f32;
                $body
            }
        }
    };
}
pub(crate) use with_real;

/// Whether there is memory for `len` elements of `what`: an allocation that fails in the usual way ends the program.
/// Errors: `OUT_OF_MEMORY`.
pub fn check_room<F>(what: &str, len: usize) -> Result<()> {
    match Vec::<F>::new().try_reserve_exact(len) {
        Ok(()) => Ok(()),
        Err(_) => fail!(ET_ERR_OUT_OF_MEMORY, "there is no memory for {len} elements of {what}"),
    }
}

/// Spans of parameters with these lengths, and the length of the arena.
pub fn lay_out(lens: impl Iterator<Item = usize>) -> (Vec<ParamRange>, usize) {
    let mut end = 0usize;
    let spans = lens
        .map(|len| {
            let span = ParamRange { start: end, len };
            end += len.next_multiple_of(ALIGNMENT);
            span
        })
        .collect();
    (spans, end)
}

impl Arena {
    /// An arena with these values; no parameter has a gradient.
    pub fn new<F: Real>(values: Vec<F>, spans: Vec<ParamRange>) -> Result<Self> {
        let len = values.len();
        let has_grad = spans.iter().map(|_| AtomicBool::new(false)).collect();
        let touched = spans.iter().map(|_| Mutex::new(None)).collect();
        let grads = tensor_from_vec(vec![F::default(); len], len)?;
        let pending_scale = AtomicU64::new(1f64.to_bits());
        let values = tensor_from_vec(values, len)?;
        let share = device::of(&values).map(|_| Share::new(len * values.dtype().size_in_bytes()));
        Ok(Self {
            values,
            grads,
            spans,
            has_grad,
            touched,
            pending_scale,
            copies: Copies::default(),
            share,
        })
    }

    /// Elements, gaps included.
    pub fn len(&self) -> usize {
        self.values.elem_count()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.values.dtype()
    }

    /// The part of `buffer` that belongs to parameter `index`, as a view of `shape`.
    pub fn view(&self, buffer: &Raw, index: usize, shape: &[usize]) -> Result<Raw> {
        let ParamRange { start, len } = self.spans[index];
        Ok(buffer.narrow(0, start, len)?.reshape(shape)?)
    }

    /// True if a gradient has reached parameter `index`.
    pub fn has_grad(&self, index: usize) -> bool {
        self.has_grad[index].load(Ordering::Acquire)
    }

    /// Forgets the gradient of parameter `index`.
    pub fn forget(&self, index: usize) {
        self.has_grad[index].store(false, Ordering::Release);
    }

    /// Forgets gradients; their memory is overwritten by the first contribution of the next pass.
    pub fn forget_all(&self, members: Members<'_>) {
        let meant = (0..self.spans.len()).filter(|&index| is_meant(members, index));
        meant.for_each(|index| self.forget(index));
        if members.is_none() {
            self.pending_scale.store(1f64.to_bits(), Ordering::Release);
        }
    }

    /// Calls `f(slice, first)` with the gradient of parameter `index`; it counts as present afterwards. `F` must be
    /// the arena's type.
    pub fn write_grad<F: Real, R>(
        &self,
        index: usize,
        f: impl FnOnce(&mut [F], bool) -> R,
    ) -> Result<R> {
        self.apply_scale()?;
        self.with_slot::<F, _>(index, |slot| {
            // The flag changes under the buffer's lock, so two passes cannot both be first.
            let first = !self.has_grad[index].swap(true, Ordering::AcqRel);
            let touched = lock(&self.touched[index]).take();
            if let Some(touched) = touched.filter(|_| !first) {
                touched.clear_others(slot);
            }
            f(slot, first)
        })
    }

    /// The device on which the arena lies, if it is not in host memory.
    pub fn device(&self) -> Option<&'static dyn Device> {
        device::of(&self.grads)
    }

    /// [`Arena::write_grad`] on a device: `f(view, first)` puts the work that writes the view of `shape` on the
    /// stream.
    pub fn write_view(
        &self,
        index: usize,
        shape: &[usize],
        f: &mut dyn FnMut(&Raw, bool) -> Result<()>,
    ) -> Result<()> {
        self.apply_scale()?;
        let view = self.view(&self.grads, index, shape)?;
        // Passes backwards run one after the other on the stream's thread; the caller holds the parameter's lock.
        let first = !self.has_grad[index].swap(true, Ordering::AcqRel);
        f(&view, first)
    }

    /// Numbers of the parameters that have gradients.
    fn present<'a>(&'a self, members: Members<'a>) -> impl Iterator<Item = usize> + 'a {
        (0..self.spans.len()).filter(move |&index| self.has_grad(index) && is_meant(members, index))
    }

    /// Their starts and lengths.
    fn present_ranges(&self, members: Members<'_>) -> Vec<(usize, usize)> {
        let span = |index: usize| (self.spans[index].start, self.spans[index].len);
        self.present(members).map(span).collect()
    }

    /// Calls `f(slice)` to add to `rows` (ascending, each once) of `width` elements of the gradient of parameter
    /// `index`, and to no others. `F` must be the arena's type.
    pub fn add_to_rows<F: Real, R>(
        &self,
        index: usize,
        width: usize,
        rows: &[u32],
        f: impl FnOnce(&mut [F]) -> R,
    ) -> Result<R> {
        self.apply_scale()?;
        self.with_slot::<F, _>(index, |slot| {
            let first = !self.has_grad[index].swap(true, Ordering::AcqRel);
            let mut touched = lock(&self.touched[index]);
            if first {
                *touched = Some(Touched { width, rows: Vec::new() });
            }
            match &mut *touched {
                Some(known) if known.width == width => known.merge(rows, |row| {
                    let row = row as usize * width;
                    slot[row..row + width].fill(F::ZERO);
                }),
                other => {
                    if let Some(known) = other.take() {
                        known.clear_others(slot);
                    }
                }
            }
            f(slot)
        })
    }

    fn with_slot<F: Real, R>(&self, index: usize, f: impl FnOnce(&mut [F]) -> R) -> Result<R> {
        let ParamRange { start, len } = self.spans[index];
        storage::with_mut::<F, _>(&self.grads.narrow(0, start, len)?, f)
    }

    /// The factor by which the memory of all gradients must be multiplied.
    pub fn pending_scale(&self) -> f64 {
        f64::from_bits(self.pending_scale.load(Ordering::Acquire))
    }

    /// The rows that mean anything, if the gradient of parameter `index` is of rows.
    pub fn touched(&self, index: usize) -> Option<Touched> {
        lock(&self.touched[index]).clone()
    }

    /// The memory of all gradients, for readers that mind [`Arena::pending_scale`] and [`Arena::touched`].
    pub fn unsettled_grads(&self) -> &Raw {
        &self.grads
    }

    /// The memory of all gradients, with nothing left to be minded but `has_grad`.
    pub fn settled_grads(&self) -> Result<&Raw> {
        self.apply_scale()?;
        self.settle_rows()?;
        Ok(&self.grads)
    }

    /// Makes gradients of rows whole.
    pub fn settle_rows(&self) -> Result<()> {
        for index in self.present(None) {
            if lock(&self.touched[index]).is_some() {
                with_real!(self.dtype(), F => self.write_grad::<F, _>(index, |_, _| ())?);
            }
        }
        Ok(())
    }

    /// The memory of all gradients for somebody who writes to it: settled, and zero where no pass has been. Those of
    /// parameters that `counts` count as present from now on.
    pub fn open_grads(&self, counts: impl Fn(usize) -> bool) -> Result<&Raw> {
        self.settled_grads()?;
        for index in (0..self.spans.len()).filter(|&index| !self.has_grad(index)) {
            match self.device() {
                Some(_) if self.spans[index].len == 0 => {}
                Some(device) => {
                    let view = self.view(&self.grads, index, &[self.spans[index].len])?;
                    device.store(&view.zeros_like()?, false, &view)?;
                }
                None => with_real!(self.dtype(), F => {
                    self.with_slot::<F, _>(index, |slot| slot.fill(0.0))?;
                }),
            }
            lock(&self.touched[index]).take();
            self.has_grad[index].store(counts(index), Ordering::Release);
        }
        Ok(&self.grads)
    }

    /// Multiplies the memory by the pending factor.
    fn apply_scale(&self) -> Result<()> {
        let factor = f64::from_bits(self.pending_scale.swap(1f64.to_bits(), Ordering::AcqRel));
        self.multiply(factor, None)
    }

    /// Multiplies the memory of present gradients.
    fn multiply(&self, factor: f64, members: Members<'_>) -> Result<()> {
        if factor == 1.0 {
            return Ok(());
        }
        if let Some(device) = self.device()
            && device.scale(&self.grads, factor, &self.present_ranges(members))?
        {
            return Ok(());
        }
        with_real!(self.dtype(), F => storage::with_mut::<F, _>(&self.grads, |grads| {
            for index in self.present(members) {
                let span = self.spans[index];
                let slot = &mut grads[span.start..span.start + span.len];
                match &*lock(&self.touched[index]) {
                    // The other rows are cleared before anybody reads them.
                    Some(Touched { width, rows }) => rows.iter().for_each(|&row| {
                        let row = row as usize * width;
                        scale(factor as F, &mut slot[row..row + width]);
                    }),
                    None => scale(factor as F, slot),
                }
            }
        }))
    }

    /// Adds a gradient of the right shape and type, or writes it if it is the first.
    pub fn accumulate(&self, index: usize, grad: &Raw) -> Result<()> {
        let grad = grad.contiguous()?;
        if let Some(device) = self.device() {
            let grad = device::beside(&grad, &self.grads)?;
            return self.write_view(index, grad.dims(), &mut |view, first| {
                device.store(&grad, !first, view)
            });
        }
        with_real!(self.dtype(), F => {
            let grad = storage::read::<F>(&grad)?;
            self.write_grad::<F, _>(index, |slot, first| {
                if first {
                    slot.copy_from_slice(&grad);
                    Ok(())
                } else {
                    add_assign(slot, &grad)
                }
            })??;
        });
        Ok(())
    }

    /// Sum of the squares of present gradients, in the order of the arena.
    pub fn grad_square_sum(&self, members: Members<'_>) -> Result<f64> {
        let factor = self.pending_scale();
        if let Some(device) = self.device()
            && let Some(sum) = device.square_sum(&self.grads, &self.present_ranges(members))?
        {
            return Ok(sum * factor * factor);
        }
        with_real!(self.dtype(), F => {
            let grads = storage::read::<F>(&self.grads)?;
            let each = self.present(members).map(|index| {
                let span = self.spans[index];
                let slot = &grads[span.start..span.start + span.len];
                match &*lock(&self.touched[index]) {
                    Some(Touched { width, rows }) => {
                        map_tasks(rows.chunks(ROWS_PER_SUM).collect(), |rows| {
                            let row = |&row: &u32| {
                                square_sum(&slot[row as usize * width..(row as usize + 1) * width])
                            };
                            rows.iter().map(row).sum::<f64>()
                        })
                        .into_iter()
                        .sum()
                    }
                    None => square_sum(slot),
                }
            });
            Ok(each.sum::<f64>() * factor * factor)
        })
    }

    /// Clips the norm of present gradients to `limit` and gives the norm before that, a scalar F64. On a device
    /// neither is waited for.
    pub fn clip(&self, limit: f64, members: Members<'_>) -> Result<Raw> {
        if let Some(device) = self.device() {
            let parts = self.present_ranges(members);
            if let Some(norm) = device.clip(&self.grads, self.pending_scale(), limit, &parts)? {
                return Ok(norm);
            }
        }
        let norm = self.grad_square_sum(members)?.sqrt();
        if norm > limit {
            // The small constant is torch.nn.utils.clip_grad_norm_'s.
            self.scale_grads(limit / (norm + 1e-6), members)?;
        }
        tensor_from_vec(vec![norm], ())
    }

    /// Multiplies present gradients: at once those of a part, and all of them when they are next read.
    pub fn scale_grads(&self, factor: f64, members: Members<'_>) -> Result<()> {
        if members.is_some() {
            return self.multiply(factor, members);
        }
        let scaled = self.pending_scale() * factor;
        self.pending_scale.store(scaled.to_bits(), Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
