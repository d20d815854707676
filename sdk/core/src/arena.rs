//! One buffer with the values of all trainable parameters of a set, and one with their gradients.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor as Raw};

use crate::error::Result;
use crate::kernels::elementwise::{add_assign, scale, square_sum};
use crate::storage::{self, Real, tensor_from_vec};

/// Parameters begin at multiples of this many elements; the gaps between them stay zero.
pub const ALIGNMENT: usize = 16;

/// Where a parameter lies in an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First element.
    pub start: usize,
    /// Elements.
    pub len: usize,
}

/// The arena of a sealed set.
pub struct Arena {
    /// All values [len].
    pub values: Raw,
    /// All gradients [len]; only those with a flag in `has_grad` mean anything.
    pub grads: Raw,
    /// The parameters, in declaration order.
    pub spans: Vec<Span>,
    has_grad: Vec<AtomicBool>,
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

/// Spans of parameters with these lengths, and the length of the arena.
pub fn lay_out(lens: impl Iterator<Item = usize>) -> (Vec<Span>, usize) {
    let mut end = 0usize;
    let spans = lens
        .map(|len| {
            let span = Span { start: end, len };
            end += len.next_multiple_of(ALIGNMENT);
            span
        })
        .collect();
    (spans, end)
}

impl Arena {
    /// An arena with these values; no parameter has a gradient.
    pub fn new<F: Real>(values: Vec<F>, spans: Vec<Span>) -> Result<Self> {
        let len = values.len();
        let has_grad = spans.iter().map(|_| AtomicBool::new(false)).collect();
        let grads = tensor_from_vec(vec![F::default(); len], len)?;
        Ok(Self { values: tensor_from_vec(values, len)?, grads, spans, has_grad })
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
        let Span { start, len } = self.spans[index];
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

    /// Forgets all gradients; their memory is overwritten by the first contribution of the next pass.
    pub fn forget_all(&self) {
        (0..self.spans.len()).for_each(|index| self.forget(index));
    }

    /// Calls `f(slice, first)` with the gradient of parameter `index`; it counts as present afterwards. `F` must be the arena's
    /// type.
    pub fn write_grad<F: Real, R>(
        &self,
        index: usize,
        f: impl FnOnce(&mut [F], bool) -> R,
    ) -> Result<R> {
        let Span { start, len } = self.spans[index];
        // The flag changes under the buffer's lock, so two passes cannot both be first.
        storage::with_mut::<F, _>(&self.grads.narrow(0, start, len)?, |slot| {
            let first = !self.has_grad[index].swap(true, Ordering::AcqRel);
            f(slot, first)
        })
    }

    /// Adds a gradient of the right shape and type, or writes it if it is the first.
    pub fn accumulate(&self, index: usize, grad: &Raw) -> Result<()> {
        let grad = grad.contiguous()?;
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

    /// Sum of the squares of all present gradients, in the order of the arena.
    pub fn grad_square_sum(&self) -> Result<f64> {
        with_real!(self.dtype(), F => {
            let grads = storage::read::<F>(&self.grads)?;
            let present = self.spans.iter().enumerate().filter(|(index, _)| self.has_grad(*index));
            Ok(present.map(|(_, span)| square_sum(&grads[span.start..span.start + span.len])).sum())
        })
    }

    /// Multiplies all present gradients.
    pub fn scale_grads(&self, factor: f64) -> Result<()> {
        with_real!(self.dtype(), F => storage::with_mut::<F, _>(&self.grads, |grads| {
            for (index, span) in self.spans.iter().enumerate() {
                if self.has_grad(index) {
                    scale(factor as F, &mut grads[span.start..span.start + span.len]);
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_begin_at_aligned_places() {
        let (spans, len) = lay_out([3usize, 0, 16, 17].into_iter());
        assert_eq!(spans.iter().map(|s| s.start).collect::<Vec<_>>(), [0, 16, 16, 32]);
        assert_eq!(len, 64);
    }

    #[test]
    fn first_contribution_overwrites_and_later_ones_add() {
        let (spans, len) = lay_out([2usize, 2].into_iter());
        let arena = Arena::new(vec![0f32; len], spans).unwrap();
        let grad = |a: f32| tensor_from_vec(vec![a, 2.0 * a], 2).unwrap();
        arena.accumulate(0, &grad(1.0)).unwrap();
        arena.accumulate(0, &grad(2.0)).unwrap();
        assert_eq!(arena.grad_square_sum().unwrap(), 9.0 + 36.0);
        assert!(arena.has_grad(0) && !arena.has_grad(1));
        arena.scale_grads(2.0).unwrap();
        assert_eq!(arena.grad_square_sum().unwrap(), 4.0 * 45.0);
        arena.forget_all();
        assert_eq!(arena.grad_square_sum().unwrap(), 0.0);
        arena.accumulate(0, &grad(1.0)).unwrap();
        assert_eq!(arena.grad_square_sum().unwrap(), 5.0);
        assert!(arena.accumulate(1, &tensor_from_vec(vec![1f64, 2.0], 2).unwrap()).is_err());
        assert!(!arena.has_grad(1));
    }
}
