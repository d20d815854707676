//! A counted random number generator: a key and the index of the next number, nothing else.

use std::sync::Mutex;

use easytransfer_abi::{ET_DTYPE_F32, ET_DTYPE_F64, et_rng, et_rng_state};

use crate::error::{Result, fail};
use crate::handle::{Handle, tag};
use crate::kernels::Float;
use crate::kernels::philox::{self, Counter};
use crate::sync::lock;
use crate::tensor::Tensor;

/// A generator; its methods take `&self` because a use only moves the counter.
#[derive(Debug)]
pub struct Rng(Mutex<Counter>);

impl Handle for Rng {
    type Abi = et_rng;
    const TAG: u32 = tag(b"ETrn");
    const NAME: &'static str = "random number generator";
}

/// How random elements are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// Uniform in `[low, high)`.
    Uniform {
        /// Smallest value.
        low: f64,
        /// Bound that is not reached.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation, not negative.
        deviation: f64,
    },
}

impl Rng {
    /// A generator at offset 0.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(Mutex::new(Counter::new(seed, stream, 0)))
    }

    /// A generator in some state.
    pub fn at(state: et_rng_state) -> Self {
        Self(Mutex::new(Counter::new(state.seed, state.stream, state.offset)))
    }

    /// Takes `len` numbers: gives (seed, stream, offset of the first) and moves the offset by `len` rounded up to a
    /// multiple of 4, so that every use starts at a block of its own unless `bits` came between.
    pub fn reserve(&self, len: usize) -> (u64, u64, u64) {
        let at = self.take((len as u64).next_multiple_of(4));
        (at.seed, at.stream, at.offset)
    }

    /// The present place, then moves on.
    fn take(&self, len: u64) -> Counter {
        let mut counter = lock(&self.0);
        let at = *counter;
        *counter = at.skip(len);
        at
    }

    /// 64 random bits; moves the offset by 2.
    pub fn bits(&self) -> u64 {
        let mut words = [0u32; 2];
        philox::fill_words(self.take(2), &mut words);
        u64::from(words[0]) | u64::from(words[1]) << 32
    }

    /// The present state.
    pub fn state(&self) -> et_rng_state {
        let at = *lock(&self.0);
        et_rng_state { seed: at.seed, stream: at.stream, offset: at.offset }
    }

    /// Sets the state.
    pub fn set_state(&self, state: et_rng_state) {
        *lock(&self.0) = Counter::new(state.seed, state.stream, state.offset);
    }

    /// A tensor of random numbers, dtype F32 or F64. Errors: `DTYPE`, `INVALID_ARGUMENT` for bounds that make no
    /// sense.
    pub fn tensor(&self, dtype: i32, shape: &[usize], spread: Spread) -> Result<Tensor> {
        match spread {
            Spread::Uniform { low, high } if !(low <= high && (high - low).is_finite()) => {
                fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "uniform: expected finite low <= high, found {low} and {high}"
                )
            }
            Spread::Normal { mean, deviation }
                if !(deviation >= 0.0 && deviation.is_finite() && mean.is_finite()) =>
            {
                fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "normal: expected a finite mean and a deviation of 0 or more, found {mean} and {deviation}"
                )
            }
            _ => {}
        }
        let Some(len) = shape.iter().try_fold(1usize, |len, &n| len.checked_mul(n)) else {
            fail!(ET_ERR_SHAPE, "the shape {shape:?} has too many elements");
        };
        let value = match dtype {
            ET_DTYPE_F32 => self.fill::<f32>(len, shape, spread)?,
            ET_DTYPE_F64 => self.fill::<f64>(len, shape, spread)?,
            other => fail!(ET_ERR_DTYPE, "random numbers have dtype F32 or F64, found {other}"),
        };
        Ok(Tensor::new(value))
    }

    fn fill<F: Float + candle_core::WithDType>(
        &self,
        len: usize,
        shape: &[usize],
        spread: Spread,
    ) -> Result<candle_core::Tensor> {
        let (seed, stream, offset) = self.reserve(len);
        let mut values = vec![<F as Float>::ZERO; len];
        fill(Counter::new(seed, stream, offset), spread, &mut values);
        crate::device::at_home(candle_core::Tensor::from_vec(
            values,
            shape,
            &candle_core::Device::Cpu,
        )?)
    }
}

/// Writes random numbers from `counter` on.
pub fn fill<F: Float>(counter: Counter, spread: Spread, out: &mut [F]) {
    match spread {
        Spread::Uniform { low, high } => {
            let (low, high) = (F::from_f64(low), F::from_f64(high));
            philox::fill_uniform(counter, low, high, out);
            // Rounding may reach the bound itself; `low` takes its place.
            for x in out.iter_mut().filter(|x| **x >= high) {
                *x = low;
            }
        }
        Spread::Normal { mean, deviation } => {
            philox::fill_normal(counter, F::from_f64(mean), F::from_f64(deviation), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_rounds_up_and_bits_move_by_two() {
        let rng = Rng::new(7, 3);
        assert_eq!(rng.reserve(5), (7, 3, 0));
        assert_eq!(rng.reserve(0), (7, 3, 8));
        assert_eq!(rng.reserve(4), (7, 3, 8));
        let first = rng.bits();
        assert_eq!(rng.state().offset, 14);
        rng.set_state(et_rng_state { seed: 7, stream: 3, offset: 12 });
        assert_eq!(rng.bits(), first);
        assert_ne!(rng.bits(), first);
    }

    #[test]
    fn uniform_stays_below_its_bound() {
        let mut out = vec![0f32; 100_000];
        fill(
            Counter::new(1, 2, 0),
            Spread::Uniform { low: 16777216.0, high: 16777218.0 },
            &mut out,
        );
        assert!(out.iter().all(|x| (16777216.0..16777218.0).contains(x)));
    }
}
