//! CPU kernels: pure functions over slices, without tensors and without a tape.
//!
//! All kernels are generic over [`Float`] (`f32` is the fast path, `f64` exists so that
//! finite-difference tests run the same code). Work is split into blocks of constant size and
//! partial results are reduced in block order, so a result does not depend on the number of
//! threads. Inputs of one block stay on the calling thread.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;

pub mod activation;
pub mod adafactor;
pub mod adam;
pub mod attention;
mod attention_ahead;
pub mod attention_backward;
mod attention_gradients;
pub mod attention_probabilities;
#[cfg(test)]
mod attention_reference;
mod attention_shape;
mod attention_tile;
pub mod conv1d;
pub mod crf;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod float;
pub mod gemm;
pub mod gru;
pub(crate) mod lanes;
pub mod linear;
pub mod lstm;
pub mod norm;
mod norm_backward;
pub mod optim;
pub mod packed;
pub mod padding;
pub mod philox;
pub mod rnn;
pub mod runs;
pub mod scratch;
pub mod sgd;
pub mod simd;
pub mod softmax;
pub(crate) mod team;

pub use float::Float;

/// Elements that one task of an elementwise kernel handles; a constant, so that results do not
/// depend on threads.
pub const BLOCK_LEN: usize = 16 * 1024;

/// What a kernel refuses.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice is not as long as the sizes say.
    Length {
        /// The kernel.
        kernel: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Elements that were expected.
        expected: usize,
        /// Elements that were found.
        found: usize,
    },
    /// An id, target or label lies outside its table.
    Index {
        /// The kernel.
        kernel: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Where in the argument the value stands.
        position: usize,
        /// The value.
        value: i64,
        /// Valid values are `0..bound`.
        bound: usize,
    },
    /// A number outside its range.
    Value {
        /// The kernel.
        kernel: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: f64,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { kernel, argument, expected, found } => {
                write!(f, "{kernel}: {argument} must have {expected} elements, found {found}")
            }
            Self::Index { kernel, argument, position, value, bound } => write!(
                f,
                "{kernel}: {argument}[{position}] is {value}, expected 0 to {} (the table has {bound} rows)",
                *bound as i64 - 1
            ),
            Self::Value { kernel, argument, expected, found } => {
                write!(f, "{kernel}: {argument} must be {expected}, found {found}")
            }
        }
    }
}

impl std::error::Error for KernelError {}

/// Result of a kernel.
pub type Result<T = ()> = std::result::Result<T, KernelError>;

/// Fails unless `found == expected`; `kernel` and `argument` name the culprit.
pub fn check_len(
    kernel: &'static str,
    argument: &'static str,
    expected: usize,
    found: usize,
) -> Result {
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Length { kernel, argument, expected, found })
    }
}

/// Fails unless `lo <= found < hi` (NaN fails).
pub(crate) fn check_range(
    kernel: &'static str,
    argument: &'static str,
    expected: &'static str,
    range: Range<f64>,
    found: f64,
) -> Result {
    if range.contains(&found) {
        Ok(())
    } else {
        Err(KernelError::Value { kernel, argument, expected, found })
    }
}

/// Rows of `cols` elements that one task handles: about [`BLOCK_LEN`] elements, at least one row.
pub fn rows_per_block(cols: usize) -> usize {
    (BLOCK_LEN / cols.max(1)).max(1)
}

/// Calls `f` for every item, in parallel if there is more than one. Items must be independent of
/// each other.
pub fn for_each_task<T: Send>(tasks: Vec<T>, f: impl Fn(T) + Send + Sync) {
    if tasks.len() <= 1 {
        tasks.into_iter().for_each(f);
    } else if team::is_active() {
        let tasks: Vec<_> = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
        team::run(tasks.len(), |index| {
            // Nobody else takes this task, so its lock is free and whole.
            if let Some(task) = tasks[index].try_lock().ok().and_then(|mut task| task.take()) {
                f(task);
            }
        });
    } else {
        tasks.into_par_iter().for_each(f);
    }
}

/// Calls `f` for every item, in parallel if there is more than one, and returns the answers in the
/// order of the items.
pub fn map_tasks<T: Send, R: Send>(tasks: Vec<T>, f: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if tasks.len() <= 1 {
        tasks.into_iter().map(f).collect()
    } else if team::is_active() {
        let mut answers: Vec<_> = tasks.iter().map(|_| None).collect();
        for_each_task(tasks.into_iter().zip(&mut answers).collect(), |(task, answer)| {
            *answer = Some(f(task));
        });
        // `for_each_task` did every task.
        answers.into_iter().flatten().collect()
    } else {
        tasks.into_par_iter().map(f).collect()
    }
}

/// Ranges of `block` elements (the last may be shorter) that cover `0..len`.
pub fn blocks(len: usize, block: usize) -> Vec<Range<usize>> {
    let block = block.max(1);
    (0..len.div_ceil(block)).map(|i| i * block..((i + 1) * block).min(len)).collect()
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the kernels' tests share.

    use super::Float;
    use super::gemm::FORCED;
    use super::philox;
    use super::simd::{self, Level};

    /// Reproducible values in [-1, 1).
    pub fn random<F: Float>(len: usize, seed: u64) -> Vec<F> {
        let mut out = vec![F::ZERO; len];
        philox::fill_uniform(
            philox::Counter::new(seed, 99, 0),
            F::from_f64(-1.0),
            F::ONE,
            &mut out,
        );
        out
    }

    /// Runs `f` in a pool of one thread and in a pool of three.
    pub fn with_one_and_three_threads<R: Send>(f: impl Fn() -> R + Send + Sync) -> (R, R) {
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        (pool(1).install(&f), pool(3).install(&f))
    }

    /// Runs `f` with every instruction set that the machine has, in products and in `by_level!` kernels of this thread.
    pub fn at_every_level(f: impl Fn()) {
        for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
            if level <= simd::level() {
                FORCED.set(Some(level));
                f();
                FORCED.set(None);
            }
        }
    }

    /// Compares to the last bit.
    pub fn assert_same_bits(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            assert_eq!(x.to_bits(), y.to_bits(), "element {i}: {x} and {y}");
        }
    }

    /// Compares with an absolute plus relative tolerance.
    #[track_caller]
    pub fn assert_close<F: Float>(found: &[F], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (i, (x, y)) in found.iter().zip(expected).enumerate() {
            let difference = (x.to_f64() - y).abs();
            assert!(
                difference <= tolerance * (1.0 + y.abs()),
                "element {i}: found {}, expected {y}",
                x.to_f64()
            );
        }
    }

    /// Central differences of the scalar function `f` at `x`.
    pub fn numeric_gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let step = 1e-5;
        let mut at = x.to_vec();
        (0..x.len())
            .map(|i| {
                at[i] = x[i] + step;
                let up = f(&at);
                at[i] = x[i] - step;
                let down = f(&at);
                at[i] = x[i];
                (up - down) / (2.0 * step)
            })
            .collect()
    }

    /// Inner product, the scalar that gradient tests differentiate.
    pub fn dot<F: Float>(a: &[F], b: &[F]) -> f64 {
        a.iter().zip(b).map(|(x, y)| x.to_f64() * y.to_f64()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_range_once() {
        assert!(blocks(0, 4).is_empty());
        assert_eq!(blocks(9, 4), vec![0..4, 4..8, 8..9]);
    }

    #[test]
    fn index_error_names_position_value_and_bound() {
        let text = KernelError::Index {
            kernel: "embedding",
            argument: "ids",
            position: 3,
            value: -1,
            bound: 10,
        }
        .to_string();
        assert_eq!(text, "embedding: ids[3] is -1, expected 0 to 9 (the table has 10 rows)");
    }
}
